"""Dropout with one random byte per value, since drawing masks is a third of the time of a long attention on a CPU.

    y = m x / k,  m = 1 where a random byte is below 256 k, else 0

The kept share k is 1 - p rounded to a multiple of 1/256 (at least 1/256), and y is divided by this k, so the mean of y
is exactly x. Statistically this is dropout; the masks differ from those of `torch.nn.functional.dropout` with the same
seed, and are as reproducible. On other devices PyTorch's own dropout is used, which is fast there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256


def kept_share(rate: float) -> float:
    """The share of values that is kept.

    Example:
        >>> kept_share(0.5), kept_share(0.3) * 256
        (0.5, 179.0)
    """
    return max(1, round((1.0 - rate) * LEVELS)) / LEVELS


def draw_kept(shape: tuple[int, ...], rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Zeros and ones (int8) of a shape: 1 with the probability `kept_share`.

    Args:
        shape: of the result.
        rate: probability of a zero.
        generator: source of the random numbers; None: PyTorch's default.
    """
    count = math.prod(shape)
    # One random number fills eight bytes. `random_` without a lower bound would never set the sign bit, so every eighth
    # byte would be below 128.
    words = torch.empty(-(-count // 8), dtype=torch.int64)
    drawn = words.random_(-(2**63), None, generator=generator).view(torch.int8)[:count].view(shape)
    # Each byte is a number from -128 to 127. Clamping it to two neighbouring numbers tells on which side it lies; this
    # works in place and is faster than the operator <.
    first_zero = round(kept_share(rate) * LEVELS) - LEVELS // 2
    # Everything is kept: 128 does not fit into a signed byte.
    if first_zero > 127:
        return torch.ones(shape, dtype=torch.int8)
    return drawn.clamp_(first_zero - 1, first_zero).sub_(first_zero).neg_()


def dropout(x: Tensor, rate: float, training: bool = True) -> Tensor:
    """Dropout, see above.

    Args:
        x: any shape.
        rate: probability p that a value becomes zero, below 1.
        training: False: x is returned unchanged.
    """
    if not training or rate == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate, training)
    kept = draw_kept(tuple(x.shape), rate)
    return x * kept.to(x.dtype).mul_(1.0 / kept_share(rate))
