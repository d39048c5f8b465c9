"""CPU time of reading a clip for the networks of VGGSound, relative to a Dataset that a competent engineer would write.

Synthetic clips of ten seconds are prepared at full size: 32 frames of 256x256 and spectrograms of 513x313. Each form of
them is read batch by batch and normalised, from a warm disk cache, in one process with one thread, in turns.

Fair peer of the tall JPEGs: a Dataset that opens one clip at a time, with PyTorch's DataLoader and collate function;
both must give the same numbers before a time is printed. Raw mp4 clips have the peer of `media.py`. No published way is
measured. With --rates, clips per second of one and two worker processes are printed too, which needs a machine without
other work.

    python benchmarks/vggsound_loading.py [--rates]
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from plain.timing import Row, show, turns
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from xmodal.data import open_data
from xmodal.data import split as splitting
from xmodal.data.base import Data
from xmodal.data.loader import Batches, Loader
from xmodal.data.media.video import frames_at
from xmodal.data.split import Split
from xmodal.data.vggsound.files import ClipSettings, prepare
from xmodal.data.vggsound.lists import Clip
from xmodal.data.vggsound.synthetic import Design, make, write_synthetic_clip

REPEATS = 3
BATCH = 4
CLIPS = 16  # of an epoch, in which the few synthetic clips are repeated
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


class OneByOne(Dataset[tuple[Tensor, Tensor]]):
    """Straightforward code that reads a clip."""

    def __init__(self, sounds: list[Path], pictures: list[Path]) -> None:
        self.sounds, self.pictures = sounds, pictures

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        wave = torch.from_numpy(np.load(self.sounds[row]))
        wave = wave / (1.1 * wave.abs().max())
        window = torch.hann_window(1024)
        spectrogram = torch.stft(
            wave, 1024, 512, window=window, center=True, pad_mode="reflect", return_complex=True
        ).abs()
        tall = np.array(Image.open(self.pictures[row]).convert("RGB"))
        frames = torch.from_numpy(tall.reshape(32, 256, 256, 3)).permute(0, 3, 1, 2).float() / 255
        return spectrogram, (frames - MEAN) / STD


def repeated(data: Data) -> Split:
    """The training split, repeated to the length of an epoch."""
    numbers = np.resize(data.train.numbers["audio"], CLIPS)
    split = data.train
    normalisation = data.info.normalisation
    targets = dict.fromkeys(split.columns, np.zeros(numbers.max() + 1, np.int64))
    return Split(split.columns, targets, dict.fromkeys(split.columns, numbers), normalisation=normalisation)


def rate(batches: Iterable[Any]) -> float:
    """Clips per second, from the second batch on: the first one includes the start of the processes."""
    times = []
    for _ in batches:
        times.append(time.perf_counter())
    return BATCH * (len(times) - 1) / (times[-1] - times[0])


def ours(split: Split, workers: int) -> float:
    """Clips per second of our loader."""
    sampler = Batches(split.rows, paired=True, batch_size=BATCH, seed=0)
    return rate(Loader(split, sampler, workers=workers).epoch(0))


def read_by_us(split: Split) -> None:
    """An epoch of our loader."""
    for _ in Loader(split, Batches(split.rows, paired=True, batch_size=BATCH, seed=0)).epoch(0):
        pass


def read_by_peer(split: Split) -> None:
    """An epoch of the straightforward code."""
    for _ in DataLoader(straightforward(split), batch_size=BATCH, shuffle=True):
        pass


def one_by_one(split: Split, workers: int) -> float:
    """Clips per second of the straightforward code."""
    return rate(DataLoader(straightforward(split), batch_size=BATCH, shuffle=True, num_workers=workers))


def straightforward(split: Split) -> OneByOne:
    """The same clips for the straightforward code."""
    sounds, pictures = (
        [split.columns[name].files[row] for row in split.numbers[name].tolist()] for name in ("audio", "video")
    )
    return OneByOne(sounds, pictures)


def must_agree(split: Split) -> None:
    """Raise an error unless both give the same numbers."""
    sampler = Batches(split.rows, paired=True, batch_size=BATCH, seed=0, shuffle=False)
    (batch, *_), other = Loader(split, sampler).epoch(0), straightforward(split)
    sound, pictures = (torch.stack(part) for part in zip(*(other[row] for row in range(BATCH)), strict=True))
    torch.testing.assert_close(batch.inputs["audio"], sound, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(batch.inputs["video"], pictures, rtol=1e-4, atol=1e-4)


def spread(rates: list[float]) -> str:
    return f"{statistics.median(rates):5.1f} clips/s ({min(rates):.1f} to {max(rates):.1f})"


def seek(path: Path) -> None:
    """Four frames of a minute, with and without jumps to key frames."""
    from xmodal.data.media import video

    shares, results, keys = [0.1, 0.4, 0.6, 0.9], {}, video.key_times
    for name in ("all", "jumps"):
        video.key_times = keys if name == "jumps" else lambda _: []
        times = []
        for _ in range(REPEATS):
            began = time.process_time()
            frames = frames_at(path, shares, height=256, width=256)
            times.append(time.process_time() - began)
        results[name] = (statistics.median(times), frames)
    assert np.array_equal(results["all"][1], results["jumps"][1])
    read, jumped = results["all"][0], results["jumps"][0]
    print(
        f"four frames of an mp4 of a minute: {1e3 * jumped:.0f} ms, reading all of it {1e3 * read:.0f} ms "
        f"({jumped / read:.2f})"
    )


def rates_of(splits: dict[str, Split]) -> None:
    """Clips per second of all forms, with one and two processes."""
    for workers in (1, 2):
        rates: dict[str, list[float]] = {name: [] for name in (*splits, "one by one")}
        for _ in range(REPEATS):
            for name, split in splits.items():
                rates[name].append(ours(split, workers))
            rates["one by one"].append(one_by_one(splits["jpg"], workers))
        print(f"{workers} worker(s), batches of {BATCH}:")
        for name, what in (("jpg", "tall JPEGs"), ("npy", "arrays"), ("raw", "mp4")):
            print(f"  {what:28} {spread(rates[name])}")
        ratio = statistics.median(rates["jpg"]) / statistics.median(rates["one by one"])
        print(f"  {'tall JPEGs one by one':28} {spread(rates['one by one'])}; ours / one by one {ratio:.2f}")


def main() -> None:
    """All forms."""
    torch.set_num_threads(1)
    splitting.READY_BYTES = -1  # keep nothing in memory: the time of reading files is measured
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root / "raw", clips=2, test_clips=1, seconds=10, size=256, workers=2)
        began = time.perf_counter()
        prepare(root / "raw", root / "jpg", workers=2)
        print(f"prepared with 2 processes: {12 / (time.perf_counter() - began):.1f} clips/s, start included")
        prepare(root / "raw", root / "npy", settings=ClipSettings(store="npy"), workers=2)
        splits = {
            name: repeated(open_data("vggsound", options={"root": root / name})) for name in ("jpg", "npy", "raw")
        }
        must_agree(splits["jpg"])
        ways = {name: partial(read_by_us, split) for name, split in splits.items()}
        ways["peer"] = partial(read_by_peer, splits["jpg"])
        costs = {name: seconds / CLIPS for name, seconds in turns(ways, REPEATS).items()}
        show(
            [
                Row("a clip from tall JPEGs", costs["jpg"], costs["peer"]),
                Row("… from arrays", costs["npy"], math.nan),
                Row("… from mp4", costs["raw"], math.nan),
            ],
            "ms",
        )
        if "--rates" in sys.argv:
            rates_of(splits)
        minute = Clip("aVideoOfOne", 0, "dog barking", "train")
        write_synthetic_clip((minute, 0, root, Design(4, 1.0, 1.0, 0.0, seconds=60, size=64, seed=0)))
        seek(root / f"{minute.stem}.mp4")


if __name__ == "__main__":
    sys.exit(main())
