"""Distillation of correlations in a table of class probabilities: between rows (samples), columns (classes) or both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.logits import kl
from xmodal.losses.reduce import at_least_float32, same_shape


def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    eps: float = 1e-8,
) -> Tensor:
    r"""DIST: correlate with the teacher instead of matching it, across classes and across samples.

    A student cannot match the probabilities of a much stronger teacher, but it can rank classes and samples alike.

    $$L = \tau^2 \left[\beta \left(1 - \tfrac1B \sum_i \rho(q_{i\cdot}, p_{i\cdot})\right)
    + \gamma \left(1 - \tfrac1C \sum_c \rho(q_{\cdot c}, p_{\cdot c})\right)\right]$$

    with ρ Pearson's correlation, its denominator increased by ``eps``; p and q are softened probabilities.

    | symbol | argument | shape |
    |---|---|---|
    | s, t | ``student``, ``teacher`` | (rows, classes, …), further positions count as rows |
    | β, γ | ``beta``, ``gamma`` | weights of the two parts |
    | τ | ``temperature`` | number |

    Where neither network's probabilities vary (one sample, identical rows, a single class) the correlation is
    undefined: that term is 0 here and 1 in the published code. For equal networks the value is of the order of ``eps``
    over the spread, not exactly 0.

    Example:
        >>> round(dist(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])).item(), 4)
        4.0

    Reference: Huang et al.: Knowledge Distillation from A Stronger Teacher, 2022, equations 8 to 10.
    """
    q, p = _probabilities(student, teacher, temperature)
    inter, intra = _uncorrelated(q, p, eps).mean(), _uncorrelated(q.T, p.T, eps).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def class_correlation(
    student: Tensor, teacher: Tensor, *, temperature: float = 4.0, keep: Tensor | None = None
) -> Tensor:
    r"""Class part of `mlkd`: which classes are predicted together over the batch.

    $$L = \tfrac{1}{C} \left\| P_t^\top P_t - P_s^\top P_s \right\|_F^2$$

    Args:
        student: s, logits (rows, classes, …); P are their softened probabilities, one sample per row.
        teacher: t, logits of the same shape.
        temperature: softens both.
        keep: mask of the classes that contribute (classes,); the divisor stays the number of classes. None: all.

    Example:
        >>> class_correlation(torch.tensor([[0.0, 60.0]]), torch.tensor([[60.0, 0.0]]), temperature=1.0).item()
        1.0

    Reference: Jin, Wang, Lin: Multi-level Logit Distillation, 2023, equation 8.
    """
    q, p = _probabilities(student, teacher, temperature)
    return _kept_mean((p.T @ p - q.T @ q).square().sum(dim=1), keep)


def batch_correlation(
    student: Tensor, teacher: Tensor, *, temperature: float = 4.0, keep: Tensor | None = None
) -> Tensor:
    r"""Batch part of `mlkd`: which samples have similar predictions.

    $$L = \tfrac{1}{B} \left\| P_t P_t^\top - P_s P_s^\top \right\|_F^2$$

    Args:
        student: s, logits (rows, classes, …); P are their softened probabilities, one sample per row.
        teacher: t, logits of the same shape.
        temperature: softens both.
        keep: mask of the samples that contribute (rows,); the divisor stays the number of rows. None: all.

    Example:
        >>> batch_correlation(torch.tensor([[0.0, 0.0]]), torch.tensor([[60.0, 0.0]]), temperature=1.0).item()
        0.25

    Reference: Jin, Wang, Lin: Multi-level Logit Distillation, 2023, equation 6.
    """
    q, p = _probabilities(student, teacher, temperature)
    return _kept_mean((p @ p.T - q @ q.T).square().sum(dim=1), keep)


def mlkd(
    student: Tensor,
    teacher: Tensor,
    *,
    temperatures: tuple[float, ...] = (2.0, 3.0, 4.0, 5.0, 6.0),
    masked: bool = True,
) -> Tensor:
    r"""Multi-level logit distillation: single predictions, correlations of samples and correlations of classes.

    $$L = \sum_\tau \left[\tfrac1B \sum_i m_i \, \tau^2 \, \mathrm{KL}(p_i \| q_i)
    + \tfrac1B \left\| P_t P_t^\top - P_s P_s^\top \right\|_F^2
    + \tfrac1C \sum_c n_c \left\| (P_t^\top P_t - P_s^\top P_s)_c \right\|^2\right]$$

    | symbol | argument | shape |
    |---|---|---|
    | s, t | ``student``, ``teacher`` | (rows, classes, …), further positions count as rows |
    | τ | ``temperatures`` | numbers |
    | m, n | ``masked`` | True: 1 for samples (classes) whose (total) teacher confidence is at most the median |

    The published code reduces each term to a number before it multiplies by the masks, so that they act as one
    constant factor of about one half. Here they select samples and classes, and the divisors stay B and C. The
    published code also masks the batch part in that way, and adds a second, strongly augmented view: call this function
    once per view.

    Example:
        >>> round(mlkd(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])).item(), 4)
        2.4404

    Reference: Jin, Wang, Lin: Multi-level Logit Distillation, 2023, equation 9.
    """
    same_shape(student, teacher)
    samples, classes = _median_masks(teacher) if masked else (None, None)
    s, t = _table(student), _table(teacher)
    parts = [
        kl(s, t, temperature=temperature, weight=samples)
        + batch_correlation(s, t, temperature=temperature)
        + class_correlation(s, t, temperature=temperature, keep=classes)
        for temperature in temperatures
    ]
    return torch.stack(parts).sum()


def _median_masks(teacher: Tensor) -> tuple[Tensor, Tensor]:
    # At temperature 1, as in the published code: one selection for all temperatures.
    p = F.softmax(_table(teacher), dim=1).detach()
    confidence, totals = p.amax(dim=1), p.sum(dim=0)
    return confidence <= confidence.median(), totals <= totals.median()


def _uncorrelated(a: Tensor, b: Tensor, eps: float) -> Tensor:
    varies = _varies(a) | _varies(b)
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    # eps is added once, to the product of both norms, as in the published code.
    gap = 1 - (a * b).sum(dim=1) / (norms + eps)
    return torch.where(varies, gap, torch.zeros_like(gap))


def _varies(rows: Tensor) -> Tensor:
    low, high = rows.detach().aminmax(dim=1)
    # Equal probabilities differ by a few units in the last place after a softmax; without the factor 8 that rounding
    # noise would be correlated, with an arbitrary result.
    return high - low > 8 * torch.finfo(rows.dtype).eps * high


def _kept_mean(values: Tensor, keep: Tensor | None) -> Tensor:
    return (values if keep is None else torch.where(keep, values, torch.zeros_like(values))).mean()


def _table(logits: Tensor) -> Tensor:
    return at_least_float32(logits).movedim(1, -1).reshape(-1, logits.shape[1])


def _probabilities(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    same_shape(student, teacher)
    return F.softmax(_table(student) / temperature, dim=1), F.softmax(_table(teacher) / temperature, dim=1)
