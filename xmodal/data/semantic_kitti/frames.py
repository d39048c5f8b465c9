"""Frames of SemanticKITTI as pictures: points at their pixels, kept in memory and on disk, and the image beside them.

Where points lie in a picture depends on their files and on the rules of projection alone, so it is worked out once. A
cache folder holds an array per frame, whose name is a digest of all that it depends on: paths, sizes and times of the
files, the calibration, the rules. Whatever changes, another file is looked for, and a stale one is never read.
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

PIXEL_BYTES = 4  # that Pillow needs for three colours
VERSION = 1  # of what stands in a cached file
POINT = np.dtype(
    [("features", "<f4", (5,)), ("number", "<i4"), ("row", "<u2"), ("col", "<u2"), ("label", "<i4")]
)  # a point of a picture: range, x, y, z and remission, which of the cloud, where, what; 32 bytes
Drawn = NDArray[Any]  # of POINT, in the order in which they are drawn


@dataclass(frozen=True)
class Rules:
    """How points come into a picture.

    Attributes:
        view: ``perspective`` (the camera's picture) or ``range`` (directions).
        duplicates: which of several points of a pixel is seen: the ``nearest``, or the last one of the ``file``.
        x_min: points are farther in front of the scanner than this, in metres; perspective view.
        behind: points behind the camera are mirrored into the picture, as in the published code; perspective view.
        height: of the range view.
        width: of the range view.
        field: degrees of the range view up, down, left and right.
        lose_first: of the range view: the first point of each file is left out, as in the published code.
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
    """Where every stored point of a frame lies: what turns maps of answers into one answer per point.

    Attributes:
        seen: whether a point lies in the picture (n,).
        row: of its pixel (n,), 0 where it does not.
        col: likewise (n,).
        range: distance from the scanner (n,).
        labels: class of training (n,), 0 where nobody labelled.
        size: height and width of the picture.
    """

    seen: NDArray[np.bool_]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    range: NDArray[np.float32]
    labels: NDArray[np.uint8]
    size: tuple[int, int]


class Frames:
    """Frames by their numbers; what was read last is kept as long as it fits into some memory.

    Args:
        frames: which ones.
        matrices: sequence → P2 Tr.
        rules: of projection.
        cache: folder for projected points; None: they are projected again when they are not in memory.
        cache_pictures: decoded pictures are put there as well.
        keep_bytes: memory for points and pictures that were read.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        matrices: Mapping[int, NDArray[np.float64]],
        rules: Rules,
        *,
        cache: Path | None = None,
        cache_pictures: bool = False,
        keep_bytes: int = 256 * 2**20,
    ) -> None:
        self.frames, self.matrices, self.rules = list(frames), dict(matrices), rules
        self.cache, self.cache_pictures, self.keep_bytes = cache, cache_pictures, keep_bytes
        self._kept: dict[tuple[str, int], Any] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.frames)

    def size(self, number: int) -> tuple[int, int]:
        """Height and width of the picture that points are drawn into."""
        if self.rules.view == "range":
            return self.rules.height, self.rules.width
        if number not in self._sizes:
            self._sizes[number] = image_size(self.frames[number].image)
        return self._sizes[number]

    def picture(self, number: int) -> Picture:
        """The camera's picture, red, green and blue."""
        kept: Picture | None = self._kept.get(("picture", number))
        if kept is None:
            stored = self.cache is not None and self.cache_pictures
            kept = self._cached_picture(number) if stored else open_picture(self.frames[number].image)
            self._sizes[number] = kept.height, kept.width
            self._keep("picture", number, kept, PIXEL_BYTES * kept.height * kept.width)
        return kept

    def points(self, number: int) -> Drawn:
        """The points of a frame that lie in its picture, in the order in which they are drawn."""
        kept: Drawn | None = self._kept.get(("points", number))
        if kept is None:
            kept = self._cached_points(number) if self.cache else self._project(number, self.size(number))
            self._keep("points", number, kept, kept.nbytes)
        return kept

    def augmented(self, number: int, change: PointAugmentation, random: np.random.Generator) -> Drawn:
        """The same from a cloud that was changed before it was projected; range view."""
        points, labels = self._read(number)
        return self._drawn(change(points, random), labels, number, self.size(number))

    def stored(self, number: int) -> StoredPoints:
        """Where every stored point lies, in the order of the file."""
        points, labels = self._read(number)
        size = self.size(number)
        pixels = self._pixels(points, number, size)
        seen = np.zeros(len(points), np.bool_)
        row, col = np.zeros((2, len(points)), np.int32)
        seen[pixels.number], row[pixels.number], col[pixels.number] = True, pixels.row, pixels.col
        return StoredPoints(seen, row, col, ranges(points), labels, size)

    def _keep(self, what: str, number: int, found: Any, size: int) -> None:
        if self._bytes + size <= self.keep_bytes:
            self._kept[what, number] = found
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
            there = flat == flat[drawn["number"] == 0]
            if drawn["number"][there][-1] == 0:  # the nearest of its pixel, which counts as empty then
                drawn = drawn[~there]
        return drawn

    # ---- on disk

    def _cached_points(self, number: int) -> Drawn:
        frame, size = self.frames[number], self.size(number)
        facts = (self.rules, size, self.matrices[frame.sequence].tolist())
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
        make: Callable[[], NDArray[Any]],
        dtype: np.dtype[Any],
    ) -> NDArray[Any]:
        """What the cache holds of a frame, made and put there where it doesn't."""
        assert self.cache is not None
        states = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in sources if file]
        digest = hashlib.blake2b(repr((VERSION, facts, states)).encode(), digest_size=8).hexdigest()
        path = self.cache / f"{frame.sequence:02d}" / f"{frame.name}-{digest}.npy"
        with contextlib.suppress(ValueError, OSError, EOFError):  # damaged or absent: made again
            found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            if found.dtype == dtype:
                return found
        made = make()
        with written_whole(path) as beside, beside.open("wb") as file:
            np.save(file, made, allow_pickle=False)
        return made
