r"""Ordinal margin: rows with equal targets are closer than other rows, by a margin that grows with the target distance.

For an anchor $a$ let $P_a$ be the other rows with the same target and $Q_a$ the rows with a different target. Then

$$L = \frac1{|A|} \sum_{a \in A} \frac1{|P_a||Q_a|} \sum_{p \in P_a} \sum_{n \in Q_a}
      \max(0,\ \mu\,|y_a - y_n| - \cos(x_a, x_p) + \cos(x_a, x_n))$$

with the anchors $A$ whose two sets are not empty, and 0 without such anchors. Reference: Li, Wang, Cui: Decoupled
Multimodal Distilling for Emotion Recognition, CVPR 2023, arXiv 2303.13802; read from the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xmodal.losses.reduce import at_least_float32
from xmodal.losses.shapes import product

PAIRS = ("code", "paper")
TINY = 1e-8  # added to the squared length of a row, as in the authors' code


def ordinal_margin(
    features: Tensor,
    targets: Tensor,
    *,
    margin: float = 0.15,
    decimals: int | None = 4,
    pairs: str = "code",
    groups: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    r"""Mean over anchors of a triplet margin that grows with the distance of the targets.

    | symbol | argument | shape |
    |---|---|---|
    | x | ``features`` | (rows, width) |
    | y | ``targets`` | (rows,) or (rows, values), then compared by the sum of absolute differences |
    | μ | ``margin`` | |

    An anchor has |P||Q| pairs, yet its sum needs each cosine only once, times the number of pairs in which it
    contributes. That number is the result of a binary search in the sorted values of the other set. So the loss costs
    the matrix of cosines and two sorts of its rows, in time and memory, where a loop over anchors costs rows³.

    Args:
        features: x.
        targets: y, equal for rows that should be close.
        margin: μ.
        decimals: decimals to which targets are rounded before they are compared; None: exact comparison.
        pairs: ``code`` (P: equal targets, Q: other targets) or ``paper`` (P: equal targets in another group, Q: other
            targets in the same group).
        groups: (rows,), the modality of each row; for ``paper``.
        valid: (rows,), mask of the rows to use; None: all.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> round(ordinal_margin(x, torch.tensor([0.0, 0.0, 2.0])).item(), 4)  # (0.3 - 0 + 1 and 0.3 - 0 + 0) / 2
        0.8
    """
    _check(features, targets, pairs, groups)
    cosines = _cosines(features)
    distance = _distances(targets.to(cosines.dtype), decimals)
    positive, negative = _sets(distance == 0, pairs, groups, valid)
    # Entries outside the set become infinite with the sign that never violates the margin.
    near = torch.where(positive, cosines, torch.inf)
    far = torch.where(negative, margin * distance + cosines, -torch.inf)
    # A pair (p, n) contributes far[n] - near[p] if that is positive. The numbers of such pairs are integers: constant
    # almost everywhere, so the gradient passes through the cosines alone.
    with torch.no_grad():
        sorted_near, sorted_far = near.sort(dim=1).values, far.sort(dim=1).values
        pairs_of_n = torch.searchsorted(sorted_near, far.contiguous())  # p with cos(a, p) below the value of n
        pairs_of_p = far.shape[1] - torch.searchsorted(sorted_far, near.contiguous(), right=True)
    # The zeros replace infinities before the product, because 0 × inf would be nan.
    zero = cosines.new_zeros(())
    sums = (torch.where(negative, far, zero) * pairs_of_n).sum(1) - (
        torch.where(positive, near, zero) * pairs_of_p
    ).sum(1)
    count = positive.sum(1) * negative.sum(1)
    anchors = count > 0
    return (sums / count.clamp(min=1)).sum() / anchors.sum().clamp(min=1)


def _cosines(features: Tensor) -> Tensor:
    rows = at_least_float32(features)
    directions = rows / (rows.square().sum(dim=1, keepdim=True) + TINY).sqrt()
    return product(directions, directions.T)


def _distances(targets: Tensor, decimals: int | None) -> Tensor:
    """(rows, rows): |y_a - y_n|, exactly 0 where two targets are equal after rounding."""
    values = targets.reshape(len(targets), -1)
    # Sentiment scores are means of a few ratings: equal scores may differ in their last bits after float arithmetic.
    if decimals is not None:
        values = values.round(decimals=decimals)
    return (values[:, None] - values[None]).abs().sum(dim=2)


def _sets(same: Tensor, pairs: str, groups: Tensor | None, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Masks of the sets P and Q of each anchor, (anchors, rows) each."""
    positive, negative = same.clone().fill_diagonal_(False), ~same
    if pairs == "paper" and groups is not None:
        same_group = groups[:, None] == groups[None]
        positive, negative = positive & ~same_group, negative & same_group
    if valid is not None:
        both_valid = valid[:, None] & valid[None]
        positive, negative = positive & both_valid, negative & both_valid
    return positive, negative


def _check(features: Tensor, targets: Tensor, pairs: str, groups: Tensor | None) -> None:
    if features.ndim != 2 or len(targets) != len(features):
        raise ValueError(
            f"features have shape {tuple(features.shape)} and targets {tuple(targets.shape)}: expected (rows, width) "
            "and one target per row."
        )
    if pairs not in PAIRS:
        raise ValueError(f"pairs is '{pairs}': expected code or paper")
    if pairs == "paper" and groups is None:
        raise ValueError("pairs='paper' compares modalities: expected groups, the modality of each row, got None.")
