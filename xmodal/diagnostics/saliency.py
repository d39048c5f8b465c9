r"""Algorithm 1 of the modality focusing hypothesis: which channels carry information that both modalities share.

Two networks f and g were trained to solve the task and to agree; f reads one modality, g another. One channel c of a
layer of f is permuted over the samples, so that it carries no information on its sample, and the distance ρ between the
outputs of both networks is measured. Where it grows most, f uses information that g uses as well.

$$s_c = \frac1M \sum_{j=1}^{M} \rho\big(t(Z^{(\pi_{jc}, c)}), g(x^b)\big), \qquad
\hat s_c = \frac{s_c - \min s}{\max s - \min s}$$

| symbol | argument |
|---|---|
| f, g | ``teacher``, ``student``; exchanged with ``side="student"`` |
| Z, t | output of the layer ``place`` (rows, channels, …), and the layers behind it |
| π | ``permutations``, ``population``, ``seed``; a disturbance other than a permutation: ``disturb`` |
| ρ | ``distance`` |

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487, algorithm 1; with the non-target
divergence as ρ, Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438. Read from the authors' codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from xmodal.diagnostics.activations import run_both
from xmodal.diagnostics.disturbance import DRAWS, Plan, choose, measure
from xmodal.diagnostics.labelled import labelled_rows
from xmodal.diagnostics.tail import DISTANCES
from xmodal.errors import InputError, did_you_mean
from xmodal.models.network import evaluating
from xmodal.types import Batch

SIDES = ("teacher", "student")
DISTURBANCES = ("permute", "zero", "mean")
POPULATIONS = ("all", "batch")
METHODS = ("auto", "naive", "tail", "batched", "rank_one", "closed")
ORDERS = ("most", "least", "random", "first")
DRAWN = f"There is no closed form of the mean over all permutations here: {DRAWS} permutations per channel were drawn."
FLAT = "All channels have the same distance, so every value is 0."
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Saliency:
    """Result of `measure_saliency`.

    A large value means that the networks disagree without the channel: it is modality-general and decisive. A value
    near 0 has two possible reasons: the network ignores the channel, or the channel's information is in its modality
    alone. This number does not distinguish them; the accuracy that the network loses without the channel does.

    Attributes:
        place, side, distance, disturb, population: the arguments.
        raw: mean distance (channels,) with the channel disturbed, in the unit of ρ.
        value: ``raw`` min-max normalised to [0, 1] (channels,); all 0 where ``raw`` is the same for all channels.
        baseline: distance without disturbance.
        deviation: standard deviation (channels,) of the distance over permutations; nan where it is not known: exact
            means of the absolute difference, and a single draw without a closed form.
        standard_error: standard error of ``raw`` as an estimate of the mean over all permutations (channels,); 0 if
            exact.
        draws: distance (draws, channels) of each permutation, averaged over batches; None for exact means.
        exact: whether ``raw`` is the mean over all permutations, or of a disturbance without randomness.
        form: form of the computation: naive, tail, batched, rank_one or closed; read: from a file; none: not
            measured.
        rows: number of rows.
        note: a remark on the result; empty if there is none.
    """

    place: str
    side: str
    distance: str
    disturb: str
    population: str
    raw: Floats
    value: Floats
    baseline: float
    deviation: Floats
    standard_error: Floats
    draws: Floats | None
    exact: bool
    form: str
    rows: int
    note: str


def measure_saliency(
    teacher: nn.Module,
    student: nn.Module,
    batches: Iterable[Batch],
    place: str,
    *,
    side: Literal["teacher", "student"] = "teacher",
    distance: Literal["mse", "l1", "ncjsd"] = "mse",
    disturb: Literal["permute", "zero", "mean"] = "permute",
    permutations: int | Literal["exact"] | ArrayLike = "exact",
    population: Literal["all", "batch"] = "all",
    method: Literal["auto", "naive", "tail", "batched", "rank_one", "closed"] = "auto",
    seed: int | None = 0,
    memory: int = 2**28,
    ignore: int | None = None,
) -> Saliency:
    """How much the agreement of two networks depends on each channel of a layer, on paired batches.

    Both networks run in eval mode and keep their modes. Rows without a label and rows that are invalid in any modality
    are excluded; rows of dense outputs are excluded if no position is valid.

    Args:
        teacher: takes a dictionary of inputs, returns outputs (rows, …).
        student: the same, with outputs of the same shape.
        batches: paired, such as those of `in_order`.
        place: name of a layer of the disturbed network, whose output is disturbed, or ``input:<modality>``; axis 1
            holds the channels.
        side: the network whose channels are disturbed.
        distance: ``mse`` or ``l1`` (means over all outputs), or ``ncjsd``, the non-target divergence of the authors'
            code, which needs class numbers as targets.
        disturb: ``permute`` permutes a channel over the rows; ``zero`` and ``mean`` replace it by 0 or by its mean over
            the rows.
        permutations: number of draws per channel, an array (draws, channels, rows), or ``exact``: the mean over all
            possible permutations. It has a closed form where the layers behind ``place`` are linear and the distance is
            ``mse`` or ``l1``; elsewhere ``exact`` means 10 draws, and the note says so.
        population: permute over all rows together, or inside each batch, averaged by rows.
        method: form of the computation; ``auto`` uses the fastest one that gives the same numbers.
        seed: seed of the permutations; None draws them from torch's global generator.
        memory: approximate bytes for stacked copies.
        ignore: target value of unlabelled positions, which ``ncjsd`` excludes.

    Example:
        >>> from xmodal.models.network import wrap
        >>> sound = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])  # the second channel is constant
        >>> batch = Batch({"sound": sound, "image": sound[:, :1]}, {})
        >>> teacher, student = wrap(nn.Linear(2, 1), ["sound"]), wrap(nn.Linear(1, 1), ["image"])
        >>> measure_saliency(teacher, student, [batch], "input:sound").value.shape
        (2,)
    """
    _check(side=side, distance=distance, disturb=disturb, population=population, method=method)
    network, other = (teacher, student) if side == "teacher" else (student, teacher)
    draws_or_array = _permutations(permutations)
    with evaluating(teacher), evaluating(student):
        cut, parts = run_both(
            network,
            other,
            labelled_rows(batches),
            place,
            targets=distance == "ncjsd",
            whole=method == "naive",
            ignore=ignore,
        )
        form, run, weights = choose(network, place, cut, parts[0], method=method, memory=memory)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        # The closed forms are sums of squares or absolute values; the divergence is no such sum, so a linear tail only
        # saves it the run of the network.
        closed = weights if distance != "ncjsd" else None
        plan = Plan(distance, disturb, draws_or_array, generator, memory, run, closed)
        distances = measure([parts] if population == "all" else [[part] for part in parts], plan)
    raw, deviation = distances.raw.cpu().numpy(), distances.deviation.cpu().numpy()
    draws = None if distances.draws is None else distances.draws.cpu().numpy()
    # Closed forms are computed in float64; the other forms have the rounding noise of the network's own precision.
    noise = 1e-12 if form == "closed" else 8 * float(torch.finfo(parts[0].outputs.dtype).eps)
    value, flat = scaled(raw, noise)
    drawn_instead = draws_or_array is None and draws is not None
    return Saliency(
        place=place,
        side=side,
        distance=distance,
        disturb=disturb,
        population=population,
        raw=raw,
        value=value,
        baseline=distances.baseline,
        deviation=deviation,
        standard_error=np.zeros_like(raw) if draws is None else deviation / math.sqrt(len(draws)),
        draws=draws,
        exact=draws is None,
        form=form,
        rows=sum(len(part.features) for part in parts),
        note=" ".join(filter(None, [DRAWN if drawn_instead else "", FLAT if flat else ""])),
    )


def keep_mask(
    saliency: ArrayLike,
    *,
    keep: int | None = None,
    ratio: float | None = None,
    order: Literal["most", "least", "random", "first"] = "most",
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Mask of the channels to keep (channels,).

    Args:
        saliency: one value per channel.
        keep: number of channels to keep; or
        ratio: share of channels to remove, rounded down to whole channels.
        order: channels to keep: the ``most`` salient (modality-general distillation), the ``least`` salient
            (modality-specific), or ``random`` ones (the control). Of equal saliencies the lower channel number is
            removed first. ``first``: the lowest channel numbers, regardless of saliency, as in the authors' VGGSound
            code.
        seed: seed of the random choice.

    Example:
        >>> keep_mask([0.1, 0.9, 0.5], keep=2).tolist()
        [False, True, True]
        >>> keep_mask([0.1, 0.9, 0.5], ratio=0.5, order="least").tolist()
        [True, False, True]
    """
    values = np.asarray(saliency, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"saliency has shape {values.shape}: expected finite numbers (channels,).")
    if order not in ORDERS:
        raise InputError(f"There is no order called '{order}'. {did_you_mean(order, ORDERS)}")
    if (keep is None) == (ratio is None):
        raise InputError(
            f"keep is {keep} and ratio is {ratio}: expected exactly one of them, the number of channels to keep (keep) "
            "or the share to remove (ratio)."
        )
    if ratio is not None and not 0 <= ratio < 1:
        raise InputError(f"ratio is {ratio}: expected a share to remove, from 0 up to (not including) 1.")
    if keep is not None and not 1 <= keep <= len(values):
        raise InputError(f"keep is {keep}: expected 1 to {len(values)}, the number of channels.")
    # Rounded to nine decimals before rounding down, because 0.29 · 100 is 28.999999999999996 in floating point.
    kept = keep if keep is not None else len(values) - math.floor(round(ratio * len(values), 9))  # type: ignore[operator]
    # Stable sorts: with NumPy's default, the order of equal saliencies would depend on the processor.
    removal_orders: dict[str, Callable[[], Any]] = {
        "most": lambda: np.argsort(values, kind="stable"),
        "least": lambda: np.argsort(-values, kind="stable"),
        "random": lambda: np.random.default_rng(seed).permutation(len(values)),
        "first": lambda: np.arange(len(values))[::-1],
    }
    removed = removal_orders[order]()[: len(values) - kept]
    mask = np.ones(len(values), dtype=np.bool_)
    mask[removed] = False
    return mask


