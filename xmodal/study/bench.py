"""The bench: one data set, one seed and one folder, on which a teacher, controls and methods are trained and scored.

It is the `Kit` that methods are built with. Everything is trained first; then one pass over the test split scores all.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from xmodal.cards import MethodCard
from xmodal.data.base import Data
from xmodal.data.loader import in_order
from xmodal.data.split import Split
from xmodal.engine.callbacks import epochs_of
from xmodal.engine.evaluate import evaluate, small
from xmodal.engine.fit import Run, as_it_is, fit
from xmodal.engine.loop import updates_per_epoch
from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.files import read_json, write_json
from xmodal.method import Method
from xmodal.methods.supervised import Supervised
from xmodal.models.capacity import count_parameters, width_for
from xmodal.models.network import as_precise, build_for, student_of, zeros
from xmodal.models.resnet import load_checked
from xmodal.seeding import kept, seeded
from xmodal.study.controls import CONTROLS, SAME_MODALITY, TRAINED, UNTRAINED
from xmodal.study.fitness import unfit
from xmodal.study.plan import TEACHER, Plan
from xmodal.study.predictions import write_predictions
from xmodal.types import Batch, DataInfo, Student

if TYPE_CHECKING:
    from xmodal.devices import Devices
    from xmodal.teachers.given import Given

F = TypeVar("F")
CONTROL, MATCHED = "no-KD", "matched"
# Memory for the outputs of dense data on the test split; above it none are kept. A class for every pixel of thousands
# of frames does not fit; `xmodal evaluate` writes them to files instead.
OUTPUT_BYTES = 2 * 2**30
# A student with more than this many times the parameters of the control gets a second control of its own size; below,
# the no-KD control counts as equally large, and one training is saved.
LARGER = 1.05


@dataclass(frozen=True)
class Earlier:
    """Results of another run with the same data and networks, which are not computed again.

    Attributes:
        weights: name of a stage → student → its weights.
        measured: name of a measurement, as `Bench.once` takes it → its result.
        where: where the weights come from, for error messages.
    """

    weights: Mapping[str, Mapping[str, Mapping[str, Tensor]]] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    where: str = "an earlier run"


class Bench:
    """Trains and scores; see `method.Kit` for the members that methods use.

    Args:
        data: what to train on.
        plan: modalities, networks and training of teacher and student.
        seed: of all weights, batches and draws on this bench.
        fabric: started devices.
        folder: parent of the run folders; None: nothing is written.
        progress: shows the progress.
        modules: the user's own networks by side (``teacher``, ``student``), in place of built ones.
        callbacks: told of every epoch, see `xmodal.engine.callbacks`.
        earlier: weights and measurements of another run.

    Attributes:
        runs: name → run of everything that is scored.
        stages: name → run of the stages of methods, such as a joint training; they are not scored.
        roles: name of a run → its role in the table: ``teacher``, ``control``, ``method``, ``matched``, ….
        matched: name of a method → the control of its size.
        outputs: run → student → index, outputs and target on the test split; filled by `score`.
        measured: results of `once` by name.
    """

    def __init__(
        self,
        data: Data,
        plan: Plan,
        *,
        seed: int,
        fabric: Devices,
        folder: Path | None = None,
        progress: Progress | None = None,
        modules: Mapping[str, nn.Module] | None = None,
        callbacks: Sequence[object] = (),
        earlier: Earlier | None = None,
    ) -> None:
        self.seed, self.fabric, self.folder = seed, fabric, folder
        self.progress = progress or Progress(quiet=True)
        self.callbacks = callbacks
        teaching, student = plan.sides(data.info.modalities)
        self.teaching = data.info.require(teaching, "teacher")
        self.student = data.info.require(student, "student")
        self.given: Given | None = None
        if plan.teacher_from is not None:
            from xmodal.teachers.given import open_teacher

            self.given = open_teacher(plan.teacher_from, data, self.teaching, say=self.progress.say)
            read = tuple(name for name in self.given.student.modalities if name in data.info.modalities)
            if plan.teacher and read and {*read} != {*plan.teacher}:
                raise InputError(
                    f"The given teacher reads {', '.join(read)}, and --teacher names {', '.join(plan.teacher)}. Leave "
                    "--teacher out, or name what it reads."
                )
            data = self.given.data
            self._keep_teacher(self.given.digest)
        # before any network is built: networks take their number format from the description of the data
        data = data.doubled() if plan.training.precision == "64-true" else data
        self.data, self.plan = data, plan
        self.modules = dict(modules or {})
        self.info: DataInfo = data.info
        self.runs: dict[str, Run] = {}
        self.stages: dict[str, Run] = {}
        self.roles: dict[str, str] = {}
        self.matched: dict[str, str] = {}
        self.outputs: dict[str, dict[str, Any]] = {}
        # set by `_with_teacher`: what `teacher` returns, and whether it was called
        self._teacher_source = TRAINED
        self._teacher_used = False
        self.earlier = earlier or Earlier()
        self.measured: dict[str, Any] = dict(self.earlier.measured)

    def network(self, modalities: Sequence[str], *, side: str = "student") -> Student:
        """A fresh network; equal seeds, sides and modalities give equal weights, whatever was built before."""
        if side in self.modules:
            # a copy: the control and every method start from the weights that the user's network has now
            return student_of(copy.deepcopy(self.modules[side]), self.info, modalities)
        with seeded(self.seed, side, *modalities):
            student = build_for(self.info, modalities, **self.plan.network(side))
        # an untrained teacher is a control without any knowledge, so it does not get ImageNet's either
        if side in self.plan.imagenet and self._teacher_source != UNTRAINED:
            from xmodal.models.pixels.camera_net import load_imagenet

            load_imagenet(student.module, self.plan.imagenet[side])
        return student

    def dry_run(self) -> None:
        """Build the networks of both sides once and discard them, so that errors appear before training."""
        sides = [] if self.given else [self.network(self.teaching, side=TEACHER)]
        sides.append(self.network(self.student))
        if min(self.plan.training.batch_size, max(self.info.rows["train"].values())) > 1:
            return
        for student in sides:
            row = zeros({name: self.info.inputs[name] for name in student.needs}, 1)
            try:
                # in training mode, where BatchNorm needs two values per channel, and with the random state kept:
                # dropout draws from it
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    student.module.cpu().train()(row)
            # BatchNorm raises ValueError: "Expected more than 1 value per channel when training"
            except ValueError as error:
                raise InputError(
                    f"A batch of one row is too small for this network ({error}). Raise --batch-size to 2 or more."
                ) from error

    def teacher(self) -> nn.Module:
        """The finished teacher, trained on the first call; every call returns a copy."""
        self._teacher_used = True
        if self._teacher_source == SAME_MODALITY:
            return self.control()
        if self._teacher_source == UNTRAINED:
            return self.network(self.teaching, side=TEACHER).module.to(self.fabric.device).eval()
        if self.given is not None:
            return self._given_teacher(self.given)
        if TEACHER not in self.runs:
            network = self.network(self.teaching, side=TEACHER)
            if TEACHER in self.earlier.weights:
                self.take(TEACHER, self._load_earlier(TEACHER, Supervised(network, self.info)), role=TEACHER)
            else:
                self.train(TEACHER, Supervised(network, self.info), role=TEACHER)
        return self._finished(TEACHER)

    def _keep_teacher(self, digest: str) -> None:
        """Remember which teacher a run began with: half a run with another one would be no run at all."""
        if self.folder is None:
            return
        file = self.folder / "teacher.json"
        # in every process: one that raised alone would leave the others waiting
        if file.is_file() and read_json(file)["digest"] != digest:
            raise InputError(
                f"The given teacher is not the one with which the run in {self.folder.parent} began: its weights or "
                "outputs have changed. Start a new run (another --out), or restore the teacher."
            )
        if self.fabric.global_rank == 0:
            write_json(file, {"digest": digest})

    def _given_teacher(self, given: Given) -> nn.Module:
        """The teacher that exists already; it has a row in the table if it answers for all rows that are scored."""
        if given.scored and TEACHER not in self.runs:
            self.take(TEACHER, Supervised(copy.deepcopy(given.student), self.info), role=TEACHER)
        module = as_precise(copy.deepcopy(given.student.module), self.info)
        return module.to(self.fabric.device).eval()

    def control(self) -> nn.Module:
        """The finished no-KD control, trained on the first call; every call returns a copy."""
        if CONTROL not in self.runs:
            self.train_control()
        return self._finished(CONTROL)

    def lead(self, name: str) -> Student:
        """The student of a run, or of several the one that its method leads with."""
        run = self.runs[name]
        return next(student for student_name, student in run.students.items() if _leads(run, student_name))

    def _finished(self, name: str) -> nn.Module:
        return copy.deepcopy(self.lead(name).module)

    def batches(self, split: str = "train", *, size: int | None = None, most: int | None = None) -> Iterable[Batch]:
        """Rows of the training or validation split in their order, on the device; see `Kit.batches`."""
        # the test split is missing on purpose: no method may read it
        rows = {"train": self._labelled_rows, "valid": self.data.valid}[split]
        rows = rows if most is None else rows.spread(most)
        batches = in_order(rows, batch_size=size or self.info.block(256))
        return (batch.to(self.fabric.device) for batch in batches)

    @functools.cached_property
    def _labelled_rows(self) -> Split:
        """The training rows with a label and all modalities: diagnostics compare with labels, and several networks."""
        rows = self.data.train.complete()
        if not len(rows):
            raise InputError(
                "No training row has a label and all modalities, and this method measures its networks on such rows. "
                "Add some, or choose another method."
            )
        return rows

    def fit(self, method: Method, *, stage: str, epochs: int | None = None, keep: str = "") -> Method:
        """Train a stage of a method; afterwards its students have their best weights, or the last ones."""
        if stage in self.earlier.weights:
            return self._load_earlier(stage, method)
        # methods that name the same stage share its training, such as the joint training of all MFH students
        if stage not in self.stages:
            # a method may shorten the training that the user chose, not lengthen it
            epochs = epochs and min(epochs, self.plan.training.epochs)
            self.progress.expect()
            self.stages[stage] = self._fit(stage, method, epochs=epochs, keep=keep)
        for name, student in method.students().items():
            student.module.load_state_dict(self.stages[stage].students[name].module.state_dict())
            student.module.to(self.fabric.device)
        return method

    def _load_earlier(self, stage: str, method: Method) -> Method:
        """A method with the weights of another run; weights of another network raise an error.

        Students that the other run does not name keep theirs: of a joint training, perhaps only the teacher is used.
        """
        students = method.students()
        for name, weights in self.earlier.weights[stage].items():
            load_checked(students[name].module, weights, f"{self.earlier.where} ({name})")
        return method.to(self.fabric.device)

    def once(self, what: str, find: Callable[[], F]) -> F:
        """The result of ``find``, computed on the first call with this name and kept."""
        if what not in self.measured:
            # Only the first caller computes: draws must not shift the random numbers of its own layers.
            with kept():
                self.measured[what] = find()
        result: F = self.measured[what]
        return result

    def validate(self, method: Method) -> dict[str, dict[str, float]]:
        """Student → metric → value on the validation split."""
        return evaluate(method.students(), self.data.valid, self.info, fabric=self.fabric)

    def _fit(self, name: str, method: Method, *, exchange: str = "", epochs: int | None = None, keep: str = "") -> Run:
        changes = {key: value for key, value in (("epochs", epochs), ("keep", keep)) if value}
        # a stage that names its epochs is shorter than the others on purpose
        changes |= {"updates": 0} if epochs else {}
        folder = None if self.folder is None else self.folder / folder_name(name)
        return fit(
            method,
            self.data,
            self.plan.fit(TEACHER if name == TEACHER else "student").model_copy(update=changes),
            seed=self.seed,
            folder=folder,
            fabric=self.fabric,
            # `Study.start` has checked the folder of the whole study, so what is in this one belongs to it
            resume=True,
            exchange_teacher=exchange,
            progress=self.progress,
            title=f"{'fold' if self.plan.folds else 'seed'} {self.seed}, {name}",
            callbacks=epochs_of(self.callbacks, name),
            # one folder for all methods: they learn from the same teacher, whose outputs are written once
            teacher_disk=self.folder and self.folder / "answers",
        )

    def train(self, name: str, method: Method, *, role: str, exchange: str = "") -> None:
        """Train a method under the name and role that its row in the table has; ``exchange`` as in `fit`."""
        self.runs[name] = self._fit(name, method, exchange=exchange)
        self.roles[name] = role

    def take(self, name: str, method: Method, *, role: str) -> None:
        """Add a method whose weights are finished: it is scored and not trained."""
        folder = None if self.folder is None else self.folder / folder_name(name)
        self.runs[name] = as_it_is(method, self.data, seed=self.seed, folder=folder, fabric=self.fabric)
        self.roles[name] = role

    def train_card(self, card: MethodCard, settings: BaseModel, *, name: str = "", control: str = "") -> None:
        """Train a method of `METHODS`, or one of its controls.

        Args:
            card: of the method.
            settings: of the method.
            name: in the table; empty: the name of the card.
            control: a name of `CONTROLS`; empty: the method itself.
        """
        if problems := unfit(card, self.info):
            raise InputError(problems)
        name = name or card.name
        if not control:
            self.train(name, self.build(card, settings), role="method")
            return
        changed = CONTROLS[control]
        with self._with_teacher(changed.teacher):
            method = self.build(card, settings)
        if changed.labelled_only:
            method.uses_unlabelled = False
        self.train(f"{name} ({changed.title})", method, role=control, exchange=changed.exchange)

    @contextlib.contextmanager
    def _with_teacher(self, source: str) -> Iterator[None]:
        """Within this block `teacher` returns another network than the trained teacher.

        A method that does not call `teacher` trains its teacher in a stage of its own and raises an error.
        """
        self._teacher_source, self._teacher_used = source, False
        try:
            yield
        finally:
            self._teacher_source = TRAINED
        if source != TRAINED and not self._teacher_used:
            raise InputError("The method trains its teacher in a stage of its own, so there is none to replace.")

    def build(self, card: MethodCard, settings: BaseModel) -> Method:
        """A method of `METHODS` before its training."""
        # a promise of `Kit`: layers of the method do not depend on what was trained, or loaded, before
        self._teacher_used = False
        try:
            with seeded(self.seed, "method", card.name):
                method: Method = card.load()(self, settings)
        except InputError as error:
            if self.given is None or self.given.student.builder is not None:
                raise
            # most of these errors name a layer that the table lacks
            raise InputError(
                [f"With a given teacher of outputs alone, without layers: {problem}" for problem in error.problems]
            ) from error
        if self.given and card.teacher == "frozen" and not self._teacher_used:
            raise InputError(
                f"The method {card.name} trains a teacher of its own with these settings, so a given one would have no "
                f"effect on it. Choose other settings (`xmodal list methods {card.name}`), or another method."
            )
        return method

    def train_control(self) -> None:
        """Train the no-KD control, the student's network on labels alone; one of an earlier run is taken as it is."""
        method = Supervised(self.network(self.student), self.info)
        if CONTROL in self.earlier.weights:
            self.take(CONTROL, self._load_earlier(CONTROL, method), role="control")
        else:
            self.train(CONTROL, method, role="control")

    def train_matched(self) -> None:
        """Train a control of the same size for every method whose student has more parameters than the no-KD control.

        It learns from labels alone, and its encoders are just wide enough. Networks without a width have no such
        control.
        """
        for name in [name for name, role in self.roles.items() if role == "method"]:
            for student in self.runs[name].students.values():
                if student.modalities == self.student:
                    control = self.train_as_large(student, like=self.network(self.student))
                    self.matched |= {name: control} if control else {}

    def train_as_large(self, student: Student, *, like: Student, label: str = CONTROL) -> str:
        """Train a control of the size of one student; returns its name in the table, empty where none is needed."""
        width = self.width_as_large(student, like=like)
        if width is None:
            return ""
        name = f"{label}, width {width}"
        # methods with equally large students share a control
        if name not in self.runs:
            self.progress.expect()
            self.train(name, self.as_large(student, like=like, width=width), role=MATCHED)
        return name

    def width_as_large(self, student: Student, *, like: Student) -> int | None:
        """The width at which a network like ``like`` is as large; None: it is large enough already, or has no width."""
        parameters = count_parameters(student.module)
        return width_for(like, parameters) if parameters > LARGER * count_parameters(like.module) else None

    def as_large(self, student: Student, *, like: Student, width: int) -> Method:
        """A control of this width for one student, before its training."""
        with seeded(self.seed, "matched", *student.modalities):
            network = build_for(
                self.info,
                student.modalities,
                encoder=encoders_of(like),
                width=width,
                dropout=self.plan.network("student").get("dropout", 0.0),
            )
        return Supervised(network, self.info)

    def score(self, *, every: bool = False, unscored: Mapping[str, Student] | None = None) -> list[dict[str, Any]]:
        """Read the test split once and score everything that was trained; one row per student.

        Of a method with several students the one for the deployed modalities counts; if there is none, the one that
        the method leads with. Afterwards ``outputs`` holds the outputs, if they fit into memory.

        Args:
            every: a row for all students of a method; their names follow the name of the method.
            unscored: further networks whose outputs are kept, without a row; they stand under the empty run name.
        """
        students = {
            f"{name}\n{student_name}": student
            for name, run in self.runs.items()
            for student_name, student in run.students.items()
            if every or self._counts(name, student_name, student)
        }
        outputs: dict[str, Any] | None = {} if self._room_for_outputs(len(students)) else None
        # one pass for all networks: the test split is read when nothing is left to choose
        further = {f"\n{name}": student for name, student in (unscored or {}).items()}
        scores = evaluate(
            {**students, **further}, self.data.test, self.info, fabric=self.fabric, full=True, outputs=outputs
        )
        for key, arrays in (outputs or {}).items():
            name, student_name = key.split("\n")
            self.outputs.setdefault(name, {})[student_name] = arrays
        rows = []
        for key, student in students.items():
            name, student_name = key.split("\n")
            best = self.runs[name].best[student_name]
            several = every and len(self.runs[name].students) > 1
            row_name = f"{name}: {student_name}" if several else name
            row = {
                "seed": self.seed,
                "name": row_name,
                "role": self.roles[name],
                "student": student_name,
                "needs": list(student.needs),
                "folder": f"seed-{self.seed}/{folder_name(name)}",
                "parameters": count_parameters(student.module),
                "matched": self.matched.get(row_name, ""),
                "best_epoch": best["epoch"],
                "split": self._split,
                **self._labels,
                "updates": self._updates(self.runs[name]),
                "late_gain": late_gain(self.runs[name].history, student_name, self.info.select),
                "valid": best["valid"],
                "test": scores[key],
            }
            rows.append(row)
            self._write(row, outputs and outputs[key], student.target)
        return rows

    def student_in(self, folder: str, student: str) -> Student:
        """The student of a row, by the ``folder`` and ``student`` that the row names."""
        runs = {f"seed-{self.seed}/{folder_name(name)}": run for name, run in self.runs.items()}
        return runs[folder].students[student]

    @functools.cached_property
    def _split(self) -> str:
        """A hash of the rows of validation and test: seeds with one split have one."""
        numbers = [part for split in (self.data.valid, self.data.test) for part in split.numbers.values()]
        return hashlib.blake2b(b"".join(part.tobytes() for part in numbers), digest_size=6).hexdigest()

    @property
    def _labels(self) -> dict[str, int]:
        """How many labels the trainings of this bench use, and of how many rows: splits may differ between seeds."""
        rows = max(self.info.rows["train"].values())
        return {
            "labels": max(self.info.labelled.values(), default=rows),
            "valid_labels": max(self.info.rows["valid"].values()),
            "training_rows": rows,
        }

    def _updates(self, run: Run) -> int:
        """How many updates a training had; the same for all that are compared, whatever rows they read."""
        return sum(updates_per_epoch(epoch["steps"], self.plan.training) for epoch in run.history)

    def _room_for_outputs(self, students: int) -> bool:
        """Whether the outputs of so many students on the test split may be kept in memory."""
        if not self.info.dense:
            return True
        # `evaluate` keeps classes and targets in the smallest type, or float32 values; targets are as wide then
        size = 2 * small(self.info).itemsize if self.info.task == "multiclass" else 8 * self.info.outputs
        return students * max(self.info.rows["test"].values()) * self.info.places * size <= OUTPUT_BYTES

    def _deploys(self, run: Run) -> bool:
        """Whether a run has a student for the deployed modalities."""
        return any(student.modalities == self.student for student in run.students.values())

    def _counts(self, name: str, student_name: str, student: Student) -> bool:
        """Whether this student of a run has the row in the table."""
        run = self.runs[name]
        # a teacher of several networks teaches with the one that it leads with
        if (self.roles[name] == TEACHER and run.method.lead) or not self._deploys(run):
            return _leads(run, student_name)
        return student.modalities == self.student

    def _write(self, row: Mapping[str, Any], outputs: Mapping[str, Any] | None, target: str) -> None:
        """Add test scores and predictions to the folder of a run; the first process writes for all."""
        if self.folder is None or self.fabric.global_rank:
            return
        folder = self.folder / Path(row["folder"]).name
        result = read_json(folder / "result.json")
        result["students"][row["student"]]["test"] = row["test"]
        write_json(folder / "result.json", result)
        if outputs is not None:
            write_predictions(folder, row, outputs, self.data.test.numbers[target], self.info)


