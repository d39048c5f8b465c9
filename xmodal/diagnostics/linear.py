r"""Saliency behind which all is linear: no network runs, and the mean over all permutations is known exactly.

Where the answers are affine in the channels Z (rows n = 1..N, answers k = 1..K), with R = answers - the other network's
and w_c the weights of channel c,

$$D_c(\pi) = \frac1{NK}\Big(A_c + 2\sum_n Z_{\pi(n)c} U_{nc}\Big), \quad
A_c = \|R\|^2 - 2\sum_n Z_{nc} S_{nc} + 2 q_c \sum_n Z_{nc}^2$$

with S_nc = r_n · w_c, q_c = ‖w_c‖² and U = S - qZ. Over all permutations of the rows

$$E[D_c] = \frac{A_c + 2N \bar Z_c \bar U_c}{NK}, \quad
\mathrm{Var}[D_c] = \frac{4}{(NK)^2} \frac{\sum_n (Z - \bar Z)^2 \sum_n (U - \bar U)^2}{N - 1}$$

Z is centred first, which changes no D, makes the mean term vanish and lets a constant channel leave the distance as it
is. A channel that is a map of P places has P columns; products become sums over them. With the mean
absolute difference E[D_c] = 1/(N²K) Σ_k Σ_n Σ_m |R_nk + V_mk - V_nk|, V = Z wᵀ: one sort of V per channel and answer.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from xmodal.diagnostics.permutation import blocks
from xmodal.diagnostics.tail import Form, Rows
from xmodal.models.split import Split, alike

SCALES = (1e-3, 1.0, 1e3, 1e6)  # of the probes, in deviations of the features: kinks and saturation show at one of them
EXACT = 1e-9  # what float64 must keep, relative to the largest answer


def slopes(cut: Split, rows: Rows, memory: int) -> Tensor | None:
    """Weights (channels, places, answers) in float64 of a tail that is affine in its features, or None.

    Not read from the names of layers: the tail is asked, in float64. Its answer to a change must be the same for every
    row, add up, and grow in proportion, from a thousandth of the features' deviation to a million times it, both ways.

    Args:
        cut: must treat rows one by one.
        rows: features and context to start from.
        memory: bytes for the probes and their answers.
    """
    try:
        return _slopes(cut, rows, memory)
    except Exception:  # layers may refuse to be copied, or to work in float64, in any words
        return None


def _slopes(cut: Split, rows: Rows, memory: int) -> Tensor | None:
    features = rows.features
    if not features.is_floating_point():
        return None
    wide = features[0].numel()
    if wide * rows.answers[0].numel() * 8 > memory:
        return None
    index = torch.tensor([*range(min(4, len(features))), 0], device=features.device)
    context, start = cut.pick(rows.given, len(features), index), features[index]
    start[-1] = 0.0  # many functions bend there
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, *features.shape[1:], generator=generator, dtype=torch.float64)
    deviation = _size_of(features)
    one, two = (drawn.to(features.device) * deviation).unbind()
    far = (1e3 * one).to(features.dtype)
    if not _linear(_change(cut, start, context, far), -_change(cut, start, context, -far), 1e-2):
        return None  # most tails end here, before anything is copied
    exact = cut.double()
    start, context = start.double(), {step: _double(value) for step, value in context.items()}
    unit = _change(exact, start, context, one)
    for scale in SCALES:
        for sign in (scale, -scale):
            if not _linear(_change(exact, start, context, sign * one) / sign, unit, EXACT):
                return None
            both = _change(exact, start, context, sign * (one + two)) - _change(exact, start, context, sign * two)
            if not _linear(both / sign, unit, EXACT):
                return None
    weights = _columns(exact, start, context, deviation, memory)
    predicted = torch.einsum("d,d...->...", one.flatten(), weights)
    if not _linear(predicted.expand_as(unit.flatten(1)), unit.flatten(1), EXACT):
        return None
    return weights.reshape(features.shape[1], -1, weights.shape[1])


def contributions(weights: Tensor) -> Form:
    """Answers (channels, rows, …) in float64, from what each channel adds to them: δ wᵀ."""

    def run(rows: Rows, first: int, values: Tensor) -> Tensor:
        before = rows.features[:, first : first + len(values)].transpose(0, 1)
        change = (values.double() - before.double()).reshape(*values.shape[:2], -1)
        added = torch.bmm(change, weights[first : first + len(values)])
        return rows.answers.double() + added.reshape(len(values), *rows.answers.shape)

    return Form(run, 32 * weights.shape[2])


def drawn_mse(
    weights: Tensor, rows: Rows, permutations: int | Tensor, generator: torch.Generator | None, memory: int
) -> tuple[Tensor, Tensor]:
    """Distances (draws, channels) for these permutations, and the deviation (channels,) of one such distance."""
    draws = permutations if isinstance(permutations, int) else len(permutations)
    channels, number = len(weights), len(rows.features)
    size = _size(weights, number, memory)
    whole = [_chunk(weights, rows, 0, channels)] if size >= channels else []  # otherwise made again for each draw
    found = torch.empty(draws, channels, dtype=torch.float64, device=weights.device)
    deviation = torch.empty(channels, dtype=torch.float64, device=weights.device)
    for draw, first, some in blocks(permutations, channels, number, size, generator):
        last = first + len(some)
        fixed, z, u, deviation[first:last] = whole[0] if whole else _chunk(weights, rows, first, last)
        moved = z.gather(1, some.to(z.device)[:, :, None].expand(-1, -1, z.shape[2]))
        found[draw, first:last] = fixed + 2 * (moved * u).sum(dim=(1, 2))
    return found / rows.answers.numel(), deviation / rows.answers.numel()


def exact_mse(weights: Tensor, rows: Rows, memory: int) -> tuple[Tensor, Tensor]:
    """Mean (channels,) and deviation (channels,) of the distance over all permutations of the rows."""
    size = _size(weights, len(rows.features), memory)
    steps = [_chunk(weights, rows, first, last) for first, last in _steps(len(weights), size)]
    mean, deviation = (torch.cat([step[part] for step in steps]) / rows.answers.numel() for part in (0, 3))
    return mean, deviation


def exact_l1(weights: Tensor, rows: Rows, memory: int) -> Tensor:
    """Mean (channels,) of the distance over all permutations of the rows."""
    residual = (rows.answers.double() - rows.other.double()).flatten(1).T  # answers, rows
    number = residual.shape[1]
    means = []
    for start, last in _steps(len(weights), memory // (64 * residual.numel())):
        z = _centred(rows.features, start, last)
        added = torch.bmm(z, weights[start:last]).transpose(1, 2).contiguous()  # channels, answers, rows
        ordered = added.sort(dim=2).values
        sums = torch.nn.functional.pad(ordered.cumsum(dim=2), (1, 0))
        point = (added - residual).contiguous()  # |V_m - (V_n - R_n)|, summed over m
        below = torch.searchsorted(ordered, point)
        total = point * (2 * below - number) - 2 * sums.gather(2, below) + sums[:, :, -1:]
        means.append(total.sum(dim=(1, 2)) / number / residual.numel())
    return torch.cat(means)


def _chunk(weights: Tensor, rows: Rows, first: int, last: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of some channels: A, Z, U, and the deviation of A + 2 Σ Z_π U."""
    residual = (rows.answers.double() - rows.other.double()).flatten(1)
    places, outputs = weights.shape[1:]
    z, w = _centred(rows.features, first, last), weights[first:last]
    if places > outputs:  # what a map adds to the answers has fewer numbers than the map
        z, w = torch.bmm(z, w), torch.eye(outputs, dtype=w.dtype, device=w.device).expand(last - first, -1, -1)
    s = torch.einsum("nk,cpk->cnp", residual, w)
    zq = torch.bmm(z, torch.bmm(w, w.transpose(1, 2)))
    u = s - zq
    fixed = residual.square().sum() - 2 * (z * s).sum(dim=(1, 2)) + (z * zq).sum(dim=(1, 2)) * 2
    centred = u - u.mean(dim=1, keepdim=True)
    grams = torch.bmm(z.transpose(1, 2), z) * torch.bmm(centred.transpose(1, 2), centred)
    spread = grams.sum(dim=(1, 2)).clamp(min=0) / max(len(residual) - 1, 1)
    return fixed, z, u, 2 * spread.sqrt()


