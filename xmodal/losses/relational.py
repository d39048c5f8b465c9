"""Distillation of relations between the rows of a batch, such as distances and angles; widths may differ.

All take the student first and the teacher second, as (rows, …) flattened to (rows, width), and return a scalar: the
B² pairs and B³ angles of a batch of B rows belong to no single row. Use batches of a few hundred rows.
"""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.angles import AngleDistance, centred_gram, squared_distances
from xmodal.losses.reduce import same_shape
from xmodal.losses.shapes import matrices, product

MANY = 256  # rows above which the triples of `rkd_angle` take longer than most networks


def rkd(student: Tensor, teacher: Tensor, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    r"""Relational distillation: distances of pairs plus angles of triples (RKD).

    $$L = w_d \, L_{distance} + w_a \, L_{angle}$$

    The weights 25 and 50 are the paper's next to a label term; without one it uses 1 and 2.

    Args:
        student: s (rows, …).
        teacher: t (rows, …), of any width.
        distance_weight: w_d, weight of `rkd_distance`.
        angle_weight: w_a, weight of `rkd_angle`.

    Example:
        >>> triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(rkd(torch.tensor([[0.0], [1.0], [2.0]]), triangle).item(), 4)
        8.274

    Reference: Park et al.: Relational Knowledge Distillation, 2019, section 3.2.
    """
    distance, angle = rkd_distance(student, teacher), rkd_angle(student, teacher)
    return distance_weight * distance + angle_weight * angle


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Distances of pairs, divided by their mean.

    $$L = \tfrac{1}{B^2} \sum_{ij} H(d^s_{ij}, d^t_{ij}), \quad d_{ij} = \frac{\|f_i - f_j\|}{\mu}$$

    with μ the mean distance of pairs i ≠ j and H the Huber function with threshold 1. For a single row the loss is 0.
    Equal rows have distance 1e-6, as in the authors' code; no gradient flows through that lower limit.

    Args:
        student: s (rows, …).
        teacher: t (rows, …), of any width.

    Example:
        >>> round(rkd_distance(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [1.0], [2.0]])).item(), 4)
        0.0139

    Reference: Park et al.: Relational Knowledge Distillation, 2019, equations 4 to 6.
    """
    s, t = matrices(student, teacher)
    return F.smooth_l1_loss(_relative_distances(s), _relative_distances(t)).to(s.dtype)


def _relative_distances(rows: Tensor) -> Tensor:
    distances = squared_distances(centred_gram(rows)).clamp(min=1e-12).sqrt()
    # The clamp lifts the diagonal to 1e-6 too; it must be 0 before the mean.
    distances = distances * (1 - torch.eye(len(rows), dtype=distances.dtype, device=rows.device))
    mean = distances.sum() / max(len(rows) * (len(rows) - 1), 1)
    return distances / mean.clamp(min=torch.finfo(distances.dtype).tiny)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Angles at each row between any two other rows.

    $$L = \tfrac{1}{B^3} \sum_{ijk} H(a^s_{ijk}, a^t_{ijk}), \quad
    a_{ijk} = \left\langle \frac{f_j - f_i}{\|f_j - f_i\|}, \frac{f_k - f_i}{\|f_k - f_i\|} \right\rangle$$

    The mean is over all B³ triples, also those in which i, j, k are not all different, as in the authors' code. Two
    equal rows have no direction between them: the cosine is 0 without gradient. The differences, B² vectors of the
    features' width, are never built: the cosines follow from the inner products of the rows. Time still grows with B³;
    above 256 rows there is a warning.

    Args:
        student: s (rows, …).
        teacher: t (rows, …), of any width.

    Example:
        >>> triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(rkd_angle(torch.tensor([[0.0], [1.0], [2.0]]), triangle).item(), 4)
        0.1296

    Reference: Park et al.: Relational Knowledge Distillation, 2019, equations 7 to 9.
    """
    s, t = matrices(student, teacher)
    if len(s) > MANY:
        warnings.warn(
            f"rkd_angle compares all triples of {len(s)} rows, and its time grows with their cube. Use at most {MANY} "
            "rows at a time: smaller batches, or group=, as in rkd(group=64) or rkd_angle(group=64).",
            stacklevel=2,
        )
    angle: Tensor = AngleDistance.apply(centred_gram(s), centred_gram(t))  # type: ignore[no-untyped-call]
    return angle.to(s.dtype)


