"""Synthetic classes in two modalities that share some of their informative features, by scikit-learn.

    a  (50,)  the teacher's modality: informative features 20 - shared to 39 - shared, noise elsewhere
    b  (50,)  the student's modality: informative features 0 to 19, noise elsewhere

Four classes are drawn by `make_classification` with fifty informative features, which are standardised. Each modality
keeps twenty of them, ``shared`` of which are the same, and has N(0, 1) noise in place of the others. Seed 0 with
``as_published`` draws the data of the published experiment, bit for bit.

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; details from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.data.own.write import check_new_folder, write_description
from xmodal.data.prepare import write_npy
from xmodal.data.request import DataRequest
from xmodal.errors import InputError, did_you_mean
from xmodal.files import write_json

if TYPE_CHECKING:
    from xmodal.data.base import Data

# the authors' x1, the teacher's modality, and x2, the student's
MODALITIES = ("a", "b")
# of the published experiment: classes, features, and informative features of each modality
CLASSES, WIDTH, SEEN = 4, 50, 20
CLASS_NAMES = tuple(map(str, range(CLASSES)))
TEST_SHARE = 0.4
# the authors' code uses it for the samples, their split and the noise
PUBLISHED_SEED = 42
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
    random_state: int | None = Field(None, ge=0, lt=2**32, description="seed of the samples; None: 42 plus the seed")
    split_seed: int | None = Field(
        None, ge=0, lt=2**32, description="seed of training and test rows; None: that of the samples, as published: 42"
    )
    noise_seed: int | None = Field(None, ge=0, lt=2**32, description="seed of the noise; None: 42 plus the seed")
    scale_on_all: bool = Field(False, description="standardise with all rows, the test rows among them")
    valid_in_train: bool = Field(
        False, description="train on the validation rows as well: only for runs that choose no epoch"
    )
    as_published: bool = Field(
        False, description="as in the authors' code: --scale-on-all --valid-in-train, and --split-seed 42"
    )

    @model_validator(mode="after")
    def _published(self) -> ClassificationSettings:
        # a frozen model refuses plain assignment, also from its own validator
        if self.as_published:
            object.__setattr__(self, "scale_on_all", True)
            object.__setattr__(self, "valid_in_train", True)
            # their code splits by 42 whatever the seed of its samples
            if self.split_seed is None:
                object.__setattr__(self, "split_seed", PUBLISHED_SEED)
        return self


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of one split.

    Attributes:
        decisive: (rows, 50) all informative features, standardised; no modality contains them all.
        a: (rows, 50) the teacher's modality.
        b: (rows, 50) the student's modality.
        label: (rows,) classes 0 to 3.
    """

    decisive: Floats
    a: Floats
    b: Floats
    label: NDArray[np.int64]


def columns_of(modality: str, shared: int) -> range:
    """The informative features in a modality; those of a lie ``20 - shared`` to the right of those of b.

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
    split_seed: int | None = None,
    noise_seed: int = PUBLISHED_SEED,
    scale_on_all: bool = False,
) -> dict[str, Samples]:
    """Training and test samples, in the order in which the authors' code draws them.

    Args:
        shared: informative features that both modalities contain, 0 to 20.
        samples: number of training and test samples together.
        random_state: seed of the samples.
        split_seed: seed of training and test rows; None: that of the samples.
        noise_seed: seed of the noise.
        scale_on_all: standardise with the statistics of all rows, as published, in place of the training rows.
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
    split_seed = random_state if split_seed is None else split_seed
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=TEST_SHARE, random_state=split_seed)
    if not scale_on_all:
        x_train = scaler.fit_transform(x_train)
        x_test = scaler.transform(x_test)
    # the legacy generator, and noise drawn for training before testing and for b before a: the order of the authors
    random = np.random.RandomState(noise_seed)
    samples_of: dict[str, Samples] = {}
    for split, part, label in (("train", x_train, y_train), ("test", x_test, y_test)):
        views = {modality: random.standard_normal(part.shape) for modality in ("b", "a")}
        for modality, view in views.items():
            kept = columns_of(modality, shared)
            view[:, kept] = part[:, kept]
        samples_of[split] = Samples(part, views["a"], views["b"], label.astype(np.int64))
    return samples_of


