"""Contrastive representation distillation: tell the teacher's features of a sample from those of other samples."""

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

    Both networks' features are embedded on a unit sphere. Each network's embedding of a sample is scored against the
    other network's stored embeddings of the same sample (index 0) and of K other samples. Noise-contrastive estimation
    trains the embeddings to distinguish the first from the others.

    $$o_{ij} = \frac{\exp(\langle m_{c_{ij}}, v_i \rangle / \tau)}{Z}, \quad h(o) = -\tfrac{1}{B} \sum_i \left[\ln
    \frac{o_{i0}}{o_{i0} + K/n + \varepsilon} + \sum_{j=1}^{K} \ln \frac{K/n}{o_{ij} + K/n + \varepsilon}\right],
    \quad L = h(o^s) + h(o^t)$$

    Z is n times the mean of the first batch's exponentials and is then fixed. After each training batch the stored
    embeddings of its rows become ``momentum`` · old + (1 − ``momentum``) · new, rescaled to length 1. In eval mode
    nothing is stored.

    The K others are drawn from all rows (with replacement, the sample's own row included), as in the authors' "relaxed"
    mode, or from the rows of other classes, as in their "exact" mode. The draw depends only on the seed, the sample's
    row and the step number, so several processes draw the same rows as a single one. The NTDH code never trains the
    embeddings; here they are parameters. Memories and Z are buffers: they follow the device and are saved with the
    module. With several processes each stores the rows of all.

    Args:
        student_shape: shape of the student's features of one sample, flattened before embedding.
        teacher_shape: shape of the teacher's features of one sample.
        rows: n, number of rows of the training split.
        width: width of the embeddings.
        negatives: K, number of other rows drawn per sample.
        temperature: τ.
        momentum: weight of the old embedding in the memory.
        eps: ε.
        exact: draw the others only from rows of other classes.
        learned: train the embeddings; False leaves them at their initial values.
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
        # A vector of uniform values within ±sqrt(3 / width) has an expected squared length of 1, like the normalised
        # embeddings that replace it; the bound is that of the authors' code.
        bound = math.sqrt(3 / width)
        for side in ("student", "teacher"):
            self.register_buffer(f"memory_{side}", torch.empty(rows, width).uniform_(-bound, bound))
            # ln Z = -inf, that is Z = 0, marks a normaliser that is not fixed yet. It is a buffer, so that a resumed
            # run keeps the value of its first batch.
            self.register_buffer(f"log_normaliser_{side}", torch.tensor(-math.inf))
        for embedding in (self.embed_student, self.embed_teacher):
            embedding.requires_grad_(learned)
        self.exact = exact
        if exact:
            self._index_classes(labels)
        # The seed is drawn last: the parameters above then do not depend on how negatives are drawn.
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
        """Compute the loss of one batch and, in training mode, store its embeddings.

        Args:
            student: features (batch, …).
            teacher: features (batch, …).
            rows: row number of each sample in the training split (batch,), integers below n.
            contrast: rows to compare with (batch, 1 + K), the sample's own row first; None draws them.
            weight: weight of each sample (batch,); embeddings of weight 0 are stored too.
        """
        self._check(student, teacher, rows, contrast)
        rows = rows.to(student.device)
        compared = self.draw(rows) if contrast is None else contrast.to(student.device)
        s = embed(self.embed_student, student)
        t = embed(self.embed_teacher, teacher)
        loss = self._one_side(s, self.memory_teacher, self.log_normaliser_student, compared, weight)
        loss = loss + self._one_side(t, self.memory_student, self.log_normaliser_teacher, compared, weight)
        # Stored only after both sides are scored: a sample must not be compared with its embedding of this very step.
        if self.training:
            self.step += 1
            self._store(rows, s.detach(), t.detach())
        return loss

    def draw(self, rows: Tensor) -> Tensor:
        """The sample's own row followed by K drawn rows (batch, 1 + K)."""
        # A hash instead of a random generator: a generator's draws would depend on which process holds which samples.
        position = torch.arange(self.negatives, device=rows.device)
        numbers = scrambled(self.seed.to(rows.device) + self.step.to(rows.device), rows[:, None], position)
        others = self._of_other_classes(rows, numbers) if self.exact else numbers % self.rows
        return torch.cat([rows[:, None], others], dim=1)

    def _index_classes(self, labels: Tensor | None) -> None:
        """Sort the rows by class, and keep where the class of each row begins and ends in that order."""
        if labels is None or labels.shape != (self.rows,) or int((labels.bincount() > 0).sum()) < 2:
            raise InputError(
                f"exact=True draws from other classes and needs the class of each of the {self.rows} rows, with two "
                f"classes or more: got {'no labels' if labels is None else f'labels of shape {tuple(labels.shape)}'}."
            )
        counts = labels.bincount()
        ends = counts.cumsum(0)[labels]
        # Not saved with the module: both follow from the labels of the data.
        self.register_buffer("by_class", labels.argsort(stable=True), persistent=False)
        self.register_buffer("bounds", torch.stack([ends - counts[labels], ends], dim=1), persistent=False)

    def _of_other_classes(self, rows: Tensor, numbers: Tensor) -> Tensor:
        """Map large integers (batch, K) to rows of classes other than each sample's."""
        first, end = self.bounds.to(rows.device)[rows].unsqueeze(2).unbind(dim=1)
        positions = numbers % (self.rows - (end - first))
        return self.by_class.to(rows.device)[torch.where(positions < first, positions, positions + end - first)]

    def _one_side(
        self, embedded: Tensor, memory: Tensor, log_normaliser: Tensor, compared: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Loss of one network's embeddings against the other network's memory."""
        # A copy, because the memory's rows change before the backward pass. One product with all n rows costs less than
        # gathering 1 + K vectors per sample.
        scores = product(embedded, memory.clone().T).gather(1, compared) / self.temperature
        log_scores = scores - self._log_normaliser(log_normaliser, scores.detach())
        return noise_contrast(log_scores, rows=self.rows, eps=self.eps, weight=weight)

    def _log_normaliser(self, stored: Tensor, scores: Tensor) -> Tensor:
        """Ln Z: the stored value, or that of this batch over all processes where none is stored yet."""
        if stored > -math.inf:
            return stored
        per_row = gather_rows(scores.logsumexp(dim=1))
        value = per_row.logsumexp(dim=0) - math.log(len(per_row) * scores.shape[1]) + math.log(self.rows)
        # An evaluation before the first training step must not fix Z for the training that follows.
        if self.training:
            stored.copy_(value)
        return value

    @torch.no_grad()
    def _store(self, rows: Tensor, student: Tensor, teacher: Tensor) -> None:
        # Every process stores the rows of all: otherwise the memories would differ between processes.
        all_rows = gather_rows(rows)
        for memory, embedded in ((self.memory_student, student), (self.memory_teacher, teacher)):
            moved = self.momentum * memory[all_rows] + (1 - self.momentum) * gather_rows(embedded)
            memory.index_copy_(0, all_rows, F.normalize(moved, dim=1))

    def _check(self, student: Tensor, teacher: Tensor, rows: Tensor, contrast: Tensor | None) -> None:
        if not len(student) == len(teacher) == len(rows):
            raise ValueError(
                f"The student's features have shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}, and "
                f"there are {len(rows)} row numbers: expected equally many."
            )
        numbers = rows if contrast is None else torch.cat([rows, contrast.flatten()])
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < self.rows:
            raise InputError(
                f"Row numbers range from {int(numbers.min())} to {int(numbers.max())}, and the memory holds "
                f"{self.rows} rows: build CRD with the number of rows of the training split."
            )


def embed(layer: nn.Linear, features: Tensor) -> Tensor:
    """Features (rows, …) as points on a unit sphere (rows, width)."""
    with full_precision(features):
        return F.normalize(layer(at_least_float32(features).flatten(1).to(layer.weight.dtype)), dim=1)


def scrambled(*keys: Tensor) -> Tensor:
    """Pseudo-random integers from 0 to 2⁶² - 1, each a hash of its keys (integers, broadcast) alone.

    Example:
        >>> numbers = scrambled(torch.tensor(3), torch.arange(1000)) % 10
        >>> numbers.bincount().min().item() > 70
        True
    """
    hashed = torch.zeros((), dtype=torch.long, device=keys[0].device)
    # The 64-bit finaliser of MurmurHash3. Its constants are negative here because torch has signed integers only;
    # products wrap as unsigned ones do, and the mask after each shift drops the copies of the sign bit.
    for key in keys:
        hashed = hashed + (key + 1) * -7046029254386353131
        for factor in (-49064778989728563, -4265267296055464877):
            hashed = (hashed ^ ((hashed >> 33) & (2**31 - 1))) * factor
        hashed = hashed ^ ((hashed >> 33) & (2**31 - 1))
    # The mask keeps 62 bits, so that no result is negative.
    return hashed & (2**62 - 1)


def noise_contrast(log_scores: Tensor, *, rows: int, eps: float = 1e-7, weight: Tensor | None = None) -> Tensor:
    r"""Noise-contrastive estimation of one match among K others, in log space.

    $$h = \tfrac{1}{B} \sum_i \left[\mathrm{softplus}(\ln c - \ln o_{i0}) + \sum_{j=1}^{K}
    \mathrm{softplus}(\ln o_{ij} - \ln c) + K \ln \frac{c}{K / n}\right], \quad c = \tfrac{K}{n} + \varepsilon$$

    Args:
        log_scores: ln o (rows, 1 + K), the match first.
        rows: n.
        eps: ε.
        weight: weight of each of the B rows; the divisor stays B.

    Example:
        >>> round(noise_contrast(torch.zeros(1, 2), rows=1, eps=0.0).item(), 4)
        1.3863
    """
    # In log space: at the usual τ of 0.07 a cosine of 1 has the exponential 1.6e6, and a smaller τ soon overflows.
    negatives = log_scores.shape[1] - 1
    noise = negatives / rows
    level = math.log(noise + eps)
    match = F.softplus(level - log_scores[:, 0])
    others = F.softplus(log_scores[:, 1:] - level).sum(dim=1)
    values = match + others + negatives * (level - (math.log(noise) if negatives else level))
    values = values if weight is None else values * weight
    # the mean over no rows would be nan: one of several processes may have none
    return values.mean() if len(values) else values.sum()
