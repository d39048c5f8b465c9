r"""Divergence between the predictions of two trained networks, on the true class and among all other classes.

$$D_\mathrm{target} = \frac1n \sum_i J(b^s_i, b^t_i), \quad D_\mathrm{non\text-target} = \frac1n \sum_i J(q^s_i, q^t_i),
\quad b = (p_y, 1 - p_y), \quad q_k = \frac{p_k}{1 - p_y} \; (k \ne y)$$

Student s and teacher t may read different modalities of the same n rows; J is a form of `xmodal.losses.divergence`.
The hypothesis: the smaller the second number, the more a student gains from its teacher. It is a motivation, not a law.
Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; read from the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xmodal.diagnostics.labelled import labelled_rows
from xmodal.errors import InputError, did_you_mean
from xmodal.losses.divergence import divergence
from xmodal.losses.reduce import picked, same_shape
from xmodal.models.network import evaluating
from xmodal.types import Batch

PARTS = ("target", "non_target")
Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Divergence:
    """Result of `measure_divergence`. Divergences are in nats, times the square of the temperature.

    Range: 0 (equal distributions) to ln 2 = 0.693 times the square of the temperature for the form ``js`` (no class in
    common); ``reference`` has no upper bound and is at least as large. A large non-target divergence means that the
    networks confuse a sample with different classes, so the student's modality can hardly reproduce the teacher's soft
    predictions. A large target divergence means that one network is much more confident in the true class. With two
    classes every non-target number is 0.

    Attributes:
        form, temperature: the arguments.
        target_divergence, non_target_divergence: divergence of each row (rows,), in the order of the batches.
        targets: true class of each row (rows,).
        class_counts: number of rows of each class (classes,).
        class_target_divergence, class_non_target_divergence: mean of each class (classes,), nan for classes without
            rows.
        target_mean, non_target_mean: mean over all rows.
        target_interval, non_target_interval: lower and upper end of the bootstrap interval of the mean; nan for a
            single row.
        student_accuracy, teacher_accuracy: share of rows that the network classifies correctly, 0 to 1.
    """

    form: str
    temperature: float
    target_divergence: Floats
    non_target_divergence: Floats
    targets: NDArray[np.int64]
    class_counts: NDArray[np.int64]
    class_target_divergence: Floats
    class_non_target_divergence: Floats
    target_mean: float
    target_interval: Interval
    non_target_mean: float
    non_target_interval: Interval
    student_accuracy: float
    teacher_accuracy: float


def measure_divergence(
    student: nn.Module,
    teacher: nn.Module,
    batches: Iterable[Batch],
    *,
    form: str = "js",
    temperature: float = 1.0,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    ignore: int | None = None,
) -> Divergence:
    """Target and non-target divergence of two classifiers on paired batches, such as those of `in_order`.

    The networks keep their modes. Rows without a label and rows that are invalid in any modality are excluded. The
    positions of dense outputs (rows, classes, …) are separate rows.

    Args:
        student: takes a dictionary of inputs, returns logits (rows, classes) of two classes or more.
        teacher: the same.
        batches: paired, with class numbers as targets.
        form: ``js``, the Jensen-Shannon divergence, or ``reference``, which the authors' code computes under that name.
        temperature: divides the logits; the divergences are multiplied by its square.
        samples: number of bootstrap samples, drawn from the rows with replacement.
        level: confidence level of the (percentile) interval.
        seed: seed of the bootstrap.
        ignore: target value of unlabelled positions, which are excluded.

    Example:
        >>> from xmodal.models.network import wrap
        >>> pixels, sound = torch.tensor([[9.0, 2.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0]])
        >>> batch = Batch({"image": pixels, "audio": sound}, dict.fromkeys(["image", "audio"], torch.tensor([0])))
        >>> result = measure_divergence(wrap(nn.Identity(), ["audio"]), wrap(nn.Identity(), ["image"]), [batch])
        >>> round(result.non_target_mean, 4)  # (0.12, 0.88) against (0.88, 0.12)
        0.3278
    """
    _check(form, temperature, samples, level)
    columns: list[tuple[Tensor, ...]] = []
    with evaluating(student), evaluating(teacher):
        for batch in labelled_rows(batches):
            target = batch.target.cpu()
            keep = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
            for mask in batch.valid.values():
                # A mask has one value per row, or one per position; a row of a vector target may have a finer mask.
                mask = mask.cpu() if mask.ndim <= keep.ndim else mask.cpu().flatten(1).all(dim=1)
                keep &= mask.reshape(*mask.shape, *[1] * (keep.ndim - mask.ndim))
            s, t = (_valid_logits(network, batch, target, keep) for network in (student, teacher))
            columns.append((s, t, target[keep]))
    if not columns:
        raise InputError("There are no batches: expected one or more.")
    s, t, y = map(torch.cat, zip(*columns, strict=True))
    return from_logits(s, t, y, form=form, temperature=temperature, samples=samples, level=level, seed=seed)


def from_logits(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    form: str = "js",
    temperature: float = 1.0,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Divergence:
    """`measure_divergence` from computed logits: two tables (rows, classes) and the class numbers (rows,).

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0, 60.0]]), torch.tensor([[0.0, 60.0, 0.0]])
        >>> result = from_logits(student, teacher, torch.tensor([0]))
        >>> round(result.non_target_mean, 4), round(result.target_mean, 4)  # ln 2: different classes, equal confidence
        (0.6931, 0.0)
    """
    _check(form, temperature, samples, level)
    _check_logits(student, teacher, target)
    # float64, because divergences of nearly equal distributions are squares of small differences.
    s, t, y = student.detach().cpu().double(), teacher.detach().cpu().double(), target.cpu()
    on_target, non_target = (
        divergence(s, t, y, part=part, form=form, temperature=temperature, reduction="none").numpy() for part in PARTS
    )
    targets: NDArray[np.int64] = y.numpy().astype(np.int64)
    counts = np.bincount(targets, minlength=s.shape[1])
    return Divergence(
        form=form,
        temperature=temperature,
        target_divergence=on_target,
        non_target_divergence=non_target,
        targets=targets,
        class_counts=counts,
        class_target_divergence=_per_class(on_target, targets, counts),
        class_non_target_divergence=_per_class(non_target, targets, counts),
        # Sorted, so that the means have the same bits in any order of the batches.
        target_mean=float(np.sort(on_target).mean()),
        target_interval=_interval(on_target, samples, level, seed),
        non_target_mean=float(np.sort(non_target).mean()),
        non_target_interval=_interval(non_target, samples, level, seed),
        student_accuracy=float((s.argmax(dim=1) == y).double().mean()),
        teacher_accuracy=float((t.argmax(dim=1) == y).double().mean()),
    )


def _valid_logits(network: nn.Module, batch: Batch, target: Tensor, keep: Tensor) -> Tensor:
    device = next((weight.device for weight in network.parameters()), "cpu")
    outputs: Tensor = network(batch.to(device).inputs).cpu()
    # Outputs of another shape than the targets are passed on: `from_logits` raises an error with both shapes.
    fits = tuple(target.shape) == (len(outputs), *outputs.shape[2:])
    return picked(outputs, target, keep)[0] if fits else outputs


def _per_class(values: Floats, targets: NDArray[np.int64], counts: NDArray[np.int64]) -> Floats:
    sums = np.bincount(targets, weights=values, minlength=len(counts))
    means: Floats = np.full(len(counts), math.nan)
    return np.divide(sums, counts, out=means, where=counts > 0)


def _interval(values: Floats, samples: int, level: float, seed: int) -> Interval:
    if len(values) < 2:
        return math.nan, math.nan
    # Sorted, so that the interval does not depend on the order of the rows.
    random, ordered = np.random.default_rng(seed), np.sort(values)
    means = [ordered[random.integers(len(ordered), size=len(ordered))].mean() for _ in range(samples)]
    return float(np.quantile(means, (1 - level) / 2)), float(np.quantile(means, (1 + level) / 2))


def _check(form: str, temperature: float, samples: int, level: float) -> None:
    if form not in ("js", "reference"):
        raise InputError(f"There is no form called '{form}'. {did_you_mean(form, ['js', 'reference'])}")
    if not (0 < temperature < math.inf and samples >= 1 and 0 < level < 1):
        raise InputError(f"temperature is {temperature}, samples {samples}, level {level}: expected > 0, ≥ 1, 0 to 1.")


def _check_logits(student: Tensor, teacher: Tensor, target: Tensor) -> None:
    same_shape(student, teacher)
    if student.ndim != 2 or student.shape[1] < 2 or target.is_floating_point():
        raise InputError(
            f"The networks' outputs have shape {tuple(student.shape)} and the targets type {target.dtype}: expected "
            "(rows, classes) with two classes or more, and class numbers."
        )
    if not len(target):
        raise InputError("The batches have no valid rows: expected one or more.")
    for name, logits in (("student", student), ("teacher", teacher)):
        if bad := int((~logits.isfinite()).any(dim=1).sum()):
            raise InputError(
                f"The {name}'s logits are not finite in {bad} of {len(logits)} rows. Check its weights and the data."
            )
