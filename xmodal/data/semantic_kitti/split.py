"""Batches of frames: points drawn into maps, the image, the class of each pixel, and a mask of pixels with a point.

    lidar   (rows, 5, H, W)  range, x, y, z, remission; (value - mean) / std at pixels with a point, 0 elsewhere
    image   (rows, 3, H, W)  red, green, blue; 0 to 255, divided by 255
    target  (rows, H, W)     class of the point, 0 if it is unlabelled or there is none
    valid   (rows, H, W)     whether the pixel has a point

In training, frames are flipped, rotated and cropped at random. The generator is seeded by (seed, epoch, row), so that
the bits do not depend on the number of workers or processes. In evaluation, samples are cropped from the centre.
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
# Height and width of a sample are multiples of this: the networks halve them four times.
MULTIPLE = 16


@dataclass(frozen=True)
class Canvas:
    """Size and padding of a sample.

    Attributes:
        height: height of the sample, in pixels.
        width: width of the sample, in pixels.
        pad_rows: empty rows at the top and at the bottom.
        pad_cols: empty columns on the left and on the right.
    """

    height: int
    width: int
    pad_rows: int = 0
    pad_cols: int = 0

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the crop that is taken from a picture."""
        return self.height - 2 * self.pad_rows, self.width - 2 * self.pad_cols


@dataclass(frozen=True)
class WholeFrame:
    """A frame without cropping, and the pixels of its points.

    Attributes:
        inputs: modality → (1, channels, H, W), normalised; the picture is centred, its sides rounded up to 16.
        points: all stored points, in the order of the file.
        top: first row of the picture in ``inputs``: a point is at ``points.row + top``, ``points.col + left``.
        left: first column of the picture in ``inputs``.
        frame: the files of the frame.
    """

    inputs: dict[str, Tensor]
    points: StoredPoints
    top: int
    left: int
    frame: Frame


class Slots:
    """The arrays of a batch, empty at first, into which frames are drawn.

    Args:
        rows: number of frames.
        canvas: size and padding of the samples.
        modalities: modalities of the batch.
    """

    def __init__(self, rows: int, canvas: Canvas, modalities: Sequence[str]) -> None:
        self.canvas = canvas
        size = canvas.height, canvas.width
        self.inputs = {name: np.zeros((rows, CHANNELS[name], *size), np.float32) for name in modalities}
        self.target = np.zeros((rows, *size), np.int64)
        self.valid = np.zeros((rows, *size), np.bool_)

    def draw_points(self, sample: int, pixels: NDArray[np.int64], points: Drawn, statistics: Any) -> None:
        """Draw points into a sample.

        Args:
            sample: index of the sample.
            pixels: flat index of the pixel of each point, in the sample.
            points: the points.
            statistics: mean and standard deviation (5, 1, 1) to apply; None: none.
        """
        self.target[sample].reshape(-1)[pixels] = points["label"]
        self.valid[sample].reshape(-1)[pixels] = True
        if "lidar" in self.inputs:
            features = points["features"]
            if statistics is not None:
                features = (features - statistics[0].reshape(-1)) / statistics[1].reshape(-1)
            self.inputs["lidar"][sample].reshape(features.shape[1], -1)[:, pixels] = features.T

    def draw_image(self, sample: int, rows: slice, cols: slice, pixels: NDArray[np.uint8], statistics: Any) -> None:
        """Draw pixels (height, width, 3 or 4) into a part of a sample; the rest is black, normalised like the picture.

        Args:
            sample: index of the sample.
            rows: rows of the part.
            cols: columns of the part.
            pixels: red, green, blue, and possibly an unused fourth value.
            statistics: mean and standard deviation (3, 1, 1) or (1, 1, 1) to apply; None: none.
        """
        picture = self.inputs["image"][sample]
        mean, std = statistics or (np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32))
        if mean.any():
            picture[:] = -mean / std
        colours = pixels[..., :3].transpose(2, 0, 1)
        np.divide(colours - mean if mean.any() else colours, std, out=picture[:, rows, cols], dtype=np.float32)