def late_gain(history: Sequence[Mapping[str, Any]], student: str, select: tuple[str, str]) -> float:
    """How much the validation score rose in the last fifth of the epochs, compared with the fifth before; 0 if short.

    Example:
        >>> history = [{"valid": {"a": {"accuracy": 0.01 * epoch}}} for epoch in range(10)]
        >>> round(late_gain(history, "a", ("accuracy", "max")), 3)
        0.02
    """
    metric, direction = select
    scores = [epoch["valid"][student][metric] for epoch in history if student in epoch["valid"]]
    fifth = len(scores) // 5
    if not fifth or any(score is None for score in scores[-2 * fifth :]):
        return 0.0
    gain = (sum(scores[-fifth:]) - sum(scores[-2 * fifth : -fifth])) / fifth
    return float(gain if direction == "max" else -gain)


def _leads(run: Run, student: str) -> bool:
    """Whether a student is the one that its method leads with; every student if it leads with none."""
    return run.method.lead in ("", student)


def encoders_of(student: Student) -> dict[str, str]:
    """Modality → name of the encoder that reads it."""
    return {name: options["encoder"] for name, options in (student.arguments or {}).get("inputs", {}).items()}


def folder_name(name: str) -> str:
    """The name of a run as the name of its folder.

    Example:
        >>> folder_name("kd (shuffled teacher)")
        'kd-shuffled-teacher'
    """
    kept = "".join(letter if letter.isalnum() or letter in "+_." else "-" for letter in name)
    return "-".join(filter(None, kept.split("-")))
