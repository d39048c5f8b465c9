"""Variational information distillation: a learned lower bound on the mutual information of two layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.losses.adaptors import pointwise
from xmodal.losses.reduce import at_least_float32
from xmodal.losses.shapes import comparable, maps, reduce_rows


def gaussian_nll(mean: Tensor, teacher: Tensor, variance: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Negative log-likelihood of the teacher's features under a Gaussian per channel, without its constant.

    $$L = \tfrac{1}{2} \, \mathrm{mean} \left[\frac{(\mu - t)^2}{v_c} + \ln v_c\right]$$

    Args:
        mean: μ (rows, channels, …).
        teacher: t, the same shape.
        variance: v (channels,), positive.
        reduction: ``mean`` (over everything) or ``none`` (rows,).

    Example:
        >>> gaussian_nll(torch.zeros(1, 1), torch.full((1, 1), 2.0), torch.ones(1)).item()
        2.0
    """
    m, t = comparable(mean, teacher)
    v = variance.to(t).reshape(-1, *[1] * (t.ndim - 2))
    values = 0.5 * ((m - t).square() / v + v.log())
    return reduce_rows(values.flatten(1).mean(dim=1), reduction)


class VID(nn.Module):
    r"""Variational information distillation (VID).

    The student's features predict the teacher's as the mean of a Gaussian with a learned variance per channel. Channels
    that cannot be predicted get a large variance and hardly contribute to the gradient. The mean comes from layers that
    act on each position separately (1×1 convolutions, or linear layers for vectors) with ReLU between them.

    $$L = \tfrac{1}{2} \, \mathrm{mean} \left[\frac{(\mu(s) - t)^2}{v_c} + \ln v_c\right],
    \quad v_c = \mathrm{softplus}(\rho_c) + \varepsilon$$

    The minimum, at μ(s) = t, is ½ mean ln v, which may be negative. The larger of two resolutions is averaged down to
    the smaller. In the paper μ contains batch norms; the authors' later code, and this module, do not.

    Args:
        student_shape: shape of the student's features of one sample: (width,) or (channels, …).
        teacher_shape: shape of the teacher's features of one sample.
        layers: number of layers that predict the mean.
        initial_variance: v before training.
        eps: ε, the smallest variance.

    Example:
        >>> vid = VID((3, 8, 8), (5, 4, 4), initial_variance=1.0)
        >>> tuple(vid.variance.shape), vid(torch.zeros(2, 3, 8, 8), torch.ones(2, 5, 4, 4)).item()
        ((5,), 0.5)

    Reference: Ahn et al.: Variational Information Distillation for Knowledge Transfer, 2019, equations 5 and 6.
    """

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        layers: int = 3,
        initial_variance: float = 5.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        width, axes = teacher_shape[0], len(teacher_shape)
        steps: list[nn.Module] = [pointwise(student_shape, teacher_shape, bias=False)]
        for _ in range(layers - 1):
            steps += [nn.ReLU(), pointwise((width,) * axes, (width,) * axes, bias=False)]
        self.mean = nn.Sequential(*steps)
        # The inverse of softplus, so that the variance starts exactly at its initial value.
        self.rho = nn.Parameter(torch.full((width,), math.log(math.expm1(initial_variance - eps))))
        self.eps = eps

    @property
    def variance(self) -> Tensor:
        """The variance v of each channel (channels,)."""
        return F.softplus(self.rho) + self.eps

    def forward(self, student: Tensor, teacher: Tensor, *, reduction: str = "mean") -> Tensor:
        """The loss of features (rows, …) of the two shapes; ``reduction="none"`` gives (rows,)."""
        # Resolutions are matched before the prediction, so that its layers run at the smaller one.
        if student.ndim > 2:
            student, teacher = maps(student, teacher)
        predicted = self.mean(student.to(self.rho.dtype))
        return gaussian_nll(at_least_float32(predicted), teacher, self.variance, reduction=reduction)
