"""The best epoch of each student on the validation split, and its weights."""

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
        lead: student whose score decides whether an epoch is better than earlier ones (for early stopping and the
            schedule plateau); empty: any student.
    """

    def __init__(self, metric: str, direction: str, *, lead: str = "") -> None:
        self.lead = lead
        self.metric, self.sign = metric, 1.0 if direction == "max" else -1.0
        self.best: dict[str, dict[str, Any]] = {}
        self.weights: dict[str, dict[str, Tensor]] = {}
        self.waited = 0

    def update(self, epoch: int, scores: Mapping[str, Mapping[str, Any]], students: Mapping[str, Student]) -> None:
        """Compare an epoch with the best one: at equal scores the earlier epoch stays, and NaN is never better."""
        better = False
        for name, metrics in scores.items():
            measured(self.metric, metrics)
            score = self.sign * metrics[self.metric]
            if name not in self.best or score > self.sign * self.best[name]["score"]:
                # A NaN of the first epoch becomes the worst score, else no later epoch would compare as better.
                value = metrics[self.metric] if math.isfinite(score) else -self.sign * math.inf
                self.best[name] = {"epoch": epoch, "score": value, "valid": dict(metrics)}
                state = students[name].module.state_dict()
                self.weights[name] = {key: tensor.detach().clone() for key, tensor in state.items()}
                better |= self.lead in ("", name)
        self.waited = 0 if better else self.waited + 1

    def last(self, epoch: int, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """The same as ``best``, where every student keeps the weights of this epoch."""
        best = {}
        for name, valid in scores.items():
            score = valid[self.metric]
            value = score if math.isfinite(score) else -self.sign * math.inf
            best[name] = {"epoch": epoch, "score": value, "valid": dict(valid)}
        return best

    def loss(self, scores: Mapping[str, Mapping[str, Any]]) -> float:
        """The score of ``lead``, or the mean over students, with a sign such that smaller is better."""
        watched = [scores[self.lead]] if self.lead else scores.values()
        values: list[float] = [-self.sign * metrics[self.metric] for metrics in watched]
        return sum(values) / max(len(values), 1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state as tensors and JSON, for `load_state`."""
        tensors = {f"{name}/{key}": value for name, weights in self.weights.items() for key, value in weights.items()}
        return tensors, {"best": self.best, "waited": self.waited}

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any], device: torch.device) -> None:
        """Restore the state that `state` returned."""
        self.best, self.waited = dict(plain["best"]), plain["waited"]
        self.weights = {name: {} for name in self.best}
        for key, value in tensors.items():
            name, _, parameter = key.partition("/")
            self.weights[name][parameter] = value.to(device)


def measured(metric: str, scores: Mapping[str, Any]) -> None:
    """Check that the metric by which an epoch is chosen is among those of the validation split."""
    if metric not in scores:
        raise InputError(f"An epoch is chosen by '{metric}', which is not measured. {did_you_mean(metric, scores)}")
