"""Contrastive representation distillation: tell the teacher's view of the same sample from its views of others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.collectives import gather_rows
from xmodal.errors import InputError
from xmodal.losses.reduce import at_least_float32
from xmodal.losses.shapes import full_precision, product


class CRD(nn.Module):
    r"""Contrastive representation distillation (CRD).

    Both networks' features are embedded on a sphere. Each side's embedding of a sample is scored against what the
    other side's memory holds of the same sample (index 0) and of K others; noise-contrastive estimation asks to tell
    them apart.

    $$o_{ij} = \frac{\exp(\langle m_{c_{ij}}, v_i \rangle / \tau)}{Z}, \quad h(o) = -\tfrac{1}{B} \sum_i \left[\ln
    \frac{o_{i0}}{o_{i0} + K/n + \varepsilon} + \sum_{j=1}^{K} \ln \frac{K/n}{o_{ij} + K/n + \varepsilon}\right],
    \quad L = h(o^s) + h(o^t)$$

    Z is n times the mean of the first batch's exponentials and stays. After each training batch the memory of its
    rows moves to ``momentum`` · old + (1 − ``momentum``) · new, at length 1. In eval mode nothing is remembered.

    Others are drawn from all rows (with replacement, its own row not excluded), as in the authors' "relaxed" mode;
    in their "exact" one from the rows of other classes. Which ones depends on the seed, the sample's row and the number
    of the step alone, so several processes draw what one would. The NTDH code never trains the embeddings; here they
    are parameters. Memories and Z are buffers: they follow the device and are saved with the
    rest. Several processes remember the rows of all.

    Args:
        student_shape: of one sample's features, flattened before embedding.
        teacher_shape: likewise.
        rows: n, of the training split.
        width: of the embeddings.
        negatives: K, how many others are drawn.
        temperature: τ.
        momentum: share of the old memory that stays.
        eps: ε.
        exact: draw others from the rows of other classes alone.
        learned: train the embeddings; False leaves them as they were drawn.
        labels: class of each of the n rows, for ``exact``.

    Example:
        >>> crd = CRD((4,), (6,), rows=10, width=3, negatives=5)
        >>> loss = crd(torch.ones(2, 4), torch.ones(2, 6), rows=torch.tensor([7, 1]))
        >>> loss.ndim, loss.item() > 0, sorted(dict(crd.named_buffers()))[2:4]
        (0, True, ['memory_student', 'memory_teacher'])

    Reference: Tian, Krishnan, Isola: Contrastive Representation Distillation, 2020, equations 13 to 19.
    """

    memory_student: Tensor
    memory_teacher: Tensor
    log_normaliser_student: Tensor
    log_normaliser_teacher: Tensor
    seed: Tensor
    step: Tensor
    by_class: Tensor
    bounds: Tensor

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        rows: int,
        width: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        eps: float = 1e-7,
        exact: bool = False,
        learned: bool = True,
        labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.embed_student = nn.Linear(math.prod(student_shape), width)
        self.embed_teacher = nn.Linear(math.prod(teacher_shape), width)
        self.rows, self.negatives = rows, negatives
        self.temperature, self.momentum, self.eps = temperature, momentum, eps
        bound = math.sqrt(3 / width)
        for side in ("student", "teacher"):
            self.register_buffer(f"memory_{side}", torch.empty(rows, width).uniform_(-bound, bound))
            self.register_buffer(f"log_normaliser_{side}", torch.tensor(-math.inf))  # Z = 0: not fixed yet
        for embedding in (self.embed_student, self.embed_teacher):
            embedding.requires_grad_(learned)
        self.exact = exact
        if exact:
            self._remember_classes(labels)
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        rows: Tensor,
        contrast: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Contrast one batch and, in training mode, remember it.

        Args:
            student: features (batch, …).
            teacher: features (batch, …).
            rows: place of each sample in the training split (batch,), integers below n.
            contrast: rows to compare with (batch, 1 + K), the sample's own first; None draws them.
            weight: how much each sample counts (batch,); all are remembered.
        """
        self._check(student, teacher, rows, contrast)
        rows = rows.to(student.device)
        chosen = self.draw(rows) if contrast is None else contrast.to(student.device)
        s = embed(self.embed_student, student)
        t = embed(self.embed_teacher, teacher)
        loss = self._side(s, self.memory_teacher, self.log_normaliser_student, chosen, weight)
        loss = loss + self._side(t, self.memory_student, self.log_normaliser_teacher, chosen, weight)
        if self.training:
            self.step += 1
            self._remember(rows, s.detach(), t.detach())
        return loss

    def draw(self, rows: Tensor) -> Tensor:
        """Each sample's own row and K drawn ones (batch, 1 + K)."""
        place = torch.arange(self.negatives, device=rows.device)
        numbers = scrambled(self.seed.to(rows.device) + self.step.to(rows.device), rows[:, None], place)
        others = self._of_other_classes(rows, numbers) if self.exact else numbers % self.rows
        return torch.cat([rows[:, None], others], dim=1)

    def _remember_classes(self, labels: Tensor | None) -> None:
        """Rows in the order of their classes, and where the class of each row begins and ends there."""
        if labels is None or labels.shape != (self.rows,) or int((labels.bincount() > 0).sum()) < 2:
            raise InputError(
                f"To draw from other classes CRD needs the classes of its {self.rows} rows, two or more: "
                f"{'none were' if labels is None else f'labels of shape {tuple(labels.shape)} were'} given."
            )
        counts = labels.bincount()
        ends = counts.cumsum(0)[labels]
        self.register_buffer("by_class", labels.argsort(stable=True), persistent=False)
        self.register_buffer("bounds", torch.stack([ends - counts[labels], ends], dim=1), persistent=False)

    def _of_other_classes(self, rows: Tensor, numbers: Tensor) -> Tensor:
        """Large numbers (batch, K) as rows of classes other than each sample's."""
        first, end = self.bounds.to(rows.device)[rows].unsqueeze(2).unbind(dim=1)
        places = numbers % (self.rows - (end - first))
        return self.by_class.to(rows.device)[torch.where(places < first, places, places + end - first)]

    def _side(
        self, embedded: Tensor, memory: Tensor, log_normaliser: Tensor, chosen: Tensor, weight: Tensor | None
    ) -> Tensor:
        """One side's embeddings against the other side's memory."""
        # a copy, for its rows change before the backward pass; all products cost less than 1 + K gathered vectors
        scores = product(embedded, memory.clone().T).gather(1, chosen) / self.temperature
        log_scores = scores - self._fixed(log_normaliser, scores.detach())
        return noise_contrast(log_scores, rows=self.rows, eps=self.eps, weight=weight)

    def _fixed(self, log_normaliser: Tensor, scores: Tensor) -> Tensor:
        """Ln Z: of this batch, of all processes, where there was none before."""
        if log_normaliser > -math.inf:
            return log_normaliser
        of_rows = gather_rows(scores.logsumexp(dim=1))
        fixed = of_rows.logsumexp(dim=0) - math.log(len(of_rows) * scores.shape[1]) + math.log(self.rows)
        if self.training:
            log_normaliser.copy_(fixed)
        return fixed

    @torch.no_grad()
    def _remember(self, rows: Tensor, student: Tensor, teacher: Tensor) -> None:
        everywhere = gather_rows(rows)
        for bank, embedded in ((self.memory_student, student), (self.memory_teacher, teacher)):
            moved = self.momentum * bank[everywhere] + (1 - self.momentum) * gather_rows(embedded)
            bank.index_copy_(0, everywhere, F.normalize(moved, dim=1))

    def _check(self, student: Tensor, teacher: Tensor, rows: Tensor, contrast: Tensor | None) -> None:
        if not len(student) == len(teacher) == len(rows):
            raise ValueError(
                f"The student's features have shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}, and "
                f"there are {len(rows)} rows: expected as many of each."
            )
        given = rows if contrast is None else torch.cat([rows, contrast.flatten()])
        if len(given) and not 0 <= int(given.min()) <= int(given.max()) < self.rows:
            raise InputError(
                f"Rows reach from {int(given.min())} to {int(given.max())}, and the memory holds {self.rows}: build "
                "CRD with the number of rows of the training split."
            )


