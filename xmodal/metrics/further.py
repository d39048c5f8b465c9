"""Metrics of the user, besides those of the task.

    metrics={"kappa": torchmetrics.CohenKappa(task="multiclass", num_classes=10), "cost": (cost, "min")}

A function is called once per split with everything, a torchmetrics object batch by batch. Both get

| task | first argument | target |
|---|---|---|
| multiclass | probabilities (rows, classes) | class numbers (rows,) |
| binary | probabilities of the second class (rows,) | 0 or 1 (rows,) |
| multilabel | probabilities (rows, labels) | 0 or 1 (rows, labels) |
| regression | predicted values (rows, width) | values (rows, width) |

as tensors, and return one number. With several processes each function sees the rows of all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from xmodal.errors import InputError
from xmodal.types import DataInfo

if TYPE_CHECKING:
    from torchmetrics import Metric

BEST = ("max", "min")


@dataclass(frozen=True)
class FurtherMetric:
    """A metric of the user.

    Attributes:
        measure: a torchmetrics object, or a function of predictions and target.
        direction: ``max`` or ``min``: which values are better.
    """

    measure: Any
    direction: str

    def fresh(self) -> Metric:
        """A torchmetrics object that has counted nothing."""
        from torchmetrics import Metric

        if isinstance(self.measure, Metric):
            # a copy: one object would add up the splits and students of all trainings
            metric = copy.deepcopy(self.measure)
            metric.reset()
            return metric
        return _collector()(self.measure)


def _collector() -> Callable[[Any], Metric]:
    # a class within a function, because torchmetrics takes a second to import and many commands do without it
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat

    class Collected(Metric):
        """Keeps predictions and targets, of all processes, and calls a function with them."""

        full_state_update = False
        predictions: list[torch.Tensor]
        target: list[torch.Tensor]

        def __init__(self, measure: Callable[[Any, Any], Any]) -> None:
            super().__init__()
            self.measure: Callable[[Any, Any], Any] = measure
            self.add_state("predictions", [], dist_reduce_fx="cat")
            self.add_state("target", [], dist_reduce_fx="cat")

        def update(self, predictions: torch.Tensor, target: torch.Tensor) -> None:
            self.predictions.append(predictions.detach())
            self.target.append(target)

        def compute(self) -> Any:
            return self.measure(dim_zero_cat(self.predictions), dim_zero_cat(self.target))

    return Collected


def further_metrics(given: Mapping[str, Any], info: DataInfo, *, usual: Sequence[str]) -> dict[str, FurtherMetric]:
    """The metrics that the user gave, after one trial of each.

    Args:
        given: name → torchmetrics object or function, or a pair of it and the better direction (``max`` or ``min``);
            alone, a function counts as better where it is larger.
        info: of the data.
        usual: names of the metrics that are measured already.
    """
    from torchmetrics import Metric

    problems, metrics = [], {}
    for name, value in given.items():
        measure, direction = value if isinstance(value, tuple) and len(value) == 2 else (value, "")
        if not direction:
            direction = "min" if getattr(measure, "higher_is_better", True) is False else "max"
        if name in usual:
            problems.append(f"metrics names '{name}', which is measured already. Give it another name.")
        elif not callable(measure):
            problems.append(
                f"metrics['{name}'] is a {type(measure).__name__}: a torchmetrics object or a function of predictions "
                "and target was expected."
            )
        elif direction not in BEST:
            problems.append(f"metrics['{name}'] is better at '{direction}': 'max' or 'min' was expected.")
        elif info.dense and not isinstance(measure, Metric):
            problems.append(
                f"metrics['{name}'] is a function, which needs all predictions in memory, and this data has a target "
                "for every pixel or voxel. Give a torchmetrics object."
            )
        else:
            metrics[name] = FurtherMetric(measure, direction)
            problems += _trial(name, metrics[name], info)
    if problems:
        raise InputError(problems)
    return metrics


def _trial(name: str, metric: FurtherMetric, info: DataInfo) -> list[str]:
    """Call a metric with a few predictions, so that its errors appear before anything is trained."""
    rows = max(2 * info.classes, 4)
    if info.task == "multiclass":
        target = torch.arange(rows) % info.classes
        predictions = torch.nn.functional.one_hot(target, info.classes).float()
    elif info.task == "binary":
        target = torch.arange(rows) % 2
        predictions = target.float()
    else:
        values = (torch.arange(rows * info.classes) % (info.classes + 1)).reshape(rows, -1)
        target = (values > 0).long() if info.task == "multilabel" else values.float()
        predictions = target.float()
    tried = metric.fresh()
    # code of the user, which can raise anything
    try:
        tried.update(predictions, target)
        as_number(name, tried.compute())
    except InputError as error:
        return error.problems
    except Exception as error:
        return [
            f"metrics['{name}'] fails on predictions of shape {tuple(predictions.shape)} and a target of shape "
            f"{tuple(target.shape)}: {type(error).__name__}: {error}. Both are tensors; see xmodal.metrics.further."
        ]
    return []


def as_number(name: str, value: Any) -> float:
    """The value of a metric as a number; anything else raises an error."""
    try:
        return float(value)
    except (TypeError, ValueError):
        what = f"a {type(value).__name__}" + (f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else "")
        raise InputError(f"metrics['{name}'] returned {what}: one number was expected.") from None
