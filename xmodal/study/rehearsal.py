"""The rehearsal: a bench that trains nothing, on which errors in networks and methods appear before the first epoch."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable

from pydantic import BaseModel
from torch import nn

from xmodal.cards import MethodCard
from xmodal.method import Method
from xmodal.metrics.task import scalar_metrics
from xmodal.models.network import as_precise
from xmodal.models.resnet import load_checked
from xmodal.study.bench import CONTROL, Bench
from xmodal.study.plan import TEACHER
from xmodal.types import Batch


class Rehearsal(Bench):
    """A kit that trains nothing: an error in building a method appears here, before the first epoch.

    Networks have their initial weights, each split is its first batch, and every validation score is 0.
    """

    def teacher(self) -> nn.Module:
        """A fresh network in place of the teacher, or the given one; with an earlier run, its weights are checked."""
        self._teacher_used = True
        if self.given is not None:
            return as_precise(copy.deepcopy(self.given.student.module), self.info).to(self.fabric.device).eval()
        return self._checked(TEACHER, self.network(self.teaching, side=TEACHER).module)

    def control(self) -> nn.Module:
        """A fresh network in place of the control; with an earlier run, its weights are checked."""
        return self._checked(CONTROL, self.network(self.student).module)

    def _checked(self, stage: str, network: nn.Module) -> nn.Module:
        for weights in self.earlier.weights.get(stage, {}).values():
            load_checked(network, weights, self.earlier.where)
        return network.to(self.fabric.device).eval()

    def batches(self, split: str = "train", *, size: int | None = None, most: int | None = None) -> Iterable[Batch]:
        """The first batch alone."""
        return itertools.islice(super().batches(split, size=size, most=most), 1)

    def fit(self, method: Method, *, stage: str, epochs: int | None = None, keep: str = "") -> Method:
        """The method with its initial weights, or with those of an earlier run."""
        if stage in self.earlier.weights:
            return self._load_earlier(stage, method)
        return method.to(self.fabric.device)

    def validate(self, method: Method) -> dict[str, dict[str, float]]:
        """A score of 0 for every metric."""
        return {name: dict.fromkeys(scalar_metrics(self.info), 0.0) for name in method.students()}

    def rehearse(self, card: MethodCard, settings: BaseModel) -> Method:
        """Build a method, including its stages, without training."""
        return self.build(card, settings)
