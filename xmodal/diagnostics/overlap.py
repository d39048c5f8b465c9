r"""How much of what decides the label do two modalities share? The three numbers of the modality Venn diagram.

$$\alpha = \frac{|s_a|}{|s_a| + |0|}, \qquad \beta = \frac{|s_b|}{|s_b| + |0|}, \qquad
\gamma = \frac{|0|}{|s_a| + |s_b| + |0|}$$

| symbol | meaning |
|---|---|
| 0 | channels that matter to the label and that both modalities know: modality-general |
| s_a, s_b | channels that matter to the label and that one modality knows alone |

Counting needs two answers for each channel, both by closed forms. Is it decisive? Least squares of the label on all
channels of its modality, and an F test of the channel's weights. Is it shared? Either from saliencies, by what the
agreement of two networks loses when the channel is shuffled, in deviations of that loss over permutations; or, without
networks, by the part of its variance that the other modality's channels explain. Tests of many channels are corrected
by the procedure of Benjamini and Hochberg.

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

from xmodal.diagnostics.saliency import Saliency
from xmodal.errors import InputError
from xmodal.types import Batch

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """What `measure_overlap` found. Tuples hold the teacher's side first, then the student's.

    Attributes:
        decisive: which channels matter to the label, two masks (channels,).
        shared: which channels the other modality knows as well, two masks (channels,).
        importance: what the label loses without the channel, two times (channels,): the F statistic of its weights, 1
            where it says nothing; nan if the masks were handed in.
        agreement: what speaks for its being shared, two times (channels,): deviations by which shuffling it hurts the
            agreement, about 0 where it is not shared; without saliencies the explained part of its variance, 0 to 1.
        specific: decisive channels that only this side knows, two numbers.
        general: decisive channels that both know, the mean of both sides' counts.
        alpha, beta, gamma: 0 to 1; nan where nothing is decisive. A large γ promises a teacher whose knowledge the
            student can follow.
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
    """Estimate α, β and γ of two modalities of paired data whose making is unknown.

    Args:
        batches: paired, with targets; each modality as vectors (rows, channels).
        teacher: a modality, a in the equations.
        student: another, b.
        saliency: of both sides, at ``input:<modality>``, exact or of two permutations or more. Measure them on rows
            that the networks were not trained on: on training rows networks agree about noise as well.
        decisive: which channels matter to the label, where you know better than least squares: two masks.
        level: share of false finds among the channels that are called decisive, or shared, that is accepted.
        explained: without saliencies, the part of its variance from which a channel counts as shared.

    Example:
        >>> random = np.random.default_rng(0)
        >>> first, second, third = random.normal(size=(3, 200))
        >>> a, b = np.stack([first, second], 1), np.stack([third, first], 1)  # both know the first
        >>> data = {"sound": torch.tensor(a), "image": torch.tensor(b)}
        >>> target = torch.tensor(first + second > 0).long()
        >>> found = measure_overlap([Batch(data, dict.fromkeys(data, target))], "sound", "image")
        >>> found.alpha, found.beta, found.gamma
        (0.5, 0.0, 0.5)
    """
    parts = [_rows(batch, (teacher, student)) for batch in batches]
    if not parts:
        raise InputError("There are no batches; at least one was expected.")
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
    """`measure_overlap` from arrays: two times (rows, channels), and class numbers (rows,) or numbers (rows, …)."""
    sides = _checked(teacher, student, target)
    if not (0 < level < 1 and 0 < explained < 1):
        raise InputError(f"level is {level}, explained {explained}: expected numbers between 0 and 1.")
    labels = _labels(np.asarray(target))
    if decisive is None:
        tests = [_decisive(side, labels) for side in sides]
        importance = [test[0] for test in tests]
        matters = [_discoveries(test[1], level) for test in tests]
    else:
        importance = [np.full(side.shape[1], math.nan) for side in sides]
        matters = [_mask(given, side) for given, side in zip(decisive, sides, strict=True)]
    if saliency is None:
        agreement = [_explained(sides[0], sides[1]), _explained(sides[1], sides[0])]
        shared = [values >= explained for values in agreement]
    else:
        agreement = [_agreement(found, side) for found, side in zip(saliency, sides, strict=True)]
        shared = [_discoveries(stats.norm.sf(values), level) for values in agreement]
    general = float(np.mean([(m & s).sum() for m, s in zip(matters, shared, strict=True)]))
    a, b = (int((m & ~s).sum()) for m, s in zip(matters, shared, strict=True))
    return Overlap(
        decisive=(matters[0], matters[1]),
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
    inverse = np.linalg.pinv(x.T @ x)
    weights = inverse @ x.T @ labels
    residual = labels - x @ weights
    precision = np.linalg.pinv(residual.T @ residual / freedom)
    spread = np.diag(inverse)
    wald = np.einsum("ck,kl,cl->c", weights, precision, weights)
    statistic: Floats = np.divide(wald, outputs * spread, out=np.zeros_like(wald), where=spread > 0)
    return statistic, stats.f.sf(statistic, outputs, freedom)


def _explained(x: Floats, others: Floats) -> Floats:
    """Part of each channel's variance that the other modality's channels explain, adjusted for how many they are."""
    residual = x - others @ np.linalg.lstsq(others, x, rcond=None)[0]
    total = np.square(x).sum(axis=0)
    left = np.divide(np.square(residual).sum(axis=0), total, out=np.ones_like(total), where=total > 0)
    found: Floats = np.clip(1 - left * (len(x) - 1) / (len(x) - 1 - others.shape[1]), 0, 1)
    return found


def _agreement(found: Saliency, side: Floats) -> Floats:
    """By how many deviations over permutations the distance is larger than with the channel in place."""
    if found.disturb != "permute" or found.raw.shape != side.shape[1:] or np.isnan(found.deviation).any():
        raise InputError(
            f"A saliency at '{found.place}' has {len(found.raw)} channels by '{found.disturb}': expected "
            f"{side.shape[1]} channels by 'permute', with deviations (exact with mse, or two permutations or more)."
        )
    gain, noise = found.raw - found.baseline, found.deviation
    tiny = 1e-9 * max(found.baseline, float(np.abs(found.raw).max()))  # a channel that changes nothing but the last bit
    values: Floats = np.divide(gain, noise, out=np.zeros_like(gain), where=noise > tiny)
    return values


def _discoveries(p: Floats, level: float) -> Mask:
    """Which tests to believe, with at most this share of false ones (Benjamini and Hochberg 1995)."""
    ordered = np.sort(p)
    passed = np.flatnonzero(ordered <= level * np.arange(1, len(p) + 1) / len(p))
    found: Mask = p <= (ordered[passed[-1]] if len(passed) else -1.0)
    return found


def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part + rest > 0 else math.nan


def _labels(target: NDArray[np.generic]) -> Floats:
    """Targets as centred columns; class numbers become one column per class but one."""
    if np.issubdtype(target.dtype, np.floating) or target.ndim > 1:
        columns = target.reshape(len(target), -1).astype(np.float64)
    else:
        classes = np.unique(target)
        columns = (target.reshape(-1, 1) == classes[1:]).astype(np.float64)
    centred: Floats = columns - columns.mean(axis=0)
    if not np.square(centred).sum():
        raise InputError("All rows have the same target: expected at least two classes, or numbers that vary.")
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
                f"The {name}'s features have shape {side.shape}: expected ({rows}, channels), one per target."
            )
        if not np.isfinite(side).all():
            raise InputError(f"The {name}'s features are not all finite.")
        if rows < side.shape[1] + 10:
            raise InputError(
                f"There are {rows} rows for {side.shape[1]} channels of the {name}: expected at least 10 rows more "
                "than channels. Take more rows, or fewer channels."
            )
    a, b = (side - side.mean(axis=0) for side in sides)
    return a, b


def _mask(given: ArrayLike, side: Floats) -> Mask:
    mask = np.asarray(given)
    if mask.dtype != np.bool_ or mask.shape != side.shape[1:]:
        raise InputError(f"decisive has type {mask.dtype} and shape {mask.shape}: expected booleans {side.shape[1:]}.")
    return mask
