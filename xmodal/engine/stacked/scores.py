"""The metrics of a validation split for many models at once: torchmetrics objects would cost more than training.

For class numbers only; other tasks are scored model by model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.types import DataInfo


class ManyScores:
    """What `Scores` computes in training, one value per model.

    Args:
        info: of the data; `applies` must hold.
        models: how many.
        device: where the outputs are.
    """

    def __init__(self, info: DataInfo, *, models: int, device: torch.device | str = "cpu") -> None:
        self.models, self.classes, self.rows = models, info.classes, 0
        self.first = torch.arange(models, device=device)[:, None] * info.classes
        self.hits, self.answers, self.truths = (
            torch.zeros(models * info.classes, dtype=torch.long, device=device) for _ in range(3)
        )
        self.loss = torch.zeros(models, dtype=torch.float64, device=device)

    @staticmethod
    def applies(info: DataInfo) -> bool:
        """Whether this data's metrics are among those that are computed here."""
        return info.task == "multiclass" and not info.dense and info.ignore is None and not info.metrics

    def update(self, outputs: Tensor, target: Tensor) -> None:
        """Count one batch: outputs (models, batch, classes), target (batch,) or (models, batch)."""
        outputs = outputs.float()
        target = target.expand(outputs.shape[:2])
        answer = outputs.argmax(dim=2)
        size = len(self.hits)
        answers, truths = (answer + self.first).flatten(), (target + self.first).flatten()
        self.answers += torch.bincount(answers, minlength=size)
        self.truths += torch.bincount(truths, minlength=size)
        self.hits += torch.bincount(truths[answers == truths], minlength=size)
        values = F.cross_entropy(outputs.flatten(0, 1), target.flatten(), reduction="none")
        self.loss += values.view(target.shape).sum(dim=1)
        self.rows += target.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """Name → (models,)."""
        hits, answers, truths = (
            count.view(self.models, -1).float() for count in (self.hits, self.answers, self.truths)
        )
        f1 = 2 * hits / (answers + truths).clamp(min=1)
        there = ((answers + truths) > 0).float()  # a class that occurs nowhere has no share in the mean
        return {
            "accuracy": hits.sum(1) / self.rows,
            # each share divided before the sum, as torchmetrics does, for the same bits
            "macro_f1": (f1 * there / there.sum(1, keepdim=True)).sum(1),
            "weighted_f1": (f1 * truths / truths.sum(1, keepdim=True)).sum(1),
            "cross_entropy": (self.loss / self.rows).float(),
        }
