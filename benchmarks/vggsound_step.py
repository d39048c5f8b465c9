"""What a training step on VGGSound spends its time on: waiting for clips, asking the teacher, computing.

Clips are made and prepared as JPEG frames, smaller than the published ones; a video student learns from an audio
teacher. Printed are the share of an epoch that the loop waits for its next batch, with 0, 1 and 2 loading processes,
and what an epoch costs with the teacher's answers asked once (in memory, on disk) beside asking them in every epoch.
With ``--full`` it measures instead one step of each published network at full size: seconds, and the memory
that it takes.

    python benchmarks/vggsound_step.py [--full]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xmodal.data import open_data, split
from xmodal.data.base import Data
from xmodal.data.loader import Batches, Loader
from xmodal.data.vggsound.synthetic import make
from xmodal.engine.loop import Loop
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.engine.settings import FitSettings
from xmodal.methods.kd import KD
from xmodal.metrics.task import Scores
from xmodal.models.clips.vggsound import SHAPES, build_vggsound
from xmodal.types import Batch

BATCH, CLIPS, REPEATS = 8, 8, 3
WIDTH = 64
VIDEO = ("vggsound_video", "video_resnet18", "video_resnet34", "video_resnet50")
NETWORKS = (("audio", "vggsound_audio"), *(("video", encoder) for encoder in VIDEO))


class Watched:
    """A loader that notes how long the loop waited for it."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.sampler, self.waited = loader, loader.sampler, 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The same batches."""
        batches = iter(self.loader.epoch(epoch, start))
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch


def built(data: Data, *, workers: int, cache: str, place: Path) -> tuple[Loop, float]:
    """A loop that is ready to train, and the seconds that getting ready took."""
    shapes = {name: known.shape for name, known in data.info.inputs.items()}
    torch.manual_seed(0)
    student = build_vggsound("video", classes=4, shape=shapes["video"], encoder="video_resnet18", width=WIDTH)
    teacher = build_vggsound("audio", classes=4, shape=shapes["audio"])
    method = KD(student, teacher.module, data.info)
    settings = FitSettings(epochs=REPEATS + 1, batch_size=BATCH, workers=workers, cache=cache)  # type: ignore[arg-type]
    loop = Loop(method, data, settings, 0, None, launch(), False, Progress(quiet=True), Scores, place)
    began = time.perf_counter()
    loop.prepare()
    return loop, time.perf_counter() - began


def epochs(loop: Loop) -> list[tuple[float, float]]:
    """Seconds and seconds of waiting, epoch by epoch after the first, in which the loading processes start."""
    watched = Watched(loop.loader)
    loop.loader = watched  # type: ignore[assignment]
    found = []
    for _ in range(REPEATS + 1):
        watched.waited, began = 0.0, time.perf_counter()
        loop.train_epoch()
        found.append((time.perf_counter() - began, watched.waited))
        loop.epoch, loop.step = loop.epoch + 1, 0
    return found[1:]


def loading(data: Data, workers: int) -> float:
    """Clips per second of the loader alone."""
    split = data.train
    loader = Loader(split, Batches(split.rows, paired=True, batch_size=BATCH, seed=0), workers=workers)
    for epoch in (0, 1):
        began = time.perf_counter()
        rows = sum(batch.rows for batch in loader.epoch(epoch))
    return rows / (time.perf_counter() - began)


def waiting(data: Data, place: Path) -> None:
    """Print the share of waiting."""
    print(f"Waiting for clips, batches of {BATCH} (median of {REPEATS} epochs):")
    for workers in (0, 1, 2):
        alone = loading(data, workers)
        times = epochs(built(data, workers=workers, cache="memory", place=place)[0])
        shares = [waited / whole for whole, waited in times]
        rate = statistics.median(len(data.train) / whole for whole, _ in times)
        print(
            f"  {workers} loading process(es): loader alone {alone:6.1f} clips/s, training {rate:6.1f} clips/s, "
            f"waits {statistics.median(shares):4.0%} of the time ({min(shares):.0%} to {max(shares):.0%})"
        )


def caching(data: Data, place: Path) -> None:
    """Print what asking the teacher once saves."""
    found: dict[str, float] = {}
    for cache in ("off", "memory", "disk"):
        loop, before = built(data, workers=0, cache=cache, place=place)
        found[cache] = statistics.median(whole for whole, _ in epochs(loop))
        text = "" if cache == "off" else f", {found[cache] / found['off']:.2f} of it, asking once {before:.2f} s"
        print(f"  cache {cache:6} {found[cache]:.2f} s an epoch{text}")


def step(modality: str, encoder: str, rows: int) -> None:
    """Print seconds and memory of a step of one network at full size."""
    import resource

    torch.manual_seed(0)
    network = build_vggsound(modality, encoder=encoder).module.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    inputs, target = {modality: torch.randn(rows, *SHAPES[modality])}, torch.arange(rows)

    def once() -> float:
        began = time.process_time()  # with one thread that is what it takes, whatever else the machine does
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), target).backward()
        optimizer.step()
        return time.process_time() - began

    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(inputs)
    activations = sum(size for place, size in kept.items() if place not in own)
    times = [once() for _ in range(2)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(
        f"  {encoder:16} batch {rows}: {times[-1]:6.2f} s a step, {activations / rows / 2**20:6.0f} MiB kept for the "
        f"backward pass per clip, peak of the process {peak / 2**30:.2f} GiB; {parameters:,} parameters",
        flush=True,
    )


def full() -> None:
    """Each network in a process of its own, so that its memory is its own."""
    print(f"One step at full size, float32, {torch.get_num_threads()} thread(s):", flush=True)
    for modality, encoder in NETWORKS:
        words: list[Any] = [sys.executable, __file__, "--step", modality, encoder, "2"]
        subprocess.run(words, check=True)


def main() -> None:
    """All of it, on made clips."""
    torch.set_num_threads(1)
    if "--full" in sys.argv:
        return full()
    if "--step" in sys.argv:
        modality, encoder, rows = sys.argv[2:]
        return step(modality, encoder, int(rows))
    split.READY_BYTES = -1  # keep nothing in memory: this is about files
    with tempfile.TemporaryDirectory() as folder:
        root, place = Path(folder) / "clips", Path(folder) / "answers"
        make(root, format="prepared", classes=4, clips=CLIPS, test_clips=1, seconds=1, size=64, workers=2)
        data = open_data("vggsound", options={"root": root, "frames": 8, "size": 64})
        shapes = ", ".join(f"{name} {'x'.join(map(str, known.shape))}" for name, known in data.info.inputs.items())
        print(f"{len(data.train)} clips, {shapes}, one thread")
        waiting(data, place)
        print("Asking the teacher once:")
        caching(data, place)


if __name__ == "__main__":
    sys.exit(main())
