"""The metrics of a validation split for many models together.

torchmetrics objects, one set per model, would take longer than training. For class targets only; other tasks are scored
model by model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.types import DataInfo


class ManyScores:
    """The metrics that `Scores` computes in training, with one value per model.

    Args:
        info: of the data; `applies` must hold.
        models: number of models.
        device: of the outputs.
    """

    def __init__(self, info: DataInfo, *, models: int, device: torch.device | str = "cpu") -> None:
        self.models, self.classes, self.rows = models, info.classes, 0
        self.first = torch.arange(models, device=device)[:, None] * info.classes
        self.hits, self.predicted, self.true = (
            torch.zeros(models * info.classes, dtype=torch.long, device=device) for _ in range(3)
        )
        self.loss = torch.zeros(models, dtype=torch.float64, device=device)

    @staticmethod
    def applies(info: DataInfo) -> bool:
        """Whether the metrics of this data are those that are computed here."""
        usual = not info.metrics and not info.further_metrics
        return info.task == "multiclass" and not info.dense and info.ignore is None and usual

    def update(self, outputs: Tensor, target: Tensor) -> None:
        """Count one batch: outputs (models, batch, classes), target (batch,) or (models, batch)."""
        outputs = outputs.float()
        target = target.expand(outputs.shape[:2])
        size = len(self.hits)
        # class numbers of model m begin at m × classes, so that one bincount counts for all models
        predicted, true = (outputs.argmax(dim=2) + self.first).flatten(), (target + self.first).flatten()
        self.predicted += torch.bincount(predicted, minlength=size)
        self.true += torch.bincount(true, minlength=size)
        self.hits += torch.bincount(true[predicted == true], minlength=size)
        values = F.cross_entropy(outputs.flatten(0, 1), target.flatten(), reduction="none")
        self.loss += values.view(target.shape).sum(dim=1)
        self.rows += target.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """Name → (models,)."""
        hits, predicted, true = (
            count.view(self.models, -1).float() for count in (self.hits, self.predicted, self.true)
        )
        f1 = 2 * hits / (predicted + true).clamp(min=1)
        # a class that is neither predicted nor among the targets is left out of the mean
        occurs = ((predicted + true) > 0).float()
        return {
            "accuracy": hits.sum(1) / self.rows,
            # divided before the sum, as torchmetrics does, for the same bits
            "macro_f1": (f1 * occurs / occurs.sum(1, keepdim=True)).sum(1),
            "weighted_f1": (f1 * true / true.sum(1, keepdim=True)).sum(1),
            "cross_entropy": (self.loss / self.rows).float(),
        }
