"""Losses of labels, by task: one value per sample, pixel, point or voxel."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, masked_mean, picked, weighted_mean
from xmodal.losses.segmentation import focal, lovasz
from xmodal.types import DataInfo

Gather = Callable[[Tensor], Tensor]


def task_values(outputs: Tensor, target: Tensor, *, task: str, ignore: int | None = None) -> Tensor:
    """Loss of each sample (or pixel, point, voxel).

    | task | outputs | target | value |
    |---|---|---|---|
    | multiclass | (rows, classes, …) | (rows, …) integers | cross-entropy |
    | binary | (rows, 1) | (rows,) 0 or 1 | binary cross-entropy |
    | multilabel | (rows, labels) | (rows, labels) 0 or 1 | mean of the binary cross-entropy over labels |
    | regression | (rows, width) | (rows, width) | mean squared error over the width |
    """
    outputs = at_least_float32(outputs)
    if task == "multiclass":
        # -100 is torch's default, and no class: without `ignore` no target is excluded.
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
    """The mask of the batch without the positions whose target is ``ignore``; None: all positions are valid.

    Example:
        >>> import torch
        >>> what_counts(torch.tensor([0, 255, 1]), ignore=255).tolist()
        [True, False, True]
    """
    if ignore is None:
        return valid
    labelled = target != ignore
    return labelled if valid is None else valid & labelled


def known_targets(
    target: Tensor,
    *,
    task: str,
    valid: Tensor | None = None,
    ignore: int | None = None,
    labelled: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Targets that a loss can read in every row, and the mask of those that count; None: all count.

    Args:
        target: as in `task_values`; -1 or NaN in rows without a label.
        task: kind of target.
        valid: mask of the valid positions, see `Batch`.
        ignore: class number that is left out.
        labelled: (rows,), which rows have a label; None: all.

    Example:
        >>> import torch
        >>> nan = float("nan")
        >>> known_targets(torch.tensor([[2.0], [nan]]), task="regression", labelled=torch.tensor([True, False]))
        (tensor([[2.],
                [0.]]), tensor([ True, False]))
    """
    # Only class numbers can equal `ignore`: a regression target of the same value is an ordinary target.
    mask = what_counts(target, valid=valid, ignore=ignore if task == "multiclass" else None)
    if labelled is None:
        return target, mask
    # Filled before the loss is computed: a mask behind it stops the value of NaN, but the gradient would be 0 · NaN.
    target = filled(target, labelled)
    known = rows_as(labelled, target) if task == "multiclass" else labelled
    return target, known if mask is None else mask & known


def filled(target: Tensor, labelled: Tensor) -> Tensor:
    """Targets with 0 in the rows without a label."""
    return target.masked_fill(~rows_as(labelled, target), 0)


def rows_as(mask: Tensor, like: Tensor) -> Tensor:
    """A mask of rows (rows,) in the shape of a tensor (rows, …)."""
    return mask.reshape(-1, *[1] * (like.ndim - 1)).expand(like.shape)


def task_loss(
    outputs: Tensor,
    target: Tensor,
    *,
    task: str,
    valid: Tensor | None = None,
    ignore: int | None = None,
    labelled: Tensor | None = None,
    row_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor | int]:
    """Mean of `task_values` over the valid positions of the labelled rows, and their number, as `masked_mean`.

    Without such a position the mean is 0, and its gradient too. Arguments as in `known_targets`; ``row_weight`` (rows,)
    multiplies the value of each row, and the divisor is the number of rows all the same.

    Example:
        >>> import torch
        >>> loss, count = task_loss(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]), task="multiclass")
        >>> round(loss.item(), 4), count
        (0.6931, 4)
    """
    target, mask = known_targets(target, task=task, valid=valid, ignore=ignore, labelled=labelled)
    values = task_values(outputs, target, task=task, ignore=ignore)
    return masked_mean(values if row_weight is None else values * row_weight.to(values.dtype), mask)


def label_terms(
    outputs: Tensor,
    target: Tensor,
    info: DataInfo,
    *,
    valid: Tensor | None = None,
    labelled: Tensor | None = None,
    row_weight: Tensor | None = None,
    gather: Gather | None = None,
) -> dict[str, tuple[Tensor, Tensor | int]]:
    """The terms of the label loss that the data defines: name → weighted value and the count of its mean.

    Without `DataInfo.label_losses` and class weights the only term is `task_loss`, named ``task``. Otherwise the valid
    positions of the labelled rows become rows first. Class weights multiply the focal loss; the cross-entropy becomes a
    weighted mean, divided by the sum of the weights, as in `torch.nn.CrossEntropyLoss`. ``lovasz`` compares positions
    with one another, on the rows of all processes.

    Args:
        outputs: outputs of the network.
        target: target of the modality that the network reads.
        info: description of the data.
        valid: mask of the valid positions, see `Batch`.
        labelled: mask of the rows with a label, see `Batch`.
        row_weight: weight of each row, see `Batch`; for the cross-entropy and for targets of one sample alone.
        gather: `Method.gather`; None: one process.

    Example:
        >>> info = DataInfo({}, "multiclass", 2, {}, label_losses={"focal": 1.0, "lovasz": 0.5}, ignore=0)
        >>> terms = label_terms(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 1]]), info)
        >>> {name: (round(value.item(), 4), int(count)) for name, (value, count) in terms.items()}
        {'task focal': (0.1733, 2), 'task lovasz': (0.25, 2)}
    """
    if not info.label_losses and not info.class_weights:
        term = task_loss(
            outputs,
            target,
            task=info.task,
            valid=valid,
            ignore=info.ignore,
            labelled=labelled,
            row_weight=row_weight,
        )
        return {"task": term}
    target, mask = known_targets(target, task="multiclass", valid=valid, ignore=info.ignore, labelled=labelled)
    rows, labels = picked(outputs, target, mask)
    weights = torch.tensor(info.class_weights, device=rows.device, dtype=rows.dtype) if info.class_weights else None
    terms: dict[str, tuple[Tensor, Tensor | int]] = {}
    count: Tensor | int
    for name, weight in (info.label_losses or {"cross_entropy": 1.0}).items():
        if name == "lovasz":
            # Intersection over union of the whole batch is no mean of the values of its parts, so the rows of all
            # processes are gathered; the other terms are means and need not.
            all_rows, all_labels = (rows, labels) if gather is None else (gather(rows), gather(labels))
            value, count = lovasz(all_rows, all_labels), len(all_labels)
        elif name == "focal":
            value, count = focal(rows, labels, alpha=weights), len(labels)
        else:
            each = None if weights is None else weights[labels]
            values = task_values(rows, labels, task="multiclass")
            if row_weight is not None:
                values = values * (row_weight if mask is None else row_weight[mask]).to(values.dtype)
            value, count = weighted_mean(values, each)
        key = "task" if len(info.label_losses) < 2 else f"task {name}"
        terms[key] = (weight * value, count)
    return terms
