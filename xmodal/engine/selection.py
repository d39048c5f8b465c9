"""Which epoch each student keeps: the best one on the validation split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from xmodal.errors import InputError, did_you_mean
from xmodal.types import Student


class Selection:
    """Best epoch, score and weights of each student.

    Args:
        metric: name of a validation metric.
        direction: ``max`` or ``min``.
        lead: student whose score tells whether an epoch is better than those before; empty: any of them.
    """

    def __init__(self, metric: str, direction: str, *, lead: str = "") -> None:
        self.lead = lead
        self.metric, self.sign = metric, 1.0 if direction == "max" else -1.0
        self.best: dict[str, dict[str, Any]] = {}
        self.weights: dict[str, dict[str, Tensor]] = {}
        self.waited = 0

    def update(self, epoch: int, scores: Mapping[str, Mapping[str, Any]], students: Mapping[str, Student]) -> None:
        """Look at an epoch; an equal score keeps the earlier one, nan never wins."""
        better = False
        for name, found in scores.items():
            measured(self.metric, found)
            score = self.sign * found[self.metric]
            if name not in self.best or score > self.sign * self.best[name]["score"]:
                kept = found[self.metric] if math.isfinite(score) else -self.sign * math.inf
                self.best[name] = {"epoch": epoch, "score": kept, "valid": dict(found)}
                state = students[name].module.state_dict()
                self.weights[name] = {key: tensor.detach().clone() for key, tensor in state.items()}
                better |= self.lead in ("", name)
        self.waited = 0 if better else self.waited + 1

    def last(self, epoch: int, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """``best`` as it is when every student ends with the weights of this epoch."""
        found = {}
        for name, valid in scores.items():
            score = valid[self.metric]
            kept = score if math.isfinite(score) else -self.sign * math.inf
            found[name] = {"epoch": epoch, "score": kept, "valid": dict(valid)}
        return found

    def loss(self, scores: Mapping[str, Mapping[str, Any]]) -> float:
        """The score of the lead, or the mean of all, with its sign turned so that smaller is better."""
        watched = [scores[self.lead]] if self.lead else scores.values()
        values: list[float] = [-self.sign * found[self.metric] for found in watched]
        return sum(values) / max(len(values), 1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON from which `load_state` continues."""
        tensors = {f"{name}/{key}": value for name, kept in self.weights.items() for key, value in kept.items()}
        return tensors, {"best": self.best, "waited": self.waited}

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any], device: torch.device) -> None:
        """Take back what `state` gave."""
        self.best, self.waited = dict(plain["best"]), plain["waited"]
        self.weights = {name: {} for name in self.best}
        for key, value in tensors.items():
            name, _, parameter = key.partition("/")
            self.weights[name][parameter] = value.to(device)


def measured(metric: str, found: Mapping[str, Any]) -> None:
    """Refuse a metric for choosing an epoch that is not among those of the validation split."""
    if metric not in found:
        raise InputError(f"An epoch is chosen by '{metric}', which is not measured. {did_you_mean(metric, found)}")
