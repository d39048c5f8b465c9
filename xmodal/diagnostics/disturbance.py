"""Distances between the outputs of two networks with each channel disturbed, by the fastest form that is possible.

A population is a set of batches among whose rows values are exchanged; the layers behind run batch by batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xmodal.diagnostics.linear import contributions, drawn_mse, exact_l1, exact_mse, slopes
from xmodal.diagnostics.permutation import blocks, checked
from xmodal.diagnostics.tail import Form, Rows, batched, distance_of, naive, one_by_one, rank_one, row_by_row
from xmodal.errors import InputError
from xmodal.models.cut import Split

DRAWS = 10  # permutations per channel where no closed form gives their exact mean; the authors' default


@dataclass(frozen=True, slots=True)
class Plan:
    """How to disturb the channels, and how to compute the distances.

    Attributes:
        distance: ``mse``, ``l1`` or ``ncjsd``.
        disturb: ``permute``, ``zero`` or ``mean``.
        permutations: their number, an array (draws, channels, rows), or None for the mean over all permutations.
        generator: random generator of the permutations; None is torch's global one.
        memory: bytes for stacked copies.
        form: how outputs are computed.
        weights: weights of a linear tail (channels, positions, outputs), where there is a closed form.
    """

    distance: str
    disturb: str
    permutations: int | Tensor | None
    generator: torch.Generator | None
    memory: int
    form: Form
    weights: Tensor | None


@dataclass(frozen=True, slots=True)
class Distances:
    """Distances of one population, or the mean over several.

    Attributes:
        raw: mean distance with each channel disturbed (channels,).
        deviation: standard deviation of a single draw (channels,); nan where it is not known.
        draws: distance of each draw (draws, channels); None where nothing is drawn.
        baseline: distance without disturbance.
    """

    raw: Tensor
    deviation: Tensor
    draws: Tensor | None
    baseline: float


def choose(
    network: nn.Module, layer: str, cut: Split | None, rows: Rows, *, method: str, memory: int
) -> tuple[str, Form, Tensor | None]:
    """Name of the form (the given method, or the fastest possible one for ``auto``), the form, and closed weights."""
    # From the slowest to the fastest: the last possible entry is taken.
    possible: dict[str, Form] = {"naive": naive(network, layer)}
    weights: Tensor | None = None
    if cut is not None:
        possible["tail"] = one_by_one(cut)
        if row_by_row(cut, rows):
            possible["batched"] = batched(cut, rows)
            if (update := rank_one(cut, rows)) is not None:
                possible["rank_one"] = update
            weights = slopes(cut, rows, memory) if method in ("auto", "closed") else None
            if weights is not None:
                possible["closed"] = contributions(weights)
    name = list(possible)[-1] if method == "auto" else method
    if name not in possible:
        raise InputError(
            f"method is '{method}', which is not possible at '{layer}': expected one of {', '.join(possible)}, or auto."
        )
    return name, possible[name], weights if name == "closed" else None


def measure(populations: list[list[Rows]], plan: Plan) -> Distances:
    """Distances of each population, averaged with their numbers of rows as weights."""
    results = [_of_population(population, plan) for population in populations]
    sizes = torch.tensor([sum(len(part.features) for part in population) for population in populations])
    shares = (sizes.double() / sizes.sum()).tolist()

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(dim=0)

    # Permutations of different populations are independent, so the variance of the mean is Σ share² · variance.
    variances = [share * result.deviation.square() for share, result in zip(shares, results, strict=True)]
    draws = [result.draws for result in results if result.draws is not None]
    return Distances(
        raw=mean([result.raw for result in results]),
        deviation=mean(variances).sqrt(),
        draws=mean(draws) if draws else None,
        baseline=sum(share * result.baseline for share, result in zip(shares, results, strict=True)),
    )


def _of_population(population: list[Rows], plan: Plan) -> Distances:
    whole = _merged(population)
    baseline = float(distance_of(plan.distance, whole.outputs[None], whole).mean())
    if plan.disturb != "permute":
        raw = _constant(population, whole.features, plan)
        return Distances(raw, torch.zeros_like(raw), None, baseline)
    if plan.permutations is None and plan.weights is not None:
        if plan.distance == "l1":
            raw = exact_l1(plan.weights, whole, plan.memory)
            return Distances(raw, torch.full_like(raw, math.nan), None, baseline)
        return Distances(*exact_mse(plan.weights, whole, plan.memory), None, baseline)
    permutations = DRAWS if plan.permutations is None else plan.permutations
    if isinstance(permutations, Tensor):
        permutations = checked(permutations, whole.features.shape[1], len(whole.features))
    if plan.weights is not None and plan.distance == "mse":
        draws, deviation = drawn_mse(plan.weights, whole, permutations, plan.generator, plan.memory)
    else:
        draws = _permuted(population, whole.features, permutations, plan)
        deviation = draws.std(dim=0) if len(draws) > 1 else torch.full_like(draws[0], math.nan)
    return Distances(draws.mean(dim=0), deviation, draws, baseline)


def _permuted(population: list[Rows], features: Tensor, permutations: int | Tensor, plan: Plan) -> Tensor:
    """Distances (draws, channels) with each channel permuted, by any form."""
    draws = permutations if isinstance(permutations, int) else len(permutations)
    channels, number = features.shape[1], len(features)
    size = _channels_per_call(population, plan)
    # float64, because a mean over many rows and permutations is compared with closed forms to ten digits.
    sums = torch.zeros(draws, channels, dtype=torch.float64, device=features.device)
    for draw, first, block in blocks(permutations, channels, number, size, plan.generator):
        order, columns = block.to(features.device), features[:, first : first + len(block)].transpose(0, 1)
        start = 0
        for part in population:
            stop = start + len(part.features)
            values = _exchanged(columns, order[:, start:stop])
            outputs = plan.form.run(part, first, values)
            sums[draw, first : first + len(block)] += distance_of(plan.distance, outputs, part).sum(dim=1)
            start = stop
    return sums / number


def _exchanged(columns: Tensor, order: Tensor) -> Tensor:
    """Values of channels (channels, rows, …) in the order of each, (channels, rows)."""
    if columns.ndim == 2:
        return columns.gather(1, order)  # a third of the time of the general form
    return columns[torch.arange(len(columns), device=columns.device)[:, None], order]


def _constant(population: list[Rows], features: Tensor, plan: Plan) -> Tensor:
    """Distances (channels,) with each channel set to 0 or to its mean over the rows."""
    channels, number = features.shape[1], len(features)
    value = features.mean(dim=0) if plan.disturb == "mean" else torch.zeros_like(features[0])
    size = _channels_per_call(population, plan)
    sums = torch.zeros(channels, dtype=torch.float64, device=features.device)
    for first in range(0, channels, size):
        block = value[first : first + size, None]
        for part in population:
            outputs = plan.form.run(part, first, block.expand(-1, len(part.features), *value.shape[1:]))
            sums[first : first + len(block)] += distance_of(plan.distance, outputs, part).sum(dim=1)
    return sums / number


def _channels_per_call(population: list[Rows], plan: Plan) -> int:
    # A block of channels runs through every batch of the population, so its copies must fit for the longest one.
    longest = max(population, key=lambda part: len(part.features)).features
    return plan.form.size(longest, longest.shape[1], plan.memory)


def _merged(population: list[Rows]) -> Rows:
    if len(population) == 1:
        return population[0]
    targets = [part.target for part in population if part.target is not None]
    # Without context: closed forms and the baseline need the outputs only, all others run batch by batch.
    return Rows(
        features=torch.cat([part.features for part in population]),
        context=None,
        outputs=torch.cat([part.outputs for part in population]),
        other_outputs=torch.cat([part.other_outputs for part in population]),
        target=torch.cat(targets) if targets else None,
    )
