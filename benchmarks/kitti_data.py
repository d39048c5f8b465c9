"""Time of loading a frame of SemanticKITTI, relative to other code.

Synthetic frames have the published size: pictures of 1226 x 370 and clouds of about 119,000 points. A training item is
read from the files, projected, mirrored, rotated, cropped, recoloured and normalised, with the same random draws.

- Fair peer of an item: crop first. It computes which pixels of the picture the crop shows, and which point is nearest
  in each; only these are looked up and normalised. Where ours reads a cache, it reads the same from .npy files. Fair
  peer of the projections: NumPy on all points; of the confusion matrix: `bincount` of the labelled pixels.
- Published way of an item: ten maps of the whole picture, transformed one after the other. Of the confusion matrix: all
  pixels are counted.

All values must be equal before a time is printed. Times are CPU times, medians, in turns, with one thread.

    python benchmarks/kitti_data.py
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from plain.timing import Row, show, turns
from torch.nn import functional

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
Stored = tuple[Path, ...]


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


def cropped_item(frame: Frame, key: int, stored: Stored | None, pixels: Path | None) -> Floats:
    """The same item, of which only what the crop shows is computed."""
    random = np.random.Generator(np.random.Philox(key=key))
    high, wide = TRAINING[0] - 2 * PADS[0], TRAINING[1] - 2 * PADS[1]
    flip, degrees = random.random() < 0.5, random.uniform(-15, 15)
    top, left = int(random.integers(0, HEIGHT - high + 1)), int(random.integers(0, WIDTH - wide + 1))
    order = random.permutation(3).tolist()
    factors = [random.uniform(0.6, 1.4) for _ in range(3)]
    features, labels, place = (np.load(path) for path in stored) if stored else nearest_last(frame)
    picture = Image.open(frame.image).convert("RGB") if pixels is None else Image.fromarray(np.load(pixels))
    for number in order:
        change = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[number]
        picture = change(picture).enhance(factors[number])
    colours = np.asarray(picture).reshape(-1, 3)

    angle, cx, cy = np.deg2rad(degrees), (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    i, j = np.arange(top, top + high)[:, None] - cy, np.arange(left, left + wide)[None] - cx
    x = np.rint(np.cos(angle) * j - np.sin(angle) * i + cx).astype(np.int32)
    y = np.rint(np.sin(angle) * j + np.cos(angle) * i + cy).astype(np.int32)
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    source = np.where(inside, y * WIDTH + (WIDTH - 1 - x if flip else x), 0)
    point_of = np.full(HEIGHT * WIDTH, -1, np.int32)
    point_of[place] = np.arange(len(place))
    point = np.where(inside, point_of[source], -1)
    hit = point >= 0
    maps = np.zeros((10, *TRAINING), np.float32)
    inner = maps[:, PADS[0] : PADS[0] + high, PADS[1] : PADS[1] + wide]
    shown = point[hit]
    inner[:5, hit] = ((features[shown] - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).T
    inner[5:8] = (colours[source] * inside[:, :, None]).transpose(2, 0, 1) / np.float32(255)
    inner[8] = hit
    inner[9, hit] = labels[shown]
    return maps


def nearest_last(frame: Frame) -> tuple[Floats, NDArray[np.int64], NDArray[Any]]:
    """Features, classes and flat pixels of the points in the picture, the nearest last."""
    cloud = np.fromfile(frame.cloud, np.float32).reshape(-1, 4)
    assert frame.labels is not None
    keep, row, col = project(cloud, camera_matrix(frame.cloud.parents[1] / "calib.txt"))
    points, labels = cloud[keep], classes_of(np.fromfile(frame.labels, np.uint32)[keep])
    distance = np.linalg.norm(points[:, :3], axis=1)
    order = np.argsort(-distance, kind="stable")
    features = np.concatenate([distance[:, None], points], axis=1)
    return features[order], labels[order], (row * WIDTH + col)[order]


def our_item(split: FrameSplit, row: int, epoch: int) -> Batch:
    return split[Pick(dict.fromkeys(MODALITIES, torch.tensor([row])), epoch)]


def ten_maps(batch: Batch) -> Floats:
    """A batch of one frame in the form of `plain_item`."""
    parts = [batch.inputs["lidar"][0], batch.inputs["image"][0], batch.valid["lidar"].float(), batch.target.float()]
    return torch.cat(parts).numpy()


def counted(answers: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The confusion matrix of all pixels, from which the ignored ones are removed afterwards, and the cross-entropy."""
    table = torch.zeros(20, 20, dtype=torch.long)
    table.index_put_((target.flatten(), answers.argmax(dim=1).flatten()), torch.tensor(1), accumulate=True)
    table[0] = 0
    return torch.cat([table.flatten(), functional.cross_entropy(answers, target, ignore_index=0)[None]])