def pkt(student: Tensor, teacher: Tensor, *, eps: float = 1e-7, reduction: str = "mean") -> Tensor:
    r"""Probabilistic knowledge transfer: each row as a distribution over its neighbours (PKT).

    $$L = \tfrac{1}{B^2} \sum_{ij} p_{ij} \ln \frac{p_{ij} + \varepsilon}{q_{ij} + \varepsilon}, \quad
    p_{ij} = \frac{1 + \cos(t_i, t_j)}{\sum_k 1 + \cos(t_i, t_k)}$$

    and q the same for the student; the diagonal is included. The paper sums instead of averaging (``sum``); with the
    mean the usual weight is 30000.

    Args:
        student: s (rows, …).
        teacher: t (rows, …), of any width.
        eps: ε, also added to the norms inside the cosine.
        reduction: ``mean`` over all pairs, or ``sum``.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> round(pkt(student, teacher, reduction="sum").item(), 4)
        0.1178

    Reference: Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, 2018, equation 10.
    """
    s, t = matrices(student, teacher)
    q, p = _neighbours(s, eps), _neighbours(t, eps)
    values = p * ((p + eps) / (q + eps)).log()
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is '{reduction}': expected mean or sum")
    return values.mean() if reduction == "mean" else values.sum()


def _neighbours(rows: Tensor, eps: float) -> Tensor:
    unit = rows / (torch.linalg.vector_norm(rows, dim=1, keepdim=True) + eps)
    similar = (product(unit, unit.T) + 1) / 2
    return similar / similar.sum(dim=1, keepdim=True)


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Similarity-preserving distillation: rows that are similar for the teacher should be similar for the student.

    $$L = \tfrac{1}{B^2} \|G^s - G^t\|_F^2, \quad G_i = \frac{\langle f_i, f_\cdot \rangle}{\|\langle f_i, f_\cdot
    \rangle\|_2}$$

    The usual weight is 3000. A single row has G = 1 for both networks, and loss 0.

    Args:
        student: s (rows, …).
        teacher: t (rows, …), of any width.

    Example:
        >>> round(sp(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item(), 4)
        0.2929

    Reference: Tung, Mori: Similarity-Preserving Knowledge Distillation, 2019, equations 2 to 4.
    """
    s, t = matrices(student, teacher)
    return (_similarities(s) - _similarities(t)).square().mean()


def _similarities(rows: Tensor) -> Tensor:
    return F.normalize(product(rows, rows.T), dim=1)


def cc(student: Tensor, teacher: Tensor, *, form: str = "neighbours", gamma: float = 0.4, order: int = 2) -> Tensor:
    r"""Correlation congruence, in the two published forms.

    $$L_{neighbours} = \tfrac{1}{B - 1} \sum_i \sum_d \delta_{id} \, \delta_{i+1,d}, \; \delta = |s - t| \qquad
    L_{kernel} = \tfrac{1}{B^2} \|K^s - K^t\|_F^2, \;
    K_{ij} = e^{-2 \gamma} \sum_{p=0}^{P} \tfrac{(2 \gamma)^p}{p!} \langle f_i, f_j \rangle^p$$

    The first, of RepDistiller, multiplies the errors of neighbouring rows of the batch: it depends on their order, and
    for a single row it is 0. The second is the paper's, with f of length 1 and the Taylor series of a Gaussian kernel;
    torchdistill uses the norm without the square.

    Args:
        student: s (rows, …).
        teacher: t, the same shape; ``kernel`` takes any width.
        form: ``neighbours`` or ``kernel``.
        gamma: γ of the kernel.
        order: P of the kernel.

    Example:
        >>> cc(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.zeros(2, 2)).item()
        3.0

    Reference: Peng et al.: Correlation Congruence for Knowledge Distillation, 2019, equations 4 to 7.
    """
    if form == "neighbours":
        same_shape(student, teacher)
    s, t = matrices(student, teacher)
    if form == "neighbours":
        # Absolute errors, as in RepDistiller: with signed ones the loss could fall below zero.
        errors = (s - t).abs()
        return (errors[:-1] * errors[1:]).sum() / max(len(errors) - 1, 1)
    if form == "kernel":
        return (_taylor_kernel(s, gamma, order) - _taylor_kernel(t, gamma, order)).square().mean()
    raise ValueError(f"form is '{form}': expected neighbours or kernel")


def _taylor_kernel(rows: Tensor, gamma: float, order: int) -> Tensor:
    unit = F.normalize(rows, dim=1)
    cosines = product(unit, unit.T)
    terms = [(2 * gamma) ** p / math.factorial(p) * cosines.pow(p) for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(terms).sum(dim=0)
