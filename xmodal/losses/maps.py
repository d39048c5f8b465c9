"""Distillation of feature maps: where a network is active, and how its channels and stages are related.

Maps are (rows, channels, …) with one to three axes of positions. All take the student first and the teacher second.
`at`, `nst` and `ft` accept different numbers of channels and average the larger map down to the smaller; `cwd` and
`hcl` need equal shapes; `fsp` takes two or more stages of each network. All return one value per row with
``reduction="none"``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.shapes import average_to, comparable, maps, product, reduce_rows


def at(
    student: Tensor, teacher: Tensor, *, power: float = 2.0, distance: str = "mse", reduction: str = "mean"
) -> Tensor:
    r"""Attention transfer: both networks should be active at the same positions.

    $$Q(f) = \frac{a}{\|a\|_2}, \quad a_h = \sum_c |f_{ch}|^p, \qquad
    L_{mse} = \tfrac{1}{B H} \sum_i \|Q(s_i) - Q(t_i)\|_2^2, \quad
    L_{norm} = \tfrac{1}{B} \sum_i \|Q(s_i) - Q(t_i)\|_2$$

    The authors' code and most others square and average over positions (``mse``, weight 1000); the paper's equation has
    the norm itself (``norm``).

    Args:
        student: s (rows, channels, positions …).
        teacher: t, its numbers of channels and positions may differ.
        power: p.
        distance: ``mse`` or ``norm``.
        reduction: ``mean`` or ``none`` (rows,).

    Example:
        >>> student, teacher = torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
        >>> at(student, teacher).item(), round(at(student, teacher, distance="norm").item(), 4)
        (1.0, 1.4142)

    Reference: Zagoruyko, Komodakis: Paying More Attention to Attention, 2017, equation 2.
    """
    s, t = maps(student, teacher)
    difference = attention(s, power=power) - attention(t, power=power)
    if distance == "mse":
        return reduce_rows(difference.square().mean(dim=1), reduction)
    if distance == "norm":
        return reduce_rows(torch.linalg.vector_norm(difference, dim=1), reduction)
    raise ValueError(f"distance is '{distance}': expected mse or norm")


def attention(values: Tensor, *, power: float = 2.0) -> Tensor:
    """Activation at each position over all channels, as a vector of length 1 (rows, positions)."""
    energy = values.square() if power == 2 else values.abs().pow(power)
    # A mean over channels where the paper has a sum: the factor disappears in the normalisation.
    return F.normalize(energy.mean(dim=1).flatten(1), dim=1)


def nst(student: Tensor, teacher: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Neuron selectivity transfer: the channel maps of both networks should have the same distribution.

    Each channel's map is one sample of a distribution; the two sets of samples are compared by their squared maximum
    mean discrepancy with the kernel ⟨a, b⟩².

    $$L = \tfrac{1}{B} \sum_i \left[\overline{\langle t_c, t_{c'} \rangle^2} + \overline{\langle s_c, s_{c'} \rangle^2}
    - 2 \, \overline{\langle s_c, t_{c'} \rangle^2}\right]$$

    with each s_c, t_c of length 1 and the bar a mean over pairs of channels. The authors' linear and Gaussian kernels
    are not included.

    Args:
        student: s (rows, channels, positions …).
        teacher: t, its numbers of channels and positions may differ.
        reduction: ``mean`` or ``none`` (rows,).

    Example:
        >>> nst(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])).item()
        2.0

    Reference: Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, 2017, equation 8.
    """
    s, t = (F.normalize(side.flatten(2), dim=2) for side in maps(student, teacher))
    values = _mean_kernel(t, t) + _mean_kernel(s, s) - 2 * _mean_kernel(s, t)
    return reduce_rows(values, reduction)


def _mean_kernel(left: Tensor, right: Tensor) -> Tensor:
    return product(left, right.transpose(1, 2)).square().mean(dim=(1, 2))


def cwd(student: Tensor, teacher: Tensor, *, temperature: float = 4.0, reduction: str = "mean") -> Tensor:
    r"""Channel-wise distillation: each channel as a distribution over positions.

    Positions where the teacher's probability is high dominate; the background, where it is near zero, hardly
    contributes.

    $$L = \frac{\tau^2}{B C} \sum_{i, c} KL\left(\mathrm{softmax}_h(t_{ic} / \tau) \,\|\,
    \mathrm{softmax}_h(s_{ic} / \tau)\right)$$

    Args:
        student: s (rows, channels, positions …).
        teacher: t, the same shape.
        temperature: τ; 4 in the paper, while mmrazor's default is 1.
        reduction: ``mean`` or ``none`` (rows,).

    Example:
        >>> round(cwd(torch.zeros(1, 1, 2), torch.tensor([[[1.0986123, 0.0]]]), temperature=1.0).item(), 4)
        0.1308

    Reference: Shu et al.: Channel-wise Knowledge Distillation for Dense Prediction, 2021, equation 4.
    """
    s, t = maps(*comparable(student, teacher))
    log_q = F.log_softmax(s.flatten(2) / temperature, dim=2)
    log_p = F.log_softmax(t.flatten(2) / temperature, dim=2)
    values = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=2)
    return reduce_rows(values.mean(dim=1), reduction)


