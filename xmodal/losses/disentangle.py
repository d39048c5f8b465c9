r"""Parts of an embedding that shall not say the same: orthogonality.

Reference: Ienco, Dantas: DisCoM-KD, BMVC 2024, arXiv 2408.07080; read from the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, masked_mean

PERPS = ("abs", "signed", "squared")
TINY = 1e-12  # length below which a row counts as zero: its cosine is 0


def orthogonality(first: Tensor, second: Tensor, *, perp: str = "abs", reduction: str = "mean") -> Tensor:
    r"""How far two parts of the same rows are from being orthogonal.

    $$L = \frac1N \sum_i f(\cos(u_i, v_i)), \qquad f(c) = |c|,\ c \text{ or } c^2$$

    | symbol | argument | shape |
    |---|---|---|
    | u, v | ``first``, ``second`` | (rows, width) |
    | f | ``perp`` | ``abs``, ``signed`` or ``squared`` |

    The authors take the cosine as it is (``signed``). Where both parts end in a ReLU it is never negative, and the
    first two forms are the same number with the same gradient below the ReLU. Elsewhere the signed form would reward
    *opposite* parts, which say the same with another sign; so ``abs`` is the default.

    Args:
        first: u, one part.
        second: v, the other.
        perp: f.
        reduction: ``mean`` or ``none`` (one value per row).

    Example:
        >>> import torch
        >>> parts = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [-3.0, 0.0]])
        >>> [round(orthogonality(*parts, perp=perp).item(), 4) for perp in ("abs", "signed", "squared")]
        [0.5, -0.5, 0.5]
    """
    same_parts(first, second)
    if perp not in PERPS:
        raise ValueError(f"perp is '{perp}': expected abs, signed or squared")
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction is '{reduction}': expected mean or none")
    cosine = (_directions(first) * _directions(second)).sum(dim=1)
    values = {"abs": cosine.abs, "signed": lambda: cosine, "squared": cosine.square}[perp]()
    return masked_mean(values)[0] if reduction == "mean" else values


def _directions(part: Tensor) -> Tensor:
    """Rows of length 1; rows of zeros stay zeros, with a gradient that is no larger than others."""
    part = at_least_float32(part)
    length = torch.linalg.vector_norm(part, dim=1, keepdim=True)
    return part / torch.where(length > TINY, length, 1.0)


def same_parts(first: Tensor, second: Tensor) -> None:
    """Refuse parts that are no two tables of one shape."""
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"The parts have shapes {tuple(first.shape)} and {tuple(second.shape)}: expected (rows, width) twice."
        )
