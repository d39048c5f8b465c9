r"""Algorithm 1 of the modality focusing hypothesis: which channels carry what both modalities know.

Two networks f and g that were trained to solve the task and to agree; f reads one modality, g another. One channel c at
a place in f is shuffled over the samples, so that it says nothing about its own sample any more, and the distance ρ of
the two networks' answers is taken. Where it grows most, f used what g knows as well.

$$s_c = \frac1M \sum_{j=1}^{M} \rho\big(t(Z^{(\pi_{jc}, c)}), g(x^b)\big), \qquad
\hat s_c = \frac{s_c - \min s}{\max s - \min s}$$

| symbol | argument |
|---|---|
| f, g | ``teacher``, ``student``; exchanged with ``side="student"`` |
| Z, t | what stands at ``place`` (rows, channels, …), and the layers behind it |
| π | ``permutations``, ``population``, ``seed``; another disturbance than a permutation: ``disturb`` |
| ρ | ``distance`` |

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487, algorithm 1; with the non-target
divergence for ρ, Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438. Read from the authors' codes.
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
from xmodal.diagnostics.tail import DISTANCES
from xmodal.errors import InputError, did_you_mean
from xmodal.models.network import evaluating
from xmodal.types import Batch

SIDES = ("teacher", "student")
DISTURBANCES = ("permute", "zero", "mean")
POPULATIONS = ("all", "batch")
METHODS = ("auto", "naive", "tail", "batched", "rank_one", "closed")
ORDERS = ("most", "least", "random", "first")
DRAWN = f"The exact mean over permutations is not known here: {DRAWS} permutations per channel were drawn."
FLAT = "All channels matter alike, so no value is above 0."
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Saliency:
    """What `measure_saliency` found.

    A large value means that the networks stop agreeing without the channel: it is modality-general and decisive. About
    0 are both channels that the network ignores and those that only its own modality knows; the two are told apart by
    what the network loses without them, not by this number.

    Attributes:
        place, side, distance, disturb, population: as asked for.
        raw: mean distance (channels,) with the channel disturbed, in the unit of ρ.
        value: the same, moved and scaled to run from 0 to 1 (channels,); all 0 where ``raw`` is the same everywhere.
        baseline: distance with nothing disturbed.
        deviation: standard deviation (channels,) of the distance over permutations; nan where it is not known: exact
            means of the absolute difference, and a single draw without a closed form.
        standard_error: of ``raw`` as an estimate of the mean over all permutations (channels,); 0 where it is exact.
        draws: distance (draws, channels) of each permutation, averaged over batches; None for exact means.
        exact: whether ``raw`` is the mean over all permutations, or has none to draw.
        form: how it was computed: naive, tail, batched, rank_one or closed.
        rows: how many there were.
        note: what to know about the result; empty if nothing.
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
    """How much each channel at a place matters to the agreement of two networks, on paired batches.

    Both networks run in eval mode and are afterwards as they were before. Rows that a batch marks as not valid, in any
    modality, do not count; of dense answers those that have no valid place.

    Args:
        teacher: takes a dictionary of inputs, returns answers (rows, …).
        student: likewise, with answers of the same shape.
        batches: paired, such as those of `in_order`.
        place: name of a layer of the disturbed network, whose output is disturbed, or ``input:<modality>``; axis 1
            holds the channels.
        side: whose channels are disturbed.
        distance: ``mse`` or ``l1`` (means over all answers), or ``ncjsd``, the non-target divergence of the authors'
            code, which needs class numbers as targets.
        disturb: ``permute`` shuffles a channel over the rows; ``zero`` and ``mean`` put 0 or the mean over the rows.
        permutations: how many to draw per channel, all of them (draws, channels, rows), or ``exact``: the mean over all
            permutations that there are. That is known where the layers behind the place are linear and the distance
            is ``mse`` or ``l1``; elsewhere ``exact`` means 10 draws, and the note says so.
        population: permute over all rows at once, or inside each batch, averaged by rows.
        method: how to compute; ``auto`` takes the fastest way that gives the same numbers.
        seed: of the permutations; None takes them from torch's global generator.
        memory: bytes, roughly, that stacked copies may take.
        ignore: target value that counts nowhere; ``ncjsd`` looks at places with other targets alone.

    Example:
        >>> from xmodal.models.network import wrap
        >>> sound = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])  # only the first channel says anything
        >>> batch = Batch({"sound": sound, "image": sound[:, :1]}, {})
        >>> teacher, student = wrap(nn.Linear(2, 1), ["sound"]), wrap(nn.Linear(1, 1), ["image"])
        >>> measure_saliency(teacher, student, [batch], "input:sound").value.shape
        (2,)
    """
    _check(side=side, distance=distance, disturb=disturb, population=population, method=method)
    network, other = (teacher, student) if side == "teacher" else (student, teacher)
    asked = _asked(permutations)
    with evaluating(teacher), evaluating(student):
        cut, parts = run_both(
            network, other, batches, place, targets=distance == "ncjsd", whole=method == "naive", ignore=ignore
        )
        form, run, weights = choose(network, place, cut, parts[0], method=method, memory=memory)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        plan = Plan(distance, disturb, asked, generator, memory, run, weights if distance != "ncjsd" else None)
        found = measure([parts] if population == "all" else [[part] for part in parts], plan)
    raw, deviation = found.raw.cpu().numpy(), found.deviation.cpu().numpy()
    draws = None if found.draws is None else found.draws.cpu().numpy()
    value, flat = _scaled(raw, 1e-12 if form == "closed" else 8 * float(torch.finfo(parts[0].answers.dtype).eps))
    drawn_instead = asked is None and draws is not None
    return Saliency(
        place=place,
        side=side,
        distance=distance,
        disturb=disturb,
        population=population,
        raw=raw,
        value=value,
        baseline=found.baseline,
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
    """Which channels to keep (channels,), True for those that stay.

    Args:
        saliency: a value per channel.
        keep: how many stay; or
        ratio: what share is removed, rounded down to whole channels.
        order: which stay: the ``most`` salient (modality-general distillation), the ``least`` salient
            (modality-specific), or ``random`` ones (the control). Of equal ones those with the lower number go first.
            ``first``: those with the lowest numbers, whatever their saliency, as the authors' VGGSound code does.
        seed: of the random choice.

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
        raise InputError("Say either how many channels to keep (keep) or what share to remove (ratio).")
    if ratio is not None and not 0 <= ratio < 1:
        raise InputError(f"ratio is {ratio}: expected a share to remove, from 0 up to (not including) 1.")
    if keep is not None and not 1 <= keep <= len(values):
        raise InputError(f"keep is {keep}: expected 1 to {len(values)}, the number of channels.")
    stay = keep if keep is not None else len(values) - math.floor(round(ratio * len(values), 9))  # type: ignore[operator]
    ways: dict[str, Callable[[], Any]] = {
        "most": lambda: np.argsort(values, kind="stable"),
        "least": lambda: np.argsort(-values, kind="stable"),
        "random": lambda: np.random.default_rng(seed).permutation(len(values)),
        "first": lambda: np.arange(len(values))[::-1],
    }
    removed = ways[order]()[: len(values) - stay]
    mask = np.ones(len(values), dtype=np.bool_)
    mask[removed] = False
    return mask


def _scaled(raw: Floats, digits: float) -> tuple[Floats, bool]:
    """Values from 0 to 1, and whether there is no more between them than rounding."""
    span = float(np.ptp(raw))
    flat = span <= digits * float(np.abs(raw).max())
    return (np.zeros_like(raw) if flat else (raw - raw.min()) / span), flat


def _asked(permutations: Any) -> int | Tensor | None:
    if isinstance(permutations, str) and permutations == "exact":
        return None
    if isinstance(permutations, str) or (isinstance(permutations, int) and permutations < 1):
        raise InputError(f"permutations is {permutations!r}: expected 'exact', a number of 1 or more, or an array.")
    return permutations if isinstance(permutations, (int, Tensor)) else torch.as_tensor(np.asarray(permutations))


def _check(**asked: str) -> None:
    known = {
        "side": SIDES,
        "distance": DISTANCES,
        "disturb": DISTURBANCES,
        "population": POPULATIONS,
        "method": METHODS,
    }
    problems = [
        f"There is no {what} called '{name}'. {did_you_mean(str(name), known[what])}"
        for what, name in asked.items()
        if name not in known[what]
    ]
    if problems:
        raise InputError(problems)
