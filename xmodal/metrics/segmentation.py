r"""How well every pixel is told, from one table of counts: intersection over union by two rules, precision, recall.

With K[y, ŷ] the number of pixels of class y that were taken for ŷ, over a whole split:

$$IoU_c = \frac{K_{cc}}{\sum_y K_{yc} + \sum_{\hat y} K_{c \hat y} - K_{cc}}$$

Pixels whose target is ignored count nowhere. Where the ignored value is a class as well (``unlabeled``), it has no IoU
of its own, and the rules differ in one thing: to answer with it on a labelled pixel is a miss by the ``benchmark``
rule, that of the public SemanticKITTI tools, and forgiven by the ``reference`` rule, that of the code of the
experiments on non-target divergence. Means run over all other classes; one that never occurs counts 0, except in
``mean_iou_present``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from xmodal.errors import InputError, did_you_mean

RULES = ("benchmark", "reference")


class SegmentationScores(Metric):
    """Counts pixels, and what follows from them.

    Args:
        classes: how many outputs there are.
        ignore: target values that count nowhere; those that are classes have no score of their own.
        full: also lists with a number per class, and the table itself.
        rule: of all scores that do not say whose they are.

    Example:
        >>> scores = SegmentationScores(3, ignore=(0,))
        >>> scores.update(torch.tensor([1, 2, 0, 1]), torch.tensor([1, 2, 2, 0]))
        >>> {name: round(value, 4) for name, value in scores.compute().items()}["mean_iou"]
        0.75
    """

    full_state_update = False
    counts: Tensor

    def __init__(
        self, classes: int, *, ignore: Sequence[int] = (), full: bool = False, rule: str = "benchmark"
    ) -> None:
        super().__init__()
        self.classes, self.ignore, self.full, self.rule = classes, tuple(ignore), full, rule
        self.add_state("counts", torch.zeros(classes, classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, answers: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            answers: class numbers like the target, or one score per class (rows, classes, …).
            target: class numbers (rows, …).
        """
        if answers.ndim == target.ndim + 1:
            answers = answers.argmax(dim=1)
        known = torch.ones_like(target, dtype=torch.bool)
        for value in self.ignore:
            known &= target != value
        pairs = self.classes * target[known] + answers[known]
        self.counts += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)

    def compute(self) -> dict[str, Any]:
        """Name → number; lists only where they were asked for."""
        return scores_of(self.counts, ignore=self.ignore, full=self.full, rule=self.rule)


def scores_of(
    counts: Tensor, *, ignore: Sequence[int] = (), full: bool = False, rule: str = "benchmark"
) -> dict[str, Any]:
    """The scores of a table of counts.

    Args:
        counts: (classes, classes), true class first.
        ignore: class numbers whose pixels count nowhere.
        full: also lists with a number per class, and the table itself.
        rule: of all scores that do not say whose they are.
    """
    table = counts.double().cpu()
    scored = torch.tensor([number not in ignore for number in range(len(table))])
    table = table * scored[:, None]  # what should have been ignored was not wrong
    ours, reference = (class_scores(table, ignore=ignore, rule=each) for each in (rule, "reference"))
    pixels = table.sum(dim=1)
    both = pixels + table.sum(dim=0)
    there, f1 = scored & (both > 0), 2 * table.diagonal() / both.clamp(min=1)
    scores: dict[str, Any] = {
        "accuracy": (table.diagonal().sum() / table.sum().clamp(min=1)).item(),
        "macro_f1": _mean(f1, there),
        "weighted_f1": ((f1 * pixels).sum() / pixels.sum().clamp(min=1)).item(),
        "mean_iou": _mean(ours["iou"], scored),
        "mean_iou_present": _mean(ours["iou"], there),
        "mean_iou_reference": _mean(reference["iou"], scored),
        "mean_precision": _mean(ours["precision"], scored),
        "mean_recall": _mean(ours["recall"], scored),
        "weighted_iou": ((ours["iou"] * pixels).sum() / pixels.sum().clamp(min=1)).item(),
    }
    if full:
        for name, values in ours.items():
            scores[name] = values.tolist()
        scores |= {"per_class": scores["recall"], "confusion": table.long().tolist()}
    return scores


def class_scores(counts: Tensor, *, ignore: Sequence[int] = (), rule: str = "benchmark") -> dict[str, Tensor]:
    """``iou``, ``precision`` and ``recall`` of each class (classes,), 0 for ignored ones.

    Args:
        counts: (classes, classes), true class first.
        ignore: class numbers whose pixels count nowhere.
        rule: ``benchmark`` or ``reference``, see above.

    Example:
        >>> class_scores(torch.tensor([[0, 0], [1, 3]]), ignore=[0], rule="benchmark")["iou"].tolist()
        [0.0, 0.75]
        >>> class_scores(torch.tensor([[0, 0], [1, 3]]), ignore=[0], rule="reference")["iou"].tolist()
        [0.0, 1.0]
    """
    if rule not in RULES:
        raise InputError(f"There is no rule of intersection over union called '{rule}'. {did_you_mean(rule, RULES)}")
    table = counts.double().clone()
    left_out = [number for number in ignore if 0 <= number < len(table)]
    table[left_out] = 0
    if rule == "reference":
        table[:, left_out] = 0
    right, said, true = table.diagonal(), table.sum(dim=0), table.sum(dim=1)
    return {
        "iou": right / (said + true - right).clamp(min=1),
        "precision": right / said.clamp(min=1),
        "recall": right / true.clamp(min=1),
    }


def _mean(values: Tensor, chosen: Tensor) -> float:
    return values[chosen].mean().item() if chosen.any() else 0.0