def load(root: str | None, settings: ClassificationSettings, request: DataRequest) -> Data:
    """Three splits, without further normalisation.

    Args:
        root: None: nothing is read from disk. A folder that `make` wrote is opened by its path.
        settings: how many features are shared, and how the samples are drawn.
        request: task ``multiclass``; the seed draws the validation rows, and samples and noise where the settings
            hold no seeds for them.
    """
    from xmodal.data.base import assemble

    if root is not None:
        raise InputError(f"The classification data is built in and reads no folder. Open {root} by its path instead.")
    request.check_task("classification", "multiclass")
    columns, label, rows = _joined(settings, request.seed)
    data = assemble(
        columns,
        dict.fromkeys(MODALITIES, label),
        {split: dict.fromkeys(MODALITIES, numbers) for split, numbers in rows.items()},
        class_names=CLASS_NAMES,
        request=request,
    )
    if settings.valid_in_train:
        data.warnings.append("The validation rows are training rows as well: an epoch that they choose is overfitted.")
    return data


def _joined(
    settings: ClassificationSettings, seed: int
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Columns and labels of training and test samples, one after the other, and the rows of each split."""
    default_seed = (PUBLISHED_SEED + seed) % 2**32
    parts = draw(
        shared=settings.shared,
        samples=settings.samples,
        random_state=default_seed if settings.random_state is None else settings.random_state,
        split_seed=settings.split_seed,
        noise_seed=default_seed if settings.noise_seed is None else settings.noise_seed,
        scale_on_all=settings.scale_on_all,
    )
    train, test = parts["train"], parts["test"]
    columns = {
        name: np.concatenate([getattr(train, name), getattr(test, name)]).astype(np.float32) for name in MODALITIES
    }
    # the authors' code has no validation rows: ours come out of the training rows, so that the test rows stay theirs
    valid = _held_out(train.label, settings.valid_share, seed)
    rows = {
        "train": np.arange(len(train.label)) if settings.valid_in_train else np.flatnonzero(~valid),
        "valid": np.flatnonzero(valid),
        "test": len(train.label) + np.arange(len(test.label)),
    }
    return columns, np.concatenate([train.label, test.label]), rows


def _held_out(label: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """A share of the rows of each class."""
    # a generator of its own: drawing from the one above would change the published samples
    random = np.random.default_rng([seed, PUBLISHED_SEED])
    held = np.zeros(len(label), dtype=np.bool_)
    for value in range(CLASSES):
        rows = random.permutation(np.flatnonzero(label == value))
        held[rows[: max(1, round(share * len(rows)))]] = True
    return held


def truth(shared: int) -> dict[str, Any]:
    """Which features are shared and which are specific, as JSON, with α, β and γ of the modality focusing hypothesis.

    The published γ divides the shared features by the 20 of one modality; ``gamma`` divides them by those of both
    modalities together, as for the data set gaussian.
    """
    informative = {name: columns_of(name, shared) for name in MODALITIES}
    common = set(informative["a"]) & set(informative["b"])
    specific_share = (SEEN - shared) / SEEN
    return {
        "decisive": len({*informative["a"], *informative["b"]}),
        "alpha": specific_share,
        "beta": specific_share,
        "gamma": shared / (2 * SEEN - shared),
        "published_gamma": shared / SEEN,
        "modalities": {
            name: {
                "width": WIDTH,
                "shared": sorted(common),
                "specific": [column for column in columns if column not in common],
            }
            for name, columns in informative.items()
        },
    }


def make(
    root: str | Path, *, format: str = "prepared", seed: int = 0, settings: ClassificationSettings | None = None
) -> Path:
    """Write the data in the folder layout of own data, and in ``truth.json`` which features are shared.

    Args:
        root: a folder that is empty or does not exist.
        format: ``prepared``; there are no raw files.
        seed: of samples, noise and validation rows.
        settings: how many features are shared, and how the samples are drawn.
    """
    root, settings = Path(root), settings or ClassificationSettings()
    if format != "prepared":
        raise InputError(f"There is no format '{format}'. {did_you_mean(format, ('prepared',))}")
    check_new_folder(root)
    columns, label, rows = _joined(settings, seed)
    for name, array in columns.items():
        write_npy(root / f"{name}.npy", array)
    write_description(
        root, name="classification", modalities=MODALITIES, labels=label, rows=rows, class_names=CLASS_NAMES
    )
    write_json(root / "truth.json", truth(settings.shared))
    return root
