"""The plan of a bench (data, modalities, networks, training), and the entries of a comparison.

The settings of a recipe hold what its users may choose, and their method `plan` returns a `Plan`. So a recipe has only
the flags that make sense for it, and the bench has one type to read, whatever the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.cards import MethodCard, load
from xmodal.data.options import validated
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.methods import METHODS
from xmodal.study.controls import FEW_LABELS
from xmodal.teachers.request import TeacherRequest

if TYPE_CHECKING:
    from pydantic import BaseModel

    from xmodal.data.base import Data

TEACHER, STUDENT = "teacher", "student"


Opener = Callable[["Plan", int], "Data"]  # opens the data of a seed: by name, or the arrays of a Python call


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One data set, and how teacher and students are built and trained on it.

    Attributes:
        data: name of a data set, or the path of an own-data folder.
        options: of the data set.
        task: kind of target; empty: inferred from the data.
        train_fraction: share of the training rows to use.
        labelled: labels to keep in training, see `xmodal.data.labels.Labels`; empty: all.
        labelled_groups: whole groups to keep the labels of, in place of ``labelled``; 0: none are named.
        valid_labels: labels to keep in validation; empty: as many as in training where some are hidden.
        augment: augmentation of training batches.
        class_weights: weight of each class in the loss of labels, or ``balanced``; empty: equal weights.
        folds: of a cross-validation, whose fold k takes the place of seed k; 0: none.
        teacher: modalities of the teacher; empty: all.
        student: modalities at deployment; empty: the last one.
        training: settings of every training, except the teacher's if it has its own.
        teacher_training: settings of the teacher's training; None: the same.
        networks: side (``teacher``, ``student``) → arguments of `models.network.build_for`.
        imagenet: side → file with torchvision's weights, from which its ResNet starts.
        teacher_from: a teacher that exists already; None: it is trained here.
    """

    data: str
    options: Mapping[str, Any] = field(default_factory=dict)
    task: str = ""
    train_fraction: float = 1.0
    labelled: str = ""
    labelled_groups: int = 0
    valid_labels: str = ""
    augment: str = ""
    class_weights: tuple[float, ...] | str = ()
    folds: int = 0
    teacher: tuple[str, ...] = ()
    student: tuple[str, ...] = ()
    training: FitSettings = field(default_factory=FitSettings)
    teacher_training: FitSettings | None = None
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    imagenet: Mapping[str, Path] = field(default_factory=dict)
    teacher_from: TeacherRequest | None = None

    def sides(self, modalities: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Modalities of teacher and student; defaults come from the modalities of the data."""
        if not modalities:
            raise InputError("The data has no modalities.")
        return self.teacher or modalities, self.student or modalities[-1:]

    def fit(self, side: str = STUDENT) -> FitSettings:
        """Training settings of a side."""
        return self.teacher_training or self.training if side == TEACHER else self.training

    def network(self, side: str) -> Mapping[str, Any]:
        """Arguments of `models.network.build_for` for a side."""
        return self.networks.get(side, {})


def open_seed(plan: Plan, seed: int) -> Data:
    """The data of one seed, which also draws the split of data without one; with folds, of the fold of this number."""
    from xmodal.data import open_data

    data = open_data(
        plan.data,
        options=plan.options,
        task=plan.task,
        train_fraction=plan.train_fraction,
        labelled=plan.labelled,
        labelled_groups=plan.labelled_groups,
        valid_labels=plan.valid_labels,
        augment=plan.augment,
        seed=seed,
        folds=plan.folds,
    )
    return with_weights(plan, data)


def with_weights(plan: Plan, data: Data) -> Data:
    """The data with the class weights of a plan."""
    from xmodal.data.weights import with_class_weights

    return with_class_weights(data, plan.class_weights) if plan.class_weights else data


@dataclass(frozen=True)
class Entry:
    """One row of a comparison: a method with its options.

    Attributes:
        name: in the table.
        method: name of its card.
        options: of the method.
        controls: whether the controls of its teacher are trained as well.
        optional: whether the comparison continues, with a note, if the method can't be built.
    """

    name: str
    method: str
    options: Mapping[str, Any]
    controls: bool = True
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The trainings on the bench of every seed; a recipe may add others.

    Attributes:
        plan: of the bench.
        methods: cards of all methods, for checks before the training.
        entries: rows of the table besides teacher and control.
        metric: of the table; empty: the one that selects the epoch.
        margin: largest difference that counts as none, in points where the metric is a share; None: nothing does.
        shuffled: train the shuffled-teacher control of each entry.
        untrained: train the untrained-teacher control of each entry.
        controls: where some rows have no label, the entries with controls: the ``first`` with a frozen teacher,
            ``all`` or ``none``.
        train_teacher: whether an ordinary teacher is trained before the students.
        train_control: whether the no-KD control is trained.
        train_students: whether the entries are trained; recipes that stop after an earlier stage only check them.
        problems: problems of the settings; `comparison.check` reports them together with those of the data.
        skipped: notes on entries that were left out because they do not fit the data.
    """

    plan: Plan
    methods: Sequence[MethodCard] = ()
    entries: Sequence[Entry] = ()
    metric: str = ""
    margin: float | None = None
    shuffled: bool = False
    untrained: bool = False
    controls: str = "first"
    train_teacher: bool = True
    train_control: bool = True
    train_students: bool = True
    problems: Sequence[str] = ()
    skipped: Sequence[str] = ()

    @property
    def headline(self) -> Entry | None:
        """The entry that a comparison with few labels is about: the first with a frozen teacher, or else the first."""
        entries = [entry for entry in self.entries if entry.controls]
        frozen = [entry for entry in entries if METHODS[entry.method].teacher == "frozen"]
        return next(iter(frozen or entries), None)

    def controls_of(self, entry: Entry, *, few: bool = False) -> tuple[str, ...]:
        """Names of the controls of an entry, of `study.controls.CONTROLS`; ``few``: some rows have no label."""
        # what a control replaces is the teacher that the bench provides, so there is none without a frozen one
        if not entry.controls or METHODS[entry.method].teacher != "frozen":
            return ()
        untrained = ("untrained",) * self.untrained
        if not few:
            # a given teacher may be about other rows than it seems, which permuted pairs show
            permuted = ("permuted",) * (self.shuffled and self.plan.teacher_from is not None)
            return ("shuffled",) * self.shuffled + permuted + untrained
        if self.controls == "none" or (self.controls == "first" and entry is not self.headline):
            return untrained
        return tuple(name for name in FEW_LABELS if name != "shuffled" or self.shuffled) + untrained

    def fits(self, *, few: bool = False) -> int:
        """Number of trainings per seed, for the estimate of the remaining time."""
        students = sum(1 + len(self.controls_of(entry, few=few)) for entry in self.entries)
        teacher = self.train_teacher and self.plan.teacher_from is None
        return teacher + self.train_control + self.train_students * students


def method_settings(card: MethodCard, options: Mapping[str, Any]) -> BaseModel:
    """The settings object of a method, from its options."""
    settings: BaseModel = validated(load(card.settings), options, f"The method {card.name}")
    return settings
