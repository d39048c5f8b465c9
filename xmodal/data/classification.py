"""scikit-learn's classes seen twice: two modalities, some shared columns, and the truth about them.

    a  (50,)  what the teacher sees: decisive columns 20 - shared to 39 - shared, noise elsewhere
    b  (50,)  what the student sees: decisive columns 0 to 19, noise elsewhere

Four classes are drawn by `make_classification` with fifty decisive columns, brought to mean 0 and deviation 1; each
modality keeps twenty of them, ``shared`` of which are the same, and has N(0, 1) noise in place of the others. The
numbers of the published experiment are drawn to the bit by seed 0 with ``as_published``.

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; read from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.data.prepare import write_npy
from xmodal.errors import InputError, did_you_mean
from xmodal.files import write_json

if TYPE_CHECKING:
    from xmodal.data.base import Data

MODALITIES = ("a", "b")  # the authors' x1, which the teacher sees, and x2, which the student sees
CLASSES, WIDTH, SEEN = 4, 50, 20  # SEEN: decisive columns of each modality
TEST_SHARE = 0.4
PUBLISHED_SEED = 42  # of everything in the authors' code
Floats = NDArray[np.float64]


class ClassificationSettings(BaseModel):
    """Options of the synthetic classes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shared: int = Field(
        10,
        ge=0,
        le=SEEN,
        description="informative features that both modalities contain, of 20 in each; the published γ is shared / 20",
    )
    samples: int = Field(10_000, ge=100, description="number of samples; 40 % of them are the test split")
    valid_share: float = Field(0.1, gt=0, lt=1, description="share of the training rows that choose the epoch")
    random_state: int | None = Field(
        None, ge=0, lt=2**32, description="seed of the samples and their split; None: 42 plus the seed"
    )
    noise_seed: int | None = Field(None, ge=0, lt=2**32, description="seed of the noise; None: 42 plus the seed")
    scale_on_all: bool = Field(False, description="standardise with all rows, the test rows among them")
    valid_in_train: bool = Field(
        False, description="train on the validation rows as well: only for runs that choose no epoch"
    )
    as_published: bool = Field(False, description="as in the authors' code: --scale-on-all --valid-in-train")

    @model_validator(mode="after")
    def _published(self) -> ClassificationSettings:
        if self.as_published:
            object.__setattr__(self, "scale_on_all", True)
            object.__setattr__(self, "valid_in_train", True)
        return self


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of one split.

    Attributes:
        decisive: (rows, 50) what `make_classification` drew, scaled; nobody sees it whole.
        a: (rows, 50) what the teacher sees.
        b: (rows, 50) what the student sees.
        label: (rows,) classes 0 to 3.
    """

    decisive: Floats
    a: Floats
    b: Floats
    label: NDArray[np.int64]


def columns_of(modality: str, shared: int) -> range:
    """The decisive columns that a modality sees; those of a lie ``20 - shared`` to the right of those of b.

    Example:
        >>> columns_of("a", 5), columns_of("b", 5)
        (range(15, 35), range(0, 20))
    """
    first = SEEN - shared if modality == "a" else 0
    return range(first, first + SEEN)


def draw(
    *,
    shared: int,
    samples: int = 10_000,
    random_state: int = PUBLISHED_SEED,
    noise_seed: int = PUBLISHED_SEED,
    scale_on_all: bool = False,
) -> dict[str, Samples]:
    """Training and test samples, in the order of the authors' draws.

    Args:
        shared: decisive columns that both modalities see, 0 to 20.
        samples: in all.
        random_state: of the samples and their split.
        noise_seed: of NumPy's legacy generator, from which the noise of b and of a comes, first for training.
        scale_on_all: mean and deviation of all rows, as published, in place of those of the training rows.
    """
    from sklearn.datasets import make_classification
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    x, y = make_classification(
        n_samples=samples,
        n_classes=CLASSES,
        n_features=WIDTH,
        n_informative=WIDTH,
        n_redundant=0,
        n_clusters_per_class=1,
        random_state=random_state,
    )
    scaler = StandardScaler()
    if scale_on_all:
        x = scaler.fit_transform(x)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=TEST_SHARE, random_state=random_state)
    if not scale_on_all:
        x_train = scaler.fit_transform(x_train)
        x_test = scaler.transform(x_test)
    random = np.random.RandomState(noise_seed)
    found = {}
    for split, part, label in (("train", x_train, y_train), ("test", x_test, y_test)):
        seen = {modality: random.standard_normal(part.shape) for modality in ("b", "a")}
        for modality, values in seen.items():
            kept = columns_of(modality, shared)
            values[:, kept] = part[:, kept]
        found[split] = Samples(part, seen["a"], seen["b"], label.astype(np.int64))
    return found


def load(
    root: str | None,
    settings: ClassificationSettings,
    *,
    task: str = "",
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
) -> Data:
    """Three splits, used as they are.

    Args:
        root: None, nothing is read from disk; a folder that `make` wrote is opened by its path.
        settings: how much is shared, and how the samples are drawn.
        task: empty or ``multiclass``.
        train_fraction: share of the training rows to keep.
        augment: operations for training batches, see `Augment.parse`.
        seed: of samples and noise unless they have seeds of their own, of the validation rows, the train fraction and
            the augmentation.
    """
    from xmodal.data.base import assemble

    if root is not None:
        raise InputError(f"The classification data is built in and reads no folder. Open {root} by its path instead.")
    if task not in ("", "multiclass"):
        raise InputError(f"The classification data has the task multiclass; {task} was asked for. Leave the task out.")
    columns, label, rows = _joined(settings, seed)
    data = assemble(
        columns,
        dict.fromkeys(MODALITIES, label),
        {split: dict.fromkeys(MODALITIES, numbers) for split, numbers in rows.items()},
        class_names=tuple(str(number) for number in range(CLASSES)),
        train_fraction=train_fraction,
        augment=augment,
        seed=seed,
    )
    if settings.valid_in_train:
        data.warnings.append("The validation rows are training rows as well: an epoch that they choose is overfitted.")
    return data


def _joined(
    settings: ClassificationSettings, seed: int
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Columns and labels of training and test samples, one after the other, and the rows of each split."""
    usual = (PUBLISHED_SEED + seed) % 2**32
    found = draw(
        shared=settings.shared,
        samples=settings.samples,
        random_state=usual if settings.random_state is None else settings.random_state,
        noise_seed=usual if settings.noise_seed is None else settings.noise_seed,
        scale_on_all=settings.scale_on_all,
    )
    train, test = found["train"], found["test"]
    columns = {
        name: np.concatenate([getattr(train, name), getattr(test, name)]).astype(np.float32) for name in MODALITIES
    }
    valid = _held_out(train.label, settings.valid_share, seed)
    rows = {
        "train": np.arange(len(train.label)) if settings.valid_in_train else np.flatnonzero(~valid),
        "valid": np.flatnonzero(valid),
        "test": len(train.label) + np.arange(len(test.label)),
    }
    return columns, np.concatenate([train.label, test.label]), rows


