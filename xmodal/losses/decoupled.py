r"""Decoupled distillation: the true class against all others, and the other classes among themselves.

Class probabilities p with true class y split into two distributions that are independent of each other:

$$b = \left(p_y, \; 1 - p_y\right), \qquad q_k = \frac{e^{z_k}}{\sum_{j \ne y} e^{z_j}} \quad (k \ne y)$$

Everything is computed in log space: ln(1 - p_y) is the log-sum-exp of the other log-probabilities, and q is computed
from the other logits alone. Published code subtracts 1000 from the true logit and takes logarithms of probabilities,
which gives infinite values for saturated logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, check_target, reduced, same_shape


def target_split(logits: Tensor, target: Tensor) -> Tensor:
    """Logarithm of b, the true class against the others: (rows, classes, …) and (rows, …) become (rows, …, 2).

    Example:
        >>> target_split(torch.zeros(1, 4), torch.tensor([2])).exp()
        tensor([[0.2500, 0.7500]])
    """
    logits, target = _classes_last(logits, target)
    log_p = F.log_softmax(logits, dim=-1)
    # Not log(1 - p_y): that is log(0) as soon as p_y rounds to 1, which float32 reaches at a logit gap of 17.
    others = _others(log_p, target).logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_p.gather(-1, target.unsqueeze(-1)), others], dim=-1)


def non_target_split(logits: Tensor, target: Tensor) -> Tensor:
    """Logarithm of q among the other classes: (rows, classes, …) and (rows, …) become (rows, …, classes - 1).

    Example:
        >>> non_target_split(torch.zeros(1, 5), torch.tensor([2])).exp()
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    logits, target = _classes_last(logits, target)
    return F.log_softmax(_others(logits, target), dim=-1)


def target_kl(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Target part of `dkd`, TCKD: τ² KL(bᵗ‖bˢ) of each row.

    Example:
        >>> target_kl(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([0])).item()
        0.0
    """
    same_shape(student, teacher)
    s, t = at_least_float32(student) / temperature, at_least_float32(teacher) / temperature
    return temperature**2 * _kl(target_split(t, target), target_split(s, target))


def non_target_kl(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Non-target part of `dkd`, NCKD: τ² KL(qᵗ‖qˢ) of each row; 0 for two classes.

    Example:
        >>> non_target_kl(torch.randn(1, 2), torch.randn(1, 2), torch.tensor([0])).item()
        0.0
    """
    same_shape(student, teacher)
    s, t = at_least_float32(student) / temperature, at_least_float32(teacher) / temperature
    return temperature**2 * _kl(non_target_split(t, target), non_target_split(s, target))


def dkd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    weight: Tensor | None = None,
    reduction: str = "batchmean",
) -> Tensor:
    r"""Decoupled knowledge distillation: confidence in the true class and ranking of the others, weighted separately.

    Plain distillation multiplies the second part by the teacher's 1 - p_y, so a confident teacher hardly transfers it.
    With two classes the second part is identically zero.

    $$L = \tau^2 \left[\alpha \, \mathrm{KL}(b^t \| b^s) + \beta \, \mathrm{KL}(q^t \| q^s)\right]$$

    | symbol | argument | shape |
    |---|---|---|
    | s, t | ``student``, ``teacher`` | (rows, classes, …) |
    | y | ``target`` | (rows, …), class numbers |
    | α, β | ``alpha``, ``beta`` | weights of the target and the non-target part |
    | τ | ``temperature`` | number |
    | ω | ``weight`` | (rows,), multiplies both parts; the divisor counts all rows |

    Published versions agree on the formula. Their (α, β) and τ differ: (1, 8) with τ = 4 in the paper, (1, 1) with 0.7,
    (16, 1) with 0.7 and (½, ½) with 1 in the experiments on non-target divergence. The authors' code mixes
    probabilities and logarithms and is infinite for saturated float32 logits; this implementation stays finite.

    Args:
        student: s, logits.
        teacher: t, logits of the same shape.
        target: y, the true classes.
        alpha: α.
        beta: β.
        temperature: τ.
        weight: ω, None: 1.
        reduction: ``batchmean`` or ``none`` (rows, …).

    Example:
        >>> value = dkd(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([0]))
        >>> round(value.item(), 4)
        4.9488

    Reference: Zhao et al.: Decoupled Knowledge Distillation, 2022, equation 7.
    """
    values = alpha * target_kl(student, teacher, target, temperature=temperature)
    values = values + beta * non_target_kl(student, teacher, target, temperature=temperature)
    return reduced(values, reduction, weight=weight)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _others(values: Tensor, target: Tensor) -> Tensor:
    # A gather instead of a boolean mask: its result has a static shape, so it also works under vmap and in an export.
    indices = torch.arange(values.shape[-1] - 1, device=values.device)
    return values.gather(-1, indices + (indices >= target.unsqueeze(-1)))  # skips the true class


def _classes_last(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    check_target(logits, target)
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} have {logits.shape[1]} class: expected two or more, because this "
            "loss compares the classes that are not the target."
        )
    return at_least_float32(logits).movedim(1, -1), target.long()
