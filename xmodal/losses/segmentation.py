r"""Losses for dense predictions, where few pixels are labelled and most classes are rare.

`focal` gives most weight to pixels that are still wrong, `lovasz` optimises the intersection over union of each class,
and in `perception_aware` two networks of one scene teach each other: at each pixel the more confident network is the
teacher. `focal` and `lovasz` take outputs (rows, classes, …) and first select the valid pixels, so that an image with
few labels costs little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, check_target, masked_mean, picked, same_shape

# Lower limits of probabilities inside logarithms: 1e-6 in the focal loss and 1e-8 elsewhere, as in the authors' code.
FOCAL_FLOOR = 1e-6
FLOOR = 1e-8
# Number of entries of a table that is sorted in one call: a larger one no longer fits into a processor's cache.
BLOCK = 2**18


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
    r"""Focal loss: cross-entropy with a weight that vanishes as the prediction becomes correct.

    $$L = \frac{1}{|V|} \sum_{i \in V} \alpha_{y_i} (1 - p_{i y_i})^\gamma \left(-\ln \max(p_{i y_i}, 10^{-6})\right)$$

    | symbol | argument | shape |
    |---|---|---|
    | p | ``outputs``, probabilities, or logits whose softmax is p | (rows, classes, …) |
    | y | ``target`` | (rows, …), class numbers |
    | V | ``valid``, None: all positions | (rows, …), boolean |
    | γ | ``gamma`` | number |
    | α | ``alpha``; None: 1; a number a: a for class 0 and 1 - a for all others | (classes,) |

    Without valid positions the value and its gradient are 0; the authors' code divides 0 by 0 there.

    Args:
        outputs: p.
        target: y; values where V is False are not read.
        gamma: γ; 0 gives a weighted cross-entropy.
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
    values = (1 - p) ** gamma * -p.clamp(min=FOCAL_FLOOR).log()
    if alpha is not None:
        values = values * _class_factors(alpha, rows)[classes]
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction is '{reduction}': expected mean or none")
    return masked_mean(values)[0] if reduction == "mean" else values


def _class_factors(alpha: Tensor | Sequence[float] | float, rows: Tensor) -> Tensor:
    classes = rows.shape[1]
    if isinstance(alpha, float | int):
        factors = rows.new_full((classes,), 1.0 - alpha)
        factors[0] = alpha
        return factors
    factors = torch.as_tensor(alpha, dtype=rows.dtype, device=rows.device)
    if factors.shape != (classes,):
        raise ValueError(f"alpha has shape {tuple(factors.shape)}: expected ({classes},), one number per class")
    return factors


