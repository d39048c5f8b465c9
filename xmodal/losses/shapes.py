"""Shared by the losses on features: matching shapes, sufficient precision, and the mean over rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, masked_mean, same_shape


def comparable(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in a common dtype, at least float32, after a check that their shapes are equal."""
    same_shape(student, teacher)
    _check_axes(student, teacher, 2, "(rows, …)")
    return _common_dtype(student, teacher)


def matrices(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (rows, width) in a common dtype, at least float32; the widths may differ."""
    _check_axes(student, teacher, 2, "(rows, …)")
    _check_rows(student, teacher)
    student, teacher = _common_dtype(student, teacher)
    return student.flatten(1), teacher.flatten(1)


def maps(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both as maps (rows, channels, …) of the same resolution: each axis is averaged down to the smaller length.

    Example:
        >>> student, teacher = maps(torch.zeros(2, 3, 8, 4), torch.zeros(2, 5, 4, 4))
        >>> tuple(student.shape), tuple(teacher.shape)
        ((2, 3, 4, 4), (2, 5, 4, 4))
    """
    _check_axes(student, teacher, 3, "maps (rows, channels, …)")
    if student.ndim != teacher.ndim:
        raise ValueError(f"{_shapes(student, teacher)}: expected maps with the same number of axes.")
    _check_rows(student, teacher)
    student, teacher = _common_dtype(student, teacher)
    size = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return average_to(student, size), average_to(teacher, size)


def average_to(values: Tensor, size: Sequence[int]) -> Tensor:
    """Maps averaged over the cells of a grid of the given size; unchanged if they already have that size.

    Example:
        >>> average_to(torch.arange(4.0).reshape(1, 1, 4), [2])
        tensor([[[0.5000, 2.5000]]])
    """
    if list(values.shape[2:]) == list(size):
        return values
    if values.ndim == 3:
        return F.adaptive_avg_pool1d(values, size[0])
    if values.ndim == 4:
        return F.adaptive_avg_pool2d(values, (size[0], size[1]))
    return F.adaptive_avg_pool3d(values, (size[0], size[1], size[2]))


def full_precision(values: Tensor) -> AbstractContextManager[Any]:
    """A context in which matrix products keep the precision of their factors under automatic mixed precision."""
    # Autocast has no implementation for meta tensors, which have shapes only.
    if values.device.type == "meta":
        return nullcontext()
    return torch.autocast(values.device.type, enabled=False)


def product(left: Tensor, right: Tensor) -> Tensor:
    """The matrix product in the precision of its factors."""
    # Autocast would run it in half precision, although the caller has converted the factors to float32.
    with full_precision(left):
        return left @ right


def reduce_rows(values: Tensor, reduction: str) -> Tensor:
    """Reduce one value per row: ``mean`` (``batchmean`` if a row's value is a sum), or ``none`` to keep all."""
    if reduction == "none":
        return values
    if reduction in ("mean", "batchmean"):
        return masked_mean(values)[0]
    raise ValueError(f"reduction is '{reduction}': expected mean, batchmean or none")


def _common_dtype(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    return student.to(dtype), teacher.to(dtype)


def _check_rows(student: Tensor, teacher: Tensor) -> None:
    if len(student) != len(teacher):
        raise ValueError(f"{_shapes(student, teacher)}: expected the same number of rows.")


def _check_axes(student: Tensor, teacher: Tensor, axes: int, expected: str) -> None:
    if min(student.ndim, teacher.ndim) < axes:
        raise ValueError(f"{_shapes(student, teacher)}: expected {expected}.")


def _shapes(student: Tensor, teacher: Tensor) -> str:
    return f"The student's features have shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}"
