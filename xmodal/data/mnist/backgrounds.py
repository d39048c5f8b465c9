r"""Digits on coloured backgrounds: how MNIST-M is made from MNIST.

$$m = |\, patch - 255 \cdot [digit > 0] \,|$$

The patch is cut from a picture drawn for the digit, at a place drawn for it: where there is ink, the background shows
in its complementary colours. Pictures are those of a folder, or procedural textures. What is drawn for a digit depends
on the seed and its number alone, so that parts of a data set can be made in any order.

Reference: Ganin et al.: Domain-Adversarial Training of Neural Networks, JMLR 2016, arXiv 1505.07818.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError

SIDE = 28
MOST_PICTURES = 200  # as many as the published folder has; more would only take memory
LONGEST = 512  # side to which a larger picture is reduced; the published ones have 481
GRIDS = ((3, 0.5), (7, 0.3), (17, 0.2))  # points of a texture's random grids, and their weights
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
Pixels = NDArray[np.uint8]


def compose(digits: Pixels, patches: Pixels) -> Pixels:
    """Digits (n, 28, 28) on patches (n, 3, 28, 28), which are inverted where there is any ink.

    Example:
        >>> compose(np.array([[[0, 7]]], np.uint8), np.array([[[[10, 10]], [[200, 200]]]], np.uint8)).tolist()
        [[[[10, 245]], [[200, 55]]]]
    """
    return np.where(digits[:, None] > 0, 255 - patches, patches)


def cut(pictures: Sequence[Pixels], which: NDArray[Any], tops: NDArray[Any], lefts: NDArray[Any]) -> Pixels:
    """Patches (n, 3, 28, 28) of pictures (height, width, 3), by number of the picture and upper left corner."""
    patches = np.empty((len(which), 3, SIDE, SIDE), np.uint8)
    for number in np.unique(which):
        rows = np.flatnonzero(which == number)
        windows = np.lib.stride_tricks.sliding_window_view(pictures[number], (SIDE, SIDE), axis=(0, 1))
        patches[rows] = windows[tops[rows], lefts[rows]]
    return patches


def blend(digits: Pixels, pictures: Sequence[Pixels], *, seed: int, part: int, first: int = 0) -> Pixels:
    """Digits on backgrounds of their own (n, 3, 28, 28).

    Args:
        digits: (n, 28, 28), consecutive ones.
        pictures: to cut from.
        seed: of what is drawn.
        part: number of the part (0 training, 1 test) that the digits belong to.
        first: number of the first digit within its part.
    """
    # one row of numbers per digit: those before it are drawn and thrown away, so that any part gives the same
    drawn = np.random.default_rng([seed, part]).random((first + len(digits), 3))[first:]
    which = (drawn[:, 0] * len(pictures)).astype(np.int64)
    room = np.array([picture.shape[:2] for picture in pictures])[which] - SIDE
    tops, lefts = (drawn[:, 1:] * room).astype(np.int64).T
    return compose(digits, cut(pictures, which, tops, lefts))


def textures(seed: int, *, count: int = 200, side: int = 96) -> list[Pixels]:
    """Procedural pictures (side, side, 3): per channel a sum of smooth noise of three sizes, stretched to 0 to 255."""
    random = np.random.default_rng([seed, count, side])
    total = np.zeros((count, 3, side, side))
    for points, weight in GRIDS:
        grid = random.random((count, 3, points, points))
        between = _bilinear(points, side)
        total += weight * (between @ grid @ between.T)
    low, high = (limit(total, axis=(2, 3), keepdims=True) for limit in (np.min, np.max))
    stretched = np.round(255 * (total - low) / (high - low)).astype(np.uint8)
    return list(np.ascontiguousarray(stretched.transpose(0, 2, 3, 1)))


def _bilinear(points: int, side: int) -> NDArray[np.float64]:
    """Weights (side, points) of a line of grid points, of which the outer ones lie on the border."""
    at = np.linspace(0, points - 1, side)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(points)))


def find_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder and those below it, in the order of their paths, at most `MOST_PICTURES`."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: one with pictures for backgrounds was expected.")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}): some were expected as backgrounds.")
    return found[:MOST_PICTURES]


def read_pictures(paths: Sequence[Path]) -> tuple[list[Pixels], list[str]]:
    """Pictures (height, width, 3), and a sentence for each that can't be used; an error if none can."""
    pictures, problems = [], []
    for path in paths:
        try:
            pictures.append(_read(path))
        except (ValueError, OSError) as error:
            problems.append(f"The background {path.name} is left out: {error}")
    if not pictures:
        raise InputError(["None of the backgrounds can be used.", *problems[:3]])
    return pictures, problems


def _read(path: Path) -> Pixels:
    from PIL import Image

    with Image.open(path) as picture:
        picture.draft("RGB", (LONGEST, LONGEST))
        colours = picture.convert("RGB")
        colours.thumbnail((LONGEST, LONGEST))
        pixels: Pixels = np.asarray(colours)
    if min(pixels.shape[:2]) <= SIDE:
        raise ValueError(
            f"{SIDE + 1}x{SIDE + 1} pixels or more were expected, it has {pixels.shape[1]}x{pixels.shape[0]}."
        )
    return pixels
