r"""Digits on coloured backgrounds: how MNIST-M is computed from MNIST.

$$m = |\, patch - 255 \cdot [digit > 0] \,|$$

The patch is cut at random from a random picture; where the digit has ink, the patch is inverted. Pictures come from a
folder, or are procedural textures. The random choices for a digit are a function of the seed and its number, so parts
of a data set may be computed in any order.

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
# the published folder, the training images of BSDS500, holds as many; all of them are kept in memory
MAX_PICTURES = 200
# longest side to which a larger picture is reduced; the published ones have 481
MAX_SIDE = 512
# points of a texture's random grids, and their weights: large blobs, smaller ones, and detail
GRIDS = ((3, 0.5), (7, 0.3), (17, 0.2))
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
Pixels = NDArray[np.uint8]


def compose(digits: Pixels, patches: Pixels) -> Pixels:
    """Digits (n, 28, 28) on patches (n, 3, 28, 28), which are inverted where a digit is not 0.

    Example:
        >>> compose(np.array([[[0, 7]]], np.uint8), np.array([[[[10, 10]], [[200, 200]]]], np.uint8)).tolist()
        [[[[10, 245]], [[200, 55]]]]
    """
    return np.where(digits[:, None] > 0, 255 - patches, patches)


def cut(pictures: Sequence[Pixels], which: NDArray[Any], tops: NDArray[Any], lefts: NDArray[Any]) -> Pixels:
    """Patches (n, 3, 28, 28) of pictures (height, width, 3).

    Args:
        pictures: to cut from.
        which: number of the picture of each patch.
        tops: first row of each patch.
        lefts: first column of each patch.
    """
    patches = np.empty((len(which), 3, SIDE, SIDE), np.uint8)
    for number in np.unique(which):
        rows = np.flatnonzero(which == number)
        windows = np.lib.stride_tricks.sliding_window_view(pictures[number], (SIDE, SIDE), axis=(0, 1))
        patches[rows] = windows[tops[rows], lefts[rows]]
    return patches


def blend(digits: Pixels, pictures: Sequence[Pixels], *, seed: int, part: int, first: int = 0) -> Pixels:
    """Digits on random backgrounds (n, 3, 28, 28).

    Args:
        digits: (n, 28, 28), consecutive digits.
        pictures: to cut from.
        seed: of the pictures and positions.
        part: number of the part (0 training, 1 test) that the digits belong to.
        first: number of the first digit within its part.
    """
    # three numbers per digit, and those of the digits before ``first`` are drawn and dropped: the background of a digit
    # does not depend on the block in which it is computed
    drawn = np.random.default_rng([seed, part]).random((first + len(digits), 3))[first:]
    which = (drawn[:, 0] * len(pictures)).astype(np.int64)
    room = np.array([picture.shape[:2] for picture in pictures])[which] - SIDE
    tops, lefts = (drawn[:, 1:] * room).astype(np.int64).T
    return compose(digits, cut(pictures, which, tops, lefts))


def textures(seed: int, *, count: int = 200, side: int = 96) -> list[Pixels]:
    """Procedural pictures (side, side, 3): per channel a sum of smooth noise of three sizes, scaled to 0 to 255.

    Args:
        seed: of the noise.
        count: number of pictures.
        side: of a picture, in pixels.
    """
    random = np.random.default_rng([seed, count, side])
    total = np.zeros((count, 3, side, side))
    for points, weight in GRIDS:
        grid = random.random((count, 3, points, points))
        weights = _bilinear(points, side)
        total += weight * (weights @ grid @ weights.T)
    low, high = (limit(total, axis=(2, 3), keepdims=True) for limit in (np.min, np.max))
    scaled = np.round(255 * (total - low) / (high - low)).astype(np.uint8)
    return list(np.ascontiguousarray(scaled.transpose(0, 2, 3, 1)))


def _bilinear(points: int, side: int) -> NDArray[np.float64]:
    """Interpolation weights (side, points) of a row of grid points, the outer two of which lie on the border."""
    position = np.linspace(0, points - 1, side)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(points)))


def find_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder and its subfolders, in the order of their paths, at most `MAX_PICTURES`."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: one with pictures for backgrounds was expected.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}): some were expected as backgrounds.")
    return paths[:MAX_PICTURES]


def read_pictures(paths: Sequence[Path]) -> tuple[list[Pixels], list[str]]:
    """Pictures (height, width, 3), and one sentence for each that can't be used; an error if none can be used."""
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
        # a JPEG is decoded at a fraction of its size where that is still large enough: much faster for photographs
        picture.draft("RGB", (MAX_SIDE, MAX_SIDE))
        colours = picture.convert("RGB")
        colours.thumbnail((MAX_SIDE, MAX_SIDE))
        pixels: Pixels = np.asarray(colours)
    if min(pixels.shape[:2]) <= SIDE:
        raise ValueError(
            f"{SIDE + 1}x{SIDE + 1} pixels or more were expected, it has {pixels.shape[1]}x{pixels.shape[0]}."
        )
    return pixels
