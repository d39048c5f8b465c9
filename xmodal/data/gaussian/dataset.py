"""Gaussian pairs as a data set: two modalities, some common information, and the truth about it.

    a  (a_width,)  what the teacher sees in the published experiments
    b  (b_width,)  what the student sees

By default both see five common decisive features and five of their own. The published experiments on modality focusing
are there by name; who sees what, and how samples are drawn, is in `gaussian_draws`. A seed draws other samples and
another hyperplane.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.data.gaussian.draws import (
    MODALITIES,
    Design,
    Noise,
    Pairs,
    arranged,
    aside,
    counts_of,
    draw,
    draw_removal,
    draw_sweep,
    increase_alpha,
    increase_gamma,
    modify_gamma,
)
from xmodal.data.prepare import write_npy
from xmodal.errors import InputError, did_you_mean
from xmodal.files import write_json

if TYPE_CHECKING:
    from xmodal.data.base import Data

Count = int | None
COUNTS = {"shared": 5, "a_only": 5, "b_only": 5}  # defaults, where neither numbers nor shares are given
PUBLISHED = {  # experiment → the options that it reads besides the numbers of rows, with their defaults
    "increase-gamma": {"shared": 4},
    "increase-alpha": {"a_only": 10},
    "modify-gamma": {"a_only": 10, "shared": 10},
}
ROWS = ("train", "valid", "test")


class GaussianSettings(BaseModel):
    """Options of the Gaussian pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: Literal["own", "increase-gamma", "increase-alpha", "modify-gamma"] = Field(
        "own",
        description="own, or a published experiment: increase-gamma reads shared, increase-alpha a_only, modify-gamma "
        "both, and each fixes everything else but the numbers of rows",
    )
    shared: Count = Field(None, ge=0, description="decisive features in both modalities; None: 5, or as the shares say")
    a_only: Count = Field(None, ge=0, description="decisive features only in a; None: 5, or as the shares say")
    b_only: Count = Field(None, ge=0, description="decisive features only in b; None: 5, or as the shares say")
    unseen: int = Field(
        0, ge=0, description="decisive features in neither modality: they bound the accuracy that can be reached"
    )
    decisive: int = Field(
        15, ge=1, description="decisive features in a or b, where alpha, beta or gamma is set in place of numbers"
    )
    alpha: float | None = Field(None, ge=0, le=1, description="share of a's decisive features that are not in b")
    beta: float | None = Field(None, ge=0, le=1, description="share of b's decisive features that are not in a")
    gamma: float | None = Field(
        None, ge=0, le=1, description="share of the decisive features in a or b that are in both"
    )
    a_width: int = Field(25, ge=1, description="channels of a; those without a decisive feature are noise")
    b_width: int = Field(25, ge=1, description="channels of b; those without a decisive feature are noise")
    a_noise: float = Field(0.0, ge=0, description="standard deviation of the noise on a's decisive channels")
    b_noise: float = Field(0.0, ge=0, description="standard deviation of the noise on b's decisive channels")
    label_noise: float = Field(0.0, ge=0, le=1, description="share of the labels drawn at random")
    classes: int = Field(2, ge=2, description="number of classes: 2 by one hyperplane, more by the largest of as many")
    train: int = Field(200, ge=2, description="training rows")
    valid: int = Field(200, ge=2, description="validation rows")
    test: int = Field(1000, ge=2, description="test rows")

    @model_validator(mode="after")
    def _possible(self) -> GaussianSettings:
        free = {"experiment", *ROWS, *PUBLISHED.get(self.experiment, type(self).model_fields)}
        changed = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        fixed = ", ".join(name for name in changed if name not in free)
        if fixed:
            raise ValueError(f"the experiment {self.experiment} fixes {fixed}. Leave out what it fixes.")
        if not design_of(self).decisive:
            raise ValueError("no feature is decisive, so no label can be made. Raise shared, a_only, b_only or unseen.")
        return self


def design_of(settings: GaussianSettings) -> Design:
    """Who sees what: the truth about the samples that these settings draw."""
    counts = {name: getattr(settings, name) for name in COUNTS}
    shares = {name: getattr(settings, name) for name in ("alpha", "beta", "gamma")}
    given = [share for share in shares.values() if share is not None]
    if given and any(count is not None for count in counts.values()):
        raise InputError("Numbers of features and shares of them were given: expected one or the other.")
    if given:
        counts = dict(zip(COUNTS, counts_of(settings.decisive, **shares), strict=True))
    usual = {**COUNTS, **PUBLISHED.get(settings.experiment, {})}
    used = {name: usual[name] if count is None else count for name, count in counts.items()}
    if settings.experiment == "increase-gamma":
        return increase_gamma(used["shared"])
    if settings.experiment == "increase-alpha":
        return increase_alpha(used["a_only"])
    if settings.experiment == "modify-gamma":
        return modify_gamma(used["a_only"], used["shared"])
    return arranged(**used, unseen=settings.unseen, a_width=settings.a_width, b_width=settings.b_width)


