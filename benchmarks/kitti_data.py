"""Time of loading a frame of SemanticKITTI, relative to straightforward code of its description.

Synthetic frames have the published size: pictures of 1226 x 370 and clouds of about 119,000 points. A training item is
read from the files, projected, mirrored, rotated, cropped, recoloured and normalised. The straightforward code computes
ten maps of the whole picture and transforms them one after the other. The random draws are the same, and all values
must be equal before a time is printed. Times are CPU times, medians, alternating in one process with one thread.

    python benchmarks/kitti_data.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from xmodal.data import open_data
from xmodal.data.base import Data
from xmodal.data.loader import Pick
from xmodal.data.semantic_kitti.classes import KINDS
from xmodal.data.semantic_kitti.dataset import MEAN, STD
from xmodal.data.semantic_kitti.files import Frame, camera_matrix, read_cloud
from xmodal.data.semantic_kitti.projection import camera_pixels, draw, drawing_order, range_pixels, ranges
from xmodal.data.semantic_kitti.split import FrameSplit
from xmodal.data.semantic_kitti.synthetic import make
from xmodal.metrics.task import Scores
from xmodal.seeding import mix
from xmodal.types import Batch, DataInfo

REPEATS, FRAMES = 9, 3
WIDTH, HEIGHT, BEAMS, TURNS = 1226, 370, 64, 1900
TRAINING, PADS = (256, 1024), (7, 3)
MODALITIES = ("lidar", "image")
Floats = NDArray[np.float32]


def classes_of(words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Classes by a table with one entry per class number."""
    table = np.zeros(max(kind.raw for kind in KINDS) + 100, np.int64)
    for kind in KINDS:
        table[kind.raw] = kind.train
    return table[words & 0xFFFF]


def project(cloud: Floats, matrix: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[Any], NDArray[Any]]:
    """Which points are inside the picture, and their rows and columns."""
    front = cloud[:, 0] > 0
    homogeneous = np.concatenate([cloud[front, :3], np.ones((int(front.sum()), 1))], axis=1).astype(np.float64)
    seen = (matrix @ homogeneous.T).T
    u, v = seen[:, 0] / seen[:, 2], seen[:, 1] / seen[:, 2]
    inside = (u > 0) & (u < WIDTH) & (v > 0) & (v < HEIGHT) & (seen[:, 2] > 0)
    keep = front.copy()
    keep[front] = inside
    return keep, v[inside].astype(np.int32), u[inside].astype(np.int32)


def read_maps(frame: Frame, matrix: NDArray[np.float64], jitter: list[tuple[int, float]]) -> Floats:
    """Ten maps of the whole picture: range, x, y, z, remission, red, green, blue, mask, class."""
    cloud = np.fromfile(frame.cloud, np.float32).reshape(-1, 4)
    assert frame.labels is not None
    labels = classes_of(np.fromfile(frame.labels, np.uint32))
    picture = Image.open(frame.image).convert("RGB")
    for number, factor in jitter:
        change = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[number]
        picture = change(picture).enhance(factor)
    maps = np.zeros((10, HEIGHT, WIDTH), np.float32)
    maps[5:8] = np.asarray(picture, np.float32).transpose(2, 0, 1) / np.float32(255)
    keep, row, col = project(cloud, matrix)
    points, labels = cloud[keep], labels[keep]
    distance = np.linalg.norm(points[:, :3], axis=1)
    far_first = np.argsort(-distance, kind="stable")
    row, col, points = row[far_first], col[far_first], points[far_first]
    maps[0, row, col] = distance[far_first]
    for channel in range(4):
        maps[1 + channel, row, col] = points[:, channel]
    maps[8, row, col] = 1
    maps[9, row, col] = labels[far_first]
    return maps


def turned(maps: Floats, degrees: float) -> Floats:
    """Nearest pixels, zeros from outside."""
    angle = np.deg2rad(degrees)
    cx, cy = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    i, j = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    x = np.rint(np.cos(angle) * (j - cx) - np.sin(angle) * (i - cy) + cx).astype(np.int64)
    y = np.rint(np.sin(angle) * (j - cx) + np.cos(angle) * (i - cy) + cy).astype(np.int64)
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    values = maps[:, np.clip(y, 0, HEIGHT - 1), np.clip(x, 0, WIDTH - 1)]
    return values * inside


def plain_item(frame: Frame, key: int) -> Floats:
    """The training item step by step, with the numbers that the loader draws."""
    random = np.random.Generator(np.random.Philox(key=key))
    high, wide = TRAINING[0] - 2 * PADS[0], TRAINING[1] - 2 * PADS[1]
    flip, degrees = random.random() < 0.5, random.uniform(-15, 15)
    top, left = int(random.integers(0, HEIGHT - high + 1)), int(random.integers(0, WIDTH - wide + 1))
    order = random.permutation(3).tolist()
    factors = [random.uniform(0.6, 1.4) for _ in range(3)]
    matrix = camera_matrix(frame.cloud.parents[1] / "calib.txt")
    maps = read_maps(frame, matrix, [(number, factors[number]) for number in order])
    if flip:
        maps = maps[:, :, ::-1].copy()
    maps = turned(maps, degrees)[:, top : top + high, left : left + wide]
    maps = np.pad(maps, ((0, 0), (PADS[0], PADS[0]), (PADS[1], PADS[1])))
    mean, std = (np.array(part, np.float32)[:, None, None] for part in (MEAN, STD))
    maps[:5] = (maps[:5] - mean) / std * maps[8]
    return maps


