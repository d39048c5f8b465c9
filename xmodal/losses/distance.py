"""Distances between two networks' features or outputs that compare moments, sorted values or directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.reduce import at_least_float32, reduced, same_shape


def cmd(student: Tensor, teacher: Tensor, *, moments: int = 5) -> Tensor:
    r"""Central moment discrepancy: difference of the means, variances, third moments, … of two sets of rows.

    Rows are not compared one by one, so they need not be paired, and their numbers may differ.

    $$L = \left\| \mathrm{E} s - \mathrm{E} t \right\| + \sum_{k=2}^{K} \left\| \mathrm{E} (s - \mathrm{E} s)^k
    - \mathrm{E} (t - \mathrm{E} t)^k \right\|$$

    | symbol | argument | shape |
    |---|---|---|
    | s, t | ``student``, ``teacher`` | (rows, …), flattened; E is the mean over rows |
    | K | ``moments`` | whole number |

    The paper divides the k-th term by the k-th power of the range of the features. The code of the non-target
    divergence papers does not, and neither does this function. That code has a nan gradient for equal inputs; here it
    is 0.

    Example:
        >>> cmd(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [7.0]]), moments=2).item()
        7.0

    Reference: Zellinger et al.: Central Moment Discrepancy (CMD) for Domain-Invariant Representation Learning,
    2017, equation 9.
    """
    # Only the widths must agree; `same_shape` is called for its message.
    if student.shape[1:] != teacher.shape[1:]:
        same_shape(student, teacher)
    s, t = at_least_float32(student).flatten(1), at_least_float32(teacher).flatten(1)
    parts = [_length(s.mean(dim=0) - t.mean(dim=0))]
    s, t = s - s.mean(dim=0), t - t.mean(dim=0)
    parts += [_length((s**k).mean(dim=0) - (t**k).mean(dim=0)) for k in range(2, moments + 1)]
    return torch.stack(parts).sum()


def cmd_softmax(student: Tensor, teacher: Tensor, *, moments: int = 5) -> Tensor:
    r"""`cmd` of the class probabilities, the "output CMD" of the non-target divergence papers.

    $$L = \mathrm{CMD}_K\left(\mathrm{softmax}(s), \mathrm{softmax}(t)\right)$$

    Args:
        student: s, logits (rows, classes).
        teacher: t, logits with as many classes.
        moments: K.

    Example:
        >>> round(cmd_softmax(torch.tensor([[60.0, 0.0]]), torch.tensor([[0.0, 60.0]])).item(), 4)
        1.4142
    """
    p_s, p_t = (F.softmax(at_least_float32(side), dim=1) for side in (student, teacher))
    return cmd(p_s, p_t, moments=moments)


def kl_distance(
    student: Tensor, teacher: Tensor, *, upper: float = 1.0, lower: float = 0.0, reduction: str = "batchmean"
) -> Tensor:
    r"""Reverse KL divergence between student and teacher, clipped to [0, 1].

    $$d = \tfrac1C \mathrm{KL}(q \| p), \qquad L = \min\left(1, \; d \, \mathbf{1}[d \ge l] / u\right)$$

    The direction is the reverse of `kl`: p are the teacher's probabilities, q the student's. The authors' code returns
    it detached, as a weight; here it carries a gradient wherever it is not clipped.

    Args:
        student: logits (rows, classes, …) of q.
        teacher: logits of p, the same shape.
        upper: u, distances of u or more become 1.
        lower: l, distances below l become 0.
        reduction: ``batchmean`` or ``none`` (rows, …).

    Example:
        >>> round(kl_distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item(), 4)
        0.7616
    """
    same_shape(student, teacher)
    log_q, log_p = (F.log_softmax(at_least_float32(side), dim=1) for side in (student, teacher))
    values = (log_q.exp() * (log_q - log_p)).sum(dim=1) / student.shape[1]
    return reduced((values * (values >= lower) / upper).clamp(max=1.0), reduction)


def emd(
    student: Tensor, teacher: Tensor, *, squash: bool = False, floor: float = 0.02, reduction: str = "batchmean"
) -> Tensor:
    r"""Earth mover's distance between the values of each row, regardless of which class has which value.

    $$L = \tfrac1C \sum_k \left| s_{(k)} - t_{(k)} \right|$$

    with values sorted in ascending order. The authors' code returns its logistic function, sets results below 0.02 to 0
    (which cannot happen, because the smallest is ½) and has no gradient: ``squash=True`` gives the same values.

    Args:
        student: s (rows, …).
        teacher: t, the same shape.
        squash: whether to apply the logistic function and ``floor``; the smallest value is then ½.
        floor: squashed values below it become 0.
        reduction: ``batchmean`` or ``none`` (rows,).

    Example:
        >>> emd(torch.tensor([[1.0, 3.0]]), torch.tensor([[3.0, 2.0]])).item()
        0.5
    """
    same_shape(student, teacher)
    s, t = (at_least_float32(side).flatten(1).sort(dim=1).values for side in (student, teacher))
    values = (s - t).abs().mean(dim=1)
    return reduced(F.threshold(values.sigmoid(), floor, 0.0) if squash else values, reduction)


def simse(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared mean of the difference: the part of `mse` that is due to a common offset.

    $$L = \left(\tfrac1n \sum_i (s_i - t_i)\right)^2$$

    `mse` minus this term is the scale-invariant error of the domain separation networks. The term alone is 0 whenever
    the differences cancel.

    Args:
        student: s (rows, …).
        teacher: t, the same shape.

    Example:
        >>> simse(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])).item()
        2.25

    Reference: Bousmalis et al.: Domain Separation Networks, 2016, equation 6, second term.
    """
    same_shape(student, teacher)
    return (at_least_float32(student) - at_least_float32(teacher)).mean().square()


