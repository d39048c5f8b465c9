r"""Parts of an embedding that shall not say the same: orthogonality.

References: Ienco, Dantas: DisCoM-KD, BMVC 2024, arXiv 2408.07080; Li, Wang, Cui: Decoupled Multimodal Distilling for
Emotion Recognition (DMD), CVPR 2023, arXiv 2303.13802. Both read from the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, masked_mean

PERPS = ("abs", "signed", "squared", "positive")
AXES = ("frame", "flat", "legacy_batch")
TINY = 1e-12  # length below which a row counts as zero: its cosine is 0


def orthogonality(first: Tensor, second: Tensor, *, perp: str = "abs", reduction: str = "mean") -> Tensor:
    r"""How far two parts of the same rows are from being orthogonal.

    $$L = \frac1N \sum_i f(\cos(u_i, v_i)), \qquad f(c) = |c|,\ c,\ c^2 \text{ or } \max(0, c)$$

    | symbol | argument | shape |
    |---|---|---|
    | u, v | ``first``, ``second`` | (rows, width) |
    | f | ``perp`` | ``abs``, ``signed``, ``squared`` or ``positive`` |

    The authors of DisCoM-KD take the cosine as it is (``signed``). Where both parts end in a ReLU it is never negative,
    and the first two forms are the same number with the same gradient below the ReLU. Elsewhere the signed form would
    reward *opposite* parts, which say the same with another sign; so ``abs`` is the default. DMD has ``positive``, for
    which opposite parts are as good as orthogonal ones.

    Args:
        first: u, one part.
        second: v, the other.
        perp: f.
        reduction: ``mean`` or ``none`` (one value per row).

    Example:
        >>> import torch
        >>> parts = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [-3.0, 0.0]])
        >>> [round(orthogonality(*parts, perp=perp).item(), 4) for perp in ("abs", "signed", "squared", "positive")]
        [0.5, -0.5, 0.5, 0.0]
    """
    same_parts(first, second)
    if perp not in PERPS:
        raise ValueError(f"perp is '{perp}': expected abs, signed, squared or positive")
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction is '{reduction}': expected mean or none")
    cosine = (_directions(first) * _directions(second)).sum(dim=1)
    forms = {"abs": cosine.abs, "signed": lambda: cosine, "squared": cosine.square, "positive": cosine.relu}
    values = forms[perp]()
    return masked_mean(values)[0] if reduction == "mean" else values


def sequence_orthogonality(first: Tensor, second: Tensor, *, axis: str = "frame", perp: str = "positive") -> Tensor:
    """`orthogonality` of two parts of the same sequences.

    | ``axis`` | a cosine is taken over | and averaged over |
    |---|---|---|
    | ``frame`` | the channels of one time step of one sample | steps and samples |
    | ``flat`` | channels and steps of one sample | samples |
    | ``legacy_batch`` | all samples, of one channel at one step | channels and steps |

    The last is what the released code of DMD computed with the library of its time: it mixes samples, and no row is
    kept from saying the same twice.

    Args:
        first: one part, (rows, channels, time).
        second: the other.
        axis: see above.
        perp: f of `orthogonality`; DMD's is ``positive``.

    Example:
        >>> first, second = torch.ones(2, 3, 4), torch.ones(2, 3, 4)
        >>> second[0] = 0
        >>> [round(sequence_orthogonality(first, second, axis=axis).item(), 4) for axis in AXES]
        [0.5, 0.5, 0.7071]
    """
    if first.shape != second.shape or first.ndim != 3:
        raise ValueError(
            f"The parts have shapes {tuple(first.shape)} and {tuple(second.shape)}: expected (rows, channels, time) "
            "twice."
        )
    if axis not in AXES:
        raise ValueError(f"axis is '{axis}': expected frame, flat or legacy_batch")
    tables = {
        "frame": lambda part: part.transpose(1, 2).flatten(0, 1),
        "flat": lambda part: part.flatten(1),
        "legacy_batch": lambda part: part.flatten(1).T,
    }
    return orthogonality(tables[axis](first), tables[axis](second), perp=perp)


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
