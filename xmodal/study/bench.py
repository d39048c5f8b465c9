"""The bench: one data set, one seed, one folder, and on it a teacher and any number of methods.

It is the `Kit` that methods are built with. Everything is trained first; then the test split is read once, for all.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from xmodal.cards import MethodCard
from xmodal.data.base import Data
from xmodal.data.loader import in_order
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import Run, as_it_is, fit
from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.files import read_json, write_json, written_whole
from xmodal.method import Method
from xmodal.methods import METHODS
from xmodal.methods.supervised import Supervised
from xmodal.metrics.task import scalar_metrics
from xmodal.models.capacity import count_parameters, width_for
from xmodal.models.network import build_for, student_of, zeros
from xmodal.models.resnet import load_checked
from xmodal.seeding import seeded
from xmodal.study.plan import TEACHER, Plan
from xmodal.types import Batch, DataInfo, Student

if TYPE_CHECKING:
    from lightning_fabric import Fabric

F = TypeVar("F")
CONTROL, MATCHED = "no-KD", "matched"
OUTPUT_BYTES = 2 * 2**30  # of answers for the test split of dense data that are kept; `evaluate` writes more, in files
LARGER = 1.05  # a student with more than this many times the parameters of the control gets one of its own size


@dataclass(frozen=True)
class Earlier:
    """What another run did already, for the same data and networks.

    Attributes:
        weights: name of a stage → student → its weights.
        found: what was measured once, by the names that `Bench.once` is given.
        where: what the weights are from, for sentences.
    """

    weights: Mapping[str, Mapping[str, Mapping[str, Tensor]]] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)
    where: str = "an earlier run"


class Bench:
    """Trains and scores; see `method.Kit` for the members that methods use.

    Args:
        data: what to train on.
        plan: modalities, networks and training of teacher and student.
        seed: of this bench.
        fabric: started devices.
        folder: where its runs go; None: in memory.
        progress: where to tell how it goes.
        modules: the user's own networks by side (``teacher``, ``student``), in place of built ones.
        earlier: stages that need no training, and findings that need no measuring.
    """

    def __init__(
        self,
        data: Data,
        plan: Plan,
        *,
        seed: int,
        fabric: Fabric,
        folder: Path | None = None,
        progress: Progress | None = None,
        modules: Mapping[str, nn.Module] | None = None,
        earlier: Earlier | None = None,
    ) -> None:
        data = data.doubled() if plan.training.precision == "64-true" else data
        self.data, self.plan, self.seed = data, plan, seed
        self.fabric, self.folder = fabric, folder
        self.progress = progress or Progress(quiet=True)
        self.modules = dict(modules or {})
        self.info: DataInfo = data.info
        teaching, student = plan.sides(data.info.modalities)
        self.teaching = data.info.require(teaching, "teacher")
        self.student = data.info.require(student, "student")
        self.runs: dict[str, Run] = {}
        self.stages: dict[str, Run] = {}
        self.roles: dict[str, str] = {}
        self.matched: dict[str, str] = {}
        self.outputs: dict[str, dict[str, Any]] = {}
        self._untrained = False  # whether `teacher` gives one that learned nothing, and whether it was asked for
        self._asked = False
        self.earlier = earlier or Earlier()
        self.found: dict[str, Any] = dict(self.earlier.found)

    def network(self, modalities: Sequence[str], *, side: str = "student") -> Student:
        """A fresh network; equal seeds and modalities give equal weights, whatever was built before."""
        if side in self.modules:
            return student_of(copy.deepcopy(self.modules[side]), self.info, modalities)
        with seeded(self.seed, side, *modalities):
            student = build_for(self.info, modalities, **self.plan.network(side))
        if side in self.plan.imagenet and not self._untrained:
            from xmodal.models.pixels.camera_net import load_imagenet

            load_imagenet(student.module, self.plan.imagenet[side])
        return student

    def dry_run(self) -> None:
        """Build the networks of both sides once and throw them away: what can't be built is told before training."""
        sides = (self.network(self.teaching, side="teacher"), self.network(self.student))
        if min(self.plan.training.batch_size, max(self.info.rows["train"].values())) > 1:
            return
        for student in sides:
            one = zeros({name: self.info.inputs[name] for name in student.needs}, 1)
            try:
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    student.module.cpu().train()(one)
            except ValueError as error:  # what batch normalisation says
                raise InputError(
                    f"A batch of one row is too small for this network ({error}). Raise --batch-size to 2 or more."
                ) from error

    def teacher(self) -> nn.Module:
        """The finished teacher, trained on first use; every caller gets a copy of its own."""
        self._asked = True
        if self._untrained:
            return self.network(self.teaching, side=TEACHER).module.to(self.fabric.device).eval()
        if TEACHER not in self.runs:
            network = self.network(self.teaching, side=TEACHER)
            if TEACHER in self.earlier.weights:
                self.take(TEACHER, self._load_earlier(TEACHER, Supervised(network, self.info)), role=TEACHER)
            else:
                self.train(TEACHER, Supervised(network, self.info), role=TEACHER)
        return self._finished(TEACHER)

    def control(self) -> nn.Module:
        """The finished no-KD control, trained on first use; every caller gets a copy of its own."""
        if CONTROL not in self.runs:
            self.train_control()
        return self._finished(CONTROL)

    def _finished(self, name: str) -> nn.Module:
        (student,) = self.runs[name].students.values()
        return copy.deepcopy(student.module)

    def batches(self, split: str = "train", *, size: int | None = None) -> Iterable[Batch]:
        """Rows of the training or validation split in their order, on the device."""
        rows = {"train": self.data.train, "valid": self.data.valid}[split]
        return map(lambda found: found.to(self.fabric.device), in_order(rows, batch_size=size or self.info.block(256)))

    def fit(self, method: Method, *, stage: str, epochs: int | None = None, keep: str = "") -> Method:
        """Train a stage of a method; its students end with their best weights, or with the last ones."""
        if stage in self.earlier.weights:
            return self._load_earlier(stage, method)
        if stage not in self.stages:
            epochs = epochs and min(epochs, self.plan.training.epochs)
            self.progress.expect()
            self.stages[stage] = self._fit(stage, method, epochs=epochs, keep=keep)
        for name, student in method.students().items():
            student.module.load_state_dict(self.stages[stage].students[name].module.state_dict())
            student.module.to(self.fabric.device)
        return method

    def _load_earlier(self, stage: str, method: Method) -> Method:
        """The weights of another run; those of another network are refused, a sentence each."""
        for name, student in method.students().items():
            load_checked(student.module, self.earlier.weights[stage][name], f"{self.earlier.where} ({name})")
        return method.to(self.fabric.device)

    def once(self, what: str, find: Callable[[], F]) -> F:
        """What was found under this name before, else what ``find`` finds now."""
        if what not in self.found:
            self.found[what] = find()
        found: F = self.found[what]
        return found

    def validate(self, method: Method) -> dict[str, dict[str, float]]:
        """Student → metric → value on the validation split."""
        return evaluate(method.students(), self.data.valid, self.info, fabric=self.fabric)

    def _fit(
        self, name: str, method: Method, *, shuffle: bool = False, epochs: int | None = None, keep: str = ""
    ) -> Run:
        changes = {key: value for key, value in (("epochs", epochs), ("keep", keep)) if value}
        folder = None if self.folder is None else self.folder / folder_name(name)
        return fit(
            method,
            self.data,
            self.plan.fit(TEACHER if name == TEACHER else "student").model_copy(update=changes),
            seed=self.seed,
            folder=folder,
            fabric=self.fabric,
            resume=True,  # the folder of the whole comparison was already checked
            shuffle_teacher=shuffle,
            progress=self.progress,
            title=f"seed {self.seed}, {name}",
            teacher_disk=self.folder and self.folder / "answers",
        )

    def train(self, name: str, method: Method, *, role: str, shuffle: bool = False) -> None:
        """Train something that is to be scored."""
        self.runs[name] = self._fit(name, method, shuffle=shuffle)
        self.roles[name] = role

    def take(self, name: str, method: Method, *, role: str) -> None:
        """Score something as it is, without training it."""
        folder = None if self.folder is None else self.folder / folder_name(name)
        self.runs[name] = as_it_is(method, self.data, seed=self.seed, folder=folder, fabric=self.fabric)
        self.roles[name] = role

    def train_card(
        self,
        card: MethodCard,
        settings: BaseModel,
        *,
        name: str = "",
        shuffle: bool = False,
        untrained: bool = False,
    ) -> None:
        """Train a method of the list; with ``shuffle`` or ``untrained`` as its own control."""
        if problems := unfit(card, self.info):
            raise InputError(problems)
        role = "shuffled" if shuffle else "untrained" if untrained else "method"
        name = name or card.name
        name = name if role == "method" else f"{name} ({role} teacher)"
        with self._teaching_nothing() if untrained else contextlib.nullcontext():
            method = self.build(card, settings)
        self.train(name, method, role=role, shuffle=shuffle)

    @contextlib.contextmanager
    def _teaching_nothing(self) -> Iterator[None]:
        """Within it the teacher has its initial weights; methods that train one of their own are refused."""
        self._untrained, self._asked = True, False
        try:
            yield
        finally:
            self._untrained = False
        if not self._asked:
            raise InputError(
                "The method trains its teacher in a stage of its own, so there is none to leave untrained."
            )

    def build(self, card: MethodCard, settings: BaseModel) -> Method:
        """A method of the list, ready to be trained."""
        # networks of the method's own must not depend on what was trained, or read back, before it
        with seeded(self.seed, "method", card.name):
            method: Method = card.load()(self, settings)
        return method

    def train_control(self) -> None:
        """The no-KD control: the student's network, labels alone."""
        self.train(CONTROL, Supervised(self.network(self.student), self.info), role="control")

    def train_matched(self) -> None:
        """Controls as large as what is deployed: for every method whose student has more parameters than the control's.

        Labels alone, and encoders just wide enough. Where their width can't be chosen there is none.
        """
        for name in [name for name, role in self.roles.items() if role == "method"]:
            for student in self.runs[name].students.values():
                if student.modalities == self.student:
                    found = self.train_as_large(student, like=self.network(self.student))
                    self.matched |= {name: found} if found else {}

    def train_as_large(self, student: Student, *, like: Student, label: str = CONTROL) -> str:
        """A control for one student, unless a network like ``like`` is as large; returns its name in the table."""
        width = self.width_as_large(student, like=like)
        if width is None:
            return ""
        name = f"{label}, width {width}"
        if name not in self.runs:
            self.progress.expect()
            self.train(name, self.as_large(student, like=like, width=width), role=MATCHED)
        return name

    def width_as_large(self, student: Student, *, like: Student) -> int | None:
        """How wide a network like ``like`` is that has as many parameters; None: as it is, or no width will do."""
        parameters = count_parameters(student.module)
        return width_for(like, parameters) if parameters > LARGER * count_parameters(like.module) else None

    def as_large(self, student: Student, *, like: Student, width: int) -> Method:
        """A control of this width for one student, ready to be trained."""
        with seeded(self.seed, "matched", *student.modalities):
            network = build_for(
                self.info,
                student.modalities,
                encoder=encoders_of(like),
                width=width,
                dropout=self.plan.network("student").get("dropout", 0.0),
            )
        return Supervised(network, self.info)

    def score(self, *, every: bool = False, beside: Mapping[str, Student] | None = None) -> list[dict[str, Any]]:
        """Read the test split once and score what was trained; one row per student.

        Of a method with several students the one of the deployed modalities counts; where there is none, the one that
        leads; or with ``every`` each of them, its name behind the method's. ``outputs`` then holds what was said, as
        far as there is room for it: run → student → index, outputs, target.

        Args:
            every: all students of a method.
            beside: more that is asked for its outputs, and not scored; its run has the empty name.
        """
        students = {
            f"{name}\n{student_name}": student
            for name, run in self.runs.items()
            for student_name, student in run.students.items()
            if every or student.modalities == self.student or (not self._deploys(run) and _leads(run, student_name))
        }
        outputs: dict[str, Any] | None = {} if self._room_for_outputs(len(students)) else None
        asked = {**students, **{f"\n{name}": student for name, student in (beside or {}).items()}}
        scores = evaluate(asked, self.data.test, self.info, fabric=self.fabric, full=True, outputs=outputs)
        for key, said in (outputs or {}).items():
            name, student_name = key.split("\n")
            self.outputs.setdefault(name, {})[student_name] = said
        rows = []
        for key in students:
            found = scores[key]
            name, student_name = key.split("\n")
            best = self.runs[name].best[student_name]
            several = every and len(self.runs[name].students) > 1
            row = {
                "seed": self.seed,
                "name": f"{name}: {student_name}" if several else name,
                "role": self.roles[name],
                "student": student_name,
                "needs": list(students[key].needs),
                "folder": f"seed-{self.seed}/{folder_name(name)}",
                "parameters": count_parameters(students[key].module),
                "matched": self.matched.get(f"{name}: {student_name}" if several else name, ""),
                "best_epoch": best["epoch"],
                "valid": best["valid"],
                "test": found,
            }
            rows.append(row)
            self._write(row, outputs and outputs[key], students[key].target)
        return rows

    def _room_for_outputs(self, students: int) -> bool:
        """Whether what is said of the test split can be kept: a class for every pixel of thousands of frames can't."""
        if not self.info.dense:
            return True
        places = max(math.prod(known.shape[1:]) for known in self.info.inputs.values())
        size = (2 if self.info.task == "multiclass" else 4 * self.info.outputs) + 8  # an answer, and its target
        return students * max(self.info.rows["test"].values()) * places * size <= OUTPUT_BYTES

    def _deploys(self, run: Run) -> bool:
        """Whether one of its students is for the deployed modalities."""
        return any(student.modalities == self.student for student in run.students.values())

    def _write(self, row: Mapping[str, Any], outputs: Mapping[str, Any] | None, target: str) -> None:
        if self.folder is None or self.fabric.global_rank:
            return
        folder = self.folder / Path(row["folder"]).name
        result = read_json(folder / "result.json")
        result["students"][row["student"]]["test"] = row["test"]
        write_json(folder / "result.json", result)
        if outputs is None:
            return
        numbers = self.data.test.numbers[target]
        arrays = {name: tensor.cpu().numpy() for name, tensor in outputs.items()}
        with written_whole(folder / "predictions" / f"{row['student']}.npz") as beside:
            np.savez(beside, rows=numbers[arrays["index"]], outputs=arrays["outputs"], target=arrays["target"])


