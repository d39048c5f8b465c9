"""Batches of frames: points drawn into maps, the image beside them, the class of each pixel, and where points are.

    lidar   (rows, 5, H, W)  range, x, y, z, remission; (value - mean) / std where a point is, 0 elsewhere
    image   (rows, 3, H, W)  red, green, blue; 0 to 255, divided by 255
    target  (rows, H, W)     class of the point, 0 where nobody knows
    valid   (rows, H, W)     where a point is

A frame that is trained on is mirrored, turned and cut by what a generator of (seed, epoch, row) draws: the same bits
with any number of workers and processes. A frame as it is, is cut from the middle.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmodal.data.loader import Pick
from xmodal.data.semantic_kitti.augment import (
    Augmentation,
    Move,
    PointAugmentation,
    centred,
    index_map,
    jittered,
)
from xmodal.data.semantic_kitti.files import Frame
from xmodal.data.semantic_kitti.frames import Drawn, Frames, StoredPoints
from xmodal.data.split import Split
from xmodal.seeding import mix
from xmodal.types import Batch, Normalisation

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

CHANNELS = {"lidar": 5, "image": 3}
MULTIPLE = 16  # sides of a sample are multiples of it


@dataclass(frozen=True)
class Canvas:
    """Size of a sample, and how much of its border stays empty.

    Attributes:
        height: of the sample, in pixels.
        width: likewise.
        pad_rows: empty rows at the top and at the bottom.
        pad_cols: empty columns on the left and on the right.
    """

    height: int
    width: int
    pad_rows: int = 0
    pad_cols: int = 0

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of what is cut from a picture."""
        return self.height - 2 * self.pad_rows, self.width - 2 * self.pad_cols


@dataclass(frozen=True)
class WholeFrame:
    """A frame that nothing was cut from, and where its points are.

    Attributes:
        inputs: modality → (1, channels, H, W), normalised; the picture in the middle, sides rounded up to 16.
        points: every stored point, in the order of the file.
        top: row of ``inputs`` at which the picture begins: a point is at ``points.row + top``, ``points.col + left``.
        left: likewise its column.
        frame: its files.
    """

    inputs: dict[str, Tensor]
    points: StoredPoints
    top: int
    left: int
    frame: Frame


class Slots:
    """What frames are drawn into: the arrays of a batch, empty at first.

    Args:
        rows: how many frames.
        canvas: of each.
        modalities: which inputs.
    """

    def __init__(self, rows: int, canvas: Canvas, modalities: Sequence[str]) -> None:
        self.canvas = canvas
        size = canvas.height, canvas.width
        self.inputs = {name: np.zeros((rows, CHANNELS[name], *size), np.float32) for name in modalities}
        self.target = np.zeros((rows, *size), np.int64)
        self.valid = np.zeros((rows, *size), np.bool_)

    def draw_points(self, place: int, at: NDArray[np.int64], points: Drawn, statistics: Any) -> None:
        """Put points into a sample.

        Args:
            place: of the sample.
            at: number of the pixel of each point, in the sample.
            points: to draw.
            statistics: mean and deviation (5, 1, 1) to apply; None: as they are.
        """
        self.target[place].reshape(-1)[at] = points["label"]
        self.valid[place].reshape(-1)[at] = True
        if "lidar" in self.inputs:
            features = points["features"]
            if statistics is not None:
                features = (features - statistics[0].reshape(-1)) / statistics[1].reshape(-1)
            self.inputs["lidar"][place].reshape(features.shape[1], -1)[:, at] = features.T

    def draw_image(self, place: int, rows: slice, cols: slice, pixels: NDArray[np.uint8], statistics: Any) -> None:
        """Put pixels (height, width, 3 or 4) into a part of a sample; around it stays what a black pixel becomes.

        Args:
            place: of the sample.
            rows: of the part.
            cols: likewise.
            pixels: red, green, blue, and nothing that matters.
            statistics: mean and deviation (3, 1, 1) or (1, 1, 1) to apply; None: as they are.
        """
        sample = self.inputs["image"][place]
        mean, std = statistics or (np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32))
        if mean.any():
            sample[:] = -mean / std
        colours = pixels[..., :3].transpose(2, 0, 1)
        np.divide(colours - mean if mean.any() else colours, std, out=sample[:, rows, cols], dtype=np.float32)


