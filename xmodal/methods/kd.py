r"""Knowledge distillation: a student that sees one modality learns the outputs of a teacher that sees others.

A frozen teacher answers each training sample; the student, fed another view of the same sample, is asked for the
label and for the teacher's softened answer. Training needs paired samples of both sides' modalities, deployment the
student's alone.

$$L = w_{task} \, L_{task}(s, y) + w_{kd} \, \tau^2 \, KL(p_{t / \tau} \,\|\, p_{s / \tau})$$

Reference: Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.losses.logits import bernoulli_kl, kl, mse
from xmodal.losses.reduce import masked_mean
from xmodal.losses.task import task_loss, what_counts
from xmodal.method import Kit, Method
from xmodal.methods.settings import KDSettings
from xmodal.types import Batch, DataInfo, Step, Student


class KD(Method):
    """Temperature-scaled distillation of outputs.

    Args:
        student: the network to deploy.
        teacher: a finished network that takes a dictionary of inputs; frozen here.
        info: kind of target: class probabilities, yes-or-no outputs or values are compared accordingly.
        temperature: τ.
        kd_weight: w_kd.
        task_weight: w_task; 0 learns from the teacher alone.

    Example:
        >>> from xmodal.models.network import build_for
        >>> from xmodal.types import InputInfo
        >>> vector = InputInfo((4,), layout="vector")
        >>> info = DataInfo({"clear": vector, "faint": vector}, "multiclass", 3, rows={})
        >>> method = KD(build_for(info, ["faint"]), build_for(info, ["clear"]).module, info, temperature=2.0)
        >>> sorted(method.students()), method.teacher.training
        (['faint'], False)
    """

    def __init__(
        self,
        student: Student,
        teacher: nn.Module,
        info: DataInfo,
        *,
        temperature: float = 4.0,
        kd_weight: float = 0.5,
        task_weight: float = 0.5,
    ) -> None:
        super().__init__()
        if not info.paired:
            raise InputError(
                "Distillation asks teacher and student about the same samples, and this data is unpaired. Give paired "
                "data, or choose a method that accepts unpaired data (`xmodal list methods`), such as supervised."
            )
        self.network = student.module
        self.teacher = self.freeze(teacher)
        self._student, self._info = student, info
        self.temperature, self.kd_weight, self.task_weight = temperature, kd_weight, task_weight

    def teach(self, batch: Batch) -> dict[str, Tensor]:
        """The teacher's outputs, one row per sample."""
        with torch.no_grad():
            return {"outputs": self.teacher(batch.inputs)}

    def training_step(self, batch: Batch, taught: Mapping[str, Tensor]) -> Step:
        """Label term plus teacher term."""
        info, valid = self._info, batch.valid.get(self._student.target)
        if info.task == "multiclass" and info.ignore is not None:  # what is ignored counts nowhere, here neither
            valid = what_counts(batch.target, valid=valid, ignore=info.ignore)
        outputs = self.network({name: batch.input(name) for name in self._student.needs})
        values = self._distance(outputs, taught["outputs"])
        distance, pairs = masked_mean(values, valid)
        step = Step({"kd": self.kd_weight * distance}, {"kd": pairs})
        if self.task_weight:
            loss, count = task_loss(outputs, batch.target, task=info.task, valid=valid, ignore=info.ignore)
            step.losses["task"] = self.task_weight * loss
            step.counts["task"] = count
        return step

    def _distance(self, outputs: Tensor, taught: Tensor) -> Tensor:
        if self._info.task == "regression":
            return mse(outputs, taught, reduction="none")
        loss = kl if self._info.task == "multiclass" else bernoulli_kl
        return loss(outputs, taught, temperature=self.temperature, reduction="none")

    def students(self) -> dict[str, Student]:
        """The student, named after the modalities that it reads."""
        return {"+".join(self._student.needs): self._student}


def build(kit: Kit, settings: KDSettings) -> KD:
    """A fresh student, taught by the recipe's teacher."""
    return KD(
        kit.network(kit.student),
        kit.teacher(),
        kit.info,
        temperature=settings.temperature,
        kd_weight=settings.kd_weight,
        task_weight=settings.task_weight if settings.labels else 0.0,
    )
