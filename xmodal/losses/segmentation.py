r"""What labels ask of a network that answers for every pixel, where few pixels are labelled and few classes are common.

`focal` looks most at pixels that are still wrong, `lovasz` at how well the sets of pixels of each class overlap, and
`perception_aware` lets two networks of one scene teach each other where one is surer than the other. All take answers
(rows, classes, …) and first pick the pixels that count, so that a picture with few labels costs little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, masked_mean, same_shape
from xmodal.losses.rows import check_target, picked

FLOOR = 1e-8  # probabilities below it have the logarithm of this
TOGETHER = 2**18  # numbers of a table that is sorted at once
SMALLEST = 1e-6  # likewise in the focal loss


def focal(
    outputs: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: Tensor | Sequence[float] | float | None = None,
    valid: Tensor | None = None,
    softmax: bool = True,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross-entropy that fades where the answer is right already.

    $$L = \frac{1}{|V|} \sum_{i \in V} \alpha_{y_i} (1 - p_{i y_i})^\gamma \left(-\ln \max(p_{i y_i}, 10^{-6})\right)$$

    | symbol | argument | shape |
    |---|---|---|
    | p | ``outputs``, probabilities, or logits whose softmax is p | (rows, classes, …) |
    | y | ``target`` | (rows, …), class numbers |
    | V | ``valid``, None: everything | (rows, …), boolean |
    | γ | ``gamma`` | number |
    | α | ``alpha``; None: 1; a number a: a for class 0 and 1 - a for all others | (classes,) |

    Where nothing counts the value is 0, and so is its gradient; the authors' code divides 0 by 0 there.

    Args:
        outputs: p.
        target: y; what stands where V is False is not looked at.
        gamma: γ; 0 leaves a weighted cross-entropy.
        alpha: α.
        valid: V.
        softmax: whether ``outputs`` are logits.
        reduction: ``mean``, or ``none`` (|V|,).

    Example:
        >>> round(focal(torch.tensor([[0.0, 0.0]]), torch.tensor([1])).item(), 4)  # ¼ ln 2
        0.1733

    Reference: Lin et al.: Focal Loss for Dense Object Detection, 2017, arXiv 1708.02002, equation 5.
    """
    rows, classes = picked(outputs, target, valid)
    check_target(rows, classes)
    rows = at_least_float32(rows)
    p = (rows.softmax(dim=1) if softmax else rows).gather(1, classes[:, None]).squeeze(1)
    values = (1 - p) ** gamma * -p.clamp(min=SMALLEST).log()
    if alpha is not None:
        values = values * _per_class(alpha, rows)[classes]
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction is '{reduction}': expected mean or none")
    return masked_mean(values)[0] if reduction == "mean" else values


def rarity(shares: Sequence[float], *, ignore: Sequence[int] = ()) -> tuple[float, ...]:
    r"""How much each class should count that makes up a share of the labels: the α of the published LiDAR training.

    $$\alpha_c = \frac{\ln(1 + w_c)}{\max_k \ln(1 + w_k)}, \qquad w_c = \frac{1}{f_c + 0.001}$$

    Args:
        shares: f, one per class.
        ignore: classes that get 0.

    Example:
        >>> [round(factor, 4) for factor in rarity([0.5, 0.4, 0.1], ignore=[0])]
        [0.0, 0.5237, 1.0]
    """
    factors = [0.0 if c in ignore else math.log1p(1 / (share + 0.001)) for c, share in enumerate(shares)]
    largest = max(factors, default=0.0) or 1.0
    return tuple(factor / largest for factor in factors)


