r"""How much decisive information two modalities share: the three numbers α, β and γ of the modality Venn diagram.

$$\alpha = \frac{|s_a|}{|s_a| + |0|}, \qquad \beta = \frac{|s_b|}{|s_b| + |0|}, \qquad
\gamma = \frac{|0|}{|s_a| + |s_b| + |0|}$$

| symbol | meaning |
|---|---|
| 0 | decisive channels whose information is in both modalities: modality-general |
| s_a, s_b | decisive channels whose information is in one modality only: modality-specific |

Two tests classify each channel, both in closed form. Whether it is decisive: least squares of the label on all channels
of its modality, and an F test of the channel's weights. Whether it is shared: either from saliencies, by the increase
of the distance between two networks when the channel is permuted, in standard deviations over permutations; or, without
networks, by the share of its variance that the channels of the other modality explain. Tests of many channels are
corrected by the procedure of Benjamini and Hochberg.

α, β and γ as in Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; the estimate is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from xmodal.diagnostics.labelled import labelled_rows
from xmodal.diagnostics.saliency import Saliency
from xmodal.errors import InputError
from xmodal.types import Batch

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Result of `measure_overlap`. Tuples hold the teacher's side first, then the student's.

    Attributes:
        decisive: masks of the channels that matter to the label, two of (channels,).
        shared: masks of the channels whose information is in the other modality too, two of (channels,).
        importance: F statistic of the channel's weights, two of (channels,): about 1 for a channel without information
            on the label; nan if the masks ``decisive`` were given.
        agreement: evidence that the channel is shared, two of (channels,): increase of the distance when it is
            permuted, in standard deviations, about 0 for channels that are not shared; without saliencies the explained
            share of its variance, 0 to 1.
        specific: number of decisive channels that are not shared, for each side.
        general: number of decisive channels that are shared, the mean of both sides.
        alpha, beta, gamma: 0 to 1; nan without decisive channels. With a large γ most of what the teacher uses is
            available to the student.
    """

    decisive: tuple[Mask, Mask]
    shared: tuple[Mask, Mask]
    importance: tuple[Floats, Floats]
    agreement: tuple[Floats, Floats]
    specific: tuple[int, int]
    general: float
    alpha: float
    beta: float
    gamma: float


def measure_overlap(
    batches: Iterable[Batch],
    teacher: str,
    student: str,
    *,
    saliency: tuple[Saliency, Saliency] | None = None,
    decisive: tuple[ArrayLike, ArrayLike] | None = None,
    level: float = 0.05,
    explained: float = 0.5,
) -> Overlap:
    """Estimate α, β and γ of two modalities of paired data, on the rows with a label.

    Args:
        batches: paired, with targets; each modality as vectors (rows, channels).
        teacher: the first modality, a in the equations.
        student: the second modality, b in the equations.
        saliency: saliencies of both sides at ``input:<modality>``, exact or from two permutations or more. Measure them
            on rows that the networks were not trained on: on training rows networks agree about noise as well.
        decisive: masks of the channels that matter to the label, two of (channels,), instead of the least-squares test.
        level: false discovery rate, the accepted share of false positives among decisive or shared channels.
        explained: without saliencies, the explained share of its variance from which a channel counts as shared.

    Example:
        >>> random = np.random.default_rng(0)
        >>> first, second, third = random.normal(size=(3, 200))
        >>> a, b = np.stack([first, second], 1), np.stack([third, first], 1)  # both contain the first
        >>> data = {"sound": torch.tensor(a), "image": torch.tensor(b)}
        >>> target = torch.tensor(first + second > 0).long()
        >>> overlap = measure_overlap([Batch(data, dict.fromkeys(data, target))], "sound", "image")
        >>> overlap.alpha, overlap.beta, overlap.gamma
        (0.5, 0.0, 0.5)
    """
    parts = [_rows(batch, (teacher, student)) for batch in labelled_rows(batches)]
    if not parts:
        raise InputError("There are no batches: expected one or more.")
    a, b, target = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return from_features(a, b, target, saliency=saliency, decisive=decisive, level=level, explained=explained)


def from_features(
    teacher: ArrayLike,
    student: ArrayLike,
    target: ArrayLike,
    *,
    saliency: tuple[Saliency, Saliency] | None = None,
    decisive: tuple[ArrayLike, ArrayLike] | None = None,
    level: float = 0.05,
    explained: float = 0.5,
) -> Overlap:
    """`measure_overlap` from arrays: two of (rows, channels), and class numbers (rows,) or regression targets."""
    sides = _checked(teacher, student, target)
    if not (0 < level < 1 and 0 < explained < 1):
        raise InputError(f"level is {level}, explained {explained}: expected numbers between 0 and 1.")
    labels = _labels(np.asarray(target))
    if decisive is None:
        tests = [_decisive(side, labels) for side in sides]
        importance = [test[0] for test in tests]
        decides = [_discoveries(test[1], level) for test in tests]
    else:
        importance = [np.full(side.shape[1], math.nan) for side in sides]
        decides = [_mask(array, side) for array, side in zip(decisive, sides, strict=True)]
    if saliency is None:
        agreement = [_explained(sides[0], sides[1]), _explained(sides[1], sides[0])]
        shared = [values >= explained for values in agreement]
    else:
        agreement = [_agreement(measured, side) for measured, side in zip(saliency, sides, strict=True)]
        # One-sided: a channel is shared if permuting it increases the distance, never if it decreases it.
        shared = [_discoveries(stats.norm.sf(values), level) for values in agreement]
    general = float(np.mean([(d & s).sum() for d, s in zip(decides, shared, strict=True)]))
    a, b = (int((d & ~s).sum()) for d, s in zip(decides, shared, strict=True))
    return Overlap(
        decisive=(decides[0], decides[1]),
        shared=(shared[0], shared[1]),
        importance=(importance[0], importance[1]),
        agreement=(agreement[0], agreement[1]),
        specific=(a, b),
        general=general,
        alpha=_share(a, general),
        beta=_share(b, general),
        gamma=_share(general, a + b),
    )


