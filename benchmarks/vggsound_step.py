"""Parts of the time of a training step on VGGSound: waiting for clips, teacher outputs, computing.

Synthetic clips are prepared as JPEG frames, smaller than the published ones; a video student learns from an audio
teacher. The script prints the share of an epoch in which the loop waits for its next batch, with 0, 1 and 2 loading
processes, and the time of an epoch if the teacher's outputs are computed once (stored in memory, on disk), relative to
computing them in every epoch. Nothing is compared with other code here: the peer of the loader is in
`vggsound_loading.py`, that of the loop in `step_overhead.py`. With ``--full`` it measures one step of each published
network at full size instead: seconds and memory.

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
    """A loader that measures how long the loop waits for it."""

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


def built(data: Data, *, workers: int, cache: str, folder: Path) -> tuple[Loop, float]:
    """A loop that is ready to train, and the seconds of its preparation."""
    shapes = {name: spec.shape for name, spec in data.info.inputs.items()}
    torch.manual_seed(0)
    student = build_vggsound("video", classes=4, shape=shapes["video"], encoder="video_resnet18", width=WIDTH)
    teacher = build_vggsound("audio", classes=4, shape=shapes["audio"])
    method = KD(student, teacher.module, data.info)
    settings = FitSettings(epochs=REPEATS + 1, batch_size=BATCH, workers=workers, cache=cache)  # type: ignore[arg-type]
    loop = Loop(method, data, settings, 0, None, launch(), False, Progress(quiet=True), Scores, folder)
    began = time.perf_counter()
    loop.prepare()
    return loop, time.perf_counter() - began


def epochs(loop: Loop) -> list[tuple[float, float]]:
    """Seconds, and seconds of waiting, of each epoch after the first, in which the loading processes start."""
    watched = Watched(loop.loader)
    loop.loader = watched  # type: ignore[assignment]
    seconds = []
    for _ in range(REPEATS + 1):
        watched.waited, began = 0.0, time.perf_counter()
        loop.train_epoch()
        seconds.append((time.perf_counter() - began, watched.waited))
        loop.epoch, loop.step = loop.epoch + 1, 0
    return seconds[1:]


def loading(data: Data, workers: int) -> float:
    """Clips per second of the loader alone."""
    split = data.train
    loader = Loader(split, Batches(split.rows, paired=True, batch_size=BATCH, seed=0), workers=workers)
    for epoch in (0, 1):
        began = time.perf_counter()
        rows = sum(batch.rows for batch in loader.epoch(epoch))
    return rows / (time.perf_counter() - began)


def waiting(data: Data, folder: Path) -> None:
    """Print the share of waiting."""
    print(f"Waiting for clips, batches of {BATCH} (median of {REPEATS} epochs):")
    for workers in (0, 1, 2):
        alone = loading(data, workers)
        times = epochs(built(data, workers=workers, cache="memory", folder=folder)[0])
        shares = [waited / whole for whole, waited in times]
        rate = statistics.median(len(data.train) / whole for whole, _ in times)
        print(
            f"  {workers} loading process(es): loader alone {alone:6.1f} clips/s, training {rate:6.1f} clips/s, "
            f"waits {statistics.median(shares):4.0%} of the time ({min(shares):.0%} to {max(shares):.0%})"
        )


def caching(data: Data, folder: Path) -> None:
    """Print the time that is saved by computing teacher outputs once."""
    seconds: dict[str, float] = {}
    for cache in ("off", "memory", "disk"):
        loop, before = built(data, workers=0, cache=cache, folder=folder)
        seconds[cache] = statistics.median(whole for whole, _ in epochs(loop))
        text = "" if cache == "off" else f", {seconds[cache] / seconds['off']:.2f} of it, computing once {before:.2f} s"
        print(f"  cache {cache:6} {seconds[cache]:.2f} s an epoch{text}")


def step(modality: str, encoder: str, rows: int) -> None:
    """Print seconds and memory of a step of one network at full size."""
    import resource

    torch.manual_seed(0)
    network = build_vggsound(modality, encoder=encoder).module.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    inputs, target = {modality: torch.randn(rows, *SHAPES[modality])}, torch.arange(rows)

    def once() -> float:
        began = time.process_time()  # CPU time: with one thread, other work on the machine has little influence on it
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), target).backward()
        optimizer.step()
        return time.process_time() - began

    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(inputs)
    activations = sum(size for address, size in kept.items() if address not in weights)
    times = [once() for _ in range(2)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(
        f"  {encoder:16} batch {rows}: {times[-1]:6.2f} s a step, {activations / rows / 2**20:6.0f} MiB kept for the "
        f"backward pass per clip, peak of the process {peak / 2**30:.2f} GiB; {parameters:,} parameters",
        flush=True,
    )


def full() -> None:
    """Measure each network in a new process, so that the memory is that of one network."""
    print(f"One step at full size, float32, {torch.get_num_threads()} thread(s):", flush=True)
    for modality, encoder in NETWORKS:
        words: list[Any] = [sys.executable, __file__, "--step", modality, encoder, "2"]
        subprocess.run(words, check=True)


def main() -> None:
    """Measure everything, on synthetic clips."""
    torch.set_num_threads(1)
    if "--full" in sys.argv:
        return full()
    if "--step" in sys.argv:
        modality, encoder, rows = sys.argv[2:]
        return step(modality, encoder, int(rows))
    split.READY_BYTES = -1  # keep nothing in memory: the time of reading files is measured
    with tempfile.TemporaryDirectory() as folder:
        root, answers = Path(folder) / "clips", Path(folder) / "answers"
        make(root, format="prepared", classes=4, clips=CLIPS, test_clips=1, seconds=1, size=64, workers=2)
        data = open_data("vggsound", options={"root": root, "frames": 8, "size": 64})
        shapes = ", ".join(f"{name} {'x'.join(map(str, spec.shape))}" for name, spec in data.info.inputs.items())
        print(f"{len(data.train)} clips, {shapes}, one thread")
        waiting(data, answers)
        print("Computing teacher outputs once:")
        caching(data, answers)


if __name__ == "__main__":
    sys.exit(main())