def rarity(shares: Sequence[float], *, ignore: Sequence[int] = ()) -> tuple[float, ...]:
    r"""Class weights from the share of each class among the labels: the α of the published LiDAR training.

    $$\alpha_c = \frac{\ln(1 + w_c)}{\max_k \ln(1 + w_k)}, \qquad w_c = \frac{1}{f_c + 0.001}$$

    Args:
        shares: f, one per class.
        ignore: classes with weight 0.

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
    r"""Lovász-softmax: a differentiable surrogate of the intersection over union of each class.

    For a class c the errors e = |1[y = c] - p_c| are sorted in descending order. With g the class indicator in that
    order, G its sum, and the first k pixels regarded as wrong:

    $$J_k = 1 - \frac{G - \sum_{i \le k} g_i}{G + \sum_{i \le k} (1 - g_i)}, \qquad
    L = \frac{1}{|C|} \sum_{c \in C} \sum_k e_k \left(J_k - J_{k-1}\right)$$

    | symbol | argument | shape |
    |---|---|---|
    | p | ``outputs``, probabilities, or logits whose softmax is p | (rows, classes, …) |
    | y | ``target`` | (rows, …), class numbers |
    | C | ``classes``: ``present`` among the valid pixels, ``all``, or a list | |

    The steps J_k - J_{k-1} are computed directly: 1 / union where a pixel of the class is added, and
    intersection / (union · (union - 1)) elsewhere. A difference of two numbers near 1 would lose digits.

    Args:
        outputs: p.
        target: y; values at invalid positions are not read.
        classes: C.
        ignore: labels whose pixels are excluded.
        per_image: compute the value of each row with a valid pixel, and return their mean.
        valid: (rows, …), boolean; pixels that are False are excluded.
        softmax: whether ``outputs`` are logits.

    Example:
        >>> certain = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> value = lovasz(certain, torch.tensor([0, 1, 1]), softmax=False)
        >>> round(value.item(), 4)  # intersection over union is one half for both classes
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
    numbers = _class_numbers(classes, counts)
    # 0 with a graph: a batch without labels must not break the backward pass of the other terms.
    if not len(labels) or not len(numbers):
        return p.sum() * 0.0
    p = p.T.contiguous()
    step = max(1, BLOCK // len(labels))
    ranks = torch.arange(1, len(labels) + 1, dtype=torch.int32, device=labels.device)
    parts = []
    for group in torch.split(numbers, step):
        parts.append(_lovasz_per_class(p[group], labels == group[:, None], counts[group, None].int(), ranks))
    return torch.cat(parts).mean()


def _lovasz_per_class(p: Tensor, members: Tensor, total: Tensor, ranks: Tensor) -> Tensor:
    """Σ_k e_k (J_k - J_{k-1}) of each class, from (classes, pixels) tables of probabilities and class indicators."""
    errors = torch.where(members, 1 - p, p).abs()
    # The steps are piecewise constant in the errors, so the gradient passes through the errors alone.
    with torch.no_grad():
        # Non-negative floats have the order of their bit patterns, and integers are sorted faster.
        bits = errors.detach().view(torch.int64 if errors.dtype == torch.float64 else torch.int32)
        order = bits.sort(dim=1, descending=True).indices
        g = members.gather(1, order)
        intersection = total - g.cumsum(dim=1, dtype=torch.int32)
        union = intersection + ranks
        steps = torch.where(g, 1.0, intersection.to(p.dtype) / (union - 1).clamp(min=1)) / union
        # A class without pixels: the union is empty before the first error, so J jumps from 0 to 1 there.
        steps[:, :1] = torch.where(total == 0, 1.0, steps[:, :1])
        weights = torch.empty_like(steps).scatter_(1, order, steps)
    return (errors * weights).sum(dim=1)


def _class_numbers(classes: str | Sequence[int], counts: Tensor) -> Tensor:
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
    r"""Entropy divided by its maximum, in [0, 1]: -Σ p ln max(p, 1e-8) / ln C, (rows, classes, …) to (rows, …).

    Example:
        >>> round(normalised_entropy(torch.full((1, 4), 0.25)).item(), 4)
        1.0
    """
    p = at_least_float32(p)
    return -(p * p.clamp(min=FLOOR).log()).sum(dim=1) / math.log(p.shape[1])


def guidance(guide: Tensor, learner: Tensor, *, threshold: float = 0.7) -> Tensor:
    r"""Weight of one network as a teacher of another at each pixel: the difference of their confidences.

    $$w = \max(F_{guide} - F_{learner}, 0) \cdot 1[F_{guide} \ge \tau], \qquad F = 1 - E$$

    with E the `normalised_entropy`.

    Args:
        guide: probabilities (rows, classes, …) of the network that teaches.
        learner: probabilities of the network that learns, the same shape.
        threshold: τ.

    Example:
        >>> guidance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])).item()
        1.0
    """
    confidence = 1 - normalised_entropy(guide)
    difference = confidence - (1 - normalised_entropy(learner))
    return difference.clamp(min=0) * (confidence >= threshold)


def perception_aware(
    lidar: Tensor, camera: Tensor, *, threshold: float = 0.7, detach: bool = True, softmax: bool = True
) -> Tensor:
    r"""Two networks of one scene learn from each other, at each pixel from the more confident one.

    $$L = \frac{1}{BCHW} \sum \left[ w_{camera} \, KL(p_{camera} \| p_{lidar})
    + w_{lidar} \, KL(p_{lidar} \| p_{camera}) \right]$$

    | symbol | argument | shape |
    |---|---|---|
    | p | ``lidar``, ``camera``: logits, or probabilities | (rows, classes, …) |
    | w | `guidance`, the weight of each network as the teacher of the other | (rows, …) |
    | τ | ``threshold`` | number |

    The mean is over classes too. In the authors' code gradients flow through w and into the network that teaches
    (``detach=False``); by default both are constants here.

    Args:
        lidar: outputs of one network.
        camera: outputs of the other, the same shape.
        threshold: τ, the confidence from which a network teaches.
        detach: whether w and the network that teaches are constants for the gradient.
        softmax: whether the outputs are logits.

    Example:
        >>> confident, uncertain = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
        >>> round(perception_aware(confident, uncertain, softmax=False).item(), 4)  # ½ ln 2
        0.3466

    Reference: Zhuang et al.: Perception-Aware Multi-Sensor Fusion for 3D LiDAR Semantic Segmentation, ICCV 2021, arXiv
    2106.15277, equations 4 to 9; read from the authors' code.
    """
    same_shape(lidar, camera)
    p, q = (at_least_float32(side) for side in (lidar, camera))
    p, q = (p.softmax(dim=1), q.softmax(dim=1)) if softmax else (p, q)
    return _one_direction(p, q, threshold, detach) + _one_direction(q, p, threshold, detach)


def _one_direction(learner: Tensor, guide: Tensor, threshold: float, detach: bool) -> Tensor:
    weight = guidance(guide, learner, threshold=threshold)
    if detach:
        guide, weight = guide.detach(), weight.detach()
    # xlogy is 0 at a probability of 0, where p · log p would be nan.
    terms = torch.special.xlogy(guide, guide) - guide * learner.clamp(min=FLOOR).log()
    mean, _ = masked_mean(weight[:, None] * terms)
    return mean
