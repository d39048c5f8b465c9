r"""Projection of a picture's features into a volume: each pixel has a voxel, and a voxel keeps the largest.

$$x_3[c, v] = \max\bigl(0, \max_{p : \text{position}(p) = v} x_2[c, p]\bigr)$$

| symbol | argument | shape |
|---|---|---|
| $x_2$ | ``features`` | (batch, channels, height, width) |
| position | ``position`` | (batch, height, width), flat voxel (i_X · H + i_H) · Y + i_Y; -1: the pixel has none |
| $x_3$ | returned | (batch, channels, Y, H, X), which networks call (D, H, W) |

The gradient goes to the pixel that won, the first one where several are equal; where nothing is above 0 there is none.
A volume of 240 × 144 × 240 is filled to half a per cent, so what is filled is computed first, as `Occupied`, and only
then becomes a volume; a layer that can read `Occupied` needs no volume at all.

Reference: Li et al.: RGBD Based Dimensional Decomposition Residual Network for 3D Semantic Scene Completion, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xmodal.errors import InputError


class Occupied(NamedTuple):
    """The voxels of a volume that hold something; all others are 0.

    Attributes:
        values: (channels, voxels).
        places: (voxels,) rising, ((row · D + d) · H + h) · W + w.
        shape: (batch, D, H, W).
    """

    values: Tensor
    places: Tensor
    shape: tuple[int, int, int, int]

    def volume(self) -> Tensor:
        """All of it: (batch, channels, D, H, W)."""
        rows, *sides = self.shape
        size = sides[0] * sides[1] * sides[2]
        whole = self.values.new_zeros(rows, len(self.values), size)
        whole[self.places // size, :, self.places % size] = self.values.T
        return whole.view(rows, -1, *sides)


class LargestOf(torch.autograd.Function):
    """(channels, things) → (channels, slots): 0 or the largest thing of each slot, which alone gets the gradient."""

    @staticmethod
    def forward(ctx: Any, things: Tensor, slot: Tensor, slots: int) -> Tensor:
        """``slot`` (things,) says where each thing belongs."""
        where = slot.expand_as(things)
        largest = things.new_zeros(len(things), slots).scatter_reduce_(1, where, things, "amax")
        if ctx.needs_input_grad[0]:
            none = things.shape[1]
            number = torch.arange(none, device=things.device).expand_as(things)
            lost = (things != largest.gather(1, where)) | (things <= 0)
            winner = slot.new_full(largest.shape, none)
            ctx.save_for_backward(winner.scatter_reduce_(1, where, number.masked_fill(lost, none), "amin"))
            ctx.things = none
        return largest

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Back to the winners; what nobody won goes to a column that is dropped."""
        (winner,) = ctx.saved_tensors
        return grad.new_zeros(len(grad), ctx.things + 1).scatter_(1, winner, grad)[:, :-1], None, None


def largest_of(things: Tensor, slot: Tensor, slots: int) -> Tensor:
    """See `LargestOf`.

    Example:
        >>> largest_of(torch.tensor([[1.0, 3.0, -1.0]]), torch.tensor([0, 0, 1]), 2)
        tensor([[3., 0.]])
    """
    found: Tensor = LargestOf.apply(things, slot, slots)  # type: ignore[no-untyped-call]
    return found


def project_occupied(features: Tensor, position: Tensor, volume: Sequence[int]) -> Occupied:
    """What the projection fills.

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
    along, upper, across = flat // (height * depth), flat // depth % height, flat % depth
    there = (across * height + upper) * width + along
    there = (there + size * torch.arange(rows, device=there.device)[:, None]).flatten()
    # pixels without a voxel share a slot of their own, the last one
    places, slot = torch.unique(there.masked_fill(flat.flatten() < 0, rows * size), return_inverse=True)
    things = features.flatten(2).transpose(0, 1).flatten(1)
    values = largest_of(things, slot, len(places))
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
    flat, things = position.flatten(1).long()[:, None], features.flatten(2)
    things = things.masked_fill(flat < 0, 0.0)  # which changes no voxel, whichever it is sent to
    whole = things.new_zeros(*things.shape[:2], width * height * depth)
    whole = whole.scatter_reduce(2, flat.clamp(min=0).expand_as(things), things, "amax")
    return whole.view(*things.shape[:2], width, height, depth).transpose(2, 4)


def check_position(features: Tensor, position: Tensor, volume: Sequence[int]) -> None:
    """Refuse voxel numbers that belong to pictures or volumes of another size."""
    expected = (len(features), *features.shape[2:])
    if tuple(position.shape) != expected:
        raise InputError(
            f"The positions have shape {tuple(position.shape)}, the features {tuple(features.shape)}: "
            f"{expected} was expected, one voxel per pixel."
        )
    size = volume[0] * volume[1] * volume[2]
    if position.device.type == "cpu" and position.numel() and int(position.max()) >= size:  # a GPU would have to wait
        raise InputError(
            f"A pixel has voxel {int(position.max())}, and the volume {tuple(volume)} has {size}. Build the network "
            "with the volume that the data was made for."
        )
