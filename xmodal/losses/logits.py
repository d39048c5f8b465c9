"""Distillation of outputs: what the teacher answers, the student should answer.

All take the student first, the teacher second, and return one value per row with ``reduction="none"``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, same_shape


def kl(student: Tensor, teacher: Tensor, *, temperature: float = 4.0, reduction: str = "batchmean") -> Tensor:
    r"""Temperature-scaled Kullback-Leibler divergence of class probabilities.

    $$L = \tau^2 \sum_k p_k \left(\log p_k - \log q_k\right), \quad p = \mathrm{softmax}(t / \tau),
    \; q = \mathrm{softmax}(s / \tau)$$

    The factor τ² keeps the gradient's size independent of the temperature.

    Args:
        student: s, logits (rows, classes, …).
        teacher: t, logits of the same shape; no gradient flows into it if it carries none.
        temperature: τ; larger is softer.
        reduction: ``batchmean`` (sum over classes, mean over everything else) or ``none`` (rows, …).

    Example:
        >>> import torch
        >>> kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]])).item()
        0.0

    Reference: Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, section 2.
    """
    same_shape(student, teacher)
    log_q = F.log_softmax(at_least_float32(student) / temperature, dim=1)
    log_p = F.log_softmax(at_least_float32(teacher) / temperature, dim=1)
    values = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return _reduce(values, reduction)


def bernoulli_kl(student: Tensor, teacher: Tensor, *, temperature: float = 4.0, reduction: str = "batchmean") -> Tensor:
    r"""Kullback-Leibler divergence of independent yes-or-no outputs: binary and multi-label targets.

    $$L = \tau^2 \sum_k \left[p_k \log\frac{p_k}{q_k} + (1 - p_k) \log\frac{1 - p_k}{1 - q_k}\right],
    \quad p = \sigma(t / \tau), \; q = \sigma(s / \tau)$$

    Args:
        student: s, logits (rows, labels).
        teacher: t, logits of the same shape.
        temperature: τ.
        reduction: ``batchmean`` or ``none`` (rows,).

    Example:
        >>> import torch
        >>> bernoulli_kl(torch.zeros(2, 3), torch.zeros(2, 3)).item()
        0.0
    """
    same_shape(student, teacher)
    s, t = at_least_float32(student) / temperature, at_least_float32(teacher) / temperature
    yes = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
    no = (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
    values = temperature**2 * (yes + no).flatten(1).sum(dim=1)
    return _reduce(values, reduction)


def mse(student: Tensor, teacher: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Mean squared difference of the outputs.

    $$L = \tfrac{1}{K} \sum_k (s_k - t_k)^2$$

    Args:
        student: s (rows, …).
        teacher: t, the same shape.
        reduction: ``mean`` (over everything) or ``none`` (rows,).

    Example:
        >>> import torch
        >>> mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])).item()
        2.5

    Reference: Ba, Caruana: Do Deep Nets Really Need to be Deep?, 2014, equation 1.
    """
    same_shape(student, teacher)
    values = (at_least_float32(student) - at_least_float32(teacher)).square().flatten(1).mean(dim=1)
    return _reduce(values, reduction)


def _reduce(values: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return values
    if reduction in ("mean", "batchmean"):
        return values.mean()
    raise ValueError(f"reduction is '{reduction}': expected mean, batchmean or none")
