"""Settings that several recipes share, and the notation of lists on the command line.

This module imports no torch, which takes seconds: `--help` responds immediately.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from xmodal.engine.settings import FitSettings, MachineSettings, Precision
from xmodal.errors import InputError, did_you_mean
from xmodal.flags import Flag
from xmodal.study.plan import Plan
from xmodal.teachers.request import Kind, TeacherRequest

T = TypeVar("T", bound="TeacherFlags")


def parse_names(text: str) -> tuple[str, ...]:
    """``audio,image`` → two names; commas inside parentheses are part of a name.

    Example:
        >>> parse_names("audio, image"), parse_names("dkd(alpha=1,beta=8):2,kl")
        (('audio', 'image'), ('dkd(alpha=1,beta=8):2', 'kl'))
    """
    # a comma that is followed by ")" without a "(" in between stands inside parentheses
    return tuple(name.strip() for name in re.split(r",(?![^()]*\))", text) if name.strip())


def parse_seeds(text: str) -> tuple[int, ...]:
    """``5`` → 0 to 4; ``42-51`` → that range, both ends included; ``1,3,8`` → these seeds.

    Example:
        >>> parse_seeds("3"), parse_seeds("42-44"), parse_seeds("1,8")
        ((0, 1, 2), (42, 43, 44), (1, 8))
    """
    try:
        if "," in text:
            seeds = tuple(int(part) for part in text.split(",") if part.strip())
        elif "-" in text:
            first, last = map(int, text.split("-"))
            seeds = tuple(range(first, last + 1))
        else:
            seeds = tuple(range(int(text)))
    except ValueError:
        seeds = ()
    # a seed that stands twice would count as two independent runs
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds '{text}': expected a number of seeds (5), a range (42-51) or a list (1,3,8)")
    return seeds


def parse_shares(text: str) -> tuple[float, ...]:
    """``0.25,0.5`` → two shares.

    Example:
        >>> parse_shares("0.5"), parse_shares("0.25, 0.75")
        ((0.5,), (0.25, 0.75))
    """
    try:
        shares = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        shares = ()
    if not shares:
        raise ValueError(f"shares '{text}': expected numbers such as 0.5, or several (0.25,0.5,0.75)")
    return shares


def parse_weights(text: str) -> tuple[float, ...] | str:
    """``balanced`` as it is; ``1,2.5`` → two weights.

    Example:
        >>> parse_weights("balanced"), parse_weights("1, 2.5")
        ('balanced', (1.0, 2.5))
    """
    if text in ("", "balanced"):
        return text or ()
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"class weights '{text}': balanced, or a number per class (1,2.5) was expected") from None


# Flags arrive as text; Python code and settings.json pass tuples and lists, which pydantic checks itself.
def _names(value: Any) -> Any:
    return parse_names(value) if isinstance(value, str) else value


def _seeds(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(set(value)) < len(value):
        raise ValueError(f"seeds {list(value)}: each may stand there once, since its runs would count twice")
    return parse_seeds(value) if isinstance(value, str) else value


def _shares(value: Any) -> Any:
    return parse_shares(value) if isinstance(value, str) else value


def _weights(value: Any) -> Any:
    return parse_weights(value) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], Flag(metavar="NAME[,NAME]"), BeforeValidator(_names)]
Seeds = Annotated[tuple[int, ...], Flag(metavar="N|A-B|A,B"), BeforeValidator(_seeds)]
Shares = Annotated[tuple[float, ...], Flag(metavar="SHARE[,SHARE]"), BeforeValidator(_shares)]
Weights = Annotated[tuple[float, ...] | Literal["balanced"], Flag(metavar="balanced|W,W,…"), BeforeValidator(_weights)]
# Hidden, because the flags of methods and data sets, with the name as prefix, fill it.
Options = Annotated[dict[str, Any], Flag(hidden=True)]


class RunSettings(FitSettings, MachineSettings):
    """Training, machine and run folder."""

    out: Path | None = Field(None, description="run folder; None: the next free one under runs/")
    resume: bool = Field(False, description="continue the run in --out")

    def training(self) -> FitSettings:
        """The fields that `engine.fit` takes."""
        return FitSettings(**{name: getattr(self, name) for name in FitSettings.model_fields})

    def machine(self) -> MachineSettings:
        """The fields that `engine.processes.launch` takes."""
        return MachineSettings(**{name: getattr(self, name) for name in MachineSettings.model_fields})

    def described(self) -> dict[str, Any]:
        """The settings that `settings.json` records; a resumed run must have the same."""
        # no result depends on the number of jobs, so a run may be continued with another one
        return self.model_dump(mode="json", exclude={"out", "resume", "jobs", "cluster"})


class JobSettings(RunSettings):
    """Seeds, and how many of them are trained at the same time."""

    seeds: Seeds = Field((0, 1, 2, 3, 4), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    jobs: int | None = Field(
        None, ge=1, description="seeds that train at the same time, in a process each; default: as many as have a core"
    )
    cluster: Annotated[str, Flag(metavar="dask[:tcp://HOST:PORT]")] = Field(
        "", description="train the seeds on a Dask cluster: a local one, or that of the scheduler at this address"
    )

    @property
    def tasks(self) -> int:
        """How many parts can be trained at the same time."""
        return len(self.seeds)

    @field_validator("cluster")
    @classmethod
    def _address(cls, cluster: str) -> str:
        if cluster not in ("", "dask") and not re.fullmatch(r"dask:\w+://.+:\d+", cluster):
            raise ValueError(f"cluster '{cluster}': 'dask' or an address as in dask:tcp://10.0.0.1:8786 was expected")
        return cluster


class RowFlags(BaseModel):
    """Which training rows are used, and which of them have a label."""

    train_fraction: float = Field(1.0, gt=0, le=1, description="share of the training rows to use, class by class")
    labelled: Annotated[str, Flag(metavar="N|SHARE|all|FILE.npy")] = Field(
        "", description="labels to keep in training: 30 rows, the share 0.1, or rows.npy; the others stay without label"
    )
    labelled_groups: int = Field(0, ge=0, description="labels to keep in training: those of so many whole groups")
    valid_labels: Annotated[str, Flag(metavar="N|all")] = Field(
        "", description="labels to keep in validation; default: as many as in training, if labels are hidden there"
    )

    def request(self) -> dict[str, Any]:
        """The fields of these flags, as `Plan` and `DataRequest` take them."""
        flags = DataFlags if isinstance(self, DataFlags) else RowFlags
        return {name: getattr(self, name) for name in flags.model_fields}


class DataFlags(RowFlags):
    """Rows and labels of the training split, and augmentation of its batches."""

    augment: str = Field("", description="for training, e.g. noise:0.1,shift:1; the teacher sees it too")


class Presets(BaseModel):
    """Settings with a field ``preset``: a name for values of several fields; values that are given replace them.

    Attributes:
        PRESETS: name → values that differ from the defaults.
        SOURCES: names of the fields that decide the base values, the preset first.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    SOURCES: ClassVar[tuple[str, ...]] = ("preset",)

    @classmethod
    def preset_values(cls, name: str) -> dict[str, Any]:
        """The values of a preset; empty for an unknown name, about which the check of the field raises an error."""
        source = cls.SOURCES[0]
        return dict(cls.PRESETS.get(name or cls.model_fields[source].default, {}))

    @classmethod
    def base_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values in place of the defaults, which the fields `SOURCES` among the given values decide."""
        return cls.preset_values(given.get(cls.SOURCES[0], ""))

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        base = cls.base_values(given)
        values = base | given
        base_options, options = base.get("options", {}), given.get("options", {})
        # option by option: a given option of the data must not discard the others of the preset
        if base_options and isinstance(options, Mapping):
            names = dict.fromkeys([*base_options, *options])
            values["options"] = {name: {**base_options.get(name, {}), **options.get(name, {})} for name in names}
        return values


class TeacherFlags(BaseModel):
    """A teacher that exists already, in place of one that is trained here."""

    teacher_from: Annotated[str, Flag(metavar="SOURCE")] = Field(
        "",
        description="use this teacher as it is: a run folder, a student, a table (.npy, .npz), an .onnx file, a local "
        "model folder, or file.py:function",
    )
    teacher_outputs: Kind = Field("auto", description="what the given teacher returns; auto: read from its values")
    teacher_classes: Annotated[Path | None, Flag(metavar="FILE")] = Field(
        None, description="names of the given teacher's classes, one in a line; or .json, a list or teacher's → yours"
    )
    teacher_probe: bool = Field(
        False, description="turn given embeddings into a teacher by a linear probe on the labelled rows"
    )

    # Python objects in place of what the flags name, see `with_objects`
    _objects: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    def with_objects(self: T, **objects: Any) -> T:
        """These settings with Python objects: ``source`` of the teacher and its ``classes``."""
        self._objects = objects
        return self

    def given_teacher(self) -> TeacherRequest | None:
        """The teacher that these flags name; None: none."""
        if not self.teacher_from:
            about = ("teacher_outputs", "teacher_classes", "teacher_probe")
            if unused := [name for name in about if getattr(self, name) not in ("auto", None, False)]:
                raise InputError(
                    f"--{unused[0].replace('_', '-')} is about a given teacher. Name it with --teacher-from."
                )
            return None
        named = {"source": self.teacher_from, "classes": self.teacher_classes, **self._objects}
        return TeacherRequest(outputs=self.teacher_outputs, probe=self.teacher_probe, **named)


class PairSettings(TeacherFlags, DataFlags, RunSettings):
    """Data, modalities of teacher and student, and their networks."""

    data: Annotated[str, Flag(metavar="DATA", positional=True)] = Field(
        "digits", description="a data set's name or an own-data folder"
    )
    teacher: Names = Field((), description="modalities of the teacher; default: all")
    student: Names = Field((), description="modalities at deployment; default: the last one")
    task: Literal["", "multiclass", "binary", "multilabel", "regression"] = Field(
        "", description="kind of target; default: inferred from the labels"
    )
    class_weights: Weights = Field(
        (), description="weight of each class in the loss of labels; balanced: rare classes count like frequent ones"
    )
    teacher_encoder: str = Field("auto", description="network per modality of the teacher")
    student_encoder: str = Field("auto", description="network per modality of the student")
    teacher_width: int | None = Field(None, ge=1, description="width of the teacher's embedding")
    student_width: int | None = Field(None, ge=1, description="width of the student's embedding")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate in both networks")
    fusion: Literal["sum", "concat"] = Field("sum", description="how the embeddings of several modalities are joined")
    options: Options = Field({}, description="options of methods and data sets, by name")

    def plan(self) -> Plan:
        """Data, networks and training for a bench."""
        shared = {"fusion": self.fusion, "dropout": self.dropout}
        given = self.given_teacher()
        if given is not None and (self.teacher_encoder != "auto" or self.teacher_width is not None):
            raise InputError("--teacher-encoder and --teacher-width build a teacher, and --teacher-from gives one.")
        return Plan(
            data=self.data,
            options=self.options.get(self.data, {}),
            task=self.task,
            **self.request(),
            class_weights=self.class_weights,
            teacher=self.teacher,
            student=self.student,
            training=self.training(),
            networks={
                "teacher": {"encoder": self.teacher_encoder, "width": self.teacher_width, **shared},
                "student": {"encoder": self.student_encoder, "width": self.student_width, **shared},
            },
            teacher_from=given,
        )


class ManySettings(BaseModel):
    """Hundreds of small models trained together: full-batch gradient descent, test accuracy after the last step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: Seeds = Field(tuple(range(10)), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    epochs: int = Field(1000, ge=1, description="steps of gradient descent over the whole training set")
    learning_rate: float = Field(0.1, gt=0, description="step size of gradient descent without momentum")
    threads: int | None = Field(1, ge=1, description="CPU threads; the last bits of the results depend on it")
    out: Path | None = Field(None, description="run folder; None: the next free one under runs/")
    resume: bool = Field(False, description="continue the run in --out")

    @property
    def precision(self) -> Precision:
        """Floating-point format of training."""
        return "32-true"

    def machine(self) -> MachineSettings:
        """The CPU."""
        # models this small are fastest there, and the authors' numbers come from one
        return MachineSettings(accelerator="cpu", threads=self.threads)

    def descent(self, rows: int, **changes: Any) -> FitSettings:
        """Settings for `engine.stacked.fit_many`: all rows in every step, and the weights after the last step."""
        usual = {"epochs": self.epochs, "learning_rate": self.learning_rate, "momentum": 0.0}
        return FitSettings(optimizer="sgd", batch_size=rows, keep="last", **{**usual, **changes})

    def described(self) -> dict[str, Any]:
        """The settings that `settings.json` records; a resumed run must have the same."""
        return self.model_dump(mode="json", exclude={"out", "resume", "threads"})


class StudySettings(ManySettings):
    """Linear teachers and students on Gaussian pairs, as in the experiments on modality focusing."""

    kl_reduction: Literal["mean", "batchmean"] = Field(
        "mean", description="batchmean: mean over rows; mean: also divided by the number of classes, as published (G7)"
    )
    kd_labels: bool = Field(True, description="learn from the labels as well as from the teacher (G3)")
    train: int = Field(200, ge=2, description="rows of each training set")
    test: int = Field(1000, ge=2, description="rows of the test set")

    def fit(self, **changes: Any) -> FitSettings:
        """Settings for `engine.stacked.fit_many`."""
        return self.descent(self.train, **changes)


MODES = {  # losses besides that of the labels, in the experiments on non-target divergence
    "kl": "KL divergence of the softened outputs",
    "kl_pssm": "the same, weighted by whether the teacher is right",
    "dkd": "decoupled KD: the true class and the other classes apart",
    "dkd_pssm": "the same, weighted by whether the teacher is right",
    "hint": "squared difference of the logits",
    "pkt": "probabilities that two rows are neighbours, and KL",
    "similarity": "similarities of all pairs of rows, and KL",
    "rkd": "distances and angles between rows",
    "crd": "contrast of matching rows with others in a memory",
}


class DivergenceSettings(ManySettings):
    """Shared by the synthetic experiments on non-target divergence; numbers refer to the docs' list of differences."""

    PUBLISHED: ClassVar[dict[str, Any]] = {}  # values that --as-published sets

    mode: Names = Field(("kl",), min_length=1, description=f"losses of the students: {', '.join(MODES)}")
    detach: bool = Field(True, description="no gradient through the weights of samples (7)")
    scale_logits: bool = Field(False, description="these weights multiply the logits in kl_pssm, not the loss (7)")
    hint_batchnorm: bool = Field(False, description="hint applies BatchNorm and ReLU to the student's logits (6)")
    frozen_embeddings: bool = Field(False, description="crd does not train its embeddings (5)")
    as_published: bool = Field(False, description="set every flag that follows the authors' code")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        return cls.completed(dict(given)) if isinstance(given, Mapping) else given

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The given values, on top of those that ``as_published`` sets."""
        return {**cls.PUBLISHED, **given} if given.get("as_published") is True else given

    @field_validator("mode")
    @classmethod
    def _known(cls, modes: tuple[str, ...]) -> tuple[str, ...]:
        return known_names("mode", modes, MODES)

    def losses(self, mode: str) -> tuple[str, ...]:
        """The losses of a mode, in the notation of `xmodal.methods.kd`."""
        raise NotImplementedError


def known_names(kind: str, names: tuple[str, ...], choices: Iterable[str]) -> tuple[str, ...]:
    """The names without repetition; raises an error about one that is none of the choices."""
    for name in names:
        if name not in choices:
            raise ValueError(f"there is no {kind} '{name}'. {did_you_mean(name, choices)}")
    return tuple(dict.fromkeys(names))
