"""Dropout whose masks are drawn byte by byte: on a processor a third of a long attention's time goes into drawing them.

    y = m x / k,  m = 1 where a random byte is below 256 k, else 0

The share k that is kept is 1 - p rounded to a multiple of 1/256 (and not to zero), and y is divided by that k, so its
mean is exactly x. Statistically this is dropout; the stream of random numbers is another than that of
`torch.nn.functional.dropout`. It follows the seed of torch as that does. Elsewhere than on a processor, torch's own is
used, which is fast there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256


def kept_share(rate: float) -> float:
    """The share of numbers that stays.

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
        generator: where random numbers come from; None: torch's own.
    """
    numbers = math.prod(shape)
    words = torch.empty(-(-numbers // 8), dtype=torch.int64)
    drawn = words.random_(-(2**63), None, generator=generator).view(torch.int8)[:numbers].view(shape)
    # a byte as a number from -128 to 127; clamping to two neighbours compares it, and is fast where < is not
    first_zero = round(kept_share(rate) * LEVELS) - LEVELS // 2
    if first_zero > 127:
        return torch.ones(shape, dtype=torch.int8)
    return drawn.clamp_(first_zero - 1, first_zero).sub_(first_zero).neg_()


def dropout(x: Tensor, rate: float, training: bool = True) -> Tensor:
    """Dropout, see above.

    Args:
        x: any shape.
        rate: probability p with which a number becomes zero, below 1.
        training: False: x as it is.
    """
    if not training or rate == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate, training)
    kept = draw_kept(tuple(x.shape), rate)
    return x * kept.to(x.dtype).mul_(1.0 / kept_share(rate))
