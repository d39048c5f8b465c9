r"""Segmentation scores from a confusion matrix: intersection over union by two rules, precision, recall.

With K[y, ŷ] the number of pixels of class y that were predicted as ŷ, over a whole split:

$$IoU_c = \frac{K_{cc}}{\sum_y K_{yc} + \sum_{\hat y} K_{c \hat y} - K_{cc}}$$

Pixels with an ignored target do not count. If the ignored value is a class too (``unlabeled``), it has no IoU, and the
rules differ in one point: a labelled pixel that is predicted as this class is an error by the ``benchmark`` rule, that
of the public SemanticKITTI tools, and does not count by the ``reference`` rule, that of the code of the experiments on
non-target divergence. Means are taken over all other classes; a class that never occurs counts as 0, except in
``mean_iou_present``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from xmodal.errors import InputError, did_you_mean
from xmodal.metrics.counts import TABLE, confused

RULES = ("benchmark", "reference")


class SegmentationScores(Metric):
    """Counts pixels in a confusion matrix and computes all scores from it.

    Args:
        classes: number of outputs.
        ignore: target values that do not count; those that are classes have no score.
        full: also return lists with a number per class, and the confusion matrix.
        rule: of all scores without ``reference`` in their name.

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

    def update(self, predictions: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            predictions: class numbers like the target, or one score per class (rows, classes, …).
            target: class numbers (rows, …).
        """
        if predictions.ndim == target.ndim + 1:
            predictions = predictions.argmax(dim=1)
        labelled = torch.ones_like(target, dtype=torch.bool)
        for value in self.ignore:
            labelled &= target != value
        # One number for each pair of classes, so that a single bincount gives the whole matrix.
        pairs = self.classes * target[labelled] + predictions[labelled]
        self.counts += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)

    def compute(self) -> dict[str, Any]:
        """Name → number; with ``full`` also name → list."""
        return scores_of(self.counts, ignore=self.ignore, full=self.full, rule=self.rule)


def scores_of(
    counts: Tensor, *, ignore: Sequence[int] = (), full: bool = False, rule: str = "benchmark"
) -> dict[str, Any]:
    """The scores of a confusion matrix.

    Args:
        counts: (classes, classes), true class first.
        ignore: class numbers whose pixels do not count.
        full: also return lists with a number per class, and the confusion matrix.
        rule: of all scores without ``reference`` in their name.
    """
    # float64, because float32 counts exactly only up to 2**24 pixels.
    table = counts.double().cpu()
    scored = torch.tensor([number not in ignore for number in range(len(table))])
    table = table * scored[:, None]
    ours, reference = (class_scores(table, ignore=ignore, rule=each) for each in (rule, "reference"))
    pixels = table.sum(dim=1)
    both = pixels + table.sum(dim=0)
    # Classes that occur as a target or as a prediction. Divisors are clamped to 1: where one is 0, so is the numerator.
    present, f1 = scored & (both > 0), 2 * table.diagonal() / both.clamp(min=1)
    scores: dict[str, Any] = {
        "accuracy": (table.diagonal().sum() / table.sum().clamp(min=1)).item(),
        "macro_f1": mean_over(f1, present),
        "weighted_f1": ((f1 * pixels).sum() / pixels.sum().clamp(min=1)).item(),
        "mean_iou": mean_over(ours["iou"], scored),
        "mean_iou_present": mean_over(ours["iou"], present),
        "mean_iou_reference": mean_over(reference["iou"], scored),
        "mean_precision": mean_over(ours["precision"], scored),
        "mean_recall": mean_over(ours["recall"], scored),
        "weighted_iou": ((ours["iou"] * pixels).sum() / pixels.sum().clamp(min=1)).item(),
    }
    if full:
        for name, values in ours.items():
            scores[name] = values.tolist()
        scores["per_class"] = scores["recall"]
        if len(table) <= TABLE:
            scores["confusion"] = table.long().tolist()
        else:
            wrong = (table - table.diagonal().diag()).flatten()
            pairs = wrong.nonzero().flatten()
            scores["confused"] = confused(pixels, pairs, wrong[pairs].long(), len(table))
    return scores


def class_scores(counts: Tensor, *, ignore: Sequence[int] = (), rule: str = "benchmark") -> dict[str, Tensor]:
    """``iou``, ``precision`` and ``recall`` of each class (classes,), 0 for ignored ones.

    Args:
        counts: (classes, classes), true class first.
        ignore: class numbers whose pixels do not count.
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
    # An ignored value such as 255 is no class and has no row.
    ignored = [number for number in ignore if 0 <= number < len(table)]
    table[ignored] = 0
    # Without the column, a labelled pixel that is predicted as an ignored class is in no sum at all.
    if rule == "reference":
        table[:, ignored] = 0
    correct, predicted, true = table.diagonal(), table.sum(dim=0), table.sum(dim=1)
    return {
        "iou": correct / (predicted + true - correct).clamp(min=1),
        "precision": correct / predicted.clamp(min=1),
        "recall": correct / true.clamp(min=1),
    }


def mean_over(values: Tensor, mask: Tensor) -> float:
    """Mean of the values where the mask is True; 0 if it is True nowhere.

    Example:
        >>> mean_over(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([True, False, True]))
        3.5
    """
    return values[mask].mean().item() if mask.any() else 0.0
