"""Distances of two networks' answers with each channel disturbed, by the fastest form that is possible.

Where a population has several batches, values are exchanged among all of them, and the tail runs batch by batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xmodal.diagnostics.linear import contributions, drawn_mse, exact_l1, exact_mse, slopes
from xmodal.diagnostics.permutation import blocks, checked
from xmodal.diagnostics.tail import Form, Rows, batched, distance_of, naive, one_by_one, rank_one, row_by_row
from xmodal.errors import InputError
from xmodal.models.cut import Split

DRAWS = 10  # permutations per channel where their exact mean is not known; the authors' default


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the channels, and how to compute what comes of it.

    Attributes:
        distance: ``mse``, ``l1`` or ``ncjsd``.
        disturb: ``permute``, ``zero`` or ``mean``.
        permutations: how many, which (draws, channels, rows), or None for the mean over all that there are.
        generator: of the permutations; None is torch's global one.
        memory: bytes for stacked copies.
        form: how answers are computed.
        weights: of a linear tail (channels, places, answers), where there is a closed form.
    """

    distance: str
    disturb: str
    permutations: int | Tensor | None
    generator: torch.Generator | None
    memory: int
    form: Form
    weights: Tensor | None


@dataclass(frozen=True, slots=True)
class Found:
    """Distances of one population, or the mean over several.

    Attributes:
        raw: mean distance of each channel (channels,).
        deviation: of a single draw (channels,); nan where it is not known.
        draws: each draw's distance (draws, channels); None where there is nothing to draw.
        baseline: distance with nothing disturbed.
    """

    raw: Tensor
    deviation: Tensor
    draws: Tensor | None
    baseline: float


def choose(
    network: nn.Module, place: str, cut: Split | None, rows: Rows, *, method: str, memory: int
) -> tuple[str, Form, Tensor | None]:
    """Name of the fastest form that is possible, or of the one asked for; the form; weights of a linear tail."""
    possible: dict[str, Form] = {"naive": naive(network, place)}
    weights: Tensor | None = None
    if cut is not None:
        possible["tail"] = one_by_one(cut)
        if row_by_row(cut, rows):
            possible["batched"] = batched(cut, rows)
            if rows.features.ndim == 2 and (behind := cut.after_linear()) is not None:
                possible["rank_one"] = rank_one(*behind)
            weights = slopes(cut, rows, memory) if method in ("auto", "closed") else None
            if weights is not None:
                possible["closed"] = contributions(weights)
    chosen = list(possible)[-1] if method == "auto" else method
    if chosen not in possible:
        raise InputError(f"At '{place}' the method '{method}' is not possible. Possible here: {', '.join(possible)}.")
    return chosen, possible[chosen], weights if chosen == "closed" else None


def measure(populations: list[list[Rows]], plan: Plan) -> Found:
    """Mean over populations by rows; their permutations are independent, so variances add."""
    found = [_measured(population, plan) for population in populations]
    sizes = torch.tensor([sum(len(part.features) for part in population) for population in populations])
    shares = (sizes.double() / sizes.sum()).tolist()

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(dim=0)

    spreads = [share * part.deviation.square() for share, part in zip(shares, found, strict=True)]
    draws = [part.draws for part in found if part.draws is not None]
    return Found(
        raw=mean([part.raw for part in found]),
        deviation=mean(spreads).sqrt(),
        draws=mean(draws) if draws else None,
        baseline=sum(share * part.baseline for share, part in zip(shares, found, strict=True)),
    )


def _measured(population: list[Rows], plan: Plan) -> Found:
    whole = _merged(population)
    baseline = float(distance_of(plan.distance, whole.answers[None], whole).mean())
    if plan.disturb != "permute":
        raw = _still(population, whole.features, plan)
        return Found(raw, torch.zeros_like(raw), None, baseline)
    if plan.permutations is None and plan.weights is not None:
        if plan.distance == "l1":
            raw = exact_l1(plan.weights, whole, plan.memory)
            return Found(raw, torch.full_like(raw, math.nan), None, baseline)
        return Found(*exact_mse(plan.weights, whole, plan.memory), None, baseline)
    permutations = DRAWS if plan.permutations is None else plan.permutations
    if isinstance(permutations, Tensor):
        permutations = checked(permutations, whole.features.shape[1], len(whole.features))
    if plan.weights is not None and plan.distance == "mse":
        draws, deviation = drawn_mse(plan.weights, whole, permutations, plan.generator, plan.memory)
    else:
        draws = _drawn(population, whole.features, permutations, plan)
        deviation = draws.std(dim=0) if len(draws) > 1 else torch.full_like(draws[0], math.nan)
    return Found(draws.mean(dim=0), deviation, draws, baseline)


def _drawn(population: list[Rows], features: Tensor, permutations: int | Tensor, plan: Plan) -> Tensor:
    """Distances (draws, channels), whichever way the answers are computed."""
    draws = permutations if isinstance(permutations, int) else len(permutations)
    channels, number = features.shape[1], len(features)
    size = _size(population, plan)
    found = torch.zeros(draws, channels, dtype=torch.float64, device=features.device)
    for draw, first, some in blocks(permutations, channels, number, size, plan.generator):
        order, column = some.to(features.device), torch.arange(first, first + len(some), device=features.device)
        for part, start, stop in _places(population):
            values = features[order[:, start:stop], column[:, None]]
            answers = plan.form.run(part, first, values)
            found[draw, first : first + len(some)] += distance_of(plan.distance, answers, part).sum(dim=1)
    return found / number


def _still(population: list[Rows], features: Tensor, plan: Plan) -> Tensor:
    """Distances (channels,) with each channel at 0 or at its mean over the rows."""
    channels, number = features.shape[1], len(features)
    value = features.mean(dim=0) if plan.disturb == "mean" else torch.zeros_like(features[0])
    size = _size(population, plan)
    found = torch.zeros(channels, dtype=torch.float64, device=features.device)
    for first in range(0, channels, size):
        some = value[first : first + size, None]
        for part in population:
            answers = plan.form.run(part, first, some.expand(-1, len(part.features), *value.shape[1:]))
            found[first : first + len(some)] += distance_of(plan.distance, answers, part).sum(dim=1)
    return found / number


def _size(population: list[Rows], plan: Plan) -> int:
    longest = max(population, key=lambda part: len(part.features)).features
    return plan.form.size(len(longest), longest.shape[1], plan.memory)


def _places(population: list[Rows]) -> Iterator[tuple[Rows, int, int]]:
    """Each batch with the rows of the population that it holds."""
    start = 0
    for part in population:
        yield part, start, start + len(part.features)
        start += len(part.features)


def _merged(population: list[Rows]) -> Rows:
    if len(population) == 1:
        return population[0]
    targets = [part.target for part in population if part.target is not None]
    return Rows(
        features=torch.cat([part.features for part in population]),
        given=None,
        answers=torch.cat([part.answers for part in population]),
        other=torch.cat([part.other for part in population]),
        target=torch.cat(targets) if targets else None,
    )
