"""Eight views of scikit-learn's 1,797 handwritten digits (8x8 pixels, values 0 to 16): real data, built in.

    view      shape      what it is (x = pixels / 16, so 0 is background and 1 is ink)
    image     (1, 8, 8)  x
    rows      (64,)      x, row after row
    fourier   (40,)      log(1 + |F|), F = orthonormal 2-D real Fourier transform of x, without its phase
    profile   (16,)      mean of each column, then of each row
    coarse    (1, 4, 4)  mean of each 2x2 block, plus noise N(0, 0.15²)
    noisy     (1, 8, 8)  1 - x plus noise N(0, 0.45²), clipped to [0, 1]
    top       (1, 4, 8)  the upper half of x
    bottom    (1, 4, 8)  the lower half of x

The noise of a sample is a function of its number: it is the same in every split and epoch. Raw files, as `make` writes
them and `prepare` reads them, are 8-bit grey PNGs, ``raw/<class>/<number>.png``, with 15 times the values.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xmodal.data.own.write import check_new_folder, write_description
from xmodal.data.prepare import Item, Prepared, prepare_items, write_npy
from xmodal.data.request import DataRequest
from xmodal.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from xmodal.data.base import Data

VIEWS = ("image", "rows", "fourier", "profile", "coarse", "noisy", "top", "bottom")
CLASS_NAMES = tuple(str(digit) for digit in range(10))
# pixel values 0 to 16 become 0 to 240: visible in a viewer, and exact when they are read back
PNG_SCALE = 15
Array = NDArray[np.float32]


class DigitsSettings(BaseModel):
    """Options of the built-in digits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    views: tuple[str, ...] = Field(VIEWS, description="views to use as modalities")
    train_share: float = Field(0.7, gt=0, lt=1, description="share of each class in the training split")
    valid_share: float = Field(0.1, gt=0, lt=1, description="share in the validation split")
    test_share: float = Field(
        0.2, gt=0, lt=1, description="share in the test split; 0.1, 0.1 and 0.8 are the low-label setting"
    )
    coarse_noise: float = Field(0.15, ge=0, description="standard deviation of the noise in coarse")
    noisy_noise: float = Field(0.45, ge=0, description="standard deviation of the noise in noisy")
    noise_seed: int = Field(0, ge=0, description="seed of the noise")
    paired: bool = Field(True, description="False: shuffle each view by itself, as unpaired data")

    @field_validator("views")
    @classmethod
    def _check_views(cls, views: tuple[str, ...]) -> tuple[str, ...]:
        for view in views:
            if view not in VIEWS:
                raise ValueError(f"there is no view '{view}'. {did_you_mean(view, VIEWS)}")
        if not views or len(set(views)) < len(views):
            raise ValueError(f"views are {', '.join(views) or 'none'}: at least one was expected, each of them once.")
        return views

    @model_validator(mode="after")
    def _check_shares(self) -> DigitsSettings:
        total = sum(self.shares)
        # 0.7 + 0.1 + 0.2 is not exactly 1 in floating point
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train_share, valid_share and test_share add up to {total:g}: 1 was expected.")
        return self

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the training, validation and test split."""
        return self.train_share, self.valid_share, self.test_share


def make_views(
    pixels: NDArray[Any],
    numbers: Sequence[int],
    views: Sequence[str] = VIEWS,
    *,
    settings: DigitsSettings | None = None,
) -> dict[str, Array]:
    """Compute views of some digits.

    Args:
        pixels: (samples, 8, 8), values 0 to 16.
        numbers: numbers of the samples among all digits; they seed the noise.
        views: names of the views.
        settings: strength and seed of the noise.
    """
    settings = settings or DigitsSettings()
    x = np.asarray(pixels, dtype=np.float64) / 16
    # functions, so that only the requested views are computed
    compute: dict[str, Callable[[], NDArray[np.float64]]] = {
        "image": lambda: x[:, None],
        "rows": lambda: x.reshape(len(x), 64),
        "fourier": lambda: np.log1p(np.abs(np.fft.rfft2(x, norm="ortho"))).reshape(len(x), 40),
        "profile": lambda: np.concatenate([x.mean(axis=1), x.mean(axis=2)], axis=1),
        "coarse": lambda: (
            x.reshape(-1, 1, 4, 2, 4, 2).mean(axis=(3, 5))
            + settings.coarse_noise * _noise("coarse", numbers, (1, 4, 4), settings.noise_seed)
        ),
        "noisy": lambda: np.clip(
            1 - x[:, None] + settings.noisy_noise * _noise("noisy", numbers, (1, 8, 8), settings.noise_seed), 0, 1
        ),
        "top": lambda: x[:, None, :4],
        "bottom": lambda: x[:, None, 4:],
    }
    return {view: np.ascontiguousarray(compute[view](), dtype=np.float32) for view in views}


def _noise(view: str, numbers: Sequence[int], shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """Standard normal noise, a function of seed, view and number of each sample."""
    # one generator per sample: any subset of the digits, in any order, gets the noise it has in the whole set
    drawn = [np.random.default_rng([seed, VIEWS.index(view), number]).standard_normal(shape) for number in numbers]
    return np.stack(drawn)


@functools.cache
def read_pixels() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All digits (1797, 8, 8) and their labels, from a file that comes with scikit-learn."""
    # the file is found without an import: that of scikit-learn takes a second
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None, "scikit-learn is a dependency"
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        # a version that keeps the file elsewhere
        from sklearn.datasets import load_digits

        bundle = load_digits()
        return bundle.images.astype(np.uint8), bundle.target.astype(np.int64)
    with gzip.open(file, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    return table[:, :-1].reshape(-1, 8, 8).astype(np.uint8), table[:, -1]


def load(root: str | None, settings: DigitsSettings, request: DataRequest) -> Data:
    """Three splits of the digits, drawn class by class; the views are not normalised further.

    Args:
        root: None: nothing is read from disk. A folder that `make` wrote is opened by its path.
        settings: views, shares and noise.
        request: task ``multiclass``; the seed draws the splits.
    """
    from xmodal.data.base import assemble
    from xmodal.data.draw import draw_splits

    if root is not None:
        raise InputError(f"The digits are built in and read no folder. Open {root} by its path instead.")
    request.check_task("digits", "multiclass")
    pixels, labels = read_pixels()
    targets = dict.fromkeys(settings.views, labels)
    return assemble(
        make_views(pixels, range(len(pixels)), settings.views, settings=settings),
        targets,
        draw_splits(targets, settings.shares, request.seed),
        paired=settings.paired,
        class_names=CLASS_NAMES,
        request=request,
    )


def make(root: str | Path, *, format: str = "prepared", seed: int = 0, samples: int = 1797) -> Path:
    """Write the digits in the folder layout of own data, or as the raw PNGs that `prepare` reads.

    Args:
        root: a folder that is empty or does not exist.
        format: ``prepared`` or ``raw``.
        seed: of the splits.
        samples: number of digits, from the first on.
    """
    root = Path(root)
    if format not in ("prepared", "raw"):
        raise InputError(f"There is no format '{format}'. {did_you_mean(format, ('prepared', 'raw'))}")
    if not 0 < samples <= 1797:
        raise InputError(f"samples is {samples}: there are 1797 digits, so expected 1 to 1797.")
    check_new_folder(root)
    root.mkdir(parents=True, exist_ok=True)
    pixels, labels = read_pixels()
    pixels, labels = pixels[:samples], labels[:samples]
    if format == "raw":
        _write_pngs(root, pixels, labels)
        return root
    for view, array in make_views(pixels, range(len(pixels))).items():
        write_npy(root / f"{view}.npy", array)
    _write_description(root, labels, seed)
    return root


def _write_pngs(root: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    from PIL import Image

    for digit in np.unique(labels).tolist():
        (root / "raw" / str(digit)).mkdir(parents=True)
    for number, (image, digit) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        Image.fromarray(image * np.uint8(PNG_SCALE)).save(root / "raw" / str(digit) / f"{number:04d}.png")


def _write_description(root: Path, labels: NDArray[np.int64], seed: int) -> None:
    from xmodal.data.draw import draw_splits

    drawn = draw_splits({"image": labels}, DigitsSettings().shares, seed)
    rows = {split: modalities["image"] for split, modalities in drawn.items()}
    write_description(root, name="digits", modalities=VIEWS, labels=labels, rows=rows, class_names=CLASS_NAMES)


def prepare(
    raw: str | Path,
    root: str | Path,
    *,
    workers: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Convert raw PNGs to the folder layout of own data: one file per sample and view.

    Args:
        raw: the folder ``raw``, or its parent.
        root: folder to write; the same folder again continues an interrupted run.
        workers: number of processes; 0: the current one.
        seed: of the splits.
        progress: called with (items so far, items in all).
    """
    raw, root = Path(raw), Path(root)
    raw = raw / "raw" if (raw / "raw").is_dir() else raw
    pictures = sorted(path for path in raw.glob("*/*.png") if path.parent.name in CLASS_NAMES)
    if not pictures:
        raise InputError(f"{raw} holds no digits: <class>/<number>.png was expected, with the classes 0 to 9.")
    classes = {path.stem: int(path.parent.name) for path in pictures}
    items = [Item(path.stem, (str(path),), {"class": classes[path.stem]}) for path in pictures]
    prepared = prepare_items(items, read_views, root, workers=workers, progress=progress)
    if not prepared.names:
        raise InputError(f"None of the {len(items)} pictures in {raw} can be read; {root / 'skipped.json'} says why.")
    # labels last, and only of the pictures that could be read: row i of every array is the same digit
    _write_description(root, np.array([classes[name] for name in prepared.names], dtype=np.int64), seed)
    return prepared


def read_views(item: Item) -> dict[str, Array]:
    """All views of one PNG."""
    from PIL import Image

    if not item.name.isdecimal():
        raise ValueError(f"the name {item.name} is no number")
    with Image.open(item.sources[0]) as picture:
        if picture.mode != "L" or picture.size != (8, 8):
            raise ValueError(f"8x8 grey pixels of 8 bits were expected, got {picture.size} {picture.mode}")
        pixels = np.asarray(picture) / PNG_SCALE
    return {view: array[0] for view, array in make_views(pixels[None], [int(item.name)]).items()}
