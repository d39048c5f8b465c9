"""Metrics of classes from counts: accuracy, F1, recall and the confusion matrix, each with the bits of torchmetrics.

Up to 200 classes pairs of true and predicted class are counted in a table. Beyond that, since a table grows with C², a
batch adds three vectors (hits, predicted, true), and a final evaluation also collects the pairs of wrong rows.
torchmetrics counts a table for each of several metrics, and its import takes seconds. It remains the oracle in the
tests, and the source of the metrics that are no counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmodal.collectives import gather_rows, processes, sum_over_processes
from xmodal.devices import read

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
        self.classes, self.ignore, self.full = classes, ignore, full
        whole = classes <= TABLE
        # true × predicted class; or hits, predicted and true of each class
        self.counts = torch.zeros(classes if whole else 3, classes, dtype=torch.long)
        # numbers of the pairs of wrong rows, true × classes + predicted
        self.wrong: list[Tensor] | None = [] if full and not whole else None

    def to(self, device: torch.device | str) -> Counts:
        """Count on this device."""
        self.counts = self.counts.to(device)
        return self

    def reset(self) -> None:
        """Forget all counts."""
        self.counts.zero_()
        if self.wrong is not None:
            self.wrong.clear()

    def update(self, outputs: Tensor, target: Tensor) -> None:
        """Count one batch: outputs (rows, classes) and class numbers (rows,)."""
        predicted, target = _largest(outputs), target.long()
        # rows that are ignored count 0 times: a GPU would wait to learn how many rows are left without them
        kept = torch.ones_like(target) if self.ignore is None else (target != self.ignore).long()
        if self.ignore is not None:
            target = target * kept
        # no bincount, which waits for the largest number on a GPU
        counts = self.counts.view(-1)
        if self.classes <= TABLE:
            counts.scatter_add_(0, torch.add(predicted, target, alpha=self.classes), kept)
            return
        places = torch.cat([target, predicted + self.classes, target + 2 * self.classes])
        counts.scatter_add_(0, places, torch.cat([kept * (predicted == target), kept, kept]))
        if self.wrong is not None:
            missed = (predicted != target) & (kept > 0)
            self.wrong.append(target[missed] * self.classes + predicted[missed])

    def values(self) -> dict[str, Any]:
        """As `compute`, with tensors on the device in place of numbers, for a caller that reads several metrics."""
        counts = sum_over_processes(self.counts)
        if self.classes <= TABLE:
            hits, predicted, true = counts.diagonal().float(), counts.sum(dim=0).float(), counts.sum(dim=1).float()
        else:
            hits, predicted, true = counts.float().unbind()
        both, rows = predicted + true, true.sum()
        f1 = _divided(2.0 * hits, both)
        scores: dict[str, Any] = {
            "accuracy": _divided(hits.sum(), rows),
            # without the classes that are neither predicted nor among the targets
            "macro_f1": _divided(f1, both.count_nonzero()).sum(),
            "weighted_f1": _divided(true * f1, rows).sum(),
        }
        if not self.full:
            return scores
        scores["per_class"] = _divided(hits, true)
        if self.wrong is None:
            return {**scores, "confusion": counts}
        # four digits: a result has these for every network and seed
        scores["per_class"] = [round(share, 4) for share in scores["per_class"].tolist()]
        pairs = gather_rows(torch.cat([self.counts.new_zeros(0), *self.wrong]))
        numbers, rows = pairs.unique(return_counts=True)  # type: ignore[no-untyped-call]
        return {**scores, "confused": confused(true, numbers, rows, self.classes)}

    def compute(self) -> dict[str, Any]:
        """Name → number; in full also ``per_class`` and ``confusion`` (rows: true, columns: predicted).

        Above 200 classes ``confused`` takes the place of ``confusion``: the number of rows of each ``true`` class, and
        the ``largest`` off-diagonal entries as (true, predicted, rows).
        """
        scores: dict[str, Any] = on_host(self.values())
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

    def reset(self) -> None:
        """Forget all counts."""
        self.table.zero_()

    def update(self, chances: Tensor, target: Tensor) -> None:
        """Count one batch: probabilities (rows,) and targets (rows,)."""
        places = 2 * target.long() + (chances > 0.5).long()
        self.table.scatter_add_(0, places, torch.ones_like(places))

    def values(self) -> dict[str, Any]:
        """As `compute`, with tensors on the device in place of numbers."""
        table = sum_over_processes(self.table)
        right_no, false_yes, false_no, hits = table.float()
        scores: dict[str, Any] = {
            "accuracy": _divided(hits + right_no, table.float().sum()),
            "f1": _divided(2.0 * hits, 2.0 * hits + false_yes + false_no),
        }
        return {**scores, "confusion": table.view(2, 2)} if self.full else scores

    def compute(self) -> dict[str, Any]:
        """Name → number; ``confusion``: rows are true, columns predicted."""
        scores: dict[str, Any] = on_host(self.values())
        return scores


class Mean:
    """The mean of all values, in float32; NaN among them is kept, since it shows a network that diverged."""

    def __init__(self) -> None:
        self.total, self.count = torch.zeros(()), 0

    def to(self, device: torch.device | str) -> Mean:
        """Add up on this device."""
        self.total = self.total.to(device)
        return self

    def reset(self) -> None:
        """Forget all values."""
        self.total, self.count = torch.zeros_like(self.total), 0

    def update(self, values: Tensor) -> None:
        """Add values."""
        self.total = self.total + values.float().sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        """The mean over all processes."""
        total, count = self.total, self.total.new_full((), self.count)
        if processes() > 1:
            total, count = sum_over_processes(torch.stack([total, count])).unbind()
        return total / count


def _largest(outputs: Tensor) -> Tensor:
    """The place of the largest value of each row; of equal ones the first, and of NaN the first as well."""
    # NumPy reads the values of a row several at a time, torch one after the other: ten times as long for many classes
    many = outputs.shape[1] > TABLE
    if many and outputs.device.type == "cpu" and outputs.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(outputs.detach().numpy().argmax(axis=1))
    return outputs.argmax(dim=1)


def on_host(scores: Any) -> Any:
    """Scores with numbers in place of tensors, in dictionaries of any depth, from one reading of the device."""
    tensors: list[Tensor] = []

    def gather(part: Any) -> None:
        if isinstance(part, Tensor):
            tensors.append(part)
        elif isinstance(part, dict):
            for each in part.values():
                gather(each)

    gather(scores)
    values = iter(read(tensors))

    def replaced(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: replaced(each) for name, each in part.items()}
        return next(values) if isinstance(part, Tensor) else part

    return replaced(scores)


def _divided(parts: Tensor, whole: Tensor) -> Tensor:
    """Division by counts in which 0 / 0 is 0."""
    return parts / whole.clamp(min=1)
