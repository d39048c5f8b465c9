"""The histories of many models: tables with a column per model. Rows of a model are built when they are read.

A thousand epochs of a thousand models are a million rows, most of which are never read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

if TYPE_CHECKING:
    from xmodal.engine.stacked.model_kind import StepRecord

Values = Mapping[str, Sequence[Any] | Tensor]


class Tables:
    """The histories of a stack.

    Args:
        models: number of models.
        steps: per epoch.
    """

    def __init__(self, models: int, steps: int) -> None:
        self.models, self.steps = models, steps
        self.names: tuple[list[str], list[str]] = ([], [])
        self.means: Any = []  # per epoch: losses, then logs, each with one value per model
        self.valid: list[Mapping[str, Values]] = []
        self.rates: list[list[float]] = []
        self.seconds: list[float] = []
        self._steps: list[tuple[Sequence[Tensor], int]] = []

    def add(self, step: StepRecord, results: Sequence[Tensor], rows: int) -> None:
        """Store losses, counts and logs of a step: the first of its results, in this order."""
        self.names = (step.losses, step.logs)
        self._steps.append((results[: 2 * len(step.losses) + len(step.logs)], rows))

    def broken(self) -> tuple[int, int, dict[str, float]] | None:
        """Step, model and losses of the first non-finite loss of this epoch; None: all are finite."""
        terms = len(self.names[0])
        # one number per step is read first; a sum may be infinite although its terms aren't, so the terms decide
        if all(math.isfinite(sum(term.sum() for term in values[:terms]).item()) for values, _ in self._steps):  # type: ignore[union-attr]
            return None
        for number, (values, _) in enumerate(self._steps):
            finite = torch.stack([torch.isfinite(term) for term in values[:terms]]).all(dim=0)
            if not finite.all():
                model = int(finite.int().argmin())
                losses = {name: term[model].item() for name, term in zip(self.names[0], values, strict=False)}
                return number, model, losses
        return None

    def end_epoch(self, scores: Mapping[str, Values], rates: list[float], seconds: float) -> None:
        """Close an epoch: terms are averaged with their counts as weights, logs with rows, as in `StepSums`."""
        losses, logs = self.names
        terms = len(losses)
        # the mean over one step is its value, also where it counted nothing
        if len(self._steps) == 1:
            results = self._steps[0][0]
            self.means.append([*results[:terms], *results[2 * terms :]])
        else:
            columns = [
                torch.stack(column).double() for column in zip(*(results for results, _ in self._steps), strict=True)
            ]
            rows = torch.tensor([rows for _, rows in self._steps], dtype=torch.float64)[:, None]
            weights = [*columns[terms : 2 * terms], *[rows.to(columns[0].device)] * len(logs)]
            values = [*columns[:terms], *columns[2 * terms :]]
            pairs = zip(values, weights, strict=True)
            self.means.append([(value * weight).sum(0) / weight.sum(0).clamp(min=1e-300) for value, weight in pairs])
        self._steps = []
        self.valid.append(scores)
        self.rates.append(rates)
        self.seconds.append(seconds / self.models)

    def mean_row(self) -> dict[str, Any]:
        """The latest row, averaged over the models, for the progress line."""
        terms = len(self.names[0])
        valid = {
            student: {
                name: float(torch.as_tensor(values, dtype=torch.float64).mean()) for name, values in metrics.items()
            }
            for student, metrics in self.valid[-1].items()
        }
        loss = sum(float(value.double().mean()) for value in self.means[-1][:terms])
        return {"epoch": len(self.means) - 1, "loss": loss, "valid": valid}

    def done(self) -> Tables:
        """Join the epochs and move them to the CPU, after the last one; returns the tables."""
        self.means = [torch.stack(column).cpu() for column in zip(*self.means, strict=True)]
        return self

    def of(self, model: int) -> History:
        """The history of a model."""
        return History(self, model)

    def row(self, epoch: int, model: int) -> dict[str, Any]:
        """The row of an epoch of a model, with the keys of the rows of `fit`."""
        losses, logs = self.names
        values = [column[epoch, model].item() for column in self.means]
        terms = dict(zip(losses, values, strict=False))
        return {
            "epoch": epoch,
            "steps": self.steps,
            "loss": sum(terms[name] for name in sorted(terms)),
            "losses": {name: terms[name] for name in sorted(terms)},
            "logs": dict(sorted(zip(logs, values[len(losses) :], strict=True))),
            "lr": self.rates[epoch],
            "valid": self.scores(epoch, model),
            "seconds": self.seconds[epoch],
        }

    def scores(self, epoch: int, model: int) -> dict[str, dict[str, Any]]:
        """Student → metrics, of an epoch of a model."""
        return {
            student: {name: _number(values[model]) for name, values in metrics.items()}
            for student, metrics in self.valid[epoch].items()
        }


class History(Sequence[dict[str, Any]]):
    """The rows of a model, which are built when they are read."""

    def __init__(self, tables: Tables, model: int) -> None:
        self._tables, self._model = tables, model

    def __len__(self) -> int:
        return len(self._tables.seconds)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"epoch {index} of {len(self)}")
        return self._tables.row(index % len(self), self._model)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"History of {len(self)} epochs"


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value
