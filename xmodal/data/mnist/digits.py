"""The digits of MNIST: the four IDX files, each with or without .gz."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xmodal.data.mnist.backgrounds import SIDE
from xmodal.data.mnist.idx import read_idx
from xmodal.errors import InputError

PARTS = ("train", "t10k")
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Digits:
    """The digits of one part.

    Attributes:
        images: (n, 28, 28).
        labels: (n,) 0 to 9.
    """

    images: Pixels
    labels: NDArray[np.int64]


def find_files(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Role (``train images``, …) → file, and one sentence for each that is missing."""
    # copies of MNIST name the files with a dash or a dot before idx, with or without .gz
    files, problems = {}, []
    for part in PARTS:
        for what, axes in (("images", 3), ("labels", 1)):
            stems = [f"{part}-{what}{dot}idx{axes}-ubyte" for dot in "-."]
            names = [stem + suffix for stem in stems for suffix in ("", ".gz")]
            paths = [root / name for name in names if (root / name).is_file()]
            if paths:
                files[f"{part} {what}"] = paths[0]
            else:
                problems.append(f"{root} has no {names[0]} (or {names[1]}).")
    return files, problems


def read_digits(root: Path) -> dict[str, Digits]:
    """The digits of both parts; all problems of the files are reported together."""
    files, problems = find_files(root)
    arrays: dict[str, Pixels] = {}
    for role, path in files.items():
        try:
            arrays[role] = read_idx(path, axes=3 if role.endswith("images") else 1)
        except InputError as error:
            problems += error.problems
    for role, array in arrays.items():
        name = files[role].name
        if role.endswith("images") and array.shape[1:] != (SIDE, SIDE):
            problems.append(f"{name} holds pictures of {array.shape[1]}x{array.shape[2]}: {SIDE}x{SIDE} was expected.")
        if role.endswith("labels") and array.max() > 9:
            problems.append(f"{name} holds the label {array.max()}: 0 to 9 were expected.")
    for part in PARTS:
        images, labels = (arrays.get(f"{part} {what}") for what in ("images", "labels"))
        if images is not None and labels is not None and len(images) != len(labels):
            names = [files[f"{part} {what}"].name for what in ("images", "labels")]
            problems.append(
                f"{names[0]} has {len(images)} digits and {names[1]} has {len(labels)} labels: one for each was "
                "expected."
            )
    if problems:
        raise InputError(problems)
    return {part: Digits(arrays[f"{part} images"], arrays[f"{part} labels"].astype(np.int64)) for part in PARTS}
