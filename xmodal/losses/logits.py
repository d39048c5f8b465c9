"""Distillation of logits: the student's predictions should equal the teacher's.

All take the student first and the teacher second, and return one value per row with ``reduction="none"``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, check_target, reduced, same_shape

P = ParamSpec("P")


def kl(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float | Tensor = 4.0,
    scale: str = "t2",
    weight: Tensor | None = None,
    reduction: str = "batchmean",
) -> Tensor:
    r"""Temperature-scaled Kullback-Leibler divergence of class probabilities.

    The teacher's probabilities of the wrong classes carry information that its prediction alone does not; a larger
    temperature gives them more weight.

    $$L = \tau^2 \sum_k p_k \left(\log p_k - \log q_k\right), \quad p = \mathrm{softmax}(t / \tau),
    \; q = \mathrm{softmax}(s / \tau)$$

    | symbol | argument | shape |
    |---|---|---|
    | s, t | ``student``, ``teacher`` | (rows, classes, …) |
    | τ | ``temperature`` | number |
    | τ² | ``scale`` | ``t2``: with it, ``none``: 1 |

    Published versions differ in two points. The factor τ², which keeps the size of the gradient independent of the
    temperature, is in Hinton's paper and most libraries, and missing (``scale="none"``) in the code of the papers on
    non-target divergence and on modality focusing. The latter also averages over classes (``reduction="mean"``).

    Args:
        student: s, logits.
        teacher: t, logits of the same shape; they are not detached here.
        temperature: τ; larger is softer.
        scale: ``t2`` multiplies by τ², ``none`` does not.
        weight: factor of each row (rows,); the divisor counts all rows. None: 1.
        reduction: ``batchmean`` (sum over classes, mean over everything else), ``mean`` (over classes too) or
            ``none`` (rows, …), the sums over classes.

    Example:
        >>> round(kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), temperature=1.0).item(), 4)
        0.3278

    Reference: Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, section 2.
    """
    same_shape(student, teacher)
    if scale not in ("t2", "none"):
        raise ValueError(f"scale is '{scale}': expected t2 (multiply by the squared temperature) or none")
    log_q = F.log_softmax(at_least_float32(student) / temperature, dim=1)
    log_p = F.log_softmax(at_least_float32(teacher) / temperature, dim=1)
    factor = temperature**2 if scale == "t2" else 1.0
    # p is computed from log p: where it underflows, the product is 0 times a finite number, not 0 times infinity.
    values = factor * (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return reduced(values, reduction, weight=weight, entries=student.shape[1])


def bernoulli_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 4.0,
    weight: Tensor | None = None,
    reduction: str = "batchmean",
) -> Tensor:
    r"""Kullback-Leibler divergence of independent binary outputs: binary and multi-label targets.

    $$L = \tau^2 \sum_k \left[p_k \log\frac{p_k}{q_k} + (1 - p_k) \log\frac{1 - p_k}{1 - q_k}\right],
    \quad p = \sigma(t / \tau), \; q = \sigma(s / \tau)$$

    Args:
        student: s, logits (rows, labels).
        teacher: t, logits of the same shape.
        temperature: τ.
        weight: factor of each row (rows,). None: 1.
        reduction: ``batchmean`` (sum over labels, mean over rows), ``mean`` (over labels too) or ``none`` (rows,).

    Example:
        >>> round(bernoulli_kl(torch.zeros(2, 3), torch.ones(2, 3), temperature=1.0).item(), 4)
        0.3328
    """
    same_shape(student, teacher)
    s, t = at_least_float32(student) / temperature, at_least_float32(teacher) / temperature
    # 1 - σ(z) is σ(-z): subtracting from 1 would round to 0 for confident predictions.
    positive = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
    negative = (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
    terms = temperature**2 * (positive + negative).flatten(1)
    return reduced(terms.sum(dim=1), reduction, weight=weight, entries=terms.shape[1])


def mse(student: Tensor, teacher: Tensor, *, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    r"""Mean squared difference of the outputs.

    $$L = \tfrac{1}{K} \sum_k (s_k - t_k)^2$$

    Args:
        student: s (rows, …).
        teacher: t, the same shape.
        weight: factor of each row (rows,). None: 1.
        reduction: ``mean`` (over everything) or ``none`` (rows,), the means over each row.

    Example:
        >>> mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])).item()
        2.5

    Reference: Ba, Caruana: Do Deep Nets Really Need to be Deep?, 2014, equation 1.
    """
    same_shape(student, teacher)
    values = (at_least_float32(student) - at_least_float32(teacher)).square().flatten(1).mean(dim=1)
    return reduced(values, reduction, weight=weight)


def wsld(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 2.0,
    detach: bool = True,
    weight: Tensor | None = None,
    reduction: str = "batchmean",
) -> Tensor:
    r"""Weighted soft labels: a larger weight where the student is worse than its teacher.

    $$L = \tau^2 \, w \left(-\sum_k p_k \log q_k\right), \quad w = 1 - \exp\left(-\frac{-\log \hat q_y}{-\log \hat p_y
    + 10^{-7}}\right)$$

    with p, q softened by τ and p̂, q̂ at temperature 1. It is a cross-entropy: for a student that equals its teacher the
    value is the teacher's entropy times τ² (1 - 1/e), and the gradient is 0.

    | symbol | argument | shape |
    |---|---|---|
    | s, t | ``student``, ``teacher`` | (rows, classes, …) |
    | y | ``target`` | (rows, …), class numbers |
    | τ | ``temperature`` | number |

    Args:
        student: s, logits.
        teacher: t, logits of the same shape.
        target: y, the true classes.
        temperature: τ.
        detach: whether w is a constant for the gradient, as published.
        weight: further factor of each row (rows,). None: 1.
        reduction: ``batchmean`` or ``none`` (rows, …).

    Example:
        >>> round(wsld(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]), temperature=1.0).item(), 4)
        0.4382

    Reference: Zhou et al.: Rethinking Soft Labels for Knowledge Distillation, 2021, section 4.
    """
    same_shape(student, teacher)
    check_target(student, target)
    s, t = at_least_float32(student), at_least_float32(teacher)
    labels = target.long()
    # 1e-7 as in the authors' code: a teacher without any error would otherwise be a division by zero.
    ratio = F.cross_entropy(s, labels, reduction="none") / (F.cross_entropy(t, labels, reduction="none") + 1e-7)
    # expm1 keeps the digits of small weights, where 1 - exp(-ratio) subtracts almost equal numbers.
    w = -torch.expm1(-(ratio.detach() if detach else ratio))
    p, log_q = F.softmax(t / temperature, dim=1), F.log_softmax(s / temperature, dim=1)
    return reduced(-(temperature**2) * w * (p * log_q).sum(dim=1), reduction, weight=weight)


def standardise(logits: Tensor) -> Tensor:
    r"""Logits with mean 0 and standard deviation 1 in each row: only their order and relative distances remain.

    $$\hat z = \frac{z - \bar z}{10^{-7} + \mathrm{std}(z)}$$

    The standard deviation divides by the number of classes minus one; a row of equal logits, or with a single class,
    becomes zeros.

    Example:
        >>> standardise(torch.tensor([[1.0, 2.0, 3.0]])).round(decimals=4).tolist()
        [[-1.0, 0.0, 1.0]]
    """
    logits = at_least_float32(logits)
    centred = logits - logits.mean(dim=1, keepdim=True)
    # A vector norm instead of `std`: its gradient at equal logits is 0, that of `std` is nan.
    std: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / max(logits.shape[1] - 1, 1) ** 0.5
    return centred / (1e-7 + std)


def with_standardised(
    loss: Callable[Concatenate[Tensor, Tensor, P], Tensor],
) -> Callable[Concatenate[Tensor, Tensor, P], Tensor]:
    """Apply a loss of logits to `standardise`d logits of student and teacher; its other arguments are passed through.

    Example:
        >>> with_standardised(mse)(torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 30.0]])).item() < 1e-6
        True
    """

    @functools.wraps(loss)
    def wrapped(student: Tensor, teacher: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        return loss(standardise(student), standardise(teacher), *args, **kwargs)

    return wrapped


def standardised_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 4.0,
    scale: str = "t2",
    weight: Tensor | None = None,
    reduction: str = "batchmean",
) -> Tensor:
    r"""`kl` of standardised logits: the student matches the pattern of the teacher's logits, not their magnitude.

    $$L = \tau^2 \, \mathrm{KL}\left(\mathrm{softmax}(\hat t / \tau) \,\|\, \mathrm{softmax}(\hat s / \tau)\right),
    \quad \hat z = \frac{z - \bar z}{10^{-7} + \mathrm{std}(z)}$$

    Symbols and arguments as in `kl`. The paper includes the temperature in the standard deviation; its code divides by
    it afterwards and multiplies the loss by τ², as here, with a usual weight of about 9.

    Example:
        >>> round(standardised_kl(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])).item(), 4)
        0.9897
        >>> round(standardised_kl(torch.tensor([[0.0, 1.0]]), torch.tensor([[50.0, 90.0]])).item(), 4)
        0.0

    Reference: Sun et al.: Logit Standardization in Knowledge Distillation, 2024, algorithm 1.
    """
    same_shape(student, teacher)
    return kl(
        standardise(student),
        standardise(teacher),
        temperature=temperature,
        scale=scale,
        weight=weight,
        reduction=reduction,
    )
