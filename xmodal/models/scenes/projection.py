r"""Projection of a picture's features into a volume: each pixel has a voxel, and a voxel keeps the maximum.

$$x_3[c, v] = \max\bigl(0, \max_{p : \text{position}(p) = v} x_2[c, p]\bigr)$$

| symbol | argument | shape |
|---|---|---|
| $x_2$ | ``features`` | (batch, channels, height, width) |
| position | ``position`` | (batch, height, width), flat voxel (i_X · H + i_H) · Y + i_Y; -1: the pixel has none |
| $x_3$ | returned | (batch, channels, Y, H, X), which networks call (D, H, W) |

The gradient goes to the pixel with the maximum, to the first of several equal ones; where no feature is above 0 there
is no gradient. About half a per cent of a volume of 240 × 144 × 240 is filled, so the filled voxels are computed first,
as `Occupied`, and only then expanded to a volume; a layer that can read `Occupied` needs no volume.

Reference: Li et al.: RGBD Based Dimensional Decomposition Residual Network for 3D Semantic Scene Completion, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xmodal.errors import InputError


class Occupied(NamedTuple):
    """The filled voxels of a volume; all others are 0.

    Attributes:
        values: (channels, voxels).
        places: (voxels,), ascending, ((row · D + d) · H + h) · W + w.
        shape: (batch, D, H, W).
    """

    values: Tensor
    places: Tensor
    shape: tuple[int, int, int, int]

    def volume(self) -> Tensor:
        """The whole volume: (batch, channels, D, H, W)."""
        rows, *sides = self.shape
        size = sides[0] * sides[1] * sides[2]
        whole = self.values.new_zeros(rows, len(self.values), size)
        whole[self.places // size, :, self.places % size] = self.values.T
        return whole.view(rows, -1, *sides)


class LargestOf(torch.autograd.Function):
    """(channels, items) → (channels, slots): the maximum of 0 and the items of each slot.

    PyTorch's own gradient of ``scatter_reduce`` with ``amax`` is shared between equal items. Here the first one gets
    all of it, as with an arg max.
    """

    @staticmethod
    def forward(ctx: Any, items: Tensor, slot: Tensor, slots: int) -> Tensor:
        """``slot`` (items,) gives the slot of each item."""
        index = slot.expand_as(items)
        largest = items.new_zeros(len(items), slots).scatter_reduce_(1, index, items, "amax")
        if ctx.needs_input_grad[0]:
            # The winner of a slot is its smallest item number with the maximum. A number beyond the last item stands
            # for "no winner": it loses against every other in the minimum.
            none = items.shape[1]
            number = torch.arange(none, device=items.device).expand_as(items)
            lost = (items != largest.gather(1, index)) | (items <= 0)
            winner = slot.new_full(largest.shape, none)
            ctx.save_for_backward(winner.scatter_reduce_(1, index, number.masked_fill(lost, none), "amin"))
            ctx.items = none
        return largest

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Pass the gradient of each slot to its winner; slots without a winner write to a column that is cut off."""
        (winner,) = ctx.saved_tensors
        return grad.new_zeros(len(grad), ctx.items + 1).scatter_(1, winner, grad)[:, :-1], None, None


def largest_of(items: Tensor, slot: Tensor, slots: int) -> Tensor:
    """See `LargestOf`.

    Example:
        >>> largest_of(torch.tensor([[1.0, 3.0, -1.0]]), torch.tensor([0, 0, 1]), 2)
        tensor([[3., 0.]])
    """
    largest: Tensor = LargestOf.apply(items, slot, slots)  # type: ignore[no-untyped-call]
    return largest


def project_occupied(features: Tensor, position: Tensor, volume: Sequence[int]) -> Occupied:
    """The filled voxels of the projection.

    Args:
        features: (batch, channels, height, width).
        position: (batch, height, width), see above.
        volume: X, H and Y, the voxels along each axis.
    """
    check_position(features, position, volume)
    width, height, depth = volume
    rows, channels = features.shape[:2]
    size = width * height * depth
    flat = position.flatten(1).long()
    # Positions count along (X, H, Y), networks along (D, H, W) = (Y, H, X): the index is rebuilt in reverse.
    x, h, y = flat // (height * depth), flat // depth % height, flat % depth
    voxel = (y * height + h) * width + x
    voxel = (voxel + size * torch.arange(rows, device=voxel.device)[:, None]).flatten()
    # Pixels without a voxel share one extra slot. Its number is the largest, so `unique` sorts it to the end, where it
    # is cut off.
    places, slot = torch.unique(voxel.masked_fill(flat.flatten() < 0, rows * size), return_inverse=True)
    items = features.flatten(2).transpose(0, 1).flatten(1)
    values = largest_of(items, slot, len(places))
    filled = int((places < rows * size).sum())
    return Occupied(values[:, :filled], places[:filled], (rows, depth, height, width))


def project(features: Tensor, position: Tensor, volume: Sequence[int]) -> Tensor:
    """The projection as a volume (batch, channels, Y, H, X); arguments as in `project_occupied`.

    Example:
        >>> position = torch.tensor([[[0, 3, 3, -1]]])
        >>> project(torch.tensor([[[[5.0, 1.0, 2.0, 9.0]]]]), position, (2, 1, 2)).flatten()
        tensor([5., 0., 0., 2.])
    """
    if not torch.compiler.is_exporting():
        return project_occupied(features, position, volume).volume()
    width, height, depth = volume
    flat, items = position.flatten(1).long()[:, None], features.flatten(2)
    # An exported graph has a fixed number of pixels, so pixels without a voxel stay. A 0 changes no voxel, since every
    # voxel starts at 0; it may go to any of them.
    items = items.masked_fill(flat < 0, 0.0)
    whole = items.new_zeros(*items.shape[:2], width * height * depth)
    whole = whole.scatter_reduce(2, flat.clamp(min=0).expand_as(items), items, "amax")
    return whole.view(*items.shape[:2], width, height, depth).transpose(2, 4)


def check_position(features: Tensor, position: Tensor, volume: Sequence[int]) -> None:
    """Refuse voxel numbers that belong to pictures or volumes of another size."""
    expected = (len(features), *features.shape[2:])
    if tuple(position.shape) != expected:
        raise InputError(
            f"The positions have shape {tuple(position.shape)}, the features {tuple(features.shape)}: "
            f"{expected} was expected, one voxel per pixel."
        )
    size = volume[0] * volume[1] * volume[2]
    # On a GPU, reading the maximum would make every batch wait for the device.
    if position.device.type == "cpu" and position.numel() and int(position.max()) >= size:
        raise InputError(
            f"A pixel has voxel {int(position.max())}, and the volume {tuple(volume)} has {size}. Build the network "
            "with the volume that the data was made for."
        )
