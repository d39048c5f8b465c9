"""`Selection` for a stack: each model has a best epoch of its own."""

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
        models: how many.
        keep: ``best``, or ``last`` for the weights after the last epoch.
    """

    def __init__(self, metric: str, direction: str, *, models: int, keep: str) -> None:
        self.metric, self.sign = metric, 1.0 if direction == "max" else -1.0
        self.models, self.keep = models, keep
        self.best: dict[str, tuple[Tensor, Tensor]] = {}  # student → epoch and signed score (models,)
        self._weights: dict[str, dict[str, Tensor]] = {}

    def update(
        self,
        epoch: int,
        scores: Mapping[str, Values],
        state: Mapping[str, Tensor],
        students: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Look at an epoch; an equal score keeps the earlier one, nan never wins."""
        for found in scores.values():
            measured(self.metric, found)
        if self.keep == "last":
            return
        for name, found in scores.items():
            score = self.sign * torch.as_tensor(found[self.metric], dtype=torch.float64).cpu()
            kept = torch.where(score.isfinite(), score, -math.inf)
            weights = {key: state[own].detach() for key, own in students[name].items()}
            if name not in self.best:
                self.best[name] = torch.full_like(score, epoch, dtype=torch.long), kept
                self._weights[name] = {key: tensor.clone() for key, tensor in weights.items()}
                continue
            at, before = self.best[name]
            better = score > before
            if not better.any():
                continue
            self.best[name] = torch.where(better, epoch, at), torch.where(better, kept, before)
            for key, tensor in weights.items():
                chosen = better.to(tensor.device).reshape(-1, *[1] * (tensor.ndim - 1))
                self._weights[name][key] = torch.where(chosen, tensor, self._weights[name][key])

    def weights(self, student: str, model: int) -> dict[str, Tensor] | None:
        """What one student of one model ends with, by the names of its own state; None: with what it has."""
        if self.keep == "last":
            return None
        return {key: tensor[model] for key, tensor in self._weights[student].items()}

    def row(self, model: int, students: Iterable[str], tables: Tables) -> dict[str, dict[str, Any]]:
        """``Run.best`` of one model."""
        found = {}
        for name in students:
            epoch = len(tables.seconds) - 1 if self.keep == "last" else int(self.best[name][0][model])
            valid = tables.scores(epoch, model).get(name, {})
            score = valid.get(self.metric, math.nan)
            if valid and not math.isfinite(score):
                score = -self.sign * math.inf
            found[name] = {"epoch": epoch, "score": score, "valid": valid}
        return found