def _held_out(label: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """A share of the rows of each class, from a stream that no published number comes from."""
    random = np.random.default_rng([seed, PUBLISHED_SEED])
    held = np.zeros(len(label), dtype=np.bool_)
    for value in range(CLASSES):
        rows = random.permutation(np.flatnonzero(label == value))
        held[rows[: max(1, round(share * len(rows)))]] = True
    return held


def truth(shared: int) -> dict[str, Any]:
    """What is shared and what is not, as JSON: α, β and γ as shares of the decisive columns, and where these are.

    The published γ divides by the 20 columns that a modality sees; ``gamma`` by all that are seen, as for `gaussian`.
    """
    seen = {name: columns_of(name, shared) for name in MODALITIES}
    common = set(seen["a"]) & set(seen["b"])
    own = (SEEN - shared) / SEEN
    return {
        "decisive": len({*seen["a"], *seen["b"]}),
        "alpha": own,
        "beta": own,
        "gamma": shared / (2 * SEEN - shared),
        "published_gamma": shared / SEEN,
        "modalities": {
            name: {
                "width": WIDTH,
                "shared": sorted(common),
                "specific": [column for column in columns if column not in common],
            }
            for name, columns in seen.items()
        },
    }


def make(
    root: str | Path, *, format: str = "prepared", seed: int = 0, settings: ClassificationSettings | None = None
) -> Path:
    """Write the data as a folder with own data, and the truth about it as ``truth.json`` beside.

    Args:
        root: a folder that is empty or does not exist.
        format: ``prepared``; there are no raw files.
        seed: of samples, noise and validation rows.
        settings: how much is shared, and how the samples are drawn.
    """
    root, settings = Path(root), settings or ClassificationSettings()
    if format != "prepared":
        raise InputError(f"There is no format '{format}'. {did_you_mean(format, ('prepared',))}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} is there already: an empty or new folder was expected. Choose another one.")
    columns, label, rows = _joined(settings, seed)
    arrays: dict[str, NDArray[Any]] = {**columns, "labels": label}
    for name, array in arrays.items():
        write_npy(root / f"{name}.npy", array)
    for split, numbers in rows.items():
        write_npy(root / f"{split}_idx.npy", numbers)
    write_json(
        root / "data.json",
        {
            "name": "classification",
            "modalities": list(MODALITIES),
            "task": "multiclass",
            "class_names": [str(number) for number in range(CLASSES)],
            "paired": True,
            "normalise": dict.fromkeys(MODALITIES, "none"),
        },
    )
    write_json(root / "truth.json", truth(settings.shared))
    return root