class FrameSplit(Split):
    """Some frames; ``split[pick]`` draws them.

    Args:
        frames: all of them.
        numbers: those of this split.
        modalities: inputs to offer.
        canvas: of a frame as it is.
        training: of a frame that is trained on.
        augmentation: of frames that are trained on; None: they are shown as they are.
        points: changes of clouds before they are projected, range view; None: none.
        normalisation: input → statistics.
        seed: of the augmentation.
    """

    def __init__(
        self,
        frames: Frames,
        numbers: NDArray[np.int64],
        *,
        modalities: Sequence[str],
        canvas: Canvas,
        training: Canvas | None = None,
        augmentation: Augmentation | None = None,
        points: PointAugmentation | None = None,
        normalisation: Mapping[str, Normalisation] | None = None,
        seed: int = 0,
    ) -> None:
        columns = {name: RawFrames(frames, canvas, name) for name in modalities}
        super().__init__(columns, {}, dict.fromkeys(modalities, numbers), normalisation=normalisation)
        self.frames, self.canvas, self.training = frames, canvas, training or canvas
        self.augmentation, self.changes, self.seed = augmentation, points, seed

    @property
    def augmented(self) -> bool:
        """Whether a training pass sees other inputs than an ordered one."""
        return bool(self.changing)

    @property
    def changing(self) -> frozenset[str]:
        """The modalities of which it does: points and picture of a frame move together."""
        moves = self.augmentation is not None or self.changes is not None
        return frozenset(self.rows) if moves else frozenset()

    def raw(self) -> FrameSplit:
        """The same frames without any statistics applied."""
        plain = copy.copy(self)
        plain._statistics = {}
        return plain

    def whole(self, row: int) -> WholeFrame:
        """A frame of this split with all that was stored of it: what predictions of points are made from."""
        modalities = list(self.columns)
        number = int(self.numbers[modalities[0]][row])
        size = self.frames.size(number)
        canvas = Canvas(*(-(-side // MULTIPLE) * MULTIPLE for side in size))
        slots = Slots(1, canvas, modalities)
        draw_centred(slots, 0, self.frames, number, self._statistics, self.frames.points(number))
        move = centred(size, canvas.window)
        inputs = {name: torch.from_numpy(found) for name, found in slots.inputs.items()}
        return WholeFrame(inputs, self.frames.stored(number), -move.top, -move.left, self.frames.frames[number])

    def drawn(self, pick: Pick) -> Batch:
        """The frames, drawn."""
        batch = Batch({}, {}, {}, dict(pick.rows))
        # rows that modalities share are drawn once, and so is their target
        shared = {id(rows): [name for name in pick.rows if pick.rows[name] is rows] for rows in pick.rows.values()}
        for modalities in shared.values():
            drawn = self._draw(pick.rows[modalities[0]], modalities, pick.epoch)
            target, valid = torch.from_numpy(drawn.target), torch.from_numpy(drawn.valid)
            for name in modalities:
                batch.inputs[name] = torch.from_numpy(drawn.inputs[name])
                batch.targets[name], batch.valid[name] = target, valid
        return batch

    def _draw(self, rows: Tensor, modalities: Sequence[str], epoch: int | None) -> Slots:
        moving = epoch is not None and self.augmentation is not None
        slots = Slots(len(rows), self.training if moving else self.canvas, modalities)
        for place, row in enumerate(rows.tolist()):
            number = int(self.numbers[modalities[0]][row])
            random = np.random.Generator(np.random.Philox(key=mix(self.seed, epoch, row, "frame")))
            if moving:
                self._draw_moved(slots, place, number, random)
            elif epoch is not None and self.changes is not None:
                points = self.frames.augmented(number, self.changes, random)
                draw_centred(slots, place, self.frames, number, self._statistics, points)
            else:
                draw_centred(slots, place, self.frames, number, self._statistics, self.frames.points(number))
        return slots

    def _draw_moved(self, slots: Slots, place: int, number: int, random: np.random.Generator) -> None:
        """One table of pixel numbers for everything, and of the window alone."""
        assert self.augmentation is not None
        picture = self.frames.picture(number) if "image" in slots.inputs else None
        size = self.frames.size(number)
        move, jitter = self.augmentation.draw(random, size=size, window=slots.canvas.window)
        if picture is not None:
            picture = jittered(picture, jitter)
        draw_moved(slots, place, self.frames.points(number), picture, move, size, self._statistics)


def draw_moved(
    slots: Slots,
    place: int,
    points: Drawn,
    picture: Picture | None,
    move: Move,
    size: tuple[int, int],
    statistics: Mapping[str, Any],
) -> None:
    """Draw a frame that is mirrored, turned and cut.

    Args:
        slots: to draw into.
        place: of the sample.
        points: of the frame.
        picture: of the frame; None where it isn't asked for.
        move: how it is cut.
        size: height and width of the picture.
        statistics: input → mean and deviation.
    """
    canvas = slots.canvas
    shown = index_map(move, size=size, window=canvas.window)
    stored = size[0] * size[1]
    at_pixel = np.full(stored + 1, -1, np.int32)  # the last one is what lies outside
    at_pixel[points["row"] * np.int32(size[1]) + points["col"]] = np.arange(len(points), dtype=np.int32)
    found = np.take(at_pixel, shown).reshape(-1)
    places = np.flatnonzero(found >= 0)
    row, col = np.divmod(places, canvas.window[1])
    at = (row + canvas.pad_rows) * canvas.width + col + canvas.pad_cols
    slots.draw_points(place, at, points[found[places]], statistics.get("lidar"))
    if picture is not None:
        pixels = np.empty(stored + 1, np.uint32)  # four bytes are moved faster than three
        pixels[:-1] = np.frombuffer(picture.convert("RGBA").tobytes(), np.uint32)
        pixels[-1] = 0
        moved = np.take(pixels, shown).view(np.uint8).reshape(*shown.shape, 4)
        slots.draw_image(place, *_inner(canvas), moved, statistics.get("image"))


def draw_centred(
    slots: Slots, place: int, frames: Frames, number: int, statistics: Mapping[str, Any], points: Drawn
) -> None:
    """Draw a frame as it is, cut from the middle; what a smaller picture lacks stays empty."""
    canvas, size = slots.canvas, frames.size(number)
    window = canvas.window
    move = centred(size, window)
    row, col = points["row"].astype(np.int64) - move.top, points["col"].astype(np.int64) - move.left
    inside = (row >= 0) & (row < window[0]) & (col >= 0) & (col < window[1])
    at = (row[inside] + canvas.pad_rows) * canvas.width + col[inside] + canvas.pad_cols
    slots.draw_points(place, at, points[inside], statistics.get("lidar"))
    if "image" in slots.inputs:
        top, left = max(0, move.top), max(0, move.left)
        cut = np.asarray(frames.picture(number))[top : move.top + window[0], left : move.left + window[1]]
        rows = canvas.pad_rows + top - move.top
        cols = canvas.pad_cols + left - move.left
        parts = slice(rows, rows + cut.shape[0]), slice(cols, cols + cut.shape[1])
        slots.draw_image(place, *parts, cut, statistics.get("image"))


def _inner(canvas: Canvas) -> tuple[slice, slice]:
    return (
        slice(canvas.pad_rows, canvas.height - canvas.pad_rows),
        slice(canvas.pad_cols, canvas.width - canvas.pad_cols),
    )


class RawFrames:
    """One modality of all frames (n, channels, height, width), drawn when asked for, without statistics."""

    def __init__(self, frames: Frames, canvas: Canvas, name: str) -> None:
        self.frames, self.canvas, self.name = frames, canvas, name
        self.shape = (len(frames), CHANNELS[name], canvas.height, canvas.width)
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        numbers = np.arange(len(self.frames))[rows]
        slots = Slots(numbers.size, self.canvas, [self.name])
        for place, number in enumerate(np.atleast_1d(numbers).tolist()):
            draw_centred(slots, place, self.frames, number, {}, self.frames.points(number))
        return slots.inputs[self.name] if numbers.ndim else slots.inputs[self.name][0]