def lovasz(
    outputs: Tensor,
    target: Tensor,
    *,
    classes: str | Sequence[int] = "present",
    ignore: int | Sequence[int] = (),
    per_image: bool = False,
    valid: Tensor | None = None,
    softmax: bool = True,
) -> Tensor:
    r"""Lovász-softmax: how badly the pixels of a class and those that are taken for it overlap, made smooth.

    For a class c the errors e = |1[y = c] - p_c| are sorted downwards. With g the sorted indicator of the class, G its
    sum, and k pixels taken as wrong:

    $$J_k = 1 - \frac{G - \sum_{i \le k} g_i}{G + \sum_{i \le k} (1 - g_i)}, \qquad
    L = \frac{1}{|C|} \sum_{c \in C} \sum_k e_k \left(J_k - J_{k-1}\right)$$

    | symbol | argument | shape |
    |---|---|---|
    | p | ``outputs``, probabilities, or logits whose softmax is p | (rows, classes, …) |
    | y | ``target`` | (rows, …), class numbers |
    | C | ``classes``: ``present`` among the pixels that count, ``all``, or a list | |

    The steps J_k - J_{k-1} are computed as such: 1 over the union where a pixel of the class is taken, and intersection
    over union times (union - 1) elsewhere. A difference of two numbers near 1 would lose digits.

    Args:
        outputs: p.
        target: y; what stands at places that do not count is not looked at.
        classes: C.
        ignore: labels whose pixels do not count.
        per_image: the mean over rows of the value of each row that has a pixel that counts.
        valid: (rows, …), boolean; pixels that are False do not count either.
        softmax: whether ``outputs`` are logits.

    Example:
        >>> certain = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> value = lovasz(certain, torch.tensor([0, 1, 1]), softmax=False)
        >>> round(value.item(), 4)  # both classes overlap by half
        0.5

    Reference: Berman, Triki, Blaschko: The Lovász-Softmax Loss, CVPR 2018, arXiv 1705.08790, equations 8, 9 and 11.
    """
    for label in (ignore,) if isinstance(ignore, int) else ignore:
        valid = target != label if valid is None else valid & (target != label)
    if per_image:
        images = range(len(outputs)) if valid is None else valid.flatten(1).any(dim=1).nonzero().flatten().tolist()
        parts = [
            lovasz(
                outputs[row : row + 1],
                target[row : row + 1],
                classes=classes,
                valid=None if valid is None else valid[row : row + 1],
                softmax=softmax,
            )
            for row in images
        ]
        return torch.stack(parts).mean() if parts else outputs.sum() * 0.0
    rows, labels = picked(outputs, target, valid)
    check_target(rows, labels)
    rows = at_least_float32(rows)
    p = rows.softmax(dim=1) if softmax else rows
    counts = torch.bincount(labels, minlength=p.shape[1])
    chosen = _chosen(classes, counts)
    if not len(labels) or not len(chosen):
        return p.sum() * 0.0
    return _of_classes(p.T.contiguous(), labels, chosen, counts).mean()


