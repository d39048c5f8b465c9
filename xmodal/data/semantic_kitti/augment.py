r"""What training changes in a frame: mirrored, turned and cut as one move, colours by factors, points as a whole.

Every move of pixels is one question: which pixel of the stored picture is shown here? So flip, rotation, crop and
padding become a single table of pixel numbers, by which picture, points and labels are read alike:

$$\binom{x}{y} = \mathrm{round}\left( \begin{pmatrix} \cos\theta & -\sin\theta \\ \sin\theta & \cos\theta
\end{pmatrix} \binom{j - c_x}{i - c_y} + \binom{c_x}{c_y} \right), \qquad c = \frac{(W - 1, H - 1)}{2}$$

for the place in row i and column j of the turned picture, then x becomes W - 1 - x where it is mirrored. What comes
from outside of the picture is empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


STRIP = 16  # rows


@dataclass(frozen=True)
class Move:
    """How a window is cut from a picture.

    Attributes:
        top: row of the window's first row in the turned picture; negative: above it.
        left: likewise its column.
        flip: mirrored to the side, before it is turned.
        degrees: turned by so much, counter-clockwise.
    """

    top: int
    left: int
    flip: bool = False
    degrees: float = 0.0


@dataclass(frozen=True)
class Jitter:
    """Factors of brightness, contrast and saturation, and the order in which they are applied.

    Attributes:
        order: of 0 (brightness), 1 (contrast) and 2 (saturation).
        factors: one of each.
    """

    order: tuple[int, ...]
    factors: tuple[float, float, float]


def index_map(move: Move, *, size: tuple[int, int], window: tuple[int, int]) -> NDArray[np.int32]:
    """Number of the stored pixel that each place of a window shows; outside of the picture how many there are.

    Args:
        move: where the window lies.
        size: height and width of the picture.
        window: height and width of the window.

    Example:
        >>> index_map(Move(0, 1, flip=True), size=(2, 3), window=(2, 2)).tolist()  # 2 1 0 / 5 4 3, without a column
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
    for first in range(0, window[0], STRIP):  # what is worked on at once stays in the cache of the processor
        some = slice(first, first + STRIP)
        x = np.rint(x_of_col - x_of_row[some, None]).astype(np.int32)
        y = np.rint(y_of_col + y_of_row[some, None]).astype(np.int32)
        inside = (x.view(np.uint32) < width) & (y.view(np.uint32) < height)  # a negative one is huge without its sign
        shown[some] = np.where(inside, y * width + (width - 1 - x if move.flip else x), height * width)
    return shown


def centred(size: tuple[int, int], window: tuple[int, int]) -> Move:
    """The window in the middle of a picture; what a smaller picture lacks is empty on both sides."""
    places = [
        round((side - want) / 2) if side >= want else -((want - side) // 2)
        for side, want in zip(size, window, strict=True)
    ]
    return Move(places[0], places[1])


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for each training frame.

    Attributes:
        flip: share of the pictures that are mirrored.
        degrees: largest rotation to either side.
        brightness: largest change of this factor.
        contrast: likewise.
        saturation: likewise.
    """

    flip: float = 0.5
    degrees: float = 15.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def draw(
        self, random: np.random.Generator, *, size: tuple[int, int], window: tuple[int, int]
    ) -> tuple[Move, Jitter]:
        """One move and one jitter.

        Args:
            random: of one frame in one epoch.
            size: height and width of the picture.
            window: of what is cut from it.
        """
        check_window(size, window)
        flip = bool(random.random() < self.flip)
        degrees = float(random.uniform(-self.degrees, self.degrees))
        top, left = (int(random.integers(0, side - want + 1)) for side, want in zip(size, window, strict=True))
        order = tuple(random.permutation(3).tolist())
        brightness, contrast, saturation = (
            float(random.uniform(max(0.0, 1 - most), 1 + most))
            for most in (self.brightness, self.contrast, self.saturation)
        )
        return Move(top, left, flip, degrees), Jitter(order, (brightness, contrast, saturation))


def check_window(size: tuple[int, int], window: tuple[int, int]) -> None:
    """Refuse to cut more from a picture than there is of it."""
    if window[0] > size[0] or window[1] > size[1]:
        raise InputError(
            f"A training crop of {window[0]}x{window[1]} pixels was asked for, and a picture has {size[0]}x{size[1]}. "
            "Give a smaller train_height or train_width, or more padding; all sides are multiples of 16."
        )


def jittered(picture: Picture, jitter: Jitter) -> Picture:
    """A picture with changed colours, one change after the other, with the values of Pillow's ``ImageEnhance``.

    Brightness and contrast change each of 256 values alike, so Pillow is asked what becomes of those.
    """
    from PIL import Image, ImageEnhance, ImageStat

    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    for number in jitter.order:
        factor = jitter.factors[number]
        if number == 2:
            picture = ImageEnhance.Color(picture).enhance(factor)
            continue
        grey = int(ImageStat.Stat(picture.convert("L")).mean[0] + 0.5) if number else 0
        table = Image.blend(Image.new("L", (256, 1), grey), ramp, factor).tobytes()
        picture = picture.point(3 * list(table))
    return picture


# ---- points as a whole: for the range view alone, since a picture can't follow them


def rotation(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """R = R_x(roll) R_y(pitch) R_z(yaw), angles in degrees."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.deg2rad([roll, pitch, yaw])) for f in (np.cos, np.sin))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    found: NDArray[np.float64] = x @ y @ z
    return found


def rotated(points: NDArray[np.float32], turn: NDArray[np.float64]) -> NDArray[np.float32]:
    """Points (n, 4) turned by a matrix (3, 3); remission stays."""
    return np.concatenate([(points[:, :3] @ turn.T).astype(np.float32), points[:, 3:]], axis=1)


def translated(points: NDArray[np.float32], by: tuple[float, float, float]) -> NDArray[np.float32]:
    """Points (n, 4) moved by so many metres."""
    return points + np.array([*by, 0.0], np.float32)


def flipped(points: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Points (n, 4) mirrored: the sign of x (0) or y (1) changes."""
    found = points.copy()
    found[:, axis] *= -1
    return found


@dataclass(frozen=True)
class PointAugmentation:
    """What is drawn for the points of each training frame, in the order in which it is applied.

    Attributes:
        flip_x: share of the clouds that are mirrored at x = 0.
        flip_y: likewise y.
        share: of each translation and rotation.
        metres: smallest and largest translation along x, y and z.
        degrees: largest roll, pitch and yaw to either side.
    """

    flip_x: float = 0.0
    flip_y: float = 0.5
    share: float = 0.5
    metres: tuple[tuple[float, float], ...] = ((-5.0, 5.0), (-3.0, 3.0), (-1.0, 0.0))
    degrees: tuple[float, float, float] = (5.0, 5.0, 5.0)

    def __call__(self, points: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
        """A cloud as a training pass sees it; the given one is left alone."""
        for axis, share in enumerate((self.flip_x, self.flip_y)):
            if random.random() < share:
                points = flipped(points, axis)
        moves = [random.uniform(*ends) if random.random() < self.share else 0.0 for ends in self.metres]
        turns = [random.uniform(-most, most) if random.random() < self.share else 0.0 for most in self.degrees]
        points = translated(points, (moves[0], moves[1], moves[2]))
        return rotated(points, rotation(turns[0], turns[1], turns[2]))
