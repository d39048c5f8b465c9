"""Which row lends its value to which: the permutations of a saliency, in an order that can be repeated.

One permutation per draw and channel, drawn draw by draw (outer) and channel by channel (inner) as the authors' code
does, so that the same seed gives the same permutations to every form of the computation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from xmodal.errors import InputError

Block = tuple[int, int, Tensor]  # draw, first channel, permutations (channels of the block, rows)


def blocks(permutations: int | Tensor, channels: int, rows: int, size: int, generator: Any) -> Iterator[Block]:
    """Permutations of ``rows`` rows for some channels at a time.

    Args:
        permutations: how many to draw per channel, or all of them (draws, channels, rows).
        channels: how many there are.
        rows: to permute.
        size: channels in a block, at most.
        generator: of torch on the CPU; None is the global one.

    Example:
        >>> [(draw, first, len(some)) for draw, first, some in blocks(1, 3, 4, 2, torch.Generator().manual_seed(0))]
        [(0, 0, 2), (0, 2, 1)]
    """
    for draw in range(permutations if isinstance(permutations, int) else len(permutations)):
        for first in range(0, channels, size):
            last = min(first + size, channels)
            if isinstance(permutations, int):
                drawn = [torch.randperm(rows, generator=generator) for _ in range(first, last)]
                yield draw, first, torch.stack(drawn)
            else:
                yield draw, first, permutations[draw, first:last]


def checked(permutations: Any, channels: int, rows: int) -> Tensor:
    """Permutations that a user brings, as a tensor (draws, channels, rows)."""
    given = torch.as_tensor(permutations)
    if given.is_floating_point() or given.ndim != 3 or given.shape[1:] != (channels, rows) or not len(given):
        raise InputError(
            f"permutations have shape {tuple(given.shape)} and type {given.dtype}: expected whole numbers "
            f"(draws, channels, rows), here (…, {channels}, {rows})."
        )
    flat = given.reshape(-1, rows).long()
    if not bool(((flat >= 0) & (flat < rows)).all()):
        raise InputError(f"permutations hold numbers outside 0 to {rows - 1}, the rows that there are.")
    met = torch.zeros(flat.shape, dtype=torch.bool).scatter_(1, flat.cpu(), True)
    if bad := int((~met.all(dim=1)).sum()):
        raise InputError(f"{bad} of {len(flat)} permutations name a row twice: expected each row once.")
    return given.long()
