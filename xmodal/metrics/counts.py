"""Metrics of classes from counts: accuracy, F1, recall and the confusion matrix, each with the bits of torchmetrics.

For C classes a batch adds three vectors (hits, predicted, true). A final evaluation also counts pairs of true and
predicted class: as a table up to 200 classes, beyond that those pairs alone that occur, since a table grows with C².
torchmetrics counts a table for each of several metrics, and its import takes seconds. It remains the oracle in the
tests, and the source of the metrics that are no counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmodal.collectives import gather_rows, sum_over_processes

TABLE = 200  # classes up to which the whole confusion matrix is part of a result
LARGEST = 200  # pairs of classes that a result names beyond that


class Counts:
    """The counts of a multiclass target; ``update`` and ``compute`` as of a torchmetrics object.

    Args:
        classes: how many.
        ignore: target value that does not count; None: all count.
        full: also count pairs of predicted and true class.

    Example:
        >>> counts = Counts(2)
        >>> counts.update(torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 0]))
        >>> {name: round(value, 3) for name, value in counts.compute().items()}
        {'accuracy': 0.667, 'macro_f1': 0.667, 'weighted_f1': 0.667}
    """

    # states that grow with the rows, see `Scores.update`
    metric_state: dict[str, Any] = {}

    def __init__(self, classes: int, *, ignore: int | None = None, full: bool = False) -> None:
        self.classes, self.ignore = classes, ignore
        # one tensor, so that processes exchange one
        self.counts = torch.zeros(3, classes, dtype=torch.long)
        self.pairs = torch.zeros(classes, classes, dtype=torch.long) if full and classes <= TABLE else None
        # numbers of the pairs of wrong rows, true × classes + predicted
        self.wrong: list[Tensor] | None = [] if full and classes > TABLE else None

    def to(self, device: torch.device | str) -> Counts:
        """Count on this device."""
        self.counts = self.counts.to(device)
        self.pairs = None if self.pairs is None else self.pairs.to(device)
        return self

    def update(self, outputs: Tensor, target: Tensor) -> None:
        """Count one batch: outputs (rows, classes) and class numbers (rows,)."""
        predicted = _largest(outputs)
        if self.ignore is not None:
            kept = target != self.ignore
            predicted, target = predicted[kept], target[kept]
        for place, numbers in enumerate((target[predicted == target], predicted, target)):
            self.counts[place] += torch.bincount(numbers, minlength=self.classes)
        if self.pairs is not None:
            found = torch.bincount(target * self.classes + predicted, minlength=self.classes**2)
            self.pairs += found.view_as(self.pairs)
        if self.wrong is not None:
            missed = predicted != target
            self.wrong.append(target[missed] * self.classes + predicted[missed])

    def compute(self) -> dict[str, Any]:
        """Name → number; in full also ``per_class`` and ``confusion`` (rows: true, columns: predicted).

        Above 200 classes ``confused`` takes the place of ``confusion``: the number of rows of each ``true`` class, and
        the ``largest`` off-diagonal entries as (true, predicted, rows).
        """
        hits, predicted, true = (part.float() for part in sum_over_processes(self.counts))
        f1 = _divided(2.0 * hits, predicted + true)
        # a class that is neither predicted nor among the targets is left out of the mean
        occurs = ((predicted + true) > 0).float()
        scores: dict[str, Any] = {
            "accuracy": _divided(hits.sum(), true.sum()).item(),
            "macro_f1": _divided(occurs * f1, occurs.sum()).sum().item(),
            "weighted_f1": _divided(true * f1, true.sum()).sum().item(),
        }
        if self.pairs is not None:
            scores["per_class"] = _divided(hits, true).tolist()
            scores["confusion"] = sum_over_processes(self.pairs).tolist()
        if self.wrong is not None:
            # four digits: a result has these for every network and seed
            scores["per_class"] = [round(share, 4) for share in _divided(hits, true).tolist()]
            pairs = gather_rows(torch.cat([self.counts.new_zeros(0), *self.wrong]))
            numbers, rows = pairs.unique(return_counts=True)  # type: ignore[no-untyped-call]
            scores["confused"] = confused(true, numbers, rows, self.classes)
        return scores


def confused(true: Tensor, pairs: Tensor, rows: Tensor, classes: int) -> dict[str, list[Any]]:
    """What a result holds in place of a whole table: rows of each class, and the largest off-diagonal entries.

    Args:
        true: rows of each true class (classes,).
        pairs: numbers of the pairs that occur, true × classes + predicted, in their order.
        rows: how often each of them occurs.
        classes: how many.

    Example:
        >>> confused(torch.tensor([3, 1]), torch.tensor([1, 2]), torch.tensor([2, 1]), 2)
        {'true': [3, 1], 'largest': [[0, 1, 2], [1, 0, 1]]}
    """
    # of equally frequent pairs those of smaller class numbers come first
    order = rows.argsort(descending=True, stable=True)[:LARGEST]
    found = zip(pairs[order].tolist(), rows[order].tolist(), strict=True)
    return {"true": true.long().tolist(), "largest": [[*divmod(pair, classes), count] for pair, count in found]}


def sparse_table(
    predicted: Tensor, target: Tensor, classes: int, *, ignore: int | None = None
) -> dict[str, NDArray[Any]]:
    """The whole confusion matrix by its entries that are not 0, in the form that ``scipy.sparse.load_npz`` reads.

    Args:
        predicted: class numbers (rows,).
        target: class numbers (rows,).
        classes: how many.
        ignore: target value that does not count; None: all count.

    Example:
        >>> table = sparse_table(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 2]), 3)
        >>> table["row"].tolist(), table["col"].tolist(), table["data"].tolist()
        ([0, 2], [1, 0], [2, 1])
    """
    if ignore is not None:
        predicted, target = predicted[target != ignore], target[target != ignore]
    numbers, rows = (target * classes + predicted).unique(return_counts=True)  # type: ignore[no-untyped-call]
    entries = {"row": numbers // classes, "col": numbers % classes, "data": rows}
    shape = {"shape": np.array([classes, classes]), "format": np.array(b"coo")}
    return {name: values.cpu().numpy() for name, values in entries.items()} | shape


class BinaryCounts:
    """The counts of a binary target from probabilities of class 1, which is predicted above 0.5.

    Args:
        full: also return the confusion matrix.

    Example:
        >>> counts = BinaryCounts()
        >>> counts.update(torch.tensor([0.9, 0.2, 0.7]), torch.tensor([1, 1, 0]))
        >>> {name: round(value, 3) for name, value in counts.compute().items()}
        {'accuracy': 0.333, 'f1': 0.5}
    """

    metric_state: dict[str, Any] = {}

    def __init__(self, *, full: bool = False) -> None:
        self.table, self.full = torch.zeros(4, dtype=torch.long), full

    def to(self, device: torch.device | str) -> BinaryCounts:
        """Count on this device."""
        self.table = self.table.to(device)
        return self

    def update(self, chances: Tensor, target: Tensor) -> None:
        """Count one batch: probabilities (rows,) and targets (rows,)."""
        self.table += torch.bincount(2 * target.long() + (chances > 0.5).long(), minlength=4)

    def compute(self) -> dict[str, Any]:
        """Name → number; ``confusion``: rows are true, columns predicted."""
        table = sum_over_processes(self.table)
        right_no, false_yes, false_no, hits = table.float()
        scores: dict[str, Any] = {
            "accuracy": _divided(hits + right_no, table.float().sum()).item(),
            "f1": _divided(2.0 * hits, 2.0 * hits + false_yes + false_no).item(),
        }
        return {**scores, "confusion": table.view(2, 2).tolist()} if self.full else scores


class Mean:
    """The mean of all values, in float32; NaN among them is kept, since it shows a network that diverged."""

    def __init__(self) -> None:
        self.sums = torch.zeros(2)

    def to(self, device: torch.device | str) -> Mean:
        """Add up on this device."""
        self.sums = self.sums.to(device)
        return self

    def update(self, values: Tensor) -> None:
        """Add values."""
        self.sums += torch.stack([values.float().sum(), values.new_tensor(values.numel(), dtype=torch.float32)])

    def compute(self) -> Tensor:
        """The mean over all processes."""
        total, count = sum_over_processes(self.sums).unbind()
        return total / count


def _largest(outputs: Tensor) -> Tensor:
    """The place of the largest value of each row; of equal ones the first, and of NaN the first as well."""
    # NumPy reads the values of a row several at a time, torch one after the other: ten times as long for many classes
    if outputs.device.type == "cpu" and outputs.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(outputs.detach().numpy().argmax(axis=1))
    return outputs.argmax(dim=1)


def _divided(parts: Tensor, whole: Tensor) -> Tensor:
    """Division in which 0 / 0 is 0."""
    return parts / torch.where(whole == 0, torch.ones_like(whole), whole)
