"""Sample masks: distil where the teacher is correct, or where student and teacher make the same mistake."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from xmodal.losses.decoupled import dkd
from xmodal.losses.logits import kl
from xmodal.losses.reduce import at_least_float32, check_target, same_shape
from xmodal.losses.task import filled, rows_as


def prediction_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Cosine of the raw logits of each row, (rows, classes, …) to (rows, …).

    Example:
        >>> import torch
        >>> prediction_similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item()
        0.0
    """
    same_shape(student, teacher)
    return F.cosine_similarity(at_least_float32(student), at_least_float32(teacher), dim=1)


def pssm(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.996,
    detach: bool = True,
    ignore: int | None = None,
    labelled: Tensor | None = None,
) -> Tensor:
    r"""Prediction-similarity sample mask (PSSM): a weight for each sample of a teacher of another modality.

    The weight is 1 where the teacher is correct. Where it is wrong, the sample is used only if the student's logits
    have almost the same direction. Without a label it is not known whether the teacher is correct: then the direction
    alone decides, as for a wrong teacher.

    $$\omega_i = \begin{cases} 1 & \arg\max_k t_{ik} = y_i \\ \tfrac12 (1 + c_i) & \text{else, if } c_i \ge \theta
    \\ 0 & \text{else} \end{cases}, \qquad c_i = \cos(s_i, t_i)$$

    | symbol | argument | shape |
    |---|---|---|
    | s, t | ``student``, ``teacher`` | (rows, classes, …), raw logits |
    | y | ``target`` | (rows, …), class numbers |
    | θ | ``threshold`` | number |
    | ω | returned | (rows, …) |

    Args:
        student: s.
        teacher: t, the same shape.
        target: y.
        threshold: θ.
        detach: True: ω is a constant. In the authors' code a gradient flows through c of the kept samples.
        ignore: target value of unlabelled positions: the teacher counts as wrong there, unless it predicts that number.
        labelled: (rows,), which rows have a label; None: all.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
        >>> pssm(torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), teacher, torch.tensor([0, 0, 0])).tolist()
        [1.0, 1.0, 0.0]

    Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; read from the authors' code.
    """
    cosine = prediction_similarity(student, teacher)
    known = target if labelled is None else filled(target, labelled)
    # 255, a usual value of `ignore`, is no class: replaced by a valid class for the check alone.
    check_target(teacher, known if ignore is None else known.masked_fill(known == ignore, 0))
    where_wrong = (cosine + 1) / 2 * (cosine >= threshold)
    right = teacher.argmax(dim=1) == known
    if labelled is not None:
        right = right & rows_as(labelled, right)
    omega = where_wrong.masked_fill(right, 1.0)
    return omega.detach() if detach else omega


def kl_pssm(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    threshold: float = 0.996,
    detach: bool = True,
    scale: str = "none",
    reduction: str = "batchmean",
) -> Tensor:
    r"""`kl` with the prediction-similarity mask: ω multiplies the logits of both networks.

    At ω = 0 both distributions are uniform and the sample contributes 0; the divisor still counts it.

    $$L = \mathrm{KL}\left(\mathrm{softmax}(\omega t / \tau) \,\|\, \mathrm{softmax}(\omega s / \tau)\right)$$

    Symbols and arguments as in `pssm` and `kl`. The authors' code has no factor τ² and lets gradients pass through ω
    (``detach=False``).

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[0.0, 2.0], [2.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> round(kl_pssm(student, teacher, torch.tensor([0, 0])).item(), 4)
        0.7616

    Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; read from the authors' code.
    """
    omega = pssm(student, teacher, target, threshold=threshold, detach=detach).unsqueeze(1)
    s, t = at_least_float32(student), at_least_float32(teacher)
    return kl(omega * s, omega * t, temperature=temperature, scale=scale, reduction=reduction)


def dkd_pssm(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    temperature: float = 0.7,
    threshold: float = 0.996,
    detach: bool = True,
    reduction: str = "batchmean",
) -> Tensor:
    r"""`dkd` with the prediction-similarity mask: ω multiplies each sample's contribution.

    $$L = \omega \, \tau^2 \left[\alpha \, \mathrm{KL}(b^t \| b^s) + \beta \, \mathrm{KL}(q^t \| q^s)\right]$$

    Symbols and arguments as in `pssm` and `dkd`; the defaults are those of the paper's Gaussian experiment. The
    authors' code lets gradients pass through ω (``detach=False``).

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[0.0, 2.0], [2.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> round(dkd_pssm(student, teacher, torch.tensor([0, 0])).item(), 4)
        0.624

    Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; read from the authors' code.
    """
    omega = pssm(student, teacher, target, threshold=threshold, detach=detach)
    return dkd(
        student, teacher, target, alpha=alpha, beta=beta, temperature=temperature, weight=omega, reduction=reduction
    )
