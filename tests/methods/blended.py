r"""Blended distillation: a student learns from a trained mixture of two teachers.

One teacher reads the modalities of the teaching side, the other those of the student. A linear layer that is trained on
the labels mixes their outputs, and the student learns the mixture. Training needs paired samples of both sides;
deployment needs the student's modalities alone.

$$L = L_{task}(s, y) + w_{mix} \, L_{task}(m, y) + w_{kd} \, MSE(s, stop(m)), \qquad
m = W [t; t'] + b$$

Written from docs/guide/new_method.md alone, for its test.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from xmodal.losses.reduce import masked_mean
from xmodal.losses.task import task_loss
from xmodal.method import Kit, Method
from xmodal.methods.settings import MethodSettings
from xmodal.methods.supervised import Supervised
from xmodal.models.network import as_precise
from xmodal.types import Batch, DataInfo, Step, Student


class BlendedSettings(MethodSettings):
    """Coefficients of blended distillation."""

    kd_weight: float = Field(0.1, ge=0, description="weight of the mixture's term")
    mix_weight: float = Field(1.0, gt=0, description="weight of the mixture's loss of labels")


class Blended(Method):
    """Distillation from a mixture of two teachers.

    Args:
        student: the network to deploy.
        teachers: two finished networks; frozen here.
        info: of the data.
        kd_weight: w_kd.
        mix_weight: w_mix.
    """

    def __init__(
        self,
        student: Student,
        teachers: tuple[nn.Module, nn.Module],
        info: DataInfo,
        *,
        kd_weight: float = 0.1,
        mix_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = student.module
        self.first, self.second = (self.freeze(teacher) for teacher in teachers)
        self.mix = nn.Linear(2 * info.outputs, info.outputs)
        self._student, self._info = student, info
        self.kd_weight, self.mix_weight = kd_weight, mix_weight
        self.uses_unlabelled = kd_weight > 0

    def teach(self, batch: Batch) -> dict[str, Tensor]:
        """The outputs of both teachers, one row per sample."""
        with torch.no_grad():
            return {"first": self.first(batch.inputs), "second": self.second(batch.inputs)}

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """L = L_task(s, y) + w_mix L_task(m, y) + w_kd MSE(s, m)."""
        outputs = self.network({name: batch.input(name) for name in self._student.needs})
        mixture = self.mix(torch.cat([teacher_outputs["first"], teacher_outputs["second"]], dim=1))
        labelled = batch.labelled.get(self._student.target)
        task, rows = task_loss(outputs, batch.target, task=self._info.task, labelled=labelled)
        mixed, _ = task_loss(mixture, batch.target, task=self._info.task, labelled=labelled)
        distance, every = masked_mean((outputs - mixture.detach()).square().mean(dim=1))
        return Step(
            {"task": task, "mix": self.mix_weight * mixed, "kd": self.kd_weight * distance},
            {"task": rows, "mix": rows, "kd": every},
        )

    def students(self) -> dict[str, Student]:
        """The student, named after the modalities that it reads."""
        return {"+".join(self._student.needs): self._student}


def build(kit: Kit, settings: BlendedSettings) -> Blended:
    """A fresh student, the recipe's teacher, and a second one of the student's modalities from a stage."""
    student, first = kit.network(kit.student), kit.teacher()
    second = Supervised(kit.network(kit.student, side="teacher"), kit.info)
    kit.fit(second, stage="blended second teacher")
    return as_precise(Blended(student, (first, second.network), kit.info, **settings.model_dump()), kit.info)
