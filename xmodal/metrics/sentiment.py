r"""The metrics of MOSI and MOSEI, for a label y from -3 to 3 and a prediction p, as torchmetrics objects.

| Name (MMSA) | In DMD | What it is |
|---|---|---|
| ``MAE`` | ``MAE`` | mean of \|p - y\|, nothing clipped |
| ``Corr`` | – | Pearson's correlation |
| ``Mult_acc_7`` | ``Acc_7`` | both clipped to [-3, 3] and rounded (halves to even): share of equal ones |
| ``Mult_acc_5`` | – | the same with [-2, 2] |
| ``Non0_acc_2`` | ``Acc_2`` | without y = 0: share in which p > 0 and y > 0 agree; p = 0 counts as negative |
| ``Non0_F1_score`` | ``F1_score`` | F1 of these two classes, weighted by how often y has them |
| ``Has0_acc_2``, ``Has0_F1_score`` | – | all samples, with p ≥ 0 and y ≥ 0 |

A correlation with a constant is NaN, and so is a score without y = 0 if all labels are 0. Predictions that are NaN are
never scored but raise an error. All states are sums, minima and maxima, so the states of several processes can be
combined.

References: Mao et al.: M-SENA, ACL 2022, authors' code (MMSA). Li et al.: DMD, CVPR 2023, authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from xmodal.errors import InputError, NonFinite

ALIASES = {"Acc_2": "Non0_acc_2", "F1_score": "Non0_F1_score", "Acc_7": "Mult_acc_7"}  # DMD's names
NAMED = 6  # samples that an error message lists


class SentimentMetric(Metric):
    """The common base: flattens, counts, and refuses predictions that are NaN."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    samples: Tensor
    not_a_number: Tensor

    def __init__(self, **names: str) -> None:
        super().__init__()
        self._count("samples", "not_a_number")

    def _count(self, *names: str) -> None:
        for name in names:
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _sum(self, *names: str) -> None:
        for name in names:
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, target: Tensor) -> None:
        """Count some samples.

        Args:
            predictions: (samples,) or (samples, 1).
            target: the same shape.
        """
        if predictions.numel() != target.numel():
            raise InputError(
                f"There are {predictions.numel()} predictions {tuple(predictions.shape)} and {target.numel()} labels "
                f"{tuple(target.shape)}: one prediction for each label was expected."
            )
        # Predictions (samples, 1) minus labels (samples,) would broadcast to a matrix without an error.
        p, y = predictions.detach().float().flatten(), target.detach().float().flatten()
        self.samples += p.numel()
        # Only counted here: an error in one of several processes would leave the others waiting. `compute` raises it
        # everywhere.
        self.not_a_number += p.isnan().sum()
        self._update(p, y)

    def _update(self, p: Tensor, y: Tensor) -> None:
        raise NotImplementedError

    def compute(self) -> Tensor:
        """The metric of all samples so far."""
        if not int(self.samples):
            raise InputError("There are no samples, so there is nothing to score: one or more were expected.")
        if int(self.not_a_number):
            raise NonFinite(
                f"{int(self.not_a_number)} of {int(self.samples)} predictions are NaN, so they are not scored. Lower "
                "the learning rate, or check the inputs."
            )
        return self._compute()

    def _compute(self) -> Tensor:
        raise NotImplementedError


class AbsoluteError(SentimentMetric):
    """Mean absolute error (``MAE``).

    Example:
        >>> metric = AbsoluteError()
        >>> metric.update(torch.tensor([1.0, -4.0]), torch.tensor([0.5, -3.0]))
        >>> metric.compute().item()
        0.75
    """

    higher_is_better = False
    error: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._sum("error")

    def _update(self, p: Tensor, y: Tensor) -> None:
        self.error += (p - y).abs().double().sum()

    def _compute(self) -> Tensor:
        return self.error / self.samples


class Correlation(SentimentMetric):
    """Pearson's correlation (``Corr``); NaN if all predictions or all labels are equal.

    Example:
        >>> metric = Correlation()
        >>> metric.update(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 4.0]))
        >>> round(metric.compute().item(), 4)
        1.0
    """

    def __init__(self) -> None:
        super().__init__()
        self._sum("p", "y", "pp", "yy", "py")
        # Minimum and maximum decide whether all values are equal: the variance of a constant, computed from sums, is a
        # rounding error and not exactly 0.
        for name in ("p", "y"):
            self.add_state(f"{name}_low", torch.tensor(math.inf), dist_reduce_fx="min")
            self.add_state(f"{name}_high", torch.tensor(-math.inf), dist_reduce_fx="max")

    def _update(self, p: Tensor, y: Tensor) -> None:
        if not p.numel():
            return
        state = self._values()
        for name, values in (("p", p), ("y", y)):
            setattr(self, f"{name}_low", torch.minimum(state[f"{name}_low"], values.min()))
            setattr(self, f"{name}_high", torch.maximum(state[f"{name}_high"], values.max()))
        # float64, because the variance is a small difference of two large sums.
        p, y = p.double(), y.double()
        for name, values in {"p": p, "y": y, "pp": p * p, "yy": y * y, "py": p * y}.items():
            setattr(self, name, state[name] + values.sum())

    def _values(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self._defaults}

    def _compute(self) -> Tensor:
        state, samples = self._values(), self.samples.double()
        if any(bool(state[f"{name}_low"] == state[f"{name}_high"]) for name in ("p", "y")):
            return torch.full_like(samples, math.nan)
        p, y = state["p"] / samples, state["y"] / samples
        variances = (state["pp"] / samples - p * p).clamp(min=0) * (state["yy"] / samples - y * y).clamp(min=0)
        return ((state["py"] / samples - p * y) / variances.sqrt()).clamp(-1, 1)


