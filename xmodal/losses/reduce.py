"""Means that also return their count, so that masks and several processes give the right mean; weighted reductions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Whether `check_target` reads values. In a list, so that `numbers_known` can change it without a `global` statement.
_check_values = [True]


def masked_mean(values: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor | int]:
    """Mean over the valid values, and their number: an integer where the shape tells it, else a tensor.

    Args:
        values: any shape.
        valid: boolean mask of the same shape; None: all values.

    Returns:
        The mean (0 without valid values, with a zero gradient) and the count.

    Example:
        >>> mean, count = masked_mean(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False]))
        >>> mean.item(), count.item()
        (1.5, 2)
    """
    if valid is None:
        # no tensor: making one from a number waits for a GPU, and so does reading it
        return _mean(values), values.numel()
    if valid.shape != values.shape:
        raise ValueError(f"mask of shape {tuple(valid.shape)} for values of shape {tuple(values.shape)}")
    count = valid.sum()
    # `where` instead of a product: 0 × inf at a masked position would be nan.
    return torch.where(valid, values, values.new_zeros(())).sum() / count.clamp(min=1), count


def weighted_mean(values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor | int]:
    """Weighted mean and the sum of the weights; 0 with a zero gradient where that sum is 0.

    Example:
        >>> mean, total = weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.5]))
        >>> mean.item(), total.item()
        (2.5, 2.0)
    """
    if weights is None:
        return masked_mean(values)
    weights = weights.to(values.dtype)
    total = weights.sum()
    return (weights * values).sum() / torch.where(total > 0, total, torch.ones_like(total)), total


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision converted to float32, any other dtype unchanged."""
    # Sums of exponentials and products overflow float16 and lose all small terms in bfloat16 (8 bits of precision).
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def same_shape(student: Tensor, teacher: Tensor) -> None:
    """Raise a ValueError with both shapes unless the outputs have the same shape."""
    if student.shape != teacher.shape:
        raise ValueError(
            f"The student's output has shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}: "
            "expected the same. Give both networks the same outputs."
        )


def reduced(values: Tensor, reduction: str, *, weight: Tensor | None = None, entries: int = 1) -> Tensor:
    """Weight the rows and reduce them; the divisor counts all rows, also those of weight zero.

    Args:
        values: one value per row (rows,) or per position of a row (rows, …).
        reduction: ``batchmean`` (mean over rows and positions), ``mean`` (the same divided by ``entries``, that is the
            mean over the summed terms too) or ``none``.
        weight: factor of each row (rows,), or of each position with the shape of ``values``; None: 1.
        entries: number of terms that each value is the sum of.

    Example:
        >>> import torch
        >>> reduced(torch.tensor([2.0, 4.0]), "batchmean", weight=torch.tensor([1.0, 0.0])).item()
        1.0
    """
    if weight is not None:
        if weight.shape not in (values.shape, values.shape[:1]):
            raise ValueError(
                f"weight has shape {tuple(weight.shape)}, the rows have {tuple(values.shape)}: "
                f"expected {tuple(values.shape[:1])}, one number per row"
            )
        values = values * weight.to(values.dtype).reshape(*weight.shape, *[1] * (values.ndim - weight.ndim))
    if reduction == "none":
        return values
    if reduction not in ("mean", "batchmean"):
        raise ValueError(f"reduction is '{reduction}': expected mean, batchmean or none")
    mean = _mean(values)
    return mean / entries if reduction == "mean" else mean


def picked(values: Tensor, target: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The valid positions as rows: (rows, classes, …) and (rows, …) become (positions, classes) and (positions,).

    Args:
        values: logits or probabilities.
        target: one number per row and position.
        valid: boolean mask with the shape of ``target``; None: all positions.

    Example:
        >>> import torch
        >>> maps, target = torch.arange(8.0).reshape(1, 2, 2, 2), torch.tensor([[[0, 1], [1, 0]]])
        >>> picked(maps, target, target == 1)
        (tensor([[1., 5.],
                [2., 6.]]), tensor([1, 1]))
    """
    fits_target(values, target)
    if valid is None:
        return values.flatten(2).transpose(1, 2).flatten(0, 1) if values.ndim > 2 else values, target.flatten()
    if valid.shape != target.shape:
        raise ValueError(f"mask of shape {tuple(valid.shape)} for targets of shape {tuple(target.shape)}")
    if values.ndim == 2:
        return values[valid], target[valid]
    row, position = valid.flatten(1).nonzero(as_tuple=True)
    # Indexing a view copies the valid positions only; flattening the transposed maps first would copy all of them.
    return values.flatten(2).transpose(1, 2)[row, position], target.flatten(1)[row, position]


def fits_target(logits: Tensor, target: Tensor) -> None:
    """Raise a ValueError unless there is one target per row and position of logits (rows, classes, …)."""
    rows = (*logits.shape[:1], *logits.shape[2:])
    if tuple(target.shape) != rows:
        raise ValueError(f"target has shape {tuple(target.shape)} for logits {tuple(logits.shape)}: expected {rows}")


def check_target(logits: Tensor, target: Tensor) -> None:
    """Raise a ValueError unless there is one valid class number per row and position of logits (rows, classes, …)."""
    fits_target(logits, target)
    classes = logits.shape[1]
    # Values on a GPU are not read: that would wait for all queued work in every step.
    if not _check_values[0] or target.device.type != "cpu" or not target.numel():
        return
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= classes:
        raise ValueError(f"target holds classes {low} to {high}: expected 0 to {classes - 1}")


@contextmanager
def numbers_known() -> Iterator[None]:
    """Within this block `check_target` checks shapes only: the caller has checked the values.

    While a function is recorded for many models, its tensors have no values to read.
    """
    before, _check_values[0] = _check_values[0], False
    try:
        yield
    finally:
        _check_values[0] = before


def _mean(values: Tensor) -> Tensor:
    # The mean of an empty tensor would be nan; its sum is 0 and keeps the graph for a backward pass.
    return values.mean() if values.numel() else values.sum()
