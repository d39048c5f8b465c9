"""`Selection` for stacked models: each model has its own best epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xmodal.engine.selection import measured

if TYPE_CHECKING:
    from xmodal.engine.stacked.history import Tables, Values


class StackSelection:
    """Best epoch, score and weights of each student of each model.

    Args:
        metric: name of a validation metric.
        direction: ``max`` or ``min``.
        models: number of models.
        keep: ``best``, or ``last`` for the weights after the last epoch.
    """

    def __init__(self, metric: str, direction: str, *, models: int, keep: str) -> None:
        self.metric, self.sign = metric, 1.0 if direction == "max" else -1.0
        self.models, self.keep = models, keep
        self.best: dict[str, tuple[Tensor, Tensor]] = {}  # student → epoch and signed score, (models,) each
        self._weights: dict[str, dict[str, Tensor]] = {}

    def update(
        self,
        epoch: int,
        scores: Mapping[str, Values],
        state: Mapping[str, Tensor],
        students: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Compare an epoch with the best ones: at equal scores the earlier stays, and NaN is never better."""
        for metrics in scores.values():
            measured(self.metric, metrics)
        if self.keep == "last":
            return
        for name, metrics in scores.items():
            score = self.sign * torch.as_tensor(metrics[self.metric], dtype=torch.float64).cpu()
            # as in `Selection`: a NaN of the first epoch must not prevent later epochs from being better
            finite = torch.where(score.isfinite(), score, -math.inf)
            weights = {key: state[name_in_state].detach() for key, name_in_state in students[name].items()}
            if name not in self.best:
                self.best[name] = torch.full_like(score, epoch, dtype=torch.long), finite
                self._weights[name] = {key: tensor.clone() for key, tensor in weights.items()}
                continue
            best_epoch, best_score = self.best[name]
            better = score > best_score
            if not better.any():
                continue
            self.best[name] = torch.where(better, epoch, best_epoch), torch.where(better, finite, best_score)
            for key, tensor in weights.items():
                chosen = better.to(tensor.device).reshape(-1, *[1] * (tensor.ndim - 1))
                self._weights[name][key] = torch.where(chosen, tensor, self._weights[name][key])

    def weights(self, student: str, model: int) -> dict[str, Tensor] | None:
        """Final weights of a student of a model, by the names of the student's state; None: its present ones."""
        if self.keep == "last":
            return None
        return {key: tensor[model] for key, tensor in self._weights[student].items()}

    def row(self, model: int, students: Iterable[str], tables: Tables) -> dict[str, dict[str, Any]]:
        """``Run.best`` of one model."""
        best = {}
        for name in students:
            epoch = len(tables.seconds) - 1 if self.keep == "last" else int(self.best[name][0][model])
            valid = tables.scores(epoch, model).get(name, {})
            score = valid.get(self.metric, math.nan)
            if valid and not math.isfinite(score):
                score = -self.sign * math.inf
            best[name] = {"epoch": epoch, "score": score, "valid": valid}
        return best
