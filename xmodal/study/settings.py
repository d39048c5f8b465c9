"""Settings that several recipes share, and how lists look on the command line. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from xmodal.engine.settings import FitSettings, MachineSettings, Precision
from xmodal.errors import did_you_mean
from xmodal.flags import Flag
from xmodal.study.plan import Plan


def parse_names(text: str) -> tuple[str, ...]:
    """``audio,image`` → two names; commas inside parentheses belong to a name.

    Example:
        >>> parse_names("audio, image"), parse_names("dkd(alpha=1,beta=8):2,kl")
        (('audio', 'image'), ('dkd(alpha=1,beta=8):2', 'kl'))
    """
    return tuple(name.strip() for name in re.split(r",(?![^()]*\))", text) if name.strip())


def parse_seeds(text: str) -> tuple[int, ...]:
    """``5`` → 0 to 4; ``42-51`` → that range; ``1,3,8`` → these.

    Example:
        >>> parse_seeds("3"), parse_seeds("42-44"), parse_seeds("1,8")
        ((0, 1, 2), (42, 43, 44), (1, 8))
    """
    try:
        if "," in text:
            found = tuple(int(part) for part in text.split(",") if part.strip())
        elif "-" in text:
            first, last = map(int, text.split("-"))
            found = tuple(range(first, last + 1))
        else:
            found = tuple(range(int(text)))
    except ValueError:
        found = ()
    if not found or len(set(found)) < len(found):
        raise ValueError(f"seeds '{text}': expected a number of seeds (5), a range (42-51) or a list (1,3,8)")
    return found


def parse_shares(text: str) -> tuple[float, ...]:
    """``0.25,0.5`` → these shares.

    Example:
        >>> parse_shares("0.5"), parse_shares("0.25, 0.75")
        ((0.5,), (0.25, 0.75))
    """
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found:
        raise ValueError(f"shares '{text}': expected numbers such as 0.5, or several (0.25,0.5,0.75)")
    return found


def _from_text(parse: Any) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


Names = Annotated[tuple[str, ...], Flag(metavar="NAME[,NAME]"), _from_text(parse_names)]
Seeds = Annotated[tuple[int, ...], Flag(metavar="N|A-B|A,B"), _from_text(parse_seeds)]
Shares = Annotated[tuple[float, ...], Flag(metavar="SHARE[,SHARE]"), _from_text(parse_shares)]
Options = Annotated[dict[str, Any], Flag(hidden=True)]  # filled from flags that carry a method's or data set's name


class RunSettings(FitSettings, MachineSettings):
    """How to train, on what, and where to put it."""

    out: Path | None = Field(None, description="run folder; None: the next free one under runs/")
    resume: bool = Field(False, description="continue the run in --out")

    def training(self) -> FitSettings:
        """The part that `engine.fit` takes."""
        return FitSettings(**{name: getattr(self, name) for name in FitSettings.model_fields})

    def machine(self) -> MachineSettings:
        """The part that `engine.processes.launch` takes."""
        return MachineSettings(**{name: getattr(self, name) for name in MachineSettings.model_fields})

    def described(self) -> dict[str, Any]:
        """What a run is replayed from, and must equal when it is resumed: all but place and machine."""
        return self.model_dump(mode="json", exclude={"out", "resume"})


class DataFlags(BaseModel):
    """How much of the training split is used, and what is done to its batches."""

    train_fraction: float = Field(1.0, gt=0, le=1, description="share of the training rows to use, class by class")
    augment: str = Field("", description="for training, e.g. noise:0.1,shift:1; the teacher sees it too")


class Presets(BaseModel):
    """Settings with a field ``preset``: a name for many of them; those that are given otherwise go on top.

    Attributes:
        PRESETS: name → values that differ from the defaults.
        SOURCES: fields that decide what lies below the values that are given.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    SOURCES: ClassVar[tuple[str, ...]] = ("preset",)

    @classmethod
    def preset_values(cls, name: str) -> dict[str, Any]:
        """What a preset sets; nothing for one that does not exist, which the check of the field then says."""
        source = cls.SOURCES[0]
        return dict(cls.PRESETS.get(name or cls.model_fields[source].default, {}))

    @classmethod
    def beneath(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """What lies below the values that are given, as the fields `SOURCES` among them decide."""
        return cls.preset_values(given.get(cls.SOURCES[0], ""))

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        beneath = cls.beneath(given)
        values = beneath | given
        own = beneath.get("options", {})
        options = given.get("options", {})
        if own and isinstance(options, Mapping):
            names = dict.fromkeys([*own, *options])
            values["options"] = {name: {**own.get(name, {}), **options.get(name, {})} for name in names}
        return values


class PairSettings(DataFlags, RunSettings):
    """Which data, which modalities teach, which one is deployed, and the networks."""

    data: Annotated[str, Flag(metavar="DATA", positional=True)] = Field(
        "digits", description="a data set's name or an own-data folder"
    )
    teacher: Names = Field((), description="modalities the teacher sees; default: all of them")
    student: Names = Field((), description="modalities at deployment; default: the last one")
    task: Literal["", "multiclass", "binary", "multilabel", "regression"] = Field(
        "", description="kind of target; default: inferred from the labels"
    )
    teacher_encoder: str = Field("auto", description="network per modality of the teacher")
    student_encoder: str = Field("auto", description="network per modality of the student")
    teacher_width: int | None = Field(None, ge=1, description="width of the teacher's embedding")
    student_width: int | None = Field(None, ge=1, description="width of the student's embedding")
    dropout: float = Field(0.0, ge=0, lt=1, description="in both networks")
    fusion: Literal["sum", "concat"] = Field("sum", description="how several modalities are joined")
    options: Options = Field({}, description="options of methods and data sets by their names")

    def plan(self) -> Plan:
        """What a bench is told."""
        shared = {"fusion": self.fusion, "dropout": self.dropout}
        return Plan(
            data=self.data,
            options=self.options.get(self.data, {}),
            task=self.task,
            train_fraction=self.train_fraction,
            augment=self.augment,
            teacher=self.teacher,
            student=self.student,
            training=self.training(),
            networks={
                "teacher": {"encoder": self.teacher_encoder, "width": self.teacher_width, **shared},
                "student": {"encoder": self.student_encoder, "width": self.student_width, **shared},
            },
        )


class ManySettings(BaseModel):
    """Small models by the hundred, trained as one: full-batch descent, the test accuracy after the last step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: Seeds = Field(tuple(range(10)), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    epochs: int = Field(1000, ge=1, description="steps of gradient descent over the whole training set")
    learning_rate: float = Field(0.1, gt=0, description="of plain gradient descent")
    threads: int | None = Field(1, ge=1, description="CPU threads; results depend on it in their bits")
    out: Path | None = Field(None, description="run folder; None: the next free one under runs/")
    resume: bool = Field(False, description="continue the run in --out")

    @property
    def precision(self) -> Precision:
        """Number format of training."""
        return "32-true"

    def machine(self) -> MachineSettings:
        """A CPU: models this small are fastest there, and the authors' numbers come from one."""
        return MachineSettings(accelerator="cpu", threads=self.threads)

    def descent(self, rows: int, **changes: Any) -> FitSettings:
        """What `engine.stacked.fit_many` takes: all rows in each step, the weights after the last one."""
        usual = {"epochs": self.epochs, "learning_rate": self.learning_rate, "momentum": 0.0}
        return FitSettings(optimizer="sgd", batch_size=rows, keep="last", **{**usual, **changes})

    def described(self) -> dict[str, Any]:
        """What a run is replayed from, and must equal when it is resumed: all but place and machine."""
        return self.model_dump(mode="json", exclude={"out", "resume", "threads"})


class StudySettings(ManySettings):
    """Linear teachers and students on Gaussian pairs, as in the experiments on modality focusing."""

    kl_reduction: Literal["mean", "batchmean"] = Field(
        "mean", description="mean divides the divergence by the classes too, as published (G7)"
    )
    kd_labels: bool = Field(True, description="learn the labels beside the teacher (G3)")
    train: int = Field(200, ge=2, description="rows of a training set")
    test: int = Field(1000, ge=2, description="rows of the test set")

    def fit(self, **changes: Any) -> FitSettings:
        """What `engine.stacked.fit_many` takes."""
        return self.descent(self.train, **changes)


MODES = {  # what a student learns beside the labels, in the experiments on non-target divergence
    "kl": "the teacher's softened answers",
    "kl_pssm": "the same where the teacher can be trusted",
    "dkd": "true class and the others apart",
    "dkd_pssm": "the same where the teacher can be trusted",
    "hint": "the teacher's logits",
    "pkt": "which rows are neighbours, and the answers",
    "similarity": "which rows are alike, and the answers",
    "rkd": "distances and angles between rows",
    "crd": "which answer is whose, against a memory",
}


class DivergenceSettings(ManySettings):
    """What the synthetic experiments on non-target divergence share; numbers are those of the list of differences."""

    PUBLISHED: ClassVar[dict[str, Any]] = {}  # what --as-published sets

    mode: Names = Field(("kl",), min_length=1, description=f"what students learn beside labels: {', '.join(MODES)}")
    detach: bool = Field(True, description="no gradient through the weights of samples (7)")
    scale_logits: bool = Field(False, description="these weights multiply the logits in kl_pssm, not its values (7)")
    hint_batchnorm: bool = Field(False, description="hint standardises and cuts off the student's logits (6)")
    frozen_embeddings: bool = Field(False, description="crd does not train its embeddings (5)")
    as_published: bool = Field(False, description="sets every flag that goes back to the authors' code")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        return cls.filled_in(dict(given)) if isinstance(given, Mapping) else given

    @classmethod
    def filled_in(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What ``as_published`` sets; what is given otherwise goes on top."""
        return {**cls.PUBLISHED, **given} if given.get("as_published") is True else given

    @field_validator("mode")
    @classmethod
    def _known(cls, modes: tuple[str, ...]) -> tuple[str, ...]:
        return known_names("mode", modes, MODES)

    def losses(self, mode: str) -> tuple[str, ...]:
        """The losses of a mode, as `xmodal.methods.kd` reads them."""
        raise NotImplementedError


def known_names(kind: str, names: tuple[str, ...], known: Iterable[str]) -> tuple[str, ...]:
    """Names without repetition, all of them known."""
    for name in names:
        if name not in known:
            raise ValueError(f"there is no {kind} '{name}'. {did_you_mean(name, known)}")
    return tuple(dict.fromkeys(names))