def _of_classes(p: Tensor, labels: Tensor, chosen: Tensor, total: Tensor) -> Tensor:
    """One value per chosen class, from (classes, pixels) probabilities; as many classes at once as a cache holds."""
    some: int = max(1, TOGETHER // len(labels))
    ranks = torch.arange(1, len(labels) + 1, dtype=torch.int32, device=labels.device)
    parts = []
    for first in range(0, len(chosen), some):
        group = chosen[first : first + some]
        parts.append(_steps(p[group], labels == group[:, None], total[group, None].int(), ranks))
    return torch.cat(parts)


def _steps(p: Tensor, members: Tensor, total: Tensor, ranks: Tensor) -> Tensor:
    """Sum of errors times steps of each class, from (classes, pixels) tables of probabilities and memberships."""
    errors = torch.where(members, 1 - p, p).abs()
    with torch.no_grad():
        # numbers of one sign have the order of their bits, and whole numbers are sorted faster
        bits = errors.detach().view(torch.int64 if errors.dtype == torch.float64 else torch.int32)
        order = bits.sort(dim=1, descending=True).indices
        g = members.gather(1, order)
        intersection = total - g.cumsum(dim=1, dtype=torch.int32)
        union = intersection + ranks
        steps = torch.where(g, 1.0, intersection.to(p.dtype) / (union - 1).clamp(min=1)) / union
        steps[:, :1] = torch.where(total == 0, 1.0, steps[:, :1])  # a class without pixels: its first error is all
        weights = torch.empty_like(steps).scatter_(1, order, steps)
    return (errors * weights).sum(dim=1)


def _chosen(classes: str | Sequence[int], counts: Tensor) -> Tensor:
    if isinstance(classes, str):
        if classes == "present":
            return counts.nonzero().flatten()
        if classes == "all":
            return torch.arange(len(counts), device=counts.device)
        raise ValueError(f"classes is '{classes}': expected present, all, or a list of class numbers")
    listed = torch.tensor(list(classes), dtype=torch.long, device=counts.device)
    if len(listed) and not 0 <= int(listed.min()) <= int(listed.max()) < len(counts):
        raise ValueError(f"classes are {list(classes)}: expected numbers from 0 to {len(counts) - 1}")
    return listed


def normalised_entropy(p: Tensor) -> Tensor:
    r"""Doubt between 0 and 1: -Σ p ln max(p, 1e-8) / ln C, (rows, classes, …) to (rows, …).

    Example:
        >>> round(normalised_entropy(torch.full((1, 4), 0.25)).item(), 4)
        1.0
    """
    p = at_least_float32(p)
    return -(p * p.clamp(min=FLOOR).log()).sum(dim=1) / math.log(p.shape[1])


def guidance(mine: Tensor, other: Tensor, *, threshold: float = 0.7) -> Tensor:
    r"""How much one network guides another at each pixel: by as much as it is surer, where it is sure at all.

    $$w = \max(F_{mine} - F_{other}, 0) \cdot 1[F_{mine} \ge \tau], \qquad F = 1 - E$$

    Args:
        mine: probabilities (rows, classes, …) of the one that guides.
        other: of the one that is guided.
        threshold: τ.

    Example:
        >>> guidance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])).item()
        1.0
    """
    sure, unsure = 1 - normalised_entropy(mine), 1 - normalised_entropy(other)
    return (sure - unsure).clamp(min=0) * (sure >= threshold)


def perception_aware(
    lidar: Tensor, camera: Tensor, *, threshold: float = 0.7, detach: bool = True, softmax: bool = True
) -> Tensor:
    r"""Two networks of one scene learn from each other, at each pixel from the surer one.

    $$L = \frac{1}{BCHW} \sum \left[ w_{camera} \, KL(p_{camera} \| p_{lidar})
    + w_{lidar} \, KL(p_{lidar} \| p_{camera}) \right]$$

    | symbol | argument | shape |
    |---|---|---|
    | p | ``lidar``, ``camera``: logits, or probabilities | (rows, classes, …) |
    | w | `guidance` of one by the other | (rows, …) |
    | τ | ``threshold`` | number |

    The mean runs over classes too. In the authors' code gradients flow through w and into the network that guides
    (``detach=False``); here the one that guides is a constant unless told otherwise.

    Args:
        lidar: answers of one network.
        camera: of the other, the same shape.
        threshold: how sure a network must be to guide.
        detach: whether what guides is a constant.
        softmax: whether the answers are logits.

    Example:
        >>> sure, unsure = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
        >>> round(perception_aware(sure, unsure, softmax=False).item(), 4)  # ½ ln 2
        0.3466

    Reference: Zhuang et al.: Perception-Aware Multi-Sensor Fusion for 3D LiDAR Semantic Segmentation, ICCV 2021, arXiv
    2106.15277, equations 4 to 9; read from the authors' code.
    """
    same_shape(lidar, camera)
    p, q = (at_least_float32(side) for side in (lidar, camera))
    p, q = (p.softmax(dim=1), q.softmax(dim=1)) if softmax else (p, q)
    return _guided(p, q, threshold, detach) + _guided(q, p, threshold, detach)


def _guided(learner: Tensor, guide: Tensor, threshold: float, detach: bool) -> Tensor:
    weight = guidance(guide, learner, threshold=threshold)
    if detach:
        guide, weight = guide.detach(), weight.detach()
    terms = torch.special.xlogy(guide, guide) - guide * learner.clamp(min=FLOOR).log()
    mean, _ = masked_mean(weight[:, None] * terms)
    return mean


def _per_class(alpha: Tensor | Sequence[float] | float, rows: Tensor) -> Tensor:
    classes = rows.shape[1]
    if isinstance(alpha, float | int):
        factors = rows.new_full((classes,), 1.0 - alpha)
        factors[0] = alpha
        return factors
    factors = torch.as_tensor(alpha, dtype=rows.dtype, device=rows.device)
    if factors.shape != (classes,):
        raise ValueError(f"alpha has shape {tuple(factors.shape)}: expected ({classes},), one number per class")
    return factors
