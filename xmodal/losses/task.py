"""What labels ask of a network, by kind of target. One value per thing that counts."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, masked_mean


def task_values(outputs: Tensor, target: Tensor, *, task: str, ignore: int | None = None) -> Tensor:
    """Loss of each sample (or pixel, point, voxel).

    | task | outputs | target | value |
    |---|---|---|---|
    | multiclass | (rows, classes, …) | (rows, …) integers | cross-entropy |
    | binary | (rows, 1) | (rows,) 0 or 1 | cross-entropy of one logit |
    | multilabel | (rows, labels) | (rows, labels) 0 or 1 | mean over labels of the same |
    | regression | (rows, width) | (rows, width) | mean squared error over the width |
    """
    outputs = at_least_float32(outputs)
    if task == "multiclass":
        index = -100 if ignore is None else ignore
        return F.cross_entropy(outputs, target, reduction="none", ignore_index=index)
    if task == "binary":
        return F.binary_cross_entropy_with_logits(outputs.flatten(), target.to(outputs.dtype), reduction="none")
    if task == "multilabel":
        values = F.binary_cross_entropy_with_logits(outputs, target.to(outputs.dtype), reduction="none")
        return values.mean(dim=1)
    if task == "regression":
        return F.mse_loss(outputs, target.to(outputs.dtype), reduction="none").flatten(1).mean(dim=1)
    raise ValueError(f"task is '{task}': expected multiclass, binary, multilabel or regression")


def what_counts(target: Tensor, *, valid: Tensor | None = None, ignore: int | None = None) -> Tensor | None:
    """The mask of the batch without the places whose target is ``ignore``; None: everything counts.

    Example:
        >>> import torch
        >>> what_counts(torch.tensor([0, 255, 1]), ignore=255).tolist()
        [True, False, True]
    """
    if ignore is None:
        return valid
    known = target != ignore
    return known if valid is None else valid & known


def task_loss(
    outputs: Tensor, target: Tensor, *, task: str, valid: Tensor | None = None, ignore: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean of `task_values` over what counts, and how many that were.

    Example:
        >>> import torch
        >>> loss, count = task_loss(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]), task="multiclass")
        >>> round(loss.item(), 4), count.item()
        (0.6931, 4)
    """
    values = task_values(outputs, target, task=task, ignore=ignore)
    return masked_mean(values, what_counts(target, valid=valid, ignore=ignore) if task == "multiclass" else valid)
