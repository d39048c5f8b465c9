r"""Symmetric divergences between the class probabilities of two networks.

Two forms, both with the mixture m = (u + v) / 2 and x = ½ (ln u - ln v):

$$J_\mathrm{js}(u, v) = \tfrac12 \mathrm{KL}(u \| m) + \tfrac12 \mathrm{KL}(v \| m)
= \sum_k m_k \left(x_k \tanh x_k - \ln \cosh x_k\right) \le \ln 2$$

$$J_\mathrm{reference}(u, v) = \tfrac12 \mathrm{KL}(m \| u) + \tfrac12 \mathrm{KL}(m \| v)
= \sum_k m_k \ln \cosh x_k$$

The first is the Jensen-Shannon divergence. The second, the arithmetic-geometric divergence, is what the code of the
non-target divergence hypothesis computes under that name, because the arguments of its KL are exchanged; it is
unbounded. Written with x, every term is at least zero, exactly zero for equal inputs, and has a finite gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.decoupled import non_target_split, target_split
from xmodal.losses.reduce import at_least_float32, reduced, same_shape


def divergence(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    part: str = "non_target",
    form: str = "js",
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "batchmean",
) -> Tensor:
    r"""Target or non-target divergence of two networks.

    The hypothesis: the smaller the divergence over the classes other than the true one, the more a student gains from
    a teacher of another modality.

    $$L = \tau^2 \, J(b^s, b^t) \;\text{ or }\; \tau^2 \, J(q^s, q^t), \quad b = (p_y, 1 - p_y), \quad
    q_k = \frac{p_k}{1 - p_y} \; (k \ne y), \quad p = \mathrm{softmax}(z / \tau)$$

    | symbol | argument | shape |
    |---|---|---|
    | zˢ, zᵗ | ``student``, ``teacher`` | (rows, classes, …) |
    | y | ``target`` | (rows, …), class numbers |
    | b or q | ``part`` | ``target`` or ``non_target`` |
    | J | ``form`` | ``js`` or ``reference`` |
    | τ | ``temperature`` | number |

    With two classes the non-target part is identically 0. The authors' code multiplies by τ² but never divides the
    logits by τ (no difference at its only value, 1), and its non-target part has nan gradients; both are corrected
    here.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0, 60.0]]), torch.tensor([[0.0, 60.0, 0.0]])
        >>> round(divergence(student, teacher, torch.tensor([0])).item(), 4)  # ln 2, the upper bound
        0.6931
        >>> round(divergence(student, teacher, torch.tensor([0]), form="reference").item(), 4)
        29.3069

    Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; read from the authors' code.
    """
    same_shape(student, teacher)
    splits = {"target": target_split, "non_target": non_target_split}
    if part not in splits:
        raise ValueError(f"part is '{part}': expected target or non_target")
    log_u, log_v = (splits[part](at_least_float32(side) / temperature, target) for side in (student, teacher))
    return reduced(temperature**2 * _form(log_u, log_v, form), reduction, weight=weight)


def tcjsd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    form: str = "reference",
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "batchmean",
) -> Tensor:
    r"""Target-class divergence: `divergence` with ``part="target"``, by default in the authors' form.

    $$L = \tau^2 \, J(b^s, b^t), \quad b = (p_y, 1 - p_y)$$

    Symbols, arguments and differences as in `divergence`.

    Example:
        >>> round(tcjsd(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([0])).item(), 4)
        0.4338
    """
    return divergence(
        student,
        teacher,
        target,
        part="target",
        form=form,
        temperature=temperature,
        weight=weight,
        reduction=reduction,
    )


def ncjsd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    form: str = "reference",
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "batchmean",
) -> Tensor:
    r"""Non-target divergence: `divergence` with ``part="non_target"``, by default in the authors' form.

    $$L = \tau^2 \, J(q^s, q^t), \quad q_k = \frac{p_k}{1 - p_y} \; (k \ne y)$$

    Symbols, arguments and differences as in `divergence`.

    Example:
        >>> round(ncjsd(torch.tensor([[9.0, 2.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([0])).item(), 4)
        0.4338
    """
    return divergence(
        student,
        teacher,
        target,
        part="non_target",
        form=form,
        temperature=temperature,
        weight=weight,
        reduction=reduction,
    )


def jsd(
    student: Tensor,
    teacher: Tensor,
    *,
    form: str = "js",
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "batchmean",
) -> Tensor:
    r"""Jensen-Shannon divergence of the class probabilities, or the arithmetic-geometric divergence.

    A bounded, symmetric alternative to `kl`: no single confident mistake can dominate it.

    $$L = \tau^2 \, J(p^s, p^t), \quad p = \mathrm{softmax}(z / \tau)$$

    Args:
        student: zˢ, logits (rows, classes, …).
        teacher: zᵗ, the same shape.
        form: J, ``js`` or ``reference`` (equations at the top of this file).
        temperature: τ.
        weight: factor of each row (rows,). None: 1.
        reduction: ``batchmean`` or ``none`` (rows, …).

    Example:
        >>> round(jsd(torch.tensor([[60.0, 0.0]]), torch.tensor([[0.0, 60.0]])).item(), 4)  # ln 2
        0.6931

    Reference: Lin: Divergence Measures Based on the Shannon Entropy, 1991, equation 4.1.
    """
    same_shape(student, teacher)
    log_u, log_v = (
        F.log_softmax(at_least_float32(side).movedim(1, -1) / temperature, dim=-1) for side in (student, teacher)
    )
    return reduced(temperature**2 * _form(log_u, log_v, form), reduction, weight=weight)


def _form(log_u: Tensor, log_v: Tensor, form: str) -> Tensor:
    forms = {"reference": _log_cosh, "js": _tanh_minus_log_cosh}
    if form not in forms:
        raise ValueError(f"form is '{form}': expected js or reference")
    mixture = (log_u.exp() + log_v.exp()) / 2
    return (mixture * forms[form]((log_u - log_v) / 2)).sum(dim=-1)


def _log_cosh(x: Tensor) -> Tensor:
    # Near 0, |x| + ln ½(1 + e^-2|x|) would subtract almost equal numbers; cosh x = 1 + 2 sinh² ½x keeps the digits of
    # x²/2. The clamp keeps the branch that `where` does not take finite: 0 × inf in its gradient would be nan.
    near = torch.log1p(2 * (x.clamp(-1, 1) / 2).sinh().square())
    return torch.where(x.abs() < 1, near, x.abs() + _log_half(x))


def _tanh_minus_log_cosh(x: Tensor) -> Tensor:
    near = x * x.tanh() - _log_cosh(x.clamp(-1, 1))
    # Far from 0 both x tanh x and ln cosh x are nearly |x|; here that |x| is cancelled on paper.
    far = -2 * x.abs() * (-2 * x.abs()).sigmoid() - _log_half(x)
    return torch.where(x.abs() < 1, near, far)


def _log_half(x: Tensor) -> Tensor:
    """Ln ½(1 + e^-2|x|)."""
    return torch.log1p(torch.expm1(-2 * x.abs()) / 2)
