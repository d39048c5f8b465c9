"""Permutations of a saliency, in a seeded order.

One permutation per draw and channel, drawn draw by draw (outer loop) and channel by channel (inner loop) as in the
authors' code, so that the same seed gives the same permutations to every form of the computation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from xmodal.errors import InputError

Block = tuple[int, int, Tensor]  # draw, first channel, permutations (channels of the block, rows)


def blocks(permutations: int | Tensor, channels: int, rows: int, size: int, generator: Any) -> Iterator[Block]:
    """Permutations of ``rows`` rows, for a block of channels at a time.

    Args:
        permutations: their number per channel, or an array (draws, channels, rows).
        channels: number of channels.
        rows: number of rows to permute.
        size: largest number of channels in a block.
        generator: torch generator on the CPU; None is the global one.

    Example:
        >>> [(draw, first, len(block)) for draw, first, block in blocks(1, 3, 4, 2, torch.Generator().manual_seed(0))]
        [(0, 0, 2), (0, 2, 1)]
    """
    for draw in range(permutations if isinstance(permutations, int) else len(permutations)):
        for first in range(0, channels, size):
            last = min(first + size, channels)
            if isinstance(permutations, int):
                # One randperm per channel, never one call for a block: the size of the blocks depends on memory and
                # must not change the draws.
                drawn = torch.empty(last - first, rows, dtype=torch.long)
                for order in drawn.unbind():
                    torch.randperm(rows, generator=generator, out=order)
                yield draw, first, drawn
            else:
                yield draw, first, permutations[draw, first:last]


def checked(permutations: Any, channels: int, rows: int) -> Tensor:
    """Permutations given by the user, as a tensor (draws, channels, rows)."""
    array = torch.as_tensor(permutations)
    if array.is_floating_point() or array.ndim != 3 or array.shape[1:] != (channels, rows) or not len(array):
        raise InputError(
            f"permutations have shape {tuple(array.shape)} and type {array.dtype}: expected whole numbers "
            f"(draws, channels, rows), here (…, {channels}, {rows})."
        )
    flat = array.reshape(-1, rows).long()
    if not bool(((flat >= 0) & (flat < rows)).all()):
        raise InputError(f"permutations contain numbers outside 0 to {rows - 1}: expected row numbers.")
    present = torch.zeros(flat.shape, dtype=torch.bool).scatter_(1, flat.cpu(), True)
    if bad := int((~present.all(dim=1)).sum()):
        raise InputError(f"{bad} of {len(flat)} permutations contain a row twice: expected each row once.")
    return array.long()
