"""Frames of SemanticKITTI: projected points and pictures, cached in memory and on disk.

The pixels of points depend only on their files and on the rules of projection, so they are computed once. A cache
folder contains an array per frame, whose name includes a digest of everything that it depends on: paths, sizes and
times of the files, the calibration, and the rules. After any change the name is different, so a stale file is never
read.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.semantic_kitti.augment import PointAugmentation
from xmodal.data.semantic_kitti.files import Frame, image_size, open_picture, read_classes, read_cloud
from xmodal.data.semantic_kitti.projection import (
    FIELD,
    Pixels,
    camera_pixels,
    drawing_order,
    features_of,
    range_pixels,
    ranges,
)
from xmodal.files import written_whole

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Pillow stores three colours in four bytes.
PIXEL_BYTES = 4
# Part of the digest of a cached file: increase it when the content of cached files changes.
VERSION = 1
# A projected point: range, x, y, z and remission; index in the cloud; pixel; class. 32 bytes without gaps.
POINT = np.dtype([("features", "<f4", (5,)), ("number", "<i4"), ("row", "<u2"), ("col", "<u2"), ("label", "<i4")])
# An array of POINT, in the order in which points are drawn.
Drawn = NDArray[Any]


@dataclass(frozen=True)
class Rules:
    """The rules of projection.

    Attributes:
        view: ``perspective`` (the camera picture) or ``range`` (all directions).
        duplicates: which of several points of a pixel is used: the ``nearest``, or the last one in the ``file``.
        x_min: only points farther in front of the scanner than this are used, in metres; perspective view.
        behind: points behind the camera are mirrored into the picture, as in the published code; perspective view.
        height: rows of the range view.
        width: columns of the range view.
        field: field of view of the range view: up, down, left and right, in degrees.
        lose_first: drop the first point of each file, as the published code does; range view.
    """

    view: str = "perspective"
    duplicates: str = "nearest"
    x_min: float = 0.0
    behind: bool = False
    height: int = 64
    width: int = 512
    field: tuple[float, float, float, float] = FIELD
    lose_first: bool = False


@dataclass(frozen=True)
class StoredPoints:
    """The pixels of all stored points of a frame, by which predictions of pixels become predictions of points.

    Attributes:
        seen: whether a point is in the picture (n,).
        row: row of its pixel (n,), 0 if it is not in the picture.
        col: column of its pixel (n,), 0 if it is not in the picture.
        range: distance from the scanner (n,).
        labels: training class (n,), 0 if unlabelled.
        size: height and width of the picture.
    """

    seen: NDArray[np.bool_]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    range: NDArray[np.float32]
    labels: NDArray[np.uint8]
    size: tuple[int, int]


class Frames:
    """Points and pictures of frames, by index; they are kept in memory until the given amount is used up.

    Args:
        frames: the frames.
        matrices: sequence → P2 Tr.
        rules: the rules of projection.
        sizes: sequence → height and width of its pictures, for sequences without any.
        cache: folder for projected points; None: points that are not in memory are projected again.
        cache_pictures: also cache decoded pictures in the folder.
        keep_bytes: memory for points and pictures.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        matrices: Mapping[int, NDArray[np.float64]],
        rules: Rules,
        *,
        sizes: Mapping[int, tuple[int, int]] | None = None,
        cache: Path | None = None,
        cache_pictures: bool = False,
        keep_bytes: int = 256 * 2**20,
    ) -> None:
        self.frames, self.matrices, self.rules = list(frames), dict(matrices), rules
        self.cache, self.cache_pictures, self.keep_bytes = cache, cache_pictures, keep_bytes
        self.sizes = dict(sizes or {})
        self._kept: dict[tuple[str, int], Any] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.frames)

    def size(self, number: int) -> tuple[int, int]:
        """Height and width of the picture into which points are projected."""
        if self.rules.view == "range":
            return self.rules.height, self.rules.width
        if number not in self._sizes:
            frame = self.frames[number]
            known = self.sizes.get(frame.sequence)
            self._sizes[number] = known if known is not None else image_size(frame.image)
        return self._sizes[number]

    def picture(self, number: int) -> Picture:
        """The camera picture, in RGB."""
        kept: Picture | None = self._kept.get(("picture", number))
        if kept is None:
            stored = self.cache is not None and self.cache_pictures
            kept = self._cached_picture(number) if stored else open_picture(self.frames[number].image)
            self._sizes[number] = kept.height, kept.width
            self._keep("picture", number, kept, PIXEL_BYTES * kept.height * kept.width)
        return kept

    def points(self, number: int) -> Drawn:
        """The points of a frame that are in its picture, in the order in which they are drawn."""
        kept: Drawn | None = self._kept.get(("points", number))
        if kept is None:
            kept = self._cached_points(number) if self.cache else self._project(number, self.size(number))
            self._keep("points", number, kept, kept.nbytes)
        return kept

    def augmented(self, number: int, change: PointAugmentation, random: np.random.Generator) -> Drawn:
        """The same for points that are augmented before they are projected; range view."""
        points, labels = self._read(number)
        return self._drawn(change(points, random), labels, number, self.size(number))

    def stored(self, number: int) -> StoredPoints:
        """The pixels of all points, in the order of the file."""
        points, labels = self._read(number)
        size = self.size(number)
        pixels = self._pixels(points, number, size)
        seen = np.zeros(len(points), np.bool_)
        row, col = np.zeros((2, len(points)), np.int32)
        seen[pixels.number], row[pixels.number], col[pixels.number] = True, pixels.row, pixels.col
        return StoredPoints(seen, row, col, ranges(points), labels, size)

    def _keep(self, kind: str, number: int, value: Any, size: int) -> None:
        # Nothing is evicted: an epoch reads every frame once, so no kept frame is more useful than another.
        if self._bytes + size <= self.keep_bytes:
            self._kept[kind, number] = value
            self._bytes += size

    def _read(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        frame = self.frames[number]
        points = read_cloud(frame.cloud)
        labels = np.zeros(len(points), np.uint8) if frame.labels is None else read_classes(frame.labels, len(points))
        return points, labels

    def _pixels(self, points: NDArray[np.float32], number: int, size: tuple[int, int]) -> Pixels:
        rules = self.rules
        if rules.view == "range":
            return range_pixels(points, height=size[0], width=size[1], field=rules.field)
        matrix = self.matrices[self.frames[number].sequence]
        return camera_pixels(points, matrix, height=size[0], width=size[1], x_min=rules.x_min, behind=rules.behind)

    def _project(self, number: int, size: tuple[int, int]) -> Drawn:
        points, labels = self._read(number)
        return self._drawn(points, labels, number, size)

    def _drawn(
        self, points: NDArray[np.float32], labels: NDArray[np.uint8], number: int, size: tuple[int, int]
    ) -> Drawn:
        pixels = self._pixels(points, number, size)
        features = features_of(points[pixels.number])
        rule = "nearest" if self.rules.view == "range" else self.rules.duplicates
        order = drawing_order(features[:, 0], rule)
        drawn = np.empty(len(order), POINT)
        drawn["number"] = pixels.number[order]
        drawn["row"], drawn["col"] = pixels.row[order], pixels.col[order]
        drawn["label"], drawn["features"] = labels[pixels.number[order]], features[order]
        if self.rules.view == "range" and self.rules.lose_first:
            flat = drawn["row"].astype(np.int64) * size[1] + drawn["col"]
            in_pixel = flat == flat[drawn["number"] == 0]
            # The published mask is index > 0: the pixel counts as empty if the first point is its nearest.
            if drawn["number"][in_pixel][-1] == 0:
                drawn = drawn[~in_pixel]
        return drawn

    # ---- on disk

    def _cached_points(self, number: int) -> Drawn:
        frame, size = self.frames[number], self.size(number)
        # the range view has no camera
        matrix = self.matrices.get(frame.sequence)
        facts = (self.rules, size, None if matrix is None else matrix.tolist())
        return self._cached(frame, [frame.cloud, frame.labels], facts, lambda: self._project(number, size), POINT)

    def _cached_picture(self, number: int) -> Picture:
        from PIL import Image

        frame = self.frames[number]
        return Image.fromarray(
            self._cached(frame, [frame.image], (), lambda: np.asarray(open_picture(frame.image)), np.dtype(np.uint8))
        )

    def _cached(
        self,
        frame: Frame,
        sources: Sequence[Path | None],
        facts: tuple[Any, ...],
        compute: Callable[[], NDArray[Any]],
        dtype: np.dtype[Any],
    ) -> NDArray[Any]:
        """The cached array of a frame, computed and stored if it is missing or damaged."""
        assert self.cache is not None
        states = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in sources if file]
        digest = hashlib.blake2b(repr((VERSION, facts, states)).encode(), digest_size=8).hexdigest()
        path = self.cache / f"{frame.sequence:02d}" / f"{frame.name}-{digest}.npy"
        # Missing, or damaged by an interruption: computed again below.
        with contextlib.suppress(ValueError, OSError, EOFError):
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.dtype == dtype:
                return array
        array = compute()
        with written_whole(path) as partial, partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        return array
