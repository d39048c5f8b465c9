"""Training and measurements shared by `gauss` and `classification`: teacher, control, and students in several modes.

A control does not depend on the teacher, and its data is the same along the sweep, so one per seed is enough.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.data.base import Data
from xmodal.data.loader import in_order
from xmodal.diagnostics.divergence import measure_divergence
from xmodal.engine.run.result import Run
from xmodal.engine.settings import FitSettings
from xmodal.losses.distance import cmd
from xmodal.methods.ntdh import NTDH
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.study.linear import Stream, accuracy, only, row, train
from xmodal.study.settings import DivergenceSettings
from xmodal.types import Batch, DataInfo, Student

if TYPE_CHECKING:
    from xmodal.study.opening import Study

D = TypeVar("D", bound=Hashable)  # a point of the sweep
OUTPUTS = ("outputs",)  # the authors' code distils logits in every mode, also where a loss is meant for features
TEACHER, CONTROL = "teacher", "no-KD"
ROLES = {TEACHER: "teacher", CONTROL: "control"}


@dataclass(frozen=True)
class Trained(Generic[D]):
    """Data and trained networks.

    Attributes:
        data: (point, seed) → data.
        runs: name → (point, seed) → run: ``teacher``, ``no-KD`` and the modes.
    """

    data: Mapping[tuple[D, int], Data]
    runs: Mapping[str, Mapping[tuple[D, int], Run]]


def train_all(
    settings: DivergenceSettings,
    data: Mapping[tuple[D, int], Data],
    fresh: Mapping[tuple[D, int], Mapping[str, Student]],
    fit: FitSettings,
    study: Study,
) -> Trained[D]:
    """Train teachers and controls, then the students of every mode.

    Args:
        settings: modes and their losses.
        data: of each point and seed; modality b and the labels are the same at all points.
        fresh: initial networks: the teacher ``a``, the student ``b``, and ``b control``.
        fit: settings of every training.
        study: the running study.
    """
    study.progress.expect(1 + len(settings.mode))
    labels = {case: Supervised(networks["a"], data[case].info) for case, networks in fresh.items()}
    teachers = train("teacher", labels, data, fit, study)
    # one control per seed, on the data of its first point: reversed, because the last entry of a key remains
    first = {seed: case for case in reversed(list(data)) for seed in [case[1]]}
    alone = {seed: Supervised(fresh[case]["b control"], data[case].info) for seed, case in first.items()}
    control = train(CONTROL, alone, {seed: data[first[seed]] for seed in alone}, fit, study)
    runs = {TEACHER: teachers, CONTROL: {case: control[case[1]] for case in data}}
    for mode in settings.mode:
        methods = {
            case: distillation(networks["b"], only(teachers[case]), data[case].info, mode, settings, case[1])
            for case, networks in fresh.items()
        }
        runs[mode] = train(mode, methods, data, fit, study)
    return Trained(data, runs)


def distillation(
    student: Student, teacher: Student, info: DataInfo, mode: str, settings: DivergenceSettings, seed: int
) -> NTDH:
    """The method of a copy of the student, which learns the labels and from the teacher's logits by a mode."""
    # random numbers of a loss (hint, crd) come from a stream of its own, so that no mode changes another
    with Stream(seed).continued():
        return NTDH(
            copy.deepcopy(student),
            teacher.module,
            info,
            DistillationOptions(
                losses=settings.losses(mode),
                kd_weight=1.0,
                task_weight=1.0,
                student_layer=OUTPUTS,
                teacher_layer=OUTPUTS,
            ),
            samples=mode.endswith("_pssm"),
            detach=settings.detach,
            scale_logits=settings.scale_logits,
        )


def scored_row(trained: Trained[D], name: str, case: tuple[D, int], **facts: Any) -> dict[str, Any]:
    """The row of one network, with its accuracy on the test split and these facts."""
    score = accuracy(trained.runs[name][case], trained.data[case])
    return row(name, ROLES.get(name, "method"), case[1], score, **facts)


# ---- measured on the training split


@torch.no_grad()
def probabilities(student: Run, teacher: Run, data: Data) -> tuple[Tensor, Tensor, Tensor]:
    """Class probabilities of student and teacher on all training rows, and the labels."""
    batch = whole(data)
    of_student, of_teacher = (F.softmax(only(run).module(batch.inputs), dim=1) for run in (student, teacher))
    return of_student, of_teacher, batch.target


def whole(data: Data) -> Batch:
    """All training rows in order."""
    (batch,) = in_order(data.train, batch_size=max(data.train.rows.values()))
    return batch


def cmd_of(student: Tensor, teacher: Tensor) -> float:
    """CMD of two sets of rows."""
    return float(cmd(student.double(), teacher.double()))


def cmd_of_inputs(data: Data) -> float:
    """CMD of the two modalities' training rows."""
    batch = whole(data)
    return cmd_of(batch.input("b"), batch.input("a"))


def error_distribution(student: Tensor, teacher: Tensor, target: Tensor) -> dict[str, list[float]]:
    """Mean probabilities over the rows of class 0 that the teacher classifies wrongly; empty if there are none.

    Example:
        >>> teacher, student = torch.tensor([[0.2, 0.8], [0.9, 0.1]]), torch.tensor([[0.5, 0.5], [1.0, 0.0]])
        >>> error_distribution(student, teacher, torch.tensor([0, 0]))["student"]
        [0.5, 0.5]
    """
    wrong = (target == 0) & (teacher.argmax(dim=1) != 0)
    if not wrong.any():
        return {}
    sides = {"student": student, "teacher": teacher}
    return {name: side[wrong].double().mean(dim=0).tolist() for name, side in sides.items()}


def non_target_divergence(student: Run, teacher: Run, data: Data, *, form: str = "reference") -> float:
    """Non-target divergence of two trained networks on the training rows."""
    networks = only(student).module, only(teacher).module
    return measure_divergence(*networks, [whole(data)], form=form, samples=1).non_target_mean
