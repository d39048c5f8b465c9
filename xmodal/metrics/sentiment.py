r"""The metrics of MOSI and MOSEI, for a score y from -3 to 3 and a prediction p, as torchmetrics objects.

| Name (MMSA) | In DMD | What it is |
|---|---|---|
| ``MAE`` | ``MAE`` | mean of \|p - y\|, nothing clipped |
| ``Corr`` | – | Pearson's correlation |
| ``Mult_acc_7`` | ``Acc_7`` | both clipped to [-3, 3] and rounded (halves to even): share of equal ones |
| ``Mult_acc_5`` | – | the same with [-2, 2] |
| ``Non0_acc_2`` | ``Acc_2`` | without y = 0: share in which p > 0 and y > 0 agree; p = 0 counts as negative |
| ``Non0_F1_score`` | ``F1_score`` | F1 of these two classes, weighted by how often y has them |
| ``Has0_acc_2``, ``Has0_F1_score`` | – | all samples, with p ≥ 0 and y ≥ 0 |

A correlation with something constant is NaN, and so is what leaves y = 0 out where nothing is left. Predictions that
are NaN are never scored: that is an error. All states are sums, minima and maxima, so that processes add up.

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
NAMED = 6


class SentimentMetric(Metric):
    """What all of them do: flatten, count, and refuse predictions that are NaN."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    samples: Tensor
    broken: Tensor

    def __init__(self, **names: str) -> None:
        super().__init__()
        self._count("samples", "broken")

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
                f"{tuple(target.shape)}: one for each was expected."
            )
        p, y = predictions.detach().float().flatten(), target.detach().float().flatten()
        self.samples += p.numel()
        self.broken += p.isnan().sum()
        self._update(p, y)

    def _update(self, p: Tensor, y: Tensor) -> None:
        raise NotImplementedError

    def compute(self) -> Tensor:
        """The metric of all samples so far."""
        if not int(self.samples):
            raise InputError("There are no samples, so there is nothing to score: one or more were expected.")
        if int(self.broken):
            raise NonFinite(
                f"{int(self.broken)} of {int(self.samples)} predictions are NaN, so they are not scored. Lower the "
                "learning rate, or look at the inputs."
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
    """Pearson's correlation (``Corr``); NaN where predictions or labels are all the same.

    Example:
        >>> metric = Correlation()
        >>> metric.update(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 4.0]))
        >>> round(metric.compute().item(), 4)
        1.0
    """

    def __init__(self) -> None:
        super().__init__()
        self._sum("p", "y", "pp", "yy", "py")
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
        spread = (state["pp"] / samples - p * p).clamp(min=0) * (state["yy"] / samples - y * y).clamp(min=0)
        return ((state["py"] / samples - p * y) / spread.sqrt()).clamp(-1, 1)


class RoundedAccuracy(SentimentMetric):
    """Share of samples whose score, clipped and rounded, is hit (``Mult_acc_7``, ``Mult_acc_5``).

    Args:
        largest: 3 for seven classes, 2 for five.

    Example:
        >>> metric = RoundedAccuracy(3)
        >>> metric.update(torch.tensor([0.5, 3.6, 1.5]), torch.tensor([0.0, 3.0, 1.0]))  # 0.5 → 0, 1.5 → 2
        >>> round(metric.compute().item(), 4)
        0.6667
    """

    hits: Tensor

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest
        self._count("hits")

    def _update(self, p: Tensor, y: Tensor) -> None:
        classes = [values.clamp(-self.largest, self.largest).round() for values in (p, y)]
        self.hits += (classes[0] == classes[1]).sum()

    def _compute(self) -> Tensor:
        return self.hits.double() / self.samples


class SignScore(SentimentMetric):
    """How well the sign is told: share of right ones, or F1 weighted by how often labels have each class.

    Args:
        score: ``accuracy`` or ``f1``.
        zeros: True: zeros are positive (``Has0``); False: labels of zero are left out (``Non0``).

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
            told, true = p >= 0, y >= 0
        else:
            told, true = p[y != 0] > 0, y[y != 0] > 0
        self.counts += torch.bincount(2 * true.long() + told.long(), minlength=4).view(2, 2)

    def _compute(self) -> Tensor:
        counts = self.counts.double()
        total = counts.sum()  # zero gives NaN below: nothing was left
        if self.score == "accuracy":
            return counts.diagonal().sum() / total
        labels, answers = counts.sum(dim=1), counts.sum(dim=0)
        f1 = 2 * counts.diagonal() / (labels + answers).clamp(min=1)
        return (f1 * labels).sum() / total


def sentiment_metrics() -> dict[str, SentimentMetric]:
    """All of them by their names in MMSA."""
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
    """The metrics of a whole set under both names.

    Args:
        predictions: array or tensor (samples,) or (samples, 1).
        target: the same.
        ids: of the samples, to name those whose prediction is NaN; empty: their rows.
        digits: to which values are rounded, as published; None: not at all.

    Example:
        >>> scores = sentiment_scores([1.0, -0.5, 2.2], [1.0, 2.0, 3.0])
        >>> scores["Acc_2"], scores["F1_score"], scores["Mult_acc_7"], scores["Corr"]
        (0.6667, 0.8, 0.3333, 0.4435)
    """
    p, y = (torch.as_tensor(values, dtype=torch.float32).flatten() for values in (predictions, target))
    bad = p.isnan().nonzero().flatten().tolist()
    if bad:
        names = ", ".join(str(ids[row]) if ids else str(row) for row in bad[:NAMED])
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise InputError(
            f"The predictions of {'the samples' if ids else 'the rows'} {names}{more} are NaN: not scored."
        )
    found = {}
    for name, metric in sentiment_metrics().items():
        metric.update(p, y)
        value = metric.compute().item()
        found[name] = value if digits is None or not math.isfinite(value) else round(value, digits)
    return found | {alias: found[name] for alias, name in ALIASES.items()}
