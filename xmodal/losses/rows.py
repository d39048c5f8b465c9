"""Sums over rows: one value per row, then a weight per row, then one number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_looking = [True]  # a list, so that the block below can exchange what is in it


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
