r"""Augmentation of training frames: flip, rotation and crop in a single step, colour jitter, and changes of points.

Flip, rotation, crop and padding together map each pixel of a sample to a pixel of the stored picture. They become a
single table of source pixels, through which picture, points and labels are read:

$$\binom{x}{y} = \mathrm{round}\left( \begin{pmatrix} \cos\theta & -\sin\theta \\ \sin\theta & \cos\theta
\end{pmatrix} \binom{j - c_x}{i - c_y} + \binom{c_x}{c_y} \right), \qquad c = \frac{(W - 1, H - 1)}{2}$$

for row i and column j of the rotated picture; then x becomes W - 1 - x if it is flipped. Pixels from outside of the
picture are empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


# Rows of the table that are computed together, so that the intermediate arrays fit into the cache of a core.
STRIP = 16


@dataclass(frozen=True)
class Move:
    """Flip, rotation and crop of a picture.

    Attributes:
        top: first row of the crop in the rotated picture; negative: above it.
        left: first column of the crop in the rotated picture; negative: to the left of it.
        flip: whether the picture is flipped horizontally, before the rotation.
        degrees: angle of the rotation, counter-clockwise.
    """

    top: int
    left: int
    flip: bool = False
    degrees: float = 0.0


@dataclass(frozen=True)
class Jitter:
    """Factors of brightness, contrast and saturation, and the order in which they are applied.

    Attributes:
        order: a permutation of 0 (brightness), 1 (contrast) and 2 (saturation).
        factors: the factors of brightness, contrast and saturation.
    """

    order: tuple[int, ...]
    factors: tuple[float, float, float]


def index_map(move: Move, *, size: tuple[int, int], window: tuple[int, int]) -> NDArray[np.int32]:
    """Flat index of the source pixel of each pixel of a crop; outside of the picture, the number of its pixels.

    Args:
        move: flip, rotation and crop.
        size: height and width of the picture.
        window: height and width of the crop.

    Example:
        >>> index_map(Move(0, 1, flip=True), size=(2, 3), window=(2, 2)).tolist()  # 2 1 0 / 5 4 3, second column on
        [[1, 0], [4, 3]]
    """
    height, width = size
    rows = np.arange(move.top, move.top + window[0], dtype=np.float64)
    cols = np.arange(move.left, move.left + window[1], dtype=np.float64)
    cos, sin = np.cos(np.deg2rad(move.degrees)), np.sin(np.deg2rad(move.degrees))
    cy, cx = (height - 1) / 2, (width - 1) / 2
    x_of_col, x_of_row = cos * (cols - cx) + cx, sin * (rows - cy)
    y_of_col, y_of_row = sin * (cols - cx), cos * (rows - cy) + cy
    shown = np.empty(window, np.int32)
    for first in range(0, window[0], STRIP):
        strip = slice(first, first + STRIP)
        x = np.rint(x_of_col - x_of_row[strip, None]).astype(np.int32)
        y = np.rint(y_of_col + y_of_row[strip, None]).astype(np.int32)
        # Read as unsigned, negative numbers are huge: one comparison checks both bounds.
        inside = (x.view(np.uint32) < width) & (y.view(np.uint32) < height)
        shown[strip] = np.where(inside, y * width + (width - 1 - x if move.flip else x), height * width)
    return shown


def centred(size: tuple[int, int], window: tuple[int, int]) -> Move:
    """The centre crop of a picture; a smaller picture is in the middle of the crop."""
    # Python's round(), half to even, as in the published centre crop.
    corner = [
        round((side - length) / 2) if side >= length else -((length - side) // 2)
        for side, length in zip(size, window, strict=True)
    ]
    return Move(corner[0], corner[1])


@dataclass(frozen=True)
class Augmentation:
    """The random augmentation of training frames.

    Attributes:
        flip: share of the frames that are flipped.
        degrees: largest rotation in both directions.
        brightness: largest change of the brightness factor.
        contrast: largest change of the contrast factor.
        saturation: largest change of the saturation factor.
    """

    flip: float = 0.5
    degrees: float = 15.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def draw(
        self, random: np.random.Generator, *, size: tuple[int, int], window: tuple[int, int]
    ) -> tuple[Move, Jitter]:
        """Draw a move and a jitter.

        Args:
            random: generator of a frame in an epoch.
            size: height and width of the picture.
            window: height and width of the crop.
        """
        # The order of the draws defines the augmentation of a seed: moving a line changes training.
        check_window(size, window)
        flip = bool(random.random() < self.flip)
        degrees = float(random.uniform(-self.degrees, self.degrees))
        top, left = (int(random.integers(0, side - length + 1)) for side, length in zip(size, window, strict=True))
        order = tuple(random.permutation(3).tolist())
        brightness, contrast, saturation = (
            float(random.uniform(max(0.0, 1 - most), 1 + most))
            for most in (self.brightness, self.contrast, self.saturation)
        )
        return Move(top, left, flip, degrees), Jitter(order, (brightness, contrast, saturation))


def check_window(size: tuple[int, int], window: tuple[int, int]) -> None:
    """Refuse a training crop that is larger than the picture."""
    if window[0] > size[0] or window[1] > size[1]:
        raise InputError(
            f"The training crop has {window[0]}x{window[1]} pixels, and a picture has only {size[0]}x{size[1]}. Use a "
            "smaller train_height or train_width, or more padding; both sides of a sample are multiples of 16."
        )


def jittered(picture: Picture, jitter: Jitter) -> Picture:
    """A picture with changed brightness, contrast and saturation, equal to that of Pillow's ``ImageEnhance``.

    Brightness and contrast map each of the 256 values independently of its pixel: a lookup table, which Pillow computes
    from a ramp of 256 values, gives the same picture in less time.
    """
    from PIL import Image, ImageEnhance, ImageStat

    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    for operation in jitter.order:
        factor = jitter.factors[operation]
        if operation == 2:
            picture = ImageEnhance.Color(picture).enhance(factor)
            continue
        grey = int(ImageStat.Stat(picture.convert("L")).mean[0] + 0.5) if operation else 0
        table = Image.blend(Image.new("L", (256, 1), grey), ramp, factor).tobytes()
        picture = picture.point(3 * list(table))
    return picture


# ---- points: for the range view only, since the picture cannot follow their movement


def rotation(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """R = R_x(roll) R_y(pitch) R_z(yaw), angles in degrees."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.deg2rad([roll, pitch, yaw])) for f in (np.cos, np.sin))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    matrix: NDArray[np.float64] = x @ y @ z
    return matrix


