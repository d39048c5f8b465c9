"""Supervised learning: the loss of the labels alone.

It trains teachers, and on the student's modality it is the no-KD control of every comparison. Samples need not be
paired; training and deployment need the modalities that the network reads, so each network learns from all labelled
rows that have these, whatever else they lack.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from xmodal.losses.task import label_terms
from xmodal.method import Kit, Method
from xmodal.methods.settings import SupervisedSettings
from xmodal.types import Batch, DataInfo, Step, Student


class Supervised(Method):
    """One network, the loss of its labels.

    Args:
        student: the network to train.
        info: of the data; its kind of target selects the loss.

    Example:
        >>> from xmodal.models.network import build_for
        >>> from xmodal.types import InputInfo
        >>> vector = InputInfo((4,), layout="vector")
        >>> info = DataInfo({"clear": vector, "faint": vector}, "multiclass", 3, rows={})
        >>> method = Supervised(build_for(info, ["clear", "faint"]), info)
        >>> sorted(method.students())
        ['clear+faint']
    """

    stackable = True

    def __init__(self, student: Student, info: DataInfo) -> None:
        super().__init__()
        if info.label_losses or info.class_weights or info.weighted:
            # these select rows or need their weights, and a recorded step has one shape for all models
            self.stackable = False
        self.network = student.module
        self._student, self._info = student, info

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """The loss of the labels."""
        if batch.present:
            batch = batch.having(self._student.modalities)
        modality = self._student.target
        outputs = self.network({name: batch.input(name) for name in self._student.needs})
        terms = label_terms(
            outputs,
            batch.targets[modality],
            self._info,
            valid=batch.valid.get(modality),
            labelled=batch.labelled.get(modality),
            row_weight=batch.weights.get(modality),
            gather=self.gather,
        )
        step = Step({})
        for name, (loss, count) in terms.items():
            step.losses[name], step.counts[name] = loss, count
        return step

    def reads(self) -> tuple[str, ...]:
        """The inputs of the network."""
        return self._student.needs

    def students(self) -> dict[str, Student]:
        """The network, named after the modalities that it reads."""
        return {"+".join(self._student.needs): self._student}


def build(kit: Kit, settings: SupervisedSettings) -> Supervised:
    """A fresh network for the student's modalities."""
    return Supervised(kit.network(kit.student), kit.info)