class RoundedAccuracy(SentimentMetric):
    """Share of samples with equal label and prediction, both clipped and rounded (``Mult_acc_7``, ``Mult_acc_5``).

    Args:
        largest: 3 for seven classes, 2 for five.

    Example:
        >>> metric = RoundedAccuracy(3)
        >>> metric.update(torch.tensor([0.5, 3.6, 1.5]), torch.tensor([0.0, 3.0, 1.0]))  # 0.5 → 0, 1.5 → 2
        >>> round(metric.compute().item(), 4)
        0.6667
    """

    correct: Tensor

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest
        self._count("correct")

    def _update(self, p: Tensor, y: Tensor) -> None:
        # torch.round rounds halves to even, as numpy.round in the published code.
        classes = [values.clamp(-self.largest, self.largest).round() for values in (p, y)]
        self.correct += (classes[0] == classes[1]).sum()

    def _compute(self) -> Tensor:
        return self.correct.double() / self.samples


class SignScore(SentimentMetric):
    """Accuracy of the sign, or its F1 weighted by the frequency of each class among the labels.

    Args:
        score: ``accuracy`` or ``f1``.
        zeros: True: zeros are positive (``Has0``); False: samples with label zero are left out (``Non0``).

    Example:
        >>> metric = SignScore("accuracy", zeros=False)
        >>> metric.update(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([-1.0, 1.0, 0.0]))
        >>> metric.compute().item()
        1.0
    """

    counts: Tensor

    def __init__(self, score: str, *, zeros: bool) -> None:
        super().__init__()
        self.score, self.zeros = score, zeros
        # [label][prediction], negative first
        self.add_state("counts", torch.zeros(2, 2, dtype=torch.int64), dist_reduce_fx="sum")

    def _update(self, p: Tensor, y: Tensor) -> None:
        if self.zeros:
            predicted, true = p >= 0, y >= 0
        else:
            predicted, true = p[y != 0] > 0, y[y != 0] > 0
        self.counts += torch.bincount(2 * true.long() + predicted.long(), minlength=4).view(2, 2)

    def _compute(self) -> Tensor:
        counts = self.counts.double()
        # 0 if all labels are zero and `zeros` is False; 0 / 0 below then gives the documented NaN.
        total = counts.sum()
        if self.score == "accuracy":
            return counts.diagonal().sum() / total
        labels, predictions = counts.sum(dim=1), counts.sum(dim=0)
        # An undefined F1 counts as 0, as in scikit-learn.
        f1 = 2 * counts.diagonal() / (labels + predictions).clamp(min=1)
        return (f1 * labels).sum() / total


def sentiment_metrics() -> dict[str, SentimentMetric]:
    """All metrics by their names in MMSA."""
    return {
        "MAE": AbsoluteError(),
        "Corr": Correlation(),
        "Mult_acc_7": RoundedAccuracy(3),
        "Mult_acc_5": RoundedAccuracy(2),
        "Non0_acc_2": SignScore("accuracy", zeros=False),
        "Non0_F1_score": SignScore("f1", zeros=False),
        "Has0_acc_2": SignScore("accuracy", zeros=True),
        "Has0_F1_score": SignScore("f1", zeros=True),
    }


def sentiment_scores(
    predictions: Any, target: Any, *, ids: Sequence[str] = (), digits: int | None = 4
) -> dict[str, float]:
    """The metrics of a whole set of samples, under the names of MMSA and of DMD.

    Args:
        predictions: array or tensor (samples,) or (samples, 1).
        target: the same.
        ids: names of the samples, for the error about NaN; empty: row numbers.
        digits: decimals to which values are rounded, as published; None: no rounding.

    Example:
        >>> scores = sentiment_scores([1.0, -0.5, 2.2], [1.0, 2.0, 3.0])
        >>> scores["Acc_2"], scores["F1_score"], scores["Mult_acc_7"], scores["Corr"]
        (0.6667, 0.8, 0.3333, 0.4435)
    """
    p, y = (torch.as_tensor(values, dtype=torch.float32).flatten() for values in (predictions, target))
    rows = p.isnan().nonzero().flatten().tolist()
    if rows:
        names = ", ".join(str(ids[row]) if ids else str(row) for row in rows[:NAMED])
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        raise InputError(
            f"The predictions of {'the samples' if ids else 'the rows'} {names}{more} are NaN, so nothing is scored. "
            "Lower the learning rate, or check the inputs."
        )
    scores = {}
    for name, metric in sentiment_metrics().items():
        metric.update(p, y)
        value = metric.compute().item()
        scores[name] = value if digits is None or not math.isfinite(value) else round(value, digits)
    return scores | {alias: scores[name] for alias, name in ALIASES.items()}