def rotated(points: NDArray[np.float32], turn: NDArray[np.float64]) -> NDArray[np.float32]:
    """Points (n, 4) rotated by a matrix (3, 3); remission is unchanged."""
    return np.concatenate([(points[:, :3] @ turn.T).astype(np.float32), points[:, 3:]], axis=1)


def translated(points: NDArray[np.float32], by: tuple[float, float, float]) -> NDArray[np.float32]:
    """Points (n, 4) translated by the given metres along x, y and z."""
    return points + np.array([*by, 0.0], np.float32)


def flipped(points: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Points (n, 4) with the sign of x (0) or y (1) changed."""
    mirrored = points.copy()
    mirrored[:, axis] *= -1
    return mirrored


@dataclass(frozen=True)
class PointAugmentation:
    """The random augmentation of the points of training frames: flip, then translation, then rotation.

    Attributes:
        flip_x: share of the frames whose x changes sign.
        flip_y: share of the frames whose y changes sign.
        share: share of the frames with a translation, or rotation, along each axis.
        metres: smallest and largest translation along x, y and z.
        degrees: largest roll, pitch and yaw in both directions.
    """

    flip_x: float = 0.0
    flip_y: float = 0.5
    share: float = 0.5
    metres: tuple[tuple[float, float], ...] = ((-5.0, 5.0), (-3.0, 3.0), (-1.0, 0.0))
    degrees: tuple[float, float, float] = (5.0, 5.0, 5.0)

    def __call__(self, points: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
        """Augmented points; the given array is not modified."""
        for axis, share in enumerate((self.flip_x, self.flip_y)):
            if random.random() < share:
                points = flipped(points, axis)
        moves = [random.uniform(*ends) if random.random() < self.share else 0.0 for ends in self.metres]
        turns = [random.uniform(-most, most) if random.random() < self.share else 0.0 for most in self.degrees]
        points = translated(points, (moves[0], moves[1], moves[2]))
        return rotated(points, rotation(turns[0], turns[1], turns[2]))
