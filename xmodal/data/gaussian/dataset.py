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
from xmodal.data.request import DataRequest
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
    """Options of the Gaussian pairs.

    Attributes:
        experiment: ``own``, or a published one: ``increase-gamma`` reads ``shared``, ``increase-alpha`` ``a_only``,
            ``modify-gamma`` both, and each fixes all else but the numbers of rows.
        shared: decisive features that both modalities see; 5 unless shares are given.
        a_only: decisive features that only a sees; 5 unless shares are given.
        b_only: decisive features that only b sees; 5 unless shares are given.
        unseen: decisive features that nobody sees: they bound what can be learned.
        decisive: how many are seen in all, where alpha, beta or gamma is given in place of numbers.
        alpha: share of a's decisive features that only a sees.
        beta: share of b's decisive features that only b sees.
        gamma: share of common features among all that are seen.
        a_width: channels of a; those without a decisive feature are noise.
        b_width: channels of b.
        a_noise: standard deviation of the noise on a's decisive channels.
        b_noise: standard deviation of the noise on b's decisive channels.
        label_noise: share of the labels drawn at random.
        classes: two by a hyperplane, more by the largest of as many.
        train: rows.
        valid: rows.
        test: rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: Literal["own", "increase-gamma", "increase-alpha", "modify-gamma"] = "own"
    shared: Count = Field(default=None, ge=0)
    a_only: Count = Field(default=None, ge=0)
    b_only: Count = Field(default=None, ge=0)
    unseen: int = Field(default=0, ge=0)
    decisive: int = Field(default=15, ge=1)
    alpha: float | None = Field(default=None, ge=0, le=1)
    beta: float | None = Field(default=None, ge=0, le=1)
    gamma: float | None = Field(default=None, ge=0, le=1)
    a_width: int = Field(default=25, ge=1)
    b_width: int = Field(default=25, ge=1)
    a_noise: float = Field(default=0.0, ge=0)
    b_noise: float = Field(default=0.0, ge=0)
    label_noise: float = Field(default=0.0, ge=0, le=1)
    classes: int = Field(default=2, ge=2)
    train: int = Field(default=200, ge=2)
    valid: int = Field(default=200, ge=2)
    test: int = Field(default=1000, ge=2)

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


def load(root: str | None, settings: GaussianSettings, request: DataRequest) -> Data:
    """Three splits of Gaussian pairs, drawn from the seed and used as they are.

    Args:
        root: None, nothing is read from disk; a folder that `make` wrote is opened by its path.
        settings: who sees what, and how many rows.
        request: task ``multiclass``, with two classes also ``binary``; the seed draws samples and hyperplane.
    """
    if root is not None:
        raise InputError(f"The Gaussian pairs are built in and read no folder. Open {root} by its path instead.")
    request.check_task("gaussian", *(("multiclass", "binary") if settings.classes == 2 else ("multiclass",)))
    return as_data(draw_splits_of(settings, request.seed), classes=settings.classes, request=request)


def as_data(samples: dict[str, Pairs], *, classes: int = 2, request: DataRequest | None = None) -> Data:
    """Splits of pairs (``train``, ``valid``, ``test``; others are left out) as data.

    Args:
        samples: split → samples.
        classes: how many, even if the samples show fewer.
        request: task ``multiclass`` or ``binary``; the seed is that of the train fraction and the augmentation.
    """
    from xmodal.data.base import assemble

    request = request or DataRequest()
    columns, label, rows = _joined(samples)
    return assemble(
        columns,
        dict.fromkeys(MODALITIES, label),
        {split: dict.fromkeys(MODALITIES, numbers) for split, numbers in rows.items()},
        task=request.task,
        class_names=tuple(str(number) for number in range(classes)),
        request=request,
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