def diff_loss(student: Tensor, teacher: Tensor, *, eps: float = 1e-6, detach_norms: bool = True) -> Tensor:
    r"""Difference loss: make two sets of features orthogonal.

    $$L = \frac{1}{D_s D_t} \left\| \hat S^\top \hat T \right\|_F^2, \qquad
    \hat f_i = \frac{f_i - \bar f}{\| f_i - \bar f \| + \epsilon}$$

    It is 0 when every centred student feature is orthogonal, over the batch, to every teacher feature. For equal
    features it is largest, not zero: it separates features and does not distil them. Widths may differ.

    Args:
        student: f of the student (rows, …), flattened to D_s.
        teacher: f of the teacher (rows, …), flattened to D_t.
        eps: ε, keeps rows of zeros at zero.
        detach_norms: whether the lengths of the rows are constants for the gradient, as in the authors' code.

    Example:
        >>> round(diff_loss(torch.tensor([[1.0], [-1.0]]), torch.tensor([[3.0], [-3.0]])).item(), 4)
        4.0
        >>> round(diff_loss(torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([[1.0], [1.0], [-2.0]])).item(), 4)
        0.0

    Reference: Bousmalis et al.: Domain Separation Networks, 2016, equation 7.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"The student's features have shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}: "
            "expected the same number of rows."
        )
    s, t = (_unit_rows(at_least_float32(side).flatten(1), eps, detach_norms) for side in (student, teacher))
    return (s.T @ t).square().mean()


def _unit_rows(features: Tensor, eps: float, detach: bool) -> Tensor:
    centred = features - features.mean(dim=0)
    norms: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return centred / ((norms.detach() if detach else norms) + eps)


def _length(vector: Tensor) -> Tensor:
    """Euclidean length, with a gradient of zero at zero."""
    # Scaled by the largest entry, because the square of a fifth moment overflows float32 for features beyond 7,000.
    largest = vector.detach().abs().amax()
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    length: Tensor = torch.linalg.vector_norm(vector / scale)
    return scale * length
