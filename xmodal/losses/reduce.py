"""Means that know what they counted, so that masks and several processes come out right; sums over weighted rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_looking = [True]  # a list, so that `numbers_known` can exchange what is in it


def masked_mean(values: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean over the values that count, and how many did.

    Args:
        values: one value per thing, any shape.
        valid: boolean of the same shape; None: everything counts.

    Returns:
        The mean (0 where nothing counts, with a zero gradient) and the count.

    Example:
        >>> mean, count = masked_mean(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False]))
        >>> mean.item(), count.item()
        (1.5, 2)
    """
    if valid is None:
        mean = values.mean() if values.numel() else values.sum()  # the mean of nothing would be nan
        return mean, torch.tensor(values.numel(), device=values.device)
    if valid.shape != values.shape:
        raise ValueError(f"mask of shape {tuple(valid.shape)} for values of shape {tuple(values.shape)}")
    count = valid.sum()
    # where, not a product: 0 × inf in a place that does not count would be nan
    return torch.where(valid, values, values.new_zeros(())).sum() / count.clamp(min=1), count


def weighted_mean(values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean over values of unlike weight, and the sum of the weights; 0 with a zero gradient where that is 0.

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
    """Half precision as float32, anything else as it is: sums of exponentials need the digits."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse outputs of different shape, naming both sides."""
    if student.shape != teacher.shape:
        raise ValueError(
            f"The student's output has shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}: "
            "expected the same. Give both networks the same outputs."
        )


def reduced(values: Tensor, reduction: str, *, weight: Tensor | None = None, entries: int = 1) -> Tensor:
    """Weigh the rows and reduce them; the divisor counts all rows, those of weight zero too.

    Args:
        values: one value per row (rows,) or per place of a row (rows, …).
        reduction: ``batchmean`` (mean over rows and places), ``mean`` (that, divided by ``entries``: the mean over
            everything that was summed as well) or ``none``.
        weight: factor of each row (rows,), or of each place with the shape of ``values``; None: 1.
        entries: how many terms each value is the sum of.

    Example:
        >>> import torch
        >>> reduced(torch.tensor([2.0, 4.0]), "batchmean", weight=torch.tensor([1.0, 0.0])).item()
        1.0
    """
    if weight is not None:
        values = values * _spread(weight, values)
    if reduction == "none":
        return values
    if reduction not in ("mean", "batchmean"):
        raise ValueError(f"reduction is '{reduction}': expected mean, batchmean or none")
    mean = values.mean() if values.numel() else values.sum()  # the mean of nothing would be nan
    return mean / entries if reduction == "mean" else mean


def picked(values: Tensor, target: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The places that count as rows: (rows, classes, …) and (rows, …) become (places, classes) and (places,).

    Args:
        values: logits, probabilities or the like.
        target: one number per row and place.
        valid: boolean like ``target``; None: everything counts.

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
    row, place = valid.flatten(1).nonzero(as_tuple=True)
    # of the others nothing is copied, which is what transposing all of it would do
    return values.flatten(2).transpose(1, 2)[row, place], target.flatten(1)[row, place]


def fits_target(logits: Tensor, target: Tensor) -> None:
    """Refuse targets whose shape is not that of logits (rows, classes, …): one per row and place."""
    rows = (*logits.shape[:1], *logits.shape[2:])
    if tuple(target.shape) != rows:
        raise ValueError(f"target has shape {tuple(target.shape)} for logits {tuple(logits.shape)}: expected {rows}")


def check_target(logits: Tensor, target: Tensor) -> None:
    """Refuse class numbers that do not fit logits (rows, classes, …): one per row and place, each a class."""
    fits_target(logits, target)
    classes = logits.shape[1]
    if not _looking[0] or target.device.type != "cpu" or not target.numel():  # a look at a GPU would make it wait
        return
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= classes:
        raise ValueError(f"target holds classes {low} to {high}: expected 0 to {classes - 1}")


@contextmanager
def numbers_known() -> Iterator[None]:
    """Within this block `check_target` looks at shapes alone: the caller has looked at the numbers.

    A function that is recorded for many models has no numbers to look at.
    """
    before, _looking[0] = _looking[0], False
    try:
        yield
    finally:
        _looking[0] = before


def _spread(weight: Tensor, values: Tensor) -> Tensor:
    if weight.shape not in (values.shape, values.shape[:1]):
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, the rows have {tuple(values.shape)}: "
            f"expected {tuple(values.shape[:1])}, one number per row"
        )
    return weight.to(values.dtype).reshape(*weight.shape, *[1] * (values.ndim - weight.ndim))
