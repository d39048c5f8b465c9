"""A method of your own in one file: the student learns which samples have similar outputs in the teacher.

python examples/own_loss.py

Each row of outputs is compared with every other row of the batch; the student's table of similarities should equal
the teacher's. The two may have different numbers of outputs. Ten seconds on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import xmodal
from xmodal.losses.task import task_loss
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_for


class Similar(xmodal.Method):
    """Labels, and the similarities within a batch."""

    def __init__(self, student: xmodal.Student, teacher: nn.Module, info: xmodal.DataInfo, *, similar_weight: float):
        super().__init__()
        self.network, self.teacher = student.module, self.freeze(teacher)
        self.student, self.info, self.similar_weight = student, info, similar_weight

    def teach(self, batch: xmodal.Batch) -> dict[str, Tensor]:
        """Outputs of the frozen teacher; computed once per sample and stored."""
        with torch.no_grad():
            return {"outputs": self.teacher(batch.inputs)}

    def training_step(self, batch: xmodal.Batch, teacher_outputs: Mapping[str, Tensor]) -> xmodal.Step:
        """Named terms, already weighted; similarities are those of the rows of all processes."""
        outputs = self.network(batch.inputs)
        s, t = F.normalize(self.gather(outputs)), F.normalize(self.gather(teacher_outputs["outputs"]))
        similar = F.mse_loss(s @ s.T, t @ t.T)
        task, rows = task_loss(outputs, batch.target, task=self.info.task)
        return xmodal.Step({"task": task, "similar": self.similar_weight * similar}, {"task": rows, "similar": len(s)})

    def students(self) -> dict[str, xmodal.Student]:
        """What is deployed."""
        return {"student": self.student}


def main() -> None:
    data = xmodal.open_data("digits", options={"views": ["rows", "fourier"]}, train_fraction=0.2)
    settings = xmodal.FitSettings(epochs=10, batch_size=32)
    teacher = xmodal.fit(Supervised(build_for(data.info, ("rows",)), data.info), data, settings).students["rows"]
    method = Similar(build_for(data.info, ("fourier",)), teacher.module, data.info, similar_weight=1.0)
    run = xmodal.fit(method, data, settings)
    print(f"validation accuracy {run.best['student']['score']:.3f} in epoch {run.best['student']['epoch']}")


if __name__ == "__main__":
    main()
