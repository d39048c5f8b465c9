r"""Orthogonality of the parts of an embedding, so that they carry different information.

References: Ienco, Dantas: DisCoM-KD, BMVC 2024, arXiv 2408.07080; Li, Wang, Cui: Decoupled Multimodal Distilling for
Emotion Recognition (DMD), CVPR 2023, arXiv 2303.13802. Both read from the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, masked_mean

PERPS = ("abs", "signed", "squared", "positive")
AXES = ("frame", "flat", "legacy_batch")
# Rows shorter than this count as zero, with cosine 0: dividing by their length would amplify rounding noise. It is the
# default eps of `torch.nn.functional.normalize`.
TINY = 1e-12


def orthogonality(first: Tensor, second: Tensor, *, perp: str = "abs", reduction: str = "mean") -> Tensor:
    r"""How far two parts of the same rows are from being orthogonal.

    $$L = \frac1N \sum_i f(\cos(u_i, v_i)), \qquad f(c) = |c|,\ c,\ c^2 \text{ or } \max(0, c)$$

    | symbol | argument | shape |
    |---|---|---|
    | u, v | ``first``, ``second`` | (rows, width) |
    | f | ``perp`` | ``abs``, ``signed``, ``squared`` or ``positive`` |

    The authors of DisCoM-KD use the signed cosine (``signed``). Where both parts end in a ReLU it is never negative,
    and the first two forms have the same value and the same gradient below the ReLU. Elsewhere the signed form would
    reward *opposite* parts, which carry the same information with the other sign, so ``abs`` is the default. DMD uses
    ``positive``, for which opposite parts are as good as orthogonal ones.

    Args:
        first: u, the first part.
        second: v, the second part.
        perp: f.
        reduction: ``mean`` or ``none`` (one value per row).

    Example:
        >>> import torch
        >>> parts = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [-3.0, 0.0]])
        >>> [round(orthogonality(*parts, perp=perp).item(), 4) for perp in ("abs", "signed", "squared", "positive")]
        [0.5, -0.5, 0.5, 0.0]
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"The parts have shapes {tuple(first.shape)} and {tuple(second.shape)}: expected (rows, width) twice."
        )
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

    | ``axis`` | the cosine is computed over | and averaged over |
    |---|---|---|
    | ``frame`` | the channels of one time step of one sample | time steps and samples |
    | ``flat`` | channels and time steps of one sample | samples |
    | ``legacy_batch`` | all samples, for one channel at one time step | channels and time steps |

    The last is what the released code of DMD computed with PyTorch 1.9: it mixes samples, and the parts of a single
    sample need not be orthogonal.

    Args:
        first: the first part, (rows, channels, time).
        second: the second part, the same shape.
        axis: one of the three above.
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
    """Rows scaled to length 1; rows of zeros stay zeros."""
    part = at_least_float32(part)
    length = torch.linalg.vector_norm(part, dim=1, keepdim=True)
    # Divided by 1 instead of a tiny length: a gradient of 1e12 from a row of zeros would dominate the batch.
    return part / torch.where(length > TINY, length, 1.0)
