"""The files of MNIST and MNIST-M: the four IDX files, the prepared coloured digits, and scikit-learn's digits instead.

The layout of a folder is shown in `xmodal.data.mnist.dataset`.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xmodal.data.columns import ArrayFile, gather
from xmodal.data.mnist.authors_files import ganin_folder, has_pickles, read_ganin, read_pickles
from xmodal.data.mnist.backgrounds import SIDE, blend, find_pictures, read_pictures, textures
from xmodal.data.mnist.digits import PARTS, Digits, find_files, read_digits
from xmodal.data.mnist.idx import read_idx, write_idx
from xmodal.data.options import validated
from xmodal.data.own.write import check_new_folder
from xmodal.data.prepare import Item, Prepared, prepare_items
from xmodal.data.report import Report
from xmodal.errors import InputError, did_you_mean
from xmodal.files import read_json, write_json, written_whole

if TYPE_CHECKING:
    from xmodal.data.split import Column

# digits per prepared file: few enough files for a folder, and enough of them for several workers
BLOCK = 1000
# pixels by which a copy of a stand-in digit may be moved
MOVE = 1
BLENDED, FACTS = "mnist_m", "mnist_m.json"
BACKGROUND_SEED = 42
TEXTURES = "textures"
Pixels = NDArray[np.uint8]


class Facts(BaseModel):
    """Description of prepared files, in ``mnist_m.json``.

    Attributes:
        seed: of pictures and positions.
        backgrounds: folder of the pictures, or ``textures``.
        pictures: names of the pictures.
        digits: part → number of digits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    backgrounds: str
    pictures: tuple[str, ...] = ()
    digits: dict[str, int]


@functools.cache
def stand_in(samples: int = 1797, copies: int = 3, seed: int = 0) -> dict[str, Digits]:
    """scikit-learn's 8x8 digits in the form of MNIST: five sixths for training, the others for testing.

    Each digit is enlarged to 20x20 pixels inside 28x28. Training digits come in several copies, each moved by up to one
    pixel; test digits come once, centred. No digit is in both parts.

    Args:
        samples: number of digits.
        copies: of each training digit.
        seed: of the choice of test digits and of the moves.
    """
    from PIL import Image

    from xmodal.data.digits import read_pixels

    pixels, labels = read_pixels()
    random = np.random.default_rng([seed, samples])
    chosen = random.permutation(len(pixels))[:samples]
    large = np.zeros((samples, SIDE, SIDE), np.uint8)
    for row, number in enumerate(chosen):
        picture = Image.fromarray(np.minimum(16 * pixels[number].astype(int), 255).astype(np.uint8))
        resized = np.asarray(picture.resize((20, 20), Image.Resampling.BICUBIC))
        # mnist_m inverts the background wherever a pixel is not 0, so blurred edges would thicken the digit
        large[row, 4:24, 4:24] = np.where(resized >= 48, resized, 0)
    train_count = samples - samples // 6
    rows = np.repeat(np.arange(train_count), copies)
    moves = random.integers(-MOVE, MOVE + 1, (len(rows), 2))
    train = np.stack([np.roll(large[row], move, axis=(0, 1)) for row, move in zip(rows, moves.tolist(), strict=True)])
    return {
        "train": Digits(train, labels[chosen[rows]]),
        "t10k": Digits(large[train_count:], labels[chosen[train_count:]]),
    }


# ---- columns


