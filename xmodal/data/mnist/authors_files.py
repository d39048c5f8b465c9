"""MNIST and MNIST-M as others store them: the two pickles of NTDH's code, and the picture folders of Ganin et al.

    root/
    ├── MNIST/mnist_data.pkl         dictionaries with the keys train, train_label, val, val_label:
    └── MNIST_M/mnist_m_data.pkl     pictures (n, 28, 28, 3) of uint8 and labels (n,); val is the test set of MNIST

    root/
    ├── train-images-idx3-ubyte.gz …                                the four files of MNIST
    └── mnist_m/
        ├── mnist_m_train/00000000.png …   mnist_m_test/…           32x32 pixels; the number is that of the digit
        └── mnist_m_train_labels.txt       mnist_m_test_labels.txt  lines "00000000.png 5"

Row i of both pickles is the same digit, in two pictures. The grey pictures have three equal channels, of which one is
used. Of Ganin's pictures the central 28x28 pixels are used; digits without a picture (there are 59,001 and 9,001) are
left out of both modalities. That a picture shows the digit of its number is checked by the labels of all.

Pickles are read as data (`xmodal.data.mosi.pickle_reader`): nothing in them is imported or called.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.mnist.backgrounds import SIDE
from xmodal.data.mnist.digits import PARTS, Digits
from xmodal.data.mosi.pickle_reader import opened, read_pickle
from xmodal.errors import InputError

PICKLES = {"mnist": Path("MNIST/mnist_data.pkl"), "mnist_m": Path("MNIST_M/mnist_m_data.pkl")}
KEYS = {"train": ("train", "train_label"), "t10k": ("val", "val_label")}
# Ganin's names of the two parts, and the side of his pictures
GANIN, GANIN_FOLDER, GANIN_SIDE = {"train": "train", "t10k": "test"}, "mnist_m", 32
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Paired:
    """Digits in both modalities.

    Attributes:
        digits: part → the grey pictures and their labels.
        coloured: part → (n, 3, 28, 28), row for row the same digits.
    """

    digits: dict[str, Digits]
    coloured: dict[str, Pixels]


# ---- the pickles of NTDH


def has_pickles(root: Path) -> bool:
    """Whether one of the two pickles is in a folder."""
    return any((root / path).is_file() for path in PICKLES.values())


def read_pickles(root: Path) -> Paired:
    """The digits of both pickles; all problems are reported together."""
    problems: list[str] = []
    found: dict[str, dict[str, tuple[Pixels, NDArray[np.int64]]]] = {}
    for modality, path in PICKLES.items():
        if not (root / path).is_file():
            problems.append(f"{root / path} is missing: the pickle of {modality} was expected beside the other one.")
            continue
        try:
            found[modality] = _read_pickle(root / path)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    grey, coloured = found["mnist"], found["mnist_m"]
    for part, (_, labels) in grey.items():
        others = coloured[part][1]
        if not np.array_equal(labels, others):
            what = f"{len(labels)} and {len(others)} labels"
            if len(labels) == len(others):
                row = int(np.flatnonzero(labels != others)[0])
                what = f"the labels {labels[row]} and {others[row]} in row {row}"
            problems.append(
                f"{PICKLES['mnist'].name} and {PICKLES['mnist_m'].name} have {what} under {KEYS[part][1]}: the same "
                "digits in the same order were expected."
            )
        if not (grey[part][0] == grey[part][0][..., :1]).all():
            problems.append(
                f"{PICKLES['mnist'].name} has coloured pictures under {KEYS[part][0]}: three equal channels were "
                "expected."
            )
    if problems:
        raise InputError(problems)
    return Paired(
        {part: Digits(np.ascontiguousarray(images[..., 0]), labels) for part, (images, labels) in grey.items()},
        {part: np.ascontiguousarray(images.transpose(0, 3, 1, 2)) for part, (images, _) in coloured.items()},
    )


def _read_pickle(path: Path) -> dict[str, tuple[Pixels, NDArray[np.int64]]]:
    """Part → pictures (n, 28, 28, 3) and labels of one pickle."""
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}: a dictionary was expected.")
    names = [name for pair in KEYS.values() for name in pair]
    missing = [name for name in names if name not in content]
    if missing:
        raise InputError(f"{path} has no {', '.join(missing)}: the keys {', '.join(names)} were expected.")
    parts, problems = {}, []
    for part, (pictures, labels) in KEYS.items():
        images, numbers = opened(content[pictures]), opened(content[labels])
        if not _is_pictures(images):
            problems.append(f"{path}: {pictures} is {_described(images)}: (n, 28, 28, 3) of uint8 was expected.")
        elif not _is_labels(numbers, len(images)):
            problems.append(
                f"{path}: {labels} is {_described(numbers)}: ({len(images)},) integers from 0 to 9 were expected."
            )
        else:
            parts[part] = (images, np.asarray(numbers, np.int64).reshape(-1))
    if problems:
        raise InputError(problems)
    return parts


def _is_pictures(images: Any) -> bool:
    return (
        isinstance(images, np.ndarray)
        and images.dtype == np.uint8
        and images.ndim == 4
        and images.shape[1:] == (SIDE, SIDE, 3)
        and len(images) > 0
    )


def _is_labels(labels: Any, count: int) -> bool:
    return (
        isinstance(labels, np.ndarray)
        and labels.dtype.kind in "iu"
        and labels.shape in ((count,), (count, 1))
        and 0 <= int(labels.min())
        and int(labels.max()) <= 9
    )


def _described(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return f"a {type(value).__name__}"
    limits = (
        f" from {value.min()} to {value.max()}" if value.ndim == 1 and value.dtype.kind in "iu" and len(value) else ""
    )
    return f"{value.shape} of {value.dtype}{limits}"


# ---- the folders of Ganin et al.


def ganin_folder(root: Path) -> Path | None:
    """The folder with the lists of MNIST-M: the root, or mnist_m in it; None if there is neither list."""
    for folder in (root / GANIN_FOLDER, root):
        if any(_list(folder, part).is_file() or _pictures(folder, part).is_dir() for part in PARTS):
            return folder
    return None


def read_ganin(folder: Path, digits: dict[str, Digits]) -> Paired:
    """The pictures of MNIST-M, and the digits of MNIST that have one; all problems are reported together.

    Args:
        folder: with the pictures and their lists.
        digits: of MNIST, all of them.
    """
    problems: list[str] = []
    rows: dict[str, NDArray[np.int64]] = {}
    for part in PARTS:
        try:
            rows[part] = _listed_rows(folder, part, digits[part])
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    chosen = {part: Digits(digits[part].images[rows[part]], digits[part].labels[rows[part]]) for part in PARTS}
    coloured = {
        part: np.stack([_read_picture(_pictures(folder, part) / f"{row:08d}.png") for row in rows[part].tolist()])
        for part in PARTS
    }
    return Paired(chosen, coloured)


def _list(folder: Path, part: str) -> Path:
    return folder / f"mnist_m_{GANIN[part]}_labels.txt"


def _pictures(folder: Path, part: str) -> Path:
    return folder / f"mnist_m_{GANIN[part]}"


def _listed_rows(folder: Path, part: str, digits: Digits) -> NDArray[np.int64]:
    """The numbers of the digits that a list names, after a check of its labels and files."""
    path = _list(folder, part)
    if not path.is_file():
        raise InputError(f"{path} is missing: lines such as '00000000.png 5' were expected, a picture and its label.")
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    matches = [re.fullmatch(r"(\d{8})\.png\s+(\d)", line.strip()) for line in lines]
    wrong = next((number for number, match in enumerate(matches) if match is None), None)
    if wrong is not None or not lines:
        line = lines[wrong][:40] if wrong is not None else ""
        raise InputError(f"{path} line {(wrong or 0) + 1} is '{line}': a line such as '00000000.png 5' was expected.")
    found = np.array([(int(match[1]), int(match[2])) for match in matches if match], np.int64)
    rows, labels = found[:, 0], found[:, 1]
    if rows.max() >= len(digits.labels):
        raise InputError(
            f"{path} names the digit {rows.max()}, and MNIST has {len(digits.labels)} in this part: is it the whole "
            "MNIST?"
        )
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"{path} names a picture twice: each once was expected.")
    differing = np.flatnonzero(digits.labels[rows] != labels)
    if len(differing):
        first = int(differing[0])
        raise InputError(
            f"{path} gives {len(differing)} pictures another label than MNIST gives the digit of that number, "
            f"{rows[first]:08d}.png among them ({labels[first]} and {digits.labels[rows[first]]}): these are not "
            "pictures of the same digits."
        )
    missing = [row for row in rows.tolist() if not (_pictures(folder, part) / f"{row:08d}.png").is_file()]
    if missing:
        first_file = _pictures(folder, part) / f"{missing[0]:08d}.png"
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{first_file} is missing{more}: {path.name} names it.")
    return rows


def _read_picture(path: Path) -> Pixels:
    """A picture (3, 28, 28): the central pixels of a larger one."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.uint8)
    # what Pillow raises for files that are damaged or of another kind
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} can't be read as a picture ({error}).") from None
    side = pixels.shape[0]
    if pixels.shape[:2] not in ((SIDE, SIDE), (GANIN_SIDE, GANIN_SIDE)):
        raise InputError(
            f"{path} has {pixels.shape[1]}x{pixels.shape[0]} pixels: {GANIN_SIDE}x{GANIN_SIDE} or {SIDE}x{SIDE} were "
            "expected."
        )
    edge = (side - SIDE) // 2
    return pixels[edge : edge + SIDE, edge : edge + SIDE].transpose(2, 0, 1)
