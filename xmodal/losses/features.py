"""Distillation of features, value by value: the student's features should equal the teacher's.

All take the student first and the teacher second, both of the same shape: where widths differ, an adaptor
(`xmodal.losses.adaptors`) comes before the loss. `hint`, `ab` and `ofd` return one value per row with
``reduction="none"``; `srd` and `pkd` compare statistics of the whole batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.reduce import at_least_float32
from xmodal.losses.shapes import comparable, reduce_rows


def hint(student: Tensor, teacher: Tensor, *, batchnorm_relu: bool = False, reduction: str = "mean") -> Tensor:
    r"""Mean squared difference of features (FitNets).

    The features of a middle layer of the teacher are a target for a layer of the student.

    $$L = \tfrac{1}{B D} \sum_{i, d} (r(s)_{id} - t_{id})^2$$

    The paper writes ½‖t − r(s)‖² and learns r, which is a separate adaptor here. The NTDH code has r = ReLU ∘ BatchNorm
    with scale 1, shift 0 and the batch's statistics, never trained: ``batchnorm_relu`` reproduces it.

    Args:
        student: s (rows, width, …).
        teacher: t, the same shape.
        batchnorm_relu: standardise each column of the student over the batch (biased variance + 1e-5), then ReLU.
        reduction: ``mean`` (over everything) or ``none`` (rows,).

    Example:
        >>> hint(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])).item()
        2.5

    Reference: Romero et al.: FitNets: Hints for Thin Deep Nets, 2015, equation 3.
    """
    s, t = comparable(student, teacher)
    if batchnorm_relu:
        if s.numel() == s.shape[1]:
            raise ValueError(
                f"Features of shape {tuple(s.shape)} have one value per column, so their variance is undefined: "
                "expected two rows or more with batchnorm_relu. Use a larger batch."
            )
        s = F.batch_norm(s, None, None, training=True, eps=1e-5).relu()
    return reduce_rows(F.mse_loss(s, t, reduction="none").flatten(1).mean(dim=1), reduction)


def ab(
    student: Tensor, teacher: Tensor, *, margin: float = 1.0, scale: float = 3e-3, reduction: str = "batchmean"
) -> Tensor:
    r"""Activation boundaries: which neurons are active, not how strongly.

    Before the ReLU, a value should be above the margin where the teacher's is positive, and below minus the margin
    elsewhere.

    $$L = \tfrac{c}{B} \sum_{i, d} \left[(s_{id} + m)^2 \, [s_{id} > -m, t_{id} \le 0]
    + (s_{id} - m)^2 \, [s_{id} \le m, t_{id} > 0]\right]$$

    It is zero where every value of the student keeps the margin on its teacher's side; equal features within the margin
    are penalised too. The authors' code divides by 1000 and multiplies by 3 for the last of several layers, and halves
    the factor for each layer before it: ``scale`` is that factor.

    Args:
        student: s, before the activation (rows, …).
        teacher: t, the same shape.
        margin: m.
        scale: c.
        reduction: ``batchmean`` (sum over each row, mean over rows) or ``none`` (rows,).

    Example:
        >>> ab(torch.tensor([[0.5, 2.0]]), torch.tensor([[-1.0, 3.0]]), scale=1.0).item()
        2.25

    Reference: Heo et al.: Knowledge Transfer via Distillation of Activation Boundaries, 2019, equation 6.
    """
    s, t = comparable(student, teacher)
    # One product with a sign in place of two branches: half of the work, in the backward pass too.
    sign = 1 - 2 * (t > 0).to(s.dtype)
    values = scale * F.relu(s * sign + margin).square()
    return reduce_rows(values.flatten(1).sum(dim=1), reduction)


def ofd(student: Tensor, teacher: Tensor, *, margin: Tensor | None = None, reduction: str = "batchmean") -> Tensor:
    r"""Partial squared distance of the overhaul of feature distillation (OFD).

    Values that pass the teacher's next ReLU are matched. Where it blocks them, the student's value must only stay
    below the teacher's, which is limited from below by a margin m.

    $$L = \tfrac{1}{B} \sum_{i, d} \begin{cases} 0 & s \le \bar t \le 0 \\ (s - \bar t)^2 & \text{otherwise}
    \end{cases}, \quad \bar t = \max(t, m)$$

    This is the authors' form; another published one leaves the margin to the caller and divides by 1000. The authors
    multiply by 0.001 and by a power of two per layer.

    Args:
        student: s, before the activation (rows, channels, …).
        teacher: t, the same shape.
        margin: m (channels,), negative: `ofd_margin` computes it from the teacher's batch norm. None: the mean of the
            negative values of each channel in this batch.
        reduction: ``batchmean`` (sum over each row, mean over rows) or ``none`` (rows,).

    Example:
        >>> ofd(torch.tensor([[1.0, -3.0]]), torch.tensor([[3.0, -1.0]]), margin=torch.tensor([-2.0, -2.0])).item()
        4.0

    Reference: Heo et al.: A Comprehensive Overhaul of Feature Distillation, 2019, equations 1 and 3.
    """
    s, t = comparable(student, teacher)
    m = _negative_mean(t) if margin is None else margin.to(t)
    t = torch.maximum(t, m.reshape(-1, *[1] * (t.ndim - 2)))
    # The mask reads the clamped teacher: t > 0 is the same for both, and s ≤ m needs no correction.
    values = (s - t).square() * ((s > t) | (t > 0))
    return reduce_rows(values.flatten(1).sum(dim=1), reduction)


def ofd_margin(mean: Tensor, std: Tensor) -> Tensor:
    r"""Expected negative value of each channel, from the batch norm that precedes it.

    $$m = E[x \mid x < 0] = \mu - \sigma \, \frac{\varphi(\mu / \sigma)}{\Phi(-\mu / \sigma)}, \quad x \sim N(\mu,
    \sigma^2)$$

    A channel that is negative with a probability of 0.001 or less gets −3σ, as in the authors' code.

    Args:
        mean: μ (channels,), the batch norm's shift.
        std: σ (channels,), the absolute value of its scale.

    Example:
        >>> round(ofd_margin(torch.zeros(1), torch.ones(1)).item(), 4)
        -0.7979
    """
    mean, std = at_least_float32(mean), at_least_float32(std).abs()
    # A channel that training has switched off has σ = 0; the clamp avoids 0 / 0, and the ratio is then ±inf or 0.
    ratio = mean / std.clamp(min=torch.finfo(std.dtype).tiny)
    probability = torch.special.ndtr(-ratio)
    density = (-0.5 * ratio.square()).exp() / math.sqrt(2 * math.pi)
    return torch.where(probability > 1e-3, mean - std * density / probability.clamp(min=1e-3), -3 * std)


def _negative_mean(values: Tensor) -> Tensor:
    columns = values.movedim(1, 0).flatten(1)
    return columns.clamp(max=0).sum(dim=1) / (columns < 0).sum(dim=1).clamp(min=1)


def srd(student: Tensor, teacher: Tensor, *, exponent: float = 1.0, floor: float = 1e-12) -> Tensor:
    r"""Logarithm of the summed differences (simple recipe distillation).

    The logarithm reduces the gradient while many values are still far apart. It is multiplied by two, as in
    torchdistill; the recipe of the paper also standardises both sides per column and uses exponent 4.

    $$L = 2 \ln \left(\varepsilon + \sum_{i, d} |s_{id} - t_{id}|^p\right)$$

    The minimum, for equal features, is 2 ln ε, not 0. The published objective adds a KL term: add `kl` to the list of
    losses.

    Args:
        student: s (rows, …).
        teacher: t, the same shape.
        exponent: p, 1 or more.
        floor: ε, keeps the logarithm finite.

    Example:
        >>> round(srd(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])).item(), 4)
        2.1972

    Reference: Miles, Mikolajczyk: Understanding the Role of the Projector in Knowledge Distillation, 2024, section 3.
    """
    s, t = comparable(student, teacher)
    return 2 * ((s - t).abs().pow(exponent).sum() + floor).log()


def pkd(student: Tensor, teacher: Tensor, *, eps: float = 1e-6) -> Tensor:
    r"""Half the mean squared difference of standardised features (Pearson correlation distillation).

    Each channel is standardised over the batch and all positions, so that only the pattern matters, not the magnitude.
    Up to a constant factor this is one minus the correlation.

    $$L = \tfrac{1}{2} \, \mathrm{mean} \, (\hat s - \hat t)^2, \quad \hat f = \frac{f - \mathrm{mean}_c(f)}
    {\mathrm{std}_c(f) + \varepsilon}$$

    The standard deviation divides by n − 1. A constant channel, for example of a single row, becomes zero.

    Args:
        student: s (rows, channels, …).
        teacher: t, the same shape.
        eps: ε.

    Example:
        >>> round(pkd(torch.tensor([[1.0], [2.0]]), torch.tensor([[50.0], [-7.0]])).item(), 4)
        1.0

    Reference: Cao et al.: PKD: General Distillation Framework for Object Detectors via Pearson Correlation
    Coefficient, 2022, equation 3.
    """
    s, t = comparable(student, teacher)
    return 0.5 * (_standardised(s, eps) - _standardised(t, eps)).square().mean()


def _standardised(values: Tensor, eps: float) -> Tensor:
    columns = values.movedim(1, 0).flatten(1)
    centred = columns - columns.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / max(columns.shape[1] - 1, 1)
    # The derivative of the square root is infinite at 0, and 0 × inf in the chain rule would be nan.
    varies = variance > 0
    std = torch.where(varies, variance, 1.0).sqrt() * varies
    return centred / (std + eps)
