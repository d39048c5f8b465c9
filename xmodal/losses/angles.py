r"""Angles between differences of rows, computed from the inner products of the rows alone.

With the Gram matrix G of the rows,

$$\langle f_j - f_i, f_k - f_i \rangle = G_{jk} - G_{ij} - G_{ik} + G_{ii}$$

so the B³ cosines cost a few operations each instead of a product over D features, and anchors i are processed in small
groups: memory stays near B². The four terms nearly cancel for rows that are close to each other, so Gram matrices are
float64 wherever the device supports it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Number of cosines per group of anchors: a few blocks of this size (2 MiB in float64) fit into a processor's cache.
BLOCK = 2**18
# Squared distances below this fraction of the squared lengths are rounding noise: float64 has an epsilon of 2e-16, and
# the sum of a few hundred products loses two to three digits of it.
EQUAL = 1e-13


def centred_gram(rows: Tensor) -> Tensor:
    """Inner products of the rows (B, width) after their mean is subtracted; distances and angles do not change."""
    # Centring first keeps digits: a large common offset would dominate every inner product and cancel later.
    # Apple's GPUs (mps) have no float64.
    wide = rows if rows.device.type == "mps" else rows.double()
    # The mean is a constant for the gradient, which changes nothing: the gradients of all differences sum to zero.
    wide = wide - wide.detach().mean(dim=0)
    with torch.autocast(rows.device.type, enabled=False):
        return wide @ wide.T


def squared_distances(gram: Tensor) -> Tensor:
    """Squared distances of all pairs of rows; exactly 0, without gradient, where two rows are equal.

    Example:
        >>> squared_distances(centred_gram(torch.tensor([[0.0], [3.0], [3.0]]))).tolist()
        [[0.0, 9.0, 9.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0]]
    """
    lengths = gram.diagonal()
    sums = lengths[:, None] + lengths[None, :]
    squared = sums - 2 * gram
    return torch.where(squared > EQUAL * sums, squared, 0.0)


class AngleDistance(torch.autograd.Function):
    """Mean Huber distance over all B³ cosines of two Gram matrices, with gradients computed during the forward pass.

    Storing the cosines for a backward pass would need B³ numbers per step of the formula. The gradient with respect
    to a Gram matrix has only B² entries and is complete at the end of the forward pass.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar distance of two Gram matrices (B, B)."""
        sides = [_Cosines(student), _Cosines(teacher)]
        rows, total = len(student), student.new_zeros(())
        step = max(BLOCK // max(rows, 1) ** 2, 1)
        for start in range(0, rows, step):
            anchors = torch.arange(start, min(start + step, rows), device=student.device)
            cosines = [side.from_anchors(anchors) for side in sides]
            difference = cosines[0] - cosines[1]
            # Huber: d²/2 up to 1, |d| - 1/2 beyond. Both are s·d - s²/2 with the slope s = clamp(d), which is also
            # the gradient, so no branch is needed and the block is read once.
            slope = difference.clamp(-1, 1)
            total += _dot(slope, difference) - 0.5 * _dot(slope, slope)
            for side, cosine, sign, needed in zip(sides, cosines, (1, -1), ctx.needs_input_grad, strict=True):
                if needed:
                    side.collect(anchors, cosine, slope if sign > 0 else -slope)
        count = max(rows, 1) ** 3
        ctx.save_for_backward(*(side.gradient() / count for side in sides))
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients with respect to both Gram matrices."""
        student, teacher = ctx.saved_tensors
        return gradient * student, gradient * teacher


class _Cosines:
    """Cosines of one network, and the gradient with respect to its Gram matrix, accumulated over groups of anchors."""

    def __init__(self, gram: Tensor) -> None:
        self.gram = gram
        squared = squared_distances(gram)
        # Two equal rows have no direction between them: cosine 0 and no gradient, instead of 1/0.
        self.inverse = torch.where(squared > 0, squared, 1.0).rsqrt() * (squared > 0)
        self.inner = torch.zeros_like(gram)  # gradient of ⟨f_j - f_i, f_k - f_i⟩, summed over anchors i
        self.outer = torch.zeros_like(gram)  # gradient of the same, summed over k
        self.lengths = torch.zeros_like(gram)  # gradient of ‖f_j - f_i‖²

    def from_anchors(self, anchors: Tensor) -> Tensor:
        """Cosines (anchors, B, B) of the angles at some anchors."""
        from_anchor, inverse = self.gram[anchors], self.inverse[anchors]
        diagonal = from_anchor.gather(1, anchors[:, None])  # G_ii
        products = self.gram - (from_anchor - diagonal)[:, :, None]
        products -= from_anchor[:, None, :]
        return products.mul_(inverse[:, :, None]).mul_(inverse[:, None, :])

    def collect(self, anchors: Tensor, cosines: Tensor, slope: Tensor) -> None:
        """Add the contribution of some anchors; ``slope`` is the gradient with respect to their cosines."""
        inverse = self.inverse[anchors]
        self.lengths[anchors] = -inverse.square() * (slope * cosines).sum(dim=2)
        by_product = (slope * inverse[:, :, None]).mul_(inverse[:, None, :])
        self.inner += by_product.sum(dim=0)
        self.outer[anchors] = by_product.sum(dim=2)

    def gradient(self) -> Tensor:
        """Gradient with respect to the Gram matrix, which enters both the products and the lengths."""
        off_diagonal = -2 * self.outer - 2 * self.lengths
        diagonal = self.outer.sum(dim=1) + self.lengths.sum(dim=1) + self.lengths.sum(dim=0)
        return self.inner + off_diagonal + diagonal.diag()


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return left.flatten() @ right.flatten()