def draw_splits_of(settings: GaussianSettings, seed: int) -> dict[str, Pairs]:
    """Samples of the three splits, each from a stream of its own, so that one's size doesn't change another."""
    rows = {split: getattr(settings, split) for split in ROWS}
    design = design_of(settings)
    if settings.experiment == "modify-gamma":
        found = draw_removal(design, seed, **rows)
        return {split: found[split] for split in ROWS}
    if settings.experiment != "own":
        return draw_sweep(design, seed, **rows)
    shape = (design.decisive,) if settings.classes == 2 else (design.decisive, settings.classes)
    hyperplane = aside(seed, 1).standard_normal(shape)
    noise = Noise({"a": settings.a_noise, "b": settings.b_noise}, settings.label_noise)
    streams = {split: aside(seed, 2 + number) for number, split in enumerate(ROWS)}
    return {split: draw(design, hyperplane, rows[split], streams[split], noise=noise) for split in ROWS}


def load(
    root: str | None,
    settings: GaussianSettings,
    *,
    task: str = "",
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
) -> Data:
    """Three splits of Gaussian pairs, drawn from the seed and used as they are.

    Args:
        root: None, nothing is read from disk; a folder that `make` wrote is opened by its path.
        settings: who sees what, and how many rows.
        task: empty, ``multiclass``, or with two classes ``binary``.
        train_fraction: share of the training rows to keep.
        augment: operations for training batches, see `Augment.parse`.
        seed: of the samples, the hyperplane, the train fraction and the augmentation.
    """
    if root is not None:
        raise InputError(f"The Gaussian pairs are built in and read no folder. Open {root} by its path instead.")
    if task not in ("", "multiclass", *["binary"] * (settings.classes == 2)):
        raise InputError(f"The Gaussian pairs have {settings.classes} classes; {task} was asked for. Leave it out.")
    return as_data(
        draw_splits_of(settings, seed),
        classes=settings.classes,
        task=task,
        train_fraction=train_fraction,
        augment=augment,
        seed=seed,
    )


def as_data(
    samples: dict[str, Pairs],
    *,
    classes: int = 2,
    task: str = "",
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
) -> Data:
    """Splits of pairs (``train``, ``valid``, ``test``; others are left out) as data.

    Args:
        samples: split → samples.
        classes: how many, even if the samples show fewer.
        task: empty, ``multiclass`` or ``binary``.
        train_fraction: share of the training rows to keep.
        augment: operations for training batches.
        seed: of the train fraction and the augmentation.
    """
    from xmodal.data.base import assemble

    columns, label, rows = _joined(samples)
    return assemble(
        columns,
        dict.fromkeys(MODALITIES, label),
        {split: dict.fromkeys(MODALITIES, numbers) for split, numbers in rows.items()},
        task=task,
        class_names=tuple(str(number) for number in range(classes)),
        train_fraction=train_fraction,
        augment=augment,
        seed=seed,
    )


def _joined(samples: dict[str, Pairs]) -> tuple[dict[str, Any], NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Arrays of all splits, one after the other, and where each begins and ends."""
    parts = [samples[split] for split in ROWS]
    ends = np.cumsum([0, *map(len, parts)])
    rows = {split: np.arange(ends[n], ends[n + 1]) for n, split in enumerate(ROWS)}
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in MODALITIES}
    return columns, np.concatenate([part.label for part in parts]), rows


def make(
    root: str | Path, *, format: str = "prepared", seed: int = 0, settings: GaussianSettings | None = None
) -> Path:
    """Write Gaussian pairs as a folder with own data, and the truth about them as ``truth.json`` beside.

    Args:
        root: a folder that is empty or does not exist.
        format: ``prepared``; there are no raw files.
        seed: of the samples and the hyperplane.
        settings: who sees what, and how many rows.
    """
    root, settings = Path(root), settings or GaussianSettings()
    if format != "prepared":
        raise InputError(f"There is no format '{format}'. {did_you_mean(format, ('prepared',))}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} is there already: an empty or new folder was expected. Choose another one.")
    columns, label, rows = _joined(draw_splits_of(settings, seed))
    for name, array in {**columns, "labels": label}.items():
        write_npy(root / f"{name}.npy", array)
    for split, numbers in rows.items():
        write_npy(root / f"{split}_idx.npy", numbers)
    write_json(
        root / "data.json",
        {
            "name": "gaussian",
            "modalities": list(MODALITIES),
            "task": "multiclass",
            "class_names": [str(number) for number in range(settings.classes)],
            "paired": True,
            "normalise": dict.fromkeys(MODALITIES, "none"),
        },
    )
    write_json(root / "truth.json", design_of(settings).described())
    return root
