"""What a bench is told: data, modalities, networks and training of a teacher and a student.

Settings of a recipe hold what its users may choose, and `plan()` turns them into one `Plan`. So a recipe shows only the
flags that it has, and the machinery sees one type, whatever the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.cards import MethodCard, load
from xmodal.data.options import validated
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.methods import METHODS

if TYPE_CHECKING:
    from pydantic import BaseModel

    from xmodal.data.base import Data

TEACHER, STUDENT = "teacher", "student"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One data set, and how a teacher and students are built and trained on it.

    Attributes:
        data: name of a data set, or an own-data folder.
        options: of the data set.
        task: kind of target; empty: what the data says.
        train_fraction: share of the training rows to keep.
        augment: operations for training batches.
        teacher: modalities that the teacher sees; empty: all.
        student: modalities at deployment; empty: the last one.
        training: of all networks, but for a teacher that has its own.
        teacher_training: of the teacher; None: the same.
        networks: side (``teacher``, ``student``) → arguments of `models.network.build_for`.
        imagenet: side → torchvision's weights that its ResNet starts from.
    """

    data: str
    options: Mapping[str, Any] = field(default_factory=dict)
    task: str = ""
    train_fraction: float = 1.0
    augment: str = ""
    teacher: tuple[str, ...] = ()
    student: tuple[str, ...] = ()
    training: FitSettings = field(default_factory=FitSettings)
    teacher_training: FitSettings | None = None
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    imagenet: Mapping[str, Path] = field(default_factory=dict)

    def sides(self, modalities: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Modalities of teacher and student, defaults filled in from those of the data."""
        if not modalities:
            raise InputError("The data has no modalities.")
        return self.teacher or modalities, self.student or modalities[-1:]

    def fit(self, side: str = STUDENT) -> FitSettings:
        """Training of a side."""
        return self.teacher_training or self.training if side == TEACHER else self.training

    def network(self, side: str) -> Mapping[str, Any]:
        """Arguments of `models.network.build_for` for a side."""
        return self.networks.get(side, {})


def open_seed(plan: Plan, seed: int) -> Data:
    """The data of one seed: where the data fixes no split, the seed draws it."""
    from xmodal.data import open_data

    return open_data(
        plan.data,
        options=plan.options,
        task=plan.task,
        train_fraction=plan.train_fraction,
        augment=plan.augment,
        seed=seed,
    )


def each_seed(plan: Plan, seeds: Sequence[int], first: Data) -> Iterator[tuple[int, Data]]:
    """Every seed with its data; that of the first one is open already, because everything was checked on it."""
    yield seeds[0], first
    for seed in seeds[1:]:
        yield seed, open_seed(plan, seed)


@dataclass(frozen=True)
class Entry:
    """One row of a comparison: a method under a name.

    Attributes:
        name: in the table.
        method: name of its card.
        options: of the method.
        controls: whether controls of its teacher are trained, too.
        optional: whether a refusal is noted and the comparison continues.
    """

    name: str
    method: str
    options: Mapping[str, Any]
    controls: bool = True
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is trained on the bench of every seed, besides what a recipe adds.

    Attributes:
        plan: of the bench.
        methods: cards of everything that is trained, for checks before it.
        entries: rows of the table besides teacher and control.
        metric: that the table shows; empty: the one that chooses the epoch.
        shuffled: train the shuffled-teacher control of each entry.
        untrained: train the untrained-teacher control of each entry.
        train_teacher: whether an ordinary teacher is trained before the students.
        train_control: whether the no-KD control is trained.
        train_students: whether the entries are trained; recipes that stop after an earlier stage only check them.
        problems: what is wrong with the settings behind it; `comparison.check` reports it together with what does not
            fit the data.
    """

    plan: Plan
    methods: Sequence[MethodCard] = ()
    entries: Sequence[Entry] = ()
    metric: str = ""
    shuffled: bool = False
    untrained: bool = False
    train_teacher: bool = True
    train_control: bool = True
    train_students: bool = True
    problems: Sequence[str] = ()

    @property
    def controls(self) -> tuple[str, ...]:
        """Controls of the teacher that are asked for."""
        return ("shuffled",) * self.shuffled + ("untrained",) * self.untrained

    def controls_of(self, entry: Entry) -> tuple[str, ...]:
        """Those that make sense for an entry: its method must have a frozen teacher."""
        return self.controls if entry.controls and METHODS[entry.method].teacher == "frozen" else ()

    @property
    def fits(self) -> int:
        """Trainings per seed, for the time left."""
        students = sum(1 + len(self.controls_of(entry)) for entry in self.entries)
        return self.train_teacher + self.train_control + self.train_students * students


def method_settings(card: MethodCard, options: Mapping[str, Any]) -> BaseModel:
    """The settings object of a method from its options."""
    settings: BaseModel = validated(load(card.settings), options, f"The method {card.name}")
    return settings
