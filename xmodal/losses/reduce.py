"""Means that know what they counted, so that masks and several processes come out right."""

from __future__ import annotations

import torch
from torch import Tensor


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
