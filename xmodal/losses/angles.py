r"""Angles between differences of rows, from the rows' inner products alone.

With the Gram matrix G of the rows,

$$\langle f_j - f_i, f_k - f_i \rangle = G_{jk} - G_{ij} - G_{ik} + G_{ii}$$

so B³ cosines cost B³ numbers instead of B³ × D products, and anchors i are taken a few at a time: memory stays near
B². Sums of products that nearly cancel need digits: Gram matrices are float64 wherever the device has it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2**18  # cosines held at a time: a few such blocks stay in a processor's cache
EQUAL = 1e-13  # squared distance, in units of the squared lengths, below which rounding is all there is


def centred_gram(rows: Tensor) -> Tensor:
    """Inner products of the rows (B, width) after their mean is subtracted, which no distance or angle notices."""
    wide = rows if rows.device.type == "mps" else rows.double()
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
    """Mean Huber distance over all B³ cosines, of two Gram matrices; their gradients are found along the way.

    Keeping the cosines for a backward pass would need B³ numbers per step of the formula; the gradient with respect
    to a Gram matrix has B², and is finished when the value is.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        """Both (B, B) in, a scalar out."""
        sides = [_Cosines(student), _Cosines(teacher)]
        rows, total = len(student), student.new_zeros(())
        step = max(BLOCK // max(rows, 1) ** 2, 1)
        for start in range(0, rows, step):
            anchors = torch.arange(start, min(start + step, rows), device=student.device)
            cosines = [side.seen_from(anchors) for side in sides]
            difference = cosines[0] - cosines[1]
            slope = difference.clamp(-1, 1)
            total += _dot(slope, difference) - 0.5 * _dot(slope, slope)  # Huber: d²/2 up to 1, |d| - 1/2 beyond
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
    """Cosines of one network, and the gradient with respect to its Gram matrix so far."""

    def __init__(self, gram: Tensor) -> None:
        self.gram = gram
        squared = squared_distances(gram)
        self.inverse = torch.where(squared > 0, squared, 1.0).rsqrt() * (squared > 0)
        self.inner = torch.zeros_like(gram)  # with respect to ⟨f_j - f_i, f_k - f_i⟩, summed over anchors i
        self.outer = torch.zeros_like(gram)  # the same, summed over k
        self.lengths = torch.zeros_like(gram)  # with respect to ‖f_j - f_i‖²

    def seen_from(self, anchors: Tensor) -> Tensor:
        """(anchors, B, B)."""
        from_anchor, inverse = self.gram[anchors], self.inverse[anchors]
        own = from_anchor.gather(1, anchors[:, None])  # G_ii
        products = self.gram - (from_anchor - own)[:, :, None]
        products -= from_anchor[:, None, :]
        return products.mul_(inverse[:, :, None]).mul_(inverse[:, None, :])

    def collect(self, anchors: Tensor, cosines: Tensor, slope: Tensor) -> None:
        """Add what some anchors contribute; ``slope`` is the gradient with respect to their cosines."""
        inverse = self.inverse[anchors]
        self.lengths[anchors] = -inverse.square() * (slope * cosines).sum(dim=2)
        by_product = (slope * inverse[:, :, None]).mul_(inverse[:, None, :])
        self.inner += by_product.sum(dim=0)
        self.outer[anchors] = by_product.sum(dim=2)

    def gradient(self) -> Tensor:
        """With respect to the Gram matrix, which enters products and lengths."""
        through = -2 * self.outer - 2 * self.lengths
        own = self.outer.sum(dim=1) + self.lengths.sum(dim=1) + self.lengths.sum(dim=0)
        return self.inner + through + own.diag()


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return left.flatten() @ right.flatten()