def counted_labelled(answers: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The same from the labelled pixels alone."""
    labelled = target > 0
    rows, classes = answers.movedim(1, -1)[labelled], target[labelled]
    table = torch.bincount(20 * classes + rows.argmax(dim=1), minlength=400)
    return torch.cat([table, functional.cross_entropy(rows, classes)[None]])


def compare(
    name: str,
    ours: Callable[[int], Any],
    peer: Callable[[int], Any],
    published: Callable[[int], Any] | None = None,
    seen: Callable[[Any], Any] = np.asarray,
) -> Row:
    """The times of all ways, which take the number of a turn, if they give the same values (ours as ``seen``)."""
    ways = {"ours": ours, "peer": peer, **({"published": published} if published else {})}
    for turn in range(FRAMES):
        expected = seen(ours(turn))
        for name_of_way, way in ways.items():
            if name_of_way != "ours":
                np.testing.assert_allclose(np.asarray(way(turn)), expected, rtol=1e-5, atol=1e-5)
    numbers = {way: itertools.count() for way in ways}
    works = {way: lambda way=way: ways[way](next(numbers[way])) for way in ways}  # type: ignore[misc]
    seconds = turns(works, REPEATS)
    return Row(name, seconds["ours"], seconds["peer"], seconds.get("published", math.nan))


def training_items(data: Data, name: str, *, folder: Path | None = None, pictures: bool = False) -> Row:
    """An item; with a folder, the peer reads the points (and pictures) of a frame from there."""
    assert isinstance(data.train, FrameSplit)
    split, seed = data.train, data.train.seed
    frames = [split.frames.frames[int(split.numbers["lidar"][row])] for row in range(FRAMES)]
    stored: list[Stored | None] = [None] * FRAMES
    pixels: list[Path | None] = [None] * FRAMES
    if folder is not None:
        for row, frame in enumerate(frames):
            paths = [folder / f"{row}-{part}.npy" for part in ("features", "labels", "place", "picture")]
            picture = np.asarray(Image.open(frame.image).convert("RGB"))
            for path, array in zip(paths, (*nearest_last(frame), picture), strict=True):
                np.save(path, array)
            stored[row] = tuple(paths[:3])
            pixels[row] = paths[3] if pictures else None

    def peer(turn: int) -> Floats:
        row = turn % FRAMES
        return cropped_item(frames[row], mix(seed, turn, row, "frame"), stored[row], pixels[row])

    def published(turn: int) -> Floats:
        row = turn % FRAMES
        return plain_item(frames[row], mix(seed, turn, row, "frame"))

    return compare(name, lambda turn: our_item(split, turn % FRAMES, turn), peer, published, ten_maps)


def projections(data: Data) -> list[Row]:
    assert isinstance(data.train, FrameSplit)
    frame = data.train.frames.frames[0]
    cloud, matrix = read_cloud(frame.cloud), camera_matrix(frame.cloud.parents[1] / "calib.txt")

    def ours(turn: int) -> NDArray[Any]:
        pixels = camera_pixels(cloud, matrix, height=HEIGHT, width=WIDTH)
        return np.stack([pixels.row, pixels.col])

    def plain_range(turn: int) -> NDArray[Any]:
        distance = np.linalg.norm(cloud[:, :3], axis=1)
        yaw, pitch = -np.arctan2(cloud[:, 1], cloud[:, 0]), np.arcsin(cloud[:, 2] / distance)
        col = np.floor((yaw + np.pi / 4) / (np.pi / 2) * 512).clip(0, 511).astype(np.int32)
        row = np.floor((1 - (pitch + np.deg2rad(25)) / np.deg2rad(28)) * 64).clip(0, 63).astype(np.int32)
        nearest = np.full((64, 512), -1, np.float32)
        order = np.argsort(distance)[::-1]
        nearest[row[order], col[order]] = distance[order]
        return nearest

    def our_range(turn: int) -> NDArray[Any]:
        pixels, distance = range_pixels(cloud, height=64, width=512), ranges(cloud)
        order = drawing_order(distance, "nearest")
        # empty pixels are 0 here, and -1 in the plain version
        return draw(pixels.row[order], pixels.col[order], distance[order] + 1, height=64, width=512) - 1

    return [
        compare("projection, camera", ours, lambda turn: np.stack(project(cloud, matrix)[1:])),
        compare("projection, directions", our_range, plain_range),
    ]


def confusion() -> Row:
    generator = torch.Generator().manual_seed(0)
    answers = torch.randn(4, 20, *TRAINING, generator=generator)
    target = torch.randint(1, 20, (4, *TRAINING), generator=generator)
    target = target * (torch.rand(target.shape, generator=generator) < 0.04)

    info = DataInfo({}, "multiclass", 20, {}, dense=True, ignore=0)

    def ours(turn: int) -> NDArray[np.float64]:
        scores = Scores(info, full=True)
        scores.update(answers, target)
        found = scores.compute()
        return np.append(np.ravel(found["confusion"]), found["cross_entropy"])

    return compare(
        "confusion and cross-entropy, batch of 4",
        ours,
        lambda turn: counted_labelled(answers, target),
        lambda turn: counted(answers, target),
    )


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
        arrays = Path(folder)
        rows = [
            training_items(open_data("semantic-kitti", options=cached), "training item, points cached", folder=arrays),
            training_items(
                open_data("semantic-kitti", options=pictures), "… pictures as well", folder=arrays, pictures=True
            ),
            training_items(open_data("semantic-kitti", options=options), "… from the files"),
            *projections(open_data("semantic-kitti", options=options)),
            confusion(),
        ]
        show(rows, "ms")


if __name__ == "__main__":
    main()