class Rehearsal(Bench):
    """The same kit, on which nothing is trained: what a method refuses, it refuses here, before the first epoch.

    Networks have their initial weights, the training split is its first rows, and every validation score is 0.
    """

    def teacher(self) -> nn.Module:
        """A fresh network in the teacher's place, or that of an earlier run."""
        network = self.network(self.teaching, side=TEACHER).module
        for weights in self.earlier.weights.get(TEACHER, {}).values():
            load_checked(network, weights, self.earlier.where)
        return network.to(self.fabric.device).eval()

    def control(self) -> nn.Module:
        """A fresh network in the control's place."""
        return self.network(self.student).module.to(self.fabric.device).eval()

    def batches(self, split: str = "train", *, size: int | None = None) -> Iterable[Batch]:
        """The first batch alone."""
        return itertools.islice(super().batches(split, size=size), 1)

    def fit(self, method: Method, *, stage: str, epochs: int | None = None, keep: str = "") -> Method:
        """The method as it is, or with the weights of an earlier run."""
        if stage in self.earlier.weights:
            return self._load_earlier(stage, method)
        return method.to(self.fabric.device)

    def validate(self, method: Method) -> dict[str, dict[str, float]]:
        """Zeros."""
        return {name: dict.fromkeys(scalar_metrics(self.info), 0.0) for name in method.students()}

    def rehearse(self, card: MethodCard, settings: BaseModel) -> Method:
        """Build a method that nobody trains."""
        return self.build(card, settings)