def _decisive(x: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """F statistic and p-value of each channel's weights in the least squares of the labels on all channels."""
    rows, outputs = len(x), labels.shape[1]
    freedom = rows - 1 - x.shape[1]
    # Pseudo-inverses, because channels may be constant or duplicated: their weights become 0 or are split.
    inverse = np.linalg.pinv(x.T @ x)
    weights = inverse @ x.T @ labels
    residual = labels - x @ weights
    precision = np.linalg.pinv(residual.T @ residual / freedom)
    variance = np.diag(inverse)
    wald = np.einsum("ck,kl,cl->c", weights, precision, weights)
    statistic: Floats = np.divide(wald, outputs * variance, out=np.zeros_like(wald), where=variance > 0)
    return statistic, stats.f.sf(statistic, outputs, freedom)


def _explained(x: Floats, others: Floats) -> Floats:
    """Share of each channel's variance that the other modality's channels explain: the adjusted R²."""
    residual = x - others @ np.linalg.lstsq(others, x, rcond=None)[0]
    total = np.square(x).sum(axis=0)
    unexplained = np.divide(np.square(residual).sum(axis=0), total, out=np.ones_like(total), where=total > 0)
    # Adjusted for the number of channels: noise explains part of anything once there are many columns.
    adjusted: Floats = np.clip(1 - unexplained * (len(x) - 1) / (len(x) - 1 - others.shape[1]), 0, 1)
    return adjusted


def _agreement(saliency: Saliency, side: Floats) -> Floats:
    """Increase of the distance over the baseline, in standard deviations over permutations."""
    if saliency.disturb != "permute" or saliency.raw.shape != side.shape[1:] or np.isnan(saliency.deviation).any():
        raise InputError(
            f"A saliency at '{saliency.place}' has {len(saliency.raw)} channels by '{saliency.disturb}': expected "
            f"{side.shape[1]} channels by 'permute', with deviations (exact with mse, or two permutations or more)."
        )
    gain, noise = saliency.raw - saliency.baseline, saliency.deviation
    # Below this the deviation is rounding noise of a channel without effect, and a quotient with it would be arbitrary.
    tiny = 1e-9 * max(saliency.baseline, float(np.abs(saliency.raw).max()))
    values: Floats = np.divide(gain, noise, out=np.zeros_like(gain), where=noise > tiny)
    return values


def _discoveries(p: Floats, level: float) -> Mask:
    """Mask of the significant tests at a false discovery rate (Benjamini and Hochberg 1995)."""
    ordered = np.sort(p)
    passed = np.flatnonzero(ordered <= level * np.arange(1, len(p) + 1) / len(p))
    # The largest p-value that passes decides: smaller ones are significant even if their own bound fails.
    significant: Mask = p <= (ordered[passed[-1]] if len(passed) else -1.0)
    return significant


def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part + rest > 0 else math.nan


def _labels(target: NDArray[np.generic]) -> Floats:
    """Targets as centred columns; class numbers become one column for every class except the first."""
    if np.issubdtype(target.dtype, np.floating) or target.ndim > 1:
        columns = target.reshape(len(target), -1).astype(np.float64)
    else:
        classes = np.unique(target)
        columns = (target.reshape(-1, 1) == classes[1:]).astype(np.float64)
    centred: Floats = columns - columns.mean(axis=0)
    if not np.square(centred).sum():
        raise InputError("All rows have the same target: expected two classes or more, or values that vary.")
    return centred


def _rows(batch: Batch, names: tuple[str, str]) -> tuple[Tensor, Tensor, Tensor]:
    target = batch.target
    keep = torch.ones(len(target), dtype=torch.bool, device=target.device)
    for mask in batch.valid.values():
        keep &= mask.reshape(len(mask), -1).all(dim=1)
    a, b = (batch.input(name) for name in names)
    return a[keep], b[keep], target[keep]


def _checked(teacher: ArrayLike, student: ArrayLike, target: ArrayLike) -> tuple[Floats, Floats]:
    sides = [np.asarray(side, dtype=np.float64) for side in (teacher, student)]
    rows = len(np.asarray(target))
    for name, side in zip(("teacher", "student"), sides, strict=True):
        if side.ndim != 2 or len(side) != rows:
            raise InputError(
                f"The {name}'s features have shape {side.shape}: expected ({rows}, channels), one row per target."
            )
        if not np.isfinite(side).all():
            raise InputError(f"The {name}'s features are not all finite. Remove or replace the rows concerned.")
        # The F test needs degrees of freedom: with fewer, the residual variance is hardly known.
        if rows < side.shape[1] + 10:
            raise InputError(
                f"There are {rows} rows for {side.shape[1]} channels of the {name}: expected at least 10 rows more "
                "than channels. Use more rows or fewer channels."
            )
    a, b = (side - side.mean(axis=0) for side in sides)
    return a, b


def _mask(array: ArrayLike, side: Floats) -> Mask:
    mask = np.asarray(array)
    if mask.dtype != np.bool_ or mask.shape != side.shape[1:]:
        raise InputError(f"decisive has type {mask.dtype} and shape {mask.shape}: expected booleans {side.shape[1:]}.")
    return mask