def _size(weights: Tensor, rows: int, memory: int) -> int:
    """Channels at a time."""
    return min(len(weights), max(1, memory // (64 * rows * min(weights.shape[1:]))))


def _centred(features: Tensor, start: int, last: int) -> Tensor:
    """Channels (channels, rows, places) in float64, each with mean zero."""
    z = features[:, start:last].double().transpose(0, 1).reshape(last - start, len(features), -1)
    return z - z.mean(dim=1, keepdim=True)


def _steps(channels: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, channels, max(1, size)):
        yield first, min(first + max(1, size), channels)


def _change(cut: Split, start: Tensor, context: object, change: Tensor) -> Tensor:
    before, after = (cut.tail(features, context) for features in (start, start + change))  # type: ignore[arg-type]
    return after - before


def _columns(cut: Split, start: Tensor, context: object, scale: float, memory: int) -> Tensor:
    """What a unit of each feature adds to the answers (features, answers)."""
    shape, wide = start.shape[1:], start[0].numel()
    context = cut.pick(context, len(start), torch.zeros(1, dtype=torch.long, device=start.device))  # type: ignore[arg-type]
    zero = cut.tail(torch.zeros_like(start[:1]), context)
    found = []
    for first, last in _steps(wide, memory // (64 * wide)):
        probes = torch.zeros(last - first, wide, dtype=start.dtype, device=start.device)
        probes[torch.arange(last - first), torch.arange(first, last)] = scale
        same = torch.zeros(last - first, dtype=torch.long, device=start.device)
        answers = cut.tail(probes.reshape(-1, *shape), cut.pick(context, 1, same))
        found.append((answers - zero).flatten(1) / scale)
    return torch.cat(found)


def _size_of(features: Tensor) -> float:
    """How far features lie apart; for a single row or constant ones, how large they are."""
    numbers = features.double()
    return float(numbers.std(dim=0, correction=0).mean()) or float(numbers.abs().mean()) or 1.0


def _linear(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    """Whether the changes are as wanted, and those of all rows are the first row's."""
    return alike(found, wanted, tolerance) and alike(found, found[:1].expand_as(found), tolerance)


def _double(value: object) -> object:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