def _leads(run: Run, student: str) -> bool:
    """Whether a student is the one of its method that counts, or there is none that does."""
    return run.method.lead in ("", student)


def encoders_of(student: Student) -> dict[str, str]:
    """Modality → name of the encoder that reads it."""
    return {name: asked["encoder"] for name, asked in (student.arguments or {}).get("inputs", {}).items()}


def unfit(card: MethodCard, info: DataInfo) -> list[str]:
    """Why a method can't be trained on this data; nothing when it can."""
    problems = []
    if card.paired and not info.paired:
        others = ", ".join(other.name for other in METHODS.values() if not other.paired)
        problems.append(
            f"The method '{card.name}' needs paired samples, and this data is unpaired. Methods that take it: {others}."
        )
    if info.task not in card.tasks:
        problems.append(f"The method '{card.name}' knows the tasks {', '.join(card.tasks)}, not {info.task}.")
    kind = "place" if info.dense else "sample"
    if card.targets not in ("any", kind):
        has, asked = (
            ("one target per sample", "every place")
            if kind == "sample"
            else ("a target for every place", "each sample")
        )
        fitting = ", ".join(other.name for other in METHODS.values() if other.targets in ("any", kind))
        problems.append(
            f"The method '{card.name}' answers for {asked}, and this data has {has}. Methods that take it: {fitting}."
        )
    return problems


def folder_name(name: str) -> str:
    """A run's name as a folder.

    Example:
        >>> folder_name("kd (shuffled teacher)")
        'kd-shuffled-teacher'
    """
    kept = "".join(letter if letter.isalnum() or letter in "+_." else "-" for letter in name)
    return "-".join(filter(None, kept.split("-")))
