"""A trained student in memory, which takes raw arrays like a student that was read from a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodal.deploy import Predictor, check_inputs, deployed, on_cpu, read_batch, run_torch
from xmodal.models.description import describe
from xmodal.types import DataInfo, Student


class TrainedStudent(Predictor):
    """A student with its normalisation: what is called takes raw samples, as `xmodal.open_student` does for a file.

    Args:
        student: the network and the statistics of its inputs; it is copied.
        info: of the data that it was trained on.

    Attributes:
        needs: names of the inputs that it reads.
        module: a PyTorch module that takes raw tensors; the normalisation is a part of it.
        inner: the `xmodal.Student` itself, whose module takes normalised tensors; `xmodal.export_student` takes it.
    """

    def __init__(self, student: Student, info: DataInfo) -> None:
        self.inner = on_cpu(student)
        self.module = deployed(self.inner).eval()
        super().__init__(run_torch(self.module), describe(self.inner, info))

    def __call__(self, inputs: Any, *, batch_size: int = 256) -> Tensor:
        """The outputs before softmax or sigmoid, for raw samples; arguments as in `predict`."""
        arrays = check_inputs(inputs, self.description)
        rows = len(arrays[self.needs[0]])
        parts = [
            self._run(read_batch(arrays, self.description, first, min(first + batch_size, rows)))
            for first in range(0, rows, batch_size)
        ]
        return torch.from_numpy(np.concatenate(parts))

    def __repr__(self) -> str:
        task, classes = self.description["task"], self.description["classes"]
        what = "values" if task == "regression" else "labels" if task == "multilabel" else "classes"
        return f"TrainedStudent({', '.join(self.needs)} → {classes} {what})"
