"""Accuracies as two test loops of the authors' VGGSound code print them: they depend on how rows fall into batches.

Ours counts rows (`Scores`, and everything that is reported). These are for a run that shall print what theirs does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xmodal.errors import InputError, did_you_mean

DIVISORS = ("batches", "rows")


def batch_accuracy(outputs: Tensor, target: Tensor, *, batch_size: int, divide: str = "batches") -> float:
    r"""Sum of the batches' accuracies, divided by how many there are.

    $$\frac1D \sum_{b=1}^{B} \frac{1}{|b|} \sum_{n \in b} \mathbf{1}[\arg\max_k z_{nk} = y_n]$$

    Args:
        outputs: z (rows, classes), in the order in which the loader gave them.
        target: y (rows,).
        batch_size: rows of a batch; the last one may have fewer.
        divide: by D: ``batches`` (their audio network; rows of a smaller last batch weigh more), or ``rows`` (their
            video network; about the accuracy over the batch size).

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
    right = (outputs.argmax(dim=1) == target).double()
    shares = torch.stack([part.mean() for part in torch.split(right, batch_size)])
    return float(shares.mean() if divide == "batches" else shares.sum() / len(right))