def our_item(split: FrameSplit, row: int, epoch: int) -> Batch:
    return split[Pick(dict.fromkeys(MODALITIES, torch.tensor([row])), epoch)]


def ten_maps(batch: Batch) -> Floats:
    """A batch of one frame in the form of `plain_item`."""
    parts = [batch.inputs["lidar"][0], batch.inputs["image"][0], batch.valid["lidar"].float(), batch.target.float()]
    return torch.cat(parts).numpy()


def counted(answers: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The confusion matrix of all pixels, from which the ignored ones are removed afterwards."""
    table = torch.zeros(20, 20, dtype=torch.long)
    table.index_put_((target.flatten(), answers.argmax(dim=1).flatten()), torch.tensor(1), accumulate=True)
    table[0] = 0
    return table


def compare(
    name: str, ours: Callable[[int], Any], plain: Callable[[int], Any], seen: Callable[[Any], Any] = np.asarray
) -> None:
    """Compare the values (ours as ``seen``), then print one line."""
    for turn in range(FRAMES):
        np.testing.assert_allclose(seen(ours(turn)), np.asarray(plain(turn)), rtol=1e-5, atol=1e-5)
    turns = [(seconds(ours, turn), seconds(plain, turn)) for turn in range(REPEATS)]
    ours_seconds, plain_seconds = (statistics.median(column) for column in zip(*turns, strict=True))
    print(f"{name:22} {1e3 * ours_seconds:9.1f} {1e3 * plain_seconds:11.1f} {plain_seconds / ours_seconds:13.2f}")


def seconds(work: Callable[[int], Any], turn: int) -> float:
    start = time.process_time()
    work(turn)
    return time.process_time() - start


def training_items(data: Data, name: str) -> None:
    assert isinstance(data.train, FrameSplit)
    split, seed = data.train, data.train.seed

    def plain(turn: int) -> Floats:
        row = turn % FRAMES
        frame = split.frames.frames[int(split.numbers["lidar"][row])]
        return plain_item(frame, mix(seed, turn, row, "frame"))

    compare(name, lambda turn: our_item(split, turn % FRAMES, turn), plain, ten_maps)


def projections(data: Data) -> None:
    assert isinstance(data.train, FrameSplit)
    frame = data.train.frames.frames[0]
    cloud, matrix = read_cloud(frame.cloud), camera_matrix(frame.cloud.parents[1] / "calib.txt")

    def ours(turn: int) -> NDArray[Any]:
        pixels = camera_pixels(cloud, matrix, height=HEIGHT, width=WIDTH)
        return np.stack([pixels.row, pixels.col])

    compare("projection, camera", ours, lambda turn: np.stack(project(cloud, matrix)[1:]))

    def plain_range(turn: int) -> NDArray[Any]:
        distance = np.linalg.norm(cloud[:, :3], axis=1)
        yaw, pitch = -np.arctan2(cloud[:, 1], cloud[:, 0]), np.arcsin(cloud[:, 2] / distance)
        col = np.floor((yaw + np.pi / 4) / (np.pi / 2) * 512).clip(0, 511).astype(np.int32)
        row = np.floor((1 - (pitch + np.deg2rad(25)) / np.deg2rad(28)) * 64).clip(0, 63).astype(np.int32)
        nearest = np.full((64, 512), -1, np.float32)
        order = np.argsort(distance)[::-1]
        nearest[row[order], col[order]] = distance[order]
        return nearest

    def ours_range(turn: int) -> NDArray[Any]:
        pixels, distance = range_pixels(cloud, height=64, width=512), ranges(cloud)
        order = drawing_order(distance, "nearest")
        # empty pixels are 0 here, and -1 in the plain version
        drawn = draw(pixels.row[order], pixels.col[order], distance[order] + 1, height=64, width=512)
        return drawn - 1

    compare("projection, directions", ours_range, plain_range)


def confusion() -> None:
    generator = torch.Generator().manual_seed(0)
    answers = torch.randn(4, 20, *TRAINING, generator=generator)
    target = torch.randint(1, 20, (4, *TRAINING), generator=generator)
    target = target * (torch.rand(target.shape, generator=generator) < 0.04)

    info = DataInfo({}, "multiclass", 20, {}, dense=True, ignore=0)

    def ours(turn: int) -> list[list[int]]:
        scores = Scores(info, full=True)
        scores.update(answers, target)
        table: list[list[int]] = scores.compute()["confusion"]
        return table

    compare("confusion, batch of 4", ours, lambda turn: counted(answers, target))


def main() -> None:
    """One line per step."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = make(
            Path(folder) / "made",
            sequences="0,8",
            frames=FRAMES + 1,
            width=WIDTH,
            height=HEIGHT,
            beams=BEAMS,
            turns=TURNS,
            keep=1.0,
        )
        options: dict[str, Any] = {"root": str(root), "keep_mb": 0, "valid_share": 0.25}
        cached = options | {"cache": str(Path(folder) / "cache")}
        pictures = cached | {"cache_pictures": True}
        print("step                     ours ms    plain ms  times faster")
        training_items(open_data("semantic-kitti", options=cached), "training item, cached")
        training_items(open_data("semantic-kitti", options=pictures), "… pictures as well")
        training_items(open_data("semantic-kitti", options=options), "… without a cache")
        projections(open_data("semantic-kitti", options=options))
        confusion()


if __name__ == "__main__":
    main()