class Grey:
    """Images (n, 28, 28) of several arrays or memory maps as one column (n, 1, 28, 28)."""

    def __init__(self, parts: Sequence[Pixels]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.shape, self.dtype = (int(self.ends[-1]), 1, SIDE, SIDE), np.dtype(np.uint8)

    def __getitem__(self, rows: Any) -> Pixels:
        return gather(rows, self.ends, lambda number: self.parts[number])[:, None]


class Blocks:
    """One column in several files with many samples each, mapped to memory."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = [ArrayFile(file) for file in files]
        shapes = {file.shape[1:] for file in self.files}
        if shapes != {(3, SIDE, SIDE)} or any(file.dtype != np.uint8 for file in self.files):
            raise InputError(f"{files[0].parent} holds arrays of other shapes than (n, 3, 28, 28). Prepare it again.")
        self.ends = np.cumsum([len(file) for file in self.files])
        self.shape, self.dtype = (int(self.ends[-1]), 3, SIDE, SIDE), np.dtype(np.uint8)

    def __getitem__(self, rows: Any) -> Pixels:
        return gather(rows, self.ends, lambda number: self.files[number].array)


@dataclass(frozen=True, slots=True)
class Opened:
    """The digits of a folder.

    Attributes:
        digits: part → the grey pictures and their labels.
        coloured: the column of mnist_m, part after part; None: the folder has none.
        facts: of the files that `prepare` wrote.
        source: where the coloured digits come from, for messages.
    """

    digits: dict[str, Digits]
    coloured: Column | None = None
    facts: Facts | None = None
    source: str = ""


def open_folder(root: Path) -> Opened:
    """The digits of a folder in any of the layouts, see `xmodal.data.mnist.dataset`."""
    if has_pickles(root):
        pair = read_pickles(root)
        return Opened(pair.digits, _joined(pair.coloured), source="the pickle of MNIST-M")
    digits = read_digits(root)
    if (root / FACTS).exists():
        column, facts = open_blended(root, digits)
        return Opened(digits, column, facts, str(root))
    if folder := ganin_folder(root):
        pair = read_ganin(folder, digits)
        return Opened(pair.digits, _joined(pair.coloured), source=f"the pictures in {folder}")
    return Opened(digits)


def _joined(parts: Mapping[str, Pixels]) -> Pixels:
    return np.concatenate([parts[part] for part in PARTS])


def open_blended(root: Path, digits: Mapping[str, Digits]) -> tuple[Blocks, Facts]:
    """The column that `prepare` wrote for some digits, and its description."""
    content = read_json(root / FACTS)
    # the version of the format, which `read_json` has checked
    content.pop("schema")
    facts = validated(Facts, content, str(root / FACTS))
    problems = [
        f"{root / FACTS} describes {facts.digits.get(part, 0)} {part} digits, and there are "
        f"{len(digits[part].labels)}. Prepare the folder again."
        for part in PARTS
        if len(digits[part].labels) != facts.digits.get(part, 0)
    ]
    files = [root / BLENDED / f"{name}.npy" for name in block_names(digits)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        problems.append(
            f"In {root / BLENDED}, {len(missing)} of {len(files)} files are missing, {missing[0]} among them. Prepare "
            "the folder again."
        )
    if problems:
        raise InputError(problems)
    return Blocks(files), facts


# ---- writing and preparing


@functools.lru_cache(maxsize=2)
def cached_textures(seed: int) -> list[Pixels]:
    """The procedural pictures of a seed, computed once per process."""
    return textures(seed)


def make(
    root: str | Path,
    *,
    format: str = "raw",
    seed: int = 0,
    samples: int = 1797,
    copies: int = 3,
) -> Path:
    """Write scikit-learn's digits as the four IDX files of MNIST.

    Args:
        root: a folder that is empty or does not exist.
        format: ``raw``: the four files; ``prepared``: mnist_m as well.
        seed: of the choice of test digits.
        samples: number of digits, 60 to 1797; one in six is for testing.
        copies: of each training digit, moved by up to one pixel.
    """
    root = Path(root)
    if format not in ("raw", "prepared"):
        raise InputError(f"There is no format '{format}'. {did_you_mean(format, ('raw', 'prepared'))}")
    if not 60 <= samples <= 1797 or copies < 1:
        raise InputError(f"samples is {samples} and copies is {copies}: expected 60 to 1797, and 1 or more.")
    check_new_folder(root)
    for part, digits in stand_in(samples, copies, seed).items():
        write_idx(root / f"{part}-images-idx3-ubyte.gz", digits.images)
        write_idx(root / f"{part}-labels-idx1-ubyte.gz", digits.labels.astype(np.uint8))
    if format == "prepared":
        prepare(root, root)
    return root


def prepare(
    raw: str | Path,
    root: str | Path,
    *,
    workers: int = 0,
    seed: int = BACKGROUND_SEED,
    backgrounds: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Compute MNIST-M and write it into a folder with the IDX files.

    Args:
        raw: folder with the four IDX files.
        root: folder to write, which may be the same; the IDX files are copied to it. The same folder again continues an
            interrupted run.
        workers: number of processes; 0: the current one.
        seed: of pictures and positions.
        backgrounds: folder of pictures; default: procedural textures.
        progress: called with (files so far, files in all).
    """
    raw, root = Path(raw), Path(root)
    digits = read_digits(raw)
    pictures = find_pictures(Path(backgrounds)) if backgrounds else []
    # pictures that can't be read stop here, before anything is written
    if pictures:
        read_pictures(pictures)
    files, _ = find_files(raw)
    root.mkdir(parents=True, exist_ok=True)
    if root.resolve() != raw.resolve():
        for path in files.values():
            with written_whole(root / path.name) as temporary:
                shutil.copyfile(path, temporary)
    items = [
        Item(
            f"{part}-{first:05d}",
            (str(files[f"{part} images"]), *map(str, pictures)),
            {"part": number, "first": first, "seed": seed},
        )
        for number, part in enumerate(PARTS)
        for first in range(0, len(digits[part].labels), BLOCK)
    ]
    # without its description, a half-prepared folder is opened as a folder that is not prepared
    (root / FACTS).unlink(missing_ok=True)
    prepared = prepare_items(items, blend_block, root, workers=workers, progress=progress)
    if prepared.skipped:
        raise InputError([f"{name} could not be written: {reason}" for name, reason in prepared.skipped])
    write_json(
        root / FACTS,
        {
            "seed": seed,
            "backgrounds": str(Path(backgrounds).absolute()) if backgrounds else TEXTURES,
            "pictures": [path.name for path in pictures],
            "digits": {part: len(digits[part].labels) for part in PARTS},
        },
    )
    return prepared


def block_names(digits: Mapping[str, Digits]) -> list[str]:
    """Names of the prepared files without suffix, in the order of their rows."""
    return [f"{part}-{first:05d}" for part in PARTS for first in range(0, len(digits[part].labels), BLOCK)]


def blend_block(item: Item) -> dict[str, Pixels]:
    """The digits of one file on their backgrounds."""
    images, facts = _images(item.sources[0]), item.facts
    first = facts["first"]
    pictures = _pictures(item.sources[1:]) if item.sources[1:] else cached_textures(facts["seed"])
    digits = images[first : first + BLOCK]
    return {BLENDED: blend(digits, pictures, seed=facts["seed"], part=facts["part"], first=first)}


# a worker computes many blocks of the same two files, from the same pictures
@functools.lru_cache(maxsize=2)
def _images(path: str) -> Pixels:
    return read_idx(Path(path), axes=3)


@functools.lru_cache(maxsize=1)
def _pictures(paths: tuple[str, ...]) -> list[Pixels]:
    return read_pictures([Path(path) for path in paths])[0]


# ---- checking


def check(root: Path) -> Report | None:
    """Problems of a folder with MNIST; None if it has none of the four files and neither pickle."""
    if not find_files(root)[0] and not has_pickles(root):
        return None
    report = Report()
    try:
        digits = open_folder(root).digits
    except InputError as error:
        report.errors += error.problems
        return report
    for part, content in digits.items():
        absent = sorted(set(range(10)) - set(np.unique(content.labels).tolist()))
        if absent:
            report.warnings.append(f"No digit of {part} has the label {', '.join(map(str, absent))}.")
    return report