def scaled(raw: Floats, noise: float) -> tuple[Floats, bool]:
    """Values from 0 to 1, and whether all values are equal up to rounding."""
    span = float(np.ptp(raw))
    # Without this test, rounding noise would be stretched to [0, 1] and look like a ranking.
    flat = span <= noise * float(np.abs(raw).max())
    return (np.zeros_like(raw) if flat else (raw - raw.min()) / span), flat


def _permutations(permutations: Any) -> int | Tensor | None:
    """The number of draws, an array of permutations, or None for the exact mean."""
    if isinstance(permutations, str) and permutations == "exact":
        return None
    if isinstance(permutations, str) or (isinstance(permutations, int) and permutations < 1):
        raise InputError(f"permutations is {permutations!r}: expected 'exact', a number of 1 or more, or an array.")
    return permutations if isinstance(permutations, (int, Tensor)) else torch.as_tensor(np.asarray(permutations))


def _check(**options: str) -> None:
    allowed = {
        "side": SIDES,
        "distance": DISTANCES,
        "disturb": DISTURBANCES,
        "population": POPULATIONS,
        "method": METHODS,
    }
    # All problems together, so that a call with two mistakes needs one correction.
    problems = [
        f"There is no {option} called '{value}'. {did_you_mean(str(value), allowed[option])}"
        for option, value in options.items()
        if value not in allowed[option]
    ]
    if problems:
        raise InputError(problems)