def ft(
    student: Tensor, teacher: Tensor, *, map_power: float = 2.0, power: float = 1.0, reduction: str = "mean"
) -> Tensor:
    r"""Factor transfer: the distance of normalised factors.

    $$L = \mathrm{mean} \, |Q(s) - Q(t)|^{p_2}, \quad Q(f) = a / \|a\|_2, \; a_h = \tfrac{1}{C} \sum_c |f_{ch}|^{p_1}$$

    In the paper the factors are the outputs of a paraphraser, trained beforehand on the teacher, and of a translator:
    pass those outputs to reproduce it. On plain features this is the form of RepDistiller.

    Args:
        student: s (rows, channels, positions …).
        teacher: t, its numbers of channels and positions may differ.
        map_power: p₁.
        power: p₂, 1 or more.
        reduction: ``mean`` or ``none`` (rows,).

    Example:
        >>> ft(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])).item()
        1.0

    Reference: Kim, Park, Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer, 2018, equation 4.
    """
    s, t = maps(student, teacher)
    difference = attention(s, power=map_power) - attention(t, power=map_power)
    return reduce_rows(difference.abs().pow(power).mean(dim=1), reduction)


def fsp(student: Sequence[Tensor], teacher: Sequence[Tensor], *, reduction: str = "mean") -> Tensor:
    r"""Flow of the solution procedure: inner products between the channels of neighbouring stages.

    $$L = \sum_{stages} \mathrm{mean} \, (G^s - G^t)^2, \quad G = \tfrac{1}{H} F_{bottom} F_{top}^\top$$

    The paper weights each matrix and trains in two phases, the first with this loss alone; here every pair of
    neighbouring stages has weight 1.

    Args:
        student: two or more maps (rows, channels, positions …), from bottom to top.
        teacher: equally many maps, each with the student's number of channels.
        reduction: ``mean`` or ``none`` (rows,).

    Example:
        >>> ones = torch.ones(1, 1, 4)
        >>> fsp([ones, 3 * ones], [ones, ones]).item()
        4.0

    Reference: Yim et al.: A Gift from Knowledge Distillation, 2017, equations 1 and 2.
    """
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(
            f"fsp got {len(student)} stages of the student {[tuple(stage.shape) for stage in student]} and "
            f"{len(teacher)} of the teacher {[tuple(stage.shape) for stage in teacher]}: expected the same number of "
            "each, two or more."
        )
    for s, t in zip(student, teacher, strict=True):
        if s.shape[:2] != t.shape[:2]:
            raise ValueError(
                f"A stage of the student has shape {tuple(s.shape)}, the teacher's {tuple(t.shape)}: expected the same "
                "rows and channels. Put an adaptor before the loss."
            )
    pairs = [comparable(s, t) for s, t in zip(_flows(student), _flows(teacher), strict=True)]
    values = [(s - t).square().flatten(1).mean(dim=1) for s, t in pairs]
    return reduce_rows(torch.stack(values).sum(dim=0), reduction)


def _flows(stages: Sequence[Tensor]) -> list[Tensor]:
    flows = []
    for pair in zip(stages[:-1], stages[1:], strict=True):
        bottom, top = (side.flatten(2) for side in maps(*pair))
        # divided after the product, which has far fewer entries than the maps
        flows.append(product(bottom, top.transpose(1, 2)) / bottom.shape[2])
    return flows


def hcl(student: Tensor, teacher: Tensor, *, levels: Sequence[int] = (4, 2, 1), reduction: str = "mean") -> Tensor:
    r"""Hierarchical context loss of knowledge review (ReviewKD).

    Features are compared at full resolution and after averaging to coarser grids, each with half the weight of the one
    before.

    $$L = \frac{\sum_{k=0}^{K} 2^{-k} \, \mathrm{mean} \, (P_k(s) - P_k(t))^2}{\sum_{k=0}^{K} 2^{-k}}$$

    P₀ is the identity; grids that are not smaller than the map are skipped and have no weight. The paper's fusion of
    student stages by attention is part of a network, before this loss.

    Args:
        student: s (rows, channels, positions …).
        teacher: t, the same shape.
        levels: side lengths of the grids of P₁, P₂, ….
        reduction: ``mean`` or ``none`` (rows,).

    Example:
        >>> round(hcl(torch.tensor([[[2.0, 0.0]]]), torch.zeros(1, 1, 2)).item(), 4)
        1.6667

    Reference: Chen et al.: Distilling Knowledge via Knowledge Review, 2021, section 3.4.
    """
    s, t = maps(*comparable(student, teacher))
    # The first axis (the height) decides which grids are skipped, as in the authors' code.
    grids = [[min(level, side) for side in s.shape[2:]] for level in levels if level < s.shape[2]]
    weights = [0.5**k for k in range(len(grids) + 1)]
    distances = [_row_mse(average_to(s, grid), average_to(t, grid)) for grid in [list(s.shape[2:]), *grids]]
    total = torch.stack([weight * distance for weight, distance in zip(weights, distances, strict=True)]).sum(dim=0)
    return reduce_rows(total / sum(weights), reduction)


def _row_mse(student: Tensor, teacher: Tensor) -> Tensor:
    return F.mse_loss(student, teacher, reduction="none").flatten(1).mean(dim=1)
