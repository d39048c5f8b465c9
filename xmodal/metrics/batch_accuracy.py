"""Accuracies as printed by two test loops of the authors' VGGSound code: they depend on the division into batches.

Reports use `Scores`, which counts rows. These two are only for a comparison with the output of the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xmodal.errors import InputError, did_you_mean

DIVISORS = ("batches", "rows")


def batch_accuracy(outputs: Tensor, target: Tensor, *, batch_size: int, divide: str = "batches") -> float:
    r"""Sum of the accuracies of all batches, divided by the number of batches or of rows.

    $$\frac1D \sum_{b=1}^{B} \frac{1}{|b|} \sum_{n \in b} \mathbf{1}[\arg\max_k z_{nk} = y_n]$$

    Args:
        outputs: z (rows, classes), in the order of the loader.
        target: y (rows,).
        batch_size: rows of a batch; the last batch may have fewer.
        divide: what D counts: ``batches`` (their audio network; rows of a smaller last batch have a larger weight), or
            ``rows`` (their video network; about the accuracy divided by the batch size).

    Example:
        >>> outputs, target = torch.eye(3), torch.tensor([0, 0, 2])  # right, wrong | right
        >>> batch_accuracy(outputs, target, batch_size=2), batch_accuracy(outputs, target, batch_size=2, divide="rows")
        (0.75, 0.5)
    """
    if divide not in DIVISORS:
        raise InputError(f"An accuracy cannot be divided by '{divide}'. {did_you_mean(divide, DIVISORS)}")
    if outputs.ndim != 2 or target.shape != outputs.shape[:1] or not len(target):
        raise InputError(
            f"outputs have shape {tuple(outputs.shape)} and target {tuple(target.shape)}: expected (rows, classes) and "
            "(rows,), with at least one row."
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: expected 1 row or more.")
    correct = (outputs.argmax(dim=1) == target).double()
    accuracies = torch.stack([part.mean() for part in torch.split(correct, batch_size)])
    return float(accuracies.mean() if divide == "batches" else accuracies.sum() / len(correct))