class FrameSplit(Split):
    """The frames of a split; ``split[pick]`` draws a batch.

    Args:
        frames: the frames of all splits.
        numbers: indices of the frames of this split.
        modalities: modalities of batches.
        canvas: size and padding of evaluation samples.
        training: size and padding of training samples.
        augmentation: augmentation of training samples; None: training samples are the same as evaluation samples.
        points: augmentation of points before projection, range view; None: none.
        normalisation: input → statistics.
        seed: seed of the augmentation.
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
        """Whether training sees augmented inputs."""
        return bool(self.changing)

    @property
    def changing(self) -> frozenset[str]:
        """The modalities that training augments: all or none, since points and picture move together."""
        augmented = self.augmentation is not None or self.changes is not None
        return frozenset(self.rows) if augmented else frozenset()

    def raw(self) -> FrameSplit:
        """The same frames without normalisation."""
        plain = copy.copy(self)
        plain._statistics = {}
        return plain

    def whole(self, row: int) -> WholeFrame:
        """A frame of this split without cropping, for predicting the classes of all of its points."""
        modalities = list(self.columns)
        number = int(self.numbers[modalities[0]][row])
        size = self.frames.size(number)
        canvas = Canvas(*(-(-side // MULTIPLE) * MULTIPLE for side in size))
        slots = Slots(1, canvas, modalities)
        draw_centred(slots, 0, self.frames, number, self._statistics, self.frames.points(number))
        move = centred(size, canvas.window)
        inputs = {name: torch.from_numpy(array) for name, array in slots.inputs.items()}
        return WholeFrame(inputs, self.frames.stored(number), -move.top, -move.left, self.frames.frames[number])

    def drawn(self, pick: Pick) -> Batch:
        """The batch of a pick."""
        batch = Batch({}, {}, {}, dict(pick.rows))
        # Paired modalities have the same rows object: their frames, targets and masks are drawn only once.
        shared = {id(rows): [name for name in pick.rows if pick.rows[name] is rows] for rows in pick.rows.values()}
        for modalities in shared.values():
            wanted = [name for name in modalities if self._wants(name)]
            drawn = self._draw(pick.rows[modalities[0]], self.numbers[modalities[0]], wanted, pick.epoch)
            target, valid = torch.from_numpy(drawn.target), torch.from_numpy(drawn.valid)
            for name in modalities:
                if name in wanted:
                    batch.inputs[name] = torch.from_numpy(drawn.inputs[name])
                batch.targets[name], batch.valid[name] = target, valid
        return batch

    def _draw(self, rows: Tensor, numbers: NDArray[np.int64], modalities: Sequence[str], epoch: int | None) -> Slots:
        transformed = epoch is not None and self.augmentation is not None
        slots = Slots(len(rows), self.training if transformed else self.canvas, modalities)
        for sample, row in enumerate(rows.tolist()):
            number = int(numbers[row])
            random = np.random.Generator(np.random.Philox(key=mix(self.seed, epoch, row, "frame")))
            if transformed:
                self._draw_moved(slots, sample, number, random)
            elif epoch is not None and self.changes is not None:
                points = self.frames.augmented(number, self.changes, random)
                draw_centred(slots, sample, self.frames, number, self._statistics, points)
            else:
                draw_centred(slots, sample, self.frames, number, self._statistics, self.frames.points(number))
        return slots

    def _draw_moved(self, slots: Slots, sample: int, number: int, random: np.random.Generator) -> None:
        """Draw a training frame: flipped, rotated, cropped and recoloured."""
        assert self.augmentation is not None
        picture = self.frames.picture(number) if "image" in slots.inputs else None
        size = self.frames.size(number)
        move, jitter = self.augmentation.draw(random, size=size, window=slots.canvas.window)
        if picture is not None:
            picture = jittered(picture, jitter)
        draw_moved(slots, sample, self.frames.points(number), picture, move, size, self._statistics)


def draw_moved(
    slots: Slots,
    sample: int,
    points: Drawn,
    picture: Picture | None,
    move: Move,
    size: tuple[int, int],
    statistics: Mapping[str, Any],
) -> None:
    """Draw a frame that is flipped, rotated and cropped.

    All operations are a single table of source pixels, computed only for the crop: points, labels and picture are
    read through the same table.

    Args:
        slots: arrays of the batch.
        sample: index of the sample.
        points: points of the frame.
        picture: picture of the frame; None if it is not needed.
        move: flip, rotation and crop.
        size: height and width of the picture.
        statistics: input → mean and standard deviation.
    """
    canvas = slots.canvas
    source_pixels = index_map(move, size=size, window=canvas.window)
    stored = size[0] * size[1]
    # One more entry than pixels: the table has this index for everything outside of the picture.
    point_at = np.full(stored + 1, -1, np.int32)
    point_at[points["row"] * np.int32(size[1]) + points["col"]] = np.arange(len(points), dtype=np.int32)
    point = np.take(point_at, source_pixels).reshape(-1)
    filled = np.flatnonzero(point >= 0)
    row, col = np.divmod(filled, canvas.window[1])
    pixels = (row + canvas.pad_rows) * canvas.width + col + canvas.pad_cols
    slots.draw_points(sample, pixels, points[point[filled]], statistics.get("lidar"))
    if picture is not None:
        # RGBA as 32-bit words: gathering words is faster than gathering three bytes.
        words = np.empty(stored + 1, np.uint32)
        words[:-1] = np.frombuffer(picture.convert("RGBA").tobytes(), np.uint32)
        words[-1] = 0
        moved = np.take(words, source_pixels).view(np.uint8).reshape(*source_pixels.shape, 4)
        slots.draw_image(sample, *_inner(canvas), moved, statistics.get("image"))


def draw_centred(
    slots: Slots, sample: int, frames: Frames, number: int, statistics: Mapping[str, Any], points: Drawn
) -> None:
    """Draw a centre crop of a frame; if the picture is smaller, the rest of the sample stays empty."""
    canvas, size = slots.canvas, frames.size(number)
    window = canvas.window
    move = centred(size, window)
    row, col = points["row"].astype(np.int64) - move.top, points["col"].astype(np.int64) - move.left
    inside = (row >= 0) & (row < window[0]) & (col >= 0) & (col < window[1])
    pixels = (row[inside] + canvas.pad_rows) * canvas.width + col[inside] + canvas.pad_cols
    slots.draw_points(sample, pixels, points[inside], statistics.get("lidar"))
    if "image" in slots.inputs:
        top, left = max(0, move.top), max(0, move.left)
        cut = np.asarray(frames.picture(number))[top : move.top + window[0], left : move.left + window[1]]
        rows = canvas.pad_rows + top - move.top
        cols = canvas.pad_cols + left - move.left
        parts = slice(rows, rows + cut.shape[0]), slice(cols, cols + cut.shape[1])
        slots.draw_image(sample, *parts, cut, statistics.get("image"))


def _inner(canvas: Canvas) -> tuple[slice, slice]:
    return (
        slice(canvas.pad_rows, canvas.height - canvas.pad_rows),
        slice(canvas.pad_cols, canvas.width - canvas.pad_cols),
    )


class RawFrames:
    """A modality of all frames (n, channels, height, width), drawn when it is indexed, without normalisation."""

    def __init__(self, frames: Frames, canvas: Canvas, name: str) -> None:
        self.frames, self.canvas, self.name = frames, canvas, name
        self.shape = (len(frames), CHANNELS[name], canvas.height, canvas.width)
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        numbers = np.arange(len(self.frames))[rows]
        slots = Slots(numbers.size, self.canvas, [self.name])
        for sample, number in enumerate(np.atleast_1d(numbers).tolist()):
            draw_centred(slots, sample, self.frames, number, {}, self.frames.points(number))
        return slots.inputs[self.name] if numbers.ndim else slots.inputs[self.name][0]
