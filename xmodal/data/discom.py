"""Demo data in the format of DisCoM-KD: two views of real digits, or a synthetic mixture whose latents are known.

DIR/
├── <modality>_data_normalized.npy    not normalised further
├── labels.npy
├── train_idx.npy  valid_idx.npy  test_idx.npy
└── train_idx_0.npy  valid_idx_0.npy  test_idx_0.npy  …    numbered splits

    variant      first              second
    digits       ROWS (64,)         FOU (40,), log(1 + |F|): without the phase, so 6 looks like 9
    pix-profile  PIX (1, 8, 8)      PROFILE (16,), means of columns and rows
    pix-coarse   PIX                COARSE (1, 4, 4), means of 2x2 blocks plus noise N(0, 0.15²)
    pix-noisy    PIX                NOISY (1, 8, 8), inverted plus noise N(0, 0.45²)
    halves       TOP (1, 4, 8)      BOTTOM (1, 4, 8)
    synthetic    A (40,)            B (40,), see `make_mixture`

Split i shuffles the rows of each class with the seed 1000 i: a share is for training, the next tenth for validation,
the rest for testing. Opened by its name, the data set is the variant ``digits`` with a tenth of the rows for training,
and the seed is the number of the split.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xmodal.data.digits import make_views, read_pixels
from xmodal.data.own.layout import NORMALISED
from xmodal.data.own.write import check_new_folder
from xmodal.data.prepare import write_npy
from xmodal.data.request import DataRequest
from xmodal.errors import InputError, did_you_mean
from xmodal.files import written_whole
from xmodal.names import SPLITS

if TYPE_CHECKING:
    from xmodal.data.base import Data

# variant → modality → view of the digits
VIEWS = {
    "digits": {"ROWS": "rows", "FOU": "fourier"},
    "pix-profile": {"PIX": "image", "PROFILE": "profile"},
    "pix-coarse": {"PIX": "image", "COARSE": "coarse"},
    "pix-noisy": {"PIX": "image", "NOISY": "noisy"},
    "halves": {"TOP": "top", "BOTTOM": "bottom"},
}
VARIANTS = (*VIEWS, "synthetic")
# share of training rows in the low-label setting, and of validation rows in every setting
FEW = 0.1
# the mixture: latents shared by both modalities, observed features, samples, classes
SHARED, WIDTH, SAMPLES, CLASSES = 8, 40, 3000, 6
# modality → number of specific latents, number of nuisance latents, strength of the noise: A is the easier one
SPECIFIC = {"A": (4, 8, 0.3), "B": (2, 24, 1.0)}


class DiscomSettings(BaseModel):
    """The demo has no options: its variants are written as files."""

    # the method discom has the same name, so its options may arrive under this key as well: they are not ours to refuse
    model_config = ConfigDict(extra="ignore", frozen=True)


def load(root: str | None, settings: DiscomSettings, request: DataRequest) -> Data:
    """The variant ``digits`` with a tenth of the rows for training, in memory.

    Args:
        root: None: nothing is read from disk. A folder that `make` wrote is opened by its path.
        settings: without fields.
        request: task ``multiclass``; the seed is the number of the split.
    """
    from xmodal.data.base import assemble

    if root is not None:
        raise InputError(f"The demo of DisCoM-KD is built in and reads no folder. Open {root} by its path instead.")
    request.check_task("discom", "multiclass")
    columns, labels, _ = _draw("digits")
    rows = draw_split(labels, FEW, request.seed)
    return assemble(
        columns,
        dict.fromkeys(columns, labels),
        {split: dict.fromkeys(columns, numbers) for split, numbers in rows.items()},
        class_names=tuple(str(digit) for digit in range(10)),
        request=request,
    )


def make(
    root: str | Path, *, variant: str = "digits", train_share: float = FEW, splits: int = 10, seed: int = 0
) -> Path:
    """Write a variant as a folder that every recipe reads.

    Args:
        root: a folder that is empty or does not exist.
        variant: digits, pix-profile, pix-coarse, pix-noisy, halves or synthetic.
        train_share: share of each class for training; a tenth is for validation, the rest for testing.
        splits: number of numbered splits.
        seed: number of the split whose files carry no number, and seed of the synthetic variant.
    """
    root = Path(root)
    if variant not in VARIANTS:
        raise InputError(f"There is no variant '{variant}'. {did_you_mean(variant, VARIANTS)}")
    if not 0 < train_share < 1 - FEW:
        raise InputError(f"train_share is {train_share:g}: expected more than 0 and less than {1 - FEW:g}.")
    check_new_folder(root)
    columns, labels, truth = _draw(variant, seed=seed)
    root.mkdir(parents=True, exist_ok=True)
    for name, column in columns.items():
        write_npy(root / f"{name}{NORMALISED}.npy", column)
    write_npy(root / "labels.npy", labels)
    for number in range(splits):
        _write_split(root, labels, train_share, number, f"_{number}")
    _write_split(root, labels, train_share, seed, "")
    if truth:
        with written_whole(root / "truth.npz") as temporary:
            np.savez(temporary, **truth)  # type: ignore[arg-type]
    return root


def draw_split(labels: NDArray[np.int64], train_share: float, number: int) -> dict[str, NDArray[np.int64]]:
    """Rows of one split: each class shuffled with the seed 1000 times the number, cut at whole rows.

    Example:
        >>> rows = draw_split(np.arange(40) % 2, 0.7, 3)
        >>> {split: len(numbers) for split, numbers in rows.items()}
        {'train': 28, 'valid': 4, 'test': 8}
    """
    # this seed, and the cuts at whole rows below, are those of the authors' script
    random = np.random.RandomState(1000 * number)
    parts: dict[str, list[NDArray[np.int64]]] = {split: [] for split in SPLITS}
    for value in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == value))
        # rounded before the floor: 0.7 + 0.1 is 0.7999…, which would cost a row wherever the product is whole
        cuts = [math.floor(round(share * len(rows), 9)) for share in (train_share, train_share + FEW)]
        for split, part in zip(SPLITS, np.split(rows, cuts), strict=True):
            parts[split].append(part)
    return {split: np.sort(np.concatenate(classes)).astype(np.int64) for split, classes in parts.items()}


def make_mixture(seed: int = 0) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64], dict[str, NDArray[Any]]]:
    r"""Two modalities of 3000 samples and six classes, and the latents from which they are computed.

    Both modalities share 8 latents, z = μ_y + N(0, 1) with μ ~ N(0, 1). A has 4 specific latents that depend on the
    class (class means ~ N(0, 0.7²), unit deviation) and 8 nuisance latents, N(0, 1.5²); B has 2 and 24. Each modality
    observes 40 features, tanh(W · all latents) + 0.3 · N(0, 1) · (0.3 in A, 1 in B), with entries of W ~ N(0, 1 /
    number of latents).

    Args:
        seed: of all draws.

    Returns:
        The modalities, the labels, and the latents by name.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, SAMPLES).astype(np.int64)
    shared = random.normal(size=(CLASSES, SHARED))[labels] + random.normal(size=(SAMPLES, SHARED))
    columns, truth = {}, {"shared": shared}
    for name, (width, nuisance_width, noise) in SPECIFIC.items():
        specific = random.normal(0, 0.7, size=(CLASSES, width))[labels] + random.normal(size=(SAMPLES, width))
        nuisance = random.normal(0, 1.5, size=(SAMPLES, nuisance_width))
        latents = np.hstack([shared, specific, nuisance])
        weights = random.normal(0, 1 / math.sqrt(latents.shape[1]), size=(latents.shape[1], WIDTH))
        observed = np.tanh(latents @ weights) + 0.3 * noise * random.normal(size=(SAMPLES, WIDTH))
        columns[name] = observed.astype(np.float32)
        truth |= {f"{name}_specific": specific, f"{name}_irrelevant": nuisance}
    return columns, labels, truth


def _draw(variant: str, *, seed: int = 0) -> tuple[dict[str, Any], NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Modalities, labels and latents of a variant; the digits have no latents, and no seed changes them."""
    if variant == "synthetic":
        return make_mixture(seed)
    pixels, labels = read_pixels()
    names = VIEWS[variant]
    views = make_views(pixels, range(len(pixels)), tuple(names.values()))
    return {modality: views[view] for modality, view in names.items()}, labels, {}


def _write_split(root: Path, labels: NDArray[np.int64], train_share: float, number: int, ending: str) -> None:
    for split, rows in draw_split(labels, train_share, number).items():
        write_npy(root / f"{split}_idx{ending}.npy", rows)