def embed(layer: nn.Linear, features: Tensor) -> Tensor:
    """Features (rows, …) as points on a sphere (rows, width)."""
    with full_precision(features):
        return F.normalize(layer(at_least_float32(features).flatten(1).to(layer.weight.dtype)), dim=1)


def scrambled(*keys: Tensor) -> Tensor:
    """Numbers from 0 to 2⁶² that look drawn, each a function of its keys (integers, broadcast) alone.

    Example:
        >>> numbers = scrambled(torch.tensor(3), torch.arange(1000)) % 10
        >>> numbers.bincount().min().item() > 70
        True
    """
    found = torch.zeros((), dtype=torch.long, device=keys[0].device)
    for key in keys:  # the finaliser of MurmurHash3 in 64 bits, where products wrap; shifts are made unsigned
        found = found + (key + 1) * -7046029254386353131
        for factor in (-49064778989728563, -4265267296055464877):
            found = (found ^ ((found >> 33) & (2**31 - 1))) * factor
        found = found ^ ((found >> 33) & (2**31 - 1))
    return found & (2**62 - 1)


def noise_contrast(log_scores: Tensor, *, rows: int, eps: float = 1e-7, weight: Tensor | None = None) -> Tensor:
    r"""Noise-contrastive estimation of one match among K others, in log space.

    $$h = \tfrac{1}{B} \sum_i \left[\mathrm{softplus}(\ln c - \ln o_{i0}) + \sum_{j=1}^{K}
    \mathrm{softplus}(\ln o_{ij} - \ln c) + K \ln \frac{c}{K / n}\right], \quad c = \tfrac{K}{n} + \varepsilon$$

    Args:
        log_scores: ln o (rows, 1 + K), the match first.
        rows: n.
        eps: ε.
        weight: how much each of the B rows counts; the divisor stays B.

    Example:
        >>> round(noise_contrast(torch.zeros(1, 2), rows=1, eps=0.0).item(), 4)
        1.3863
    """
    negatives = log_scores.shape[1] - 1
    noise = negatives / rows
    level = math.log(noise + eps)
    match = F.softplus(level - log_scores[:, 0])
    others = F.softplus(log_scores[:, 1:] - level).sum(dim=1)
    values = match + others + negatives * (level - (math.log(noise) if negatives else level))
    return (values if weight is None else values * weight).mean()
