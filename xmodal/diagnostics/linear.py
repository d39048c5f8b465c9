r"""Saliency of a layer with a linear tail: no network runs, and the mean over all permutations has a closed form.

Where the outputs are affine in the channels Z (rows n = 1..N, outputs k = 1..K), with R = outputs - the other network's
outputs, and w_c the weights of channel c,

$$D_c(\pi) = \frac1{NK}\Big(A_c + 2\sum_n Z_{\pi(n)c} U_{nc}\Big), \quad
A_c = \|R\|^2 - 2\sum_n Z_{nc} S_{nc} + 2 q_c \sum_n Z_{nc}^2$$

with S_nc = r_n · w_c, q_c = ‖w_c‖² and U = S - qZ. Over all permutations of the rows

$$E[D_c] = \frac{A_c + 2N \bar Z_c \bar U_c}{NK}, \quad
\mathrm{Var}[D_c] = \frac{4}{(NK)^2} \frac{\sum_n (Z - \bar Z)^2 \sum_n (U - \bar U)^2}{N - 1}$$

Z is centred first, which changes no D, makes the mean term vanish, and gives a constant channel the undisturbed
distance. A channel that is a map of P positions has P columns; products become sums over them. With the mean absolute
difference E[D_c] = 1/(N²K) Σ_k Σ_n Σ_m |R_nk + V_mk - V_nk|, V = Z wᵀ: one sort of V per channel and output.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from xmodal.diagnostics.permutation import blocks
from xmodal.diagnostics.tail import Form, Rows
from xmodal.models.cut import Split, alike

# Sizes of the probes in standard deviations of the features: a kink shows at a small or medium one, saturation at a
# large one.
SCALES = (1e-3, 1.0, 1e3, 1e6)
# Tolerance of the linearity test in float64, relative to the largest output: a probe of 1e6 loses six of 16 digits.
EXACT = 1e-9


def slopes(cut: Split, rows: Rows, memory: int) -> Tensor | None:
    """Weights (channels, positions, outputs) in float64 of a tail that is affine in its features, or None.

    The types of the layers are not used: the tail is probed in float64. The change of its outputs must be the same for
    every row, additive, and proportional to the change of the features, from a thousandth to a million of their
    standard deviations, in both directions.

    Args:
        cut: a network whose tail processes rows independently.
        rows: features and context to start from.
        memory: bytes for the probes and their outputs.
    """
    try:
        return _slopes(cut, rows, memory)
    # Layers may fail to be copied or to run in float64, with any exception. None means no closed form: the caller then
    # runs the network itself, where a real error shows.
    except Exception:
        return None


def _slopes(cut: Split, rows: Rows, memory: int) -> Tensor | None:
    features = rows.features
    if not features.is_floating_point():
        return None
    width = features[0].numel()
    if width * rows.outputs[0].numel() * 8 > memory:
        return None
    index = torch.tensor([*range(min(4, len(features))), 0], device=features.device)
    context, start = cut.pick(rows.context, len(features), index), features[index]
    # One probe starts at 0, because many functions (ReLU, abs) have their kink there.
    start[-1] = 0.0
    # A generator with a fixed seed: the choice of the form must not depend on, or advance, the global generator.
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2, *features.shape[1:], generator=generator, dtype=torch.float64)
    deviation = _magnitude(features)
    u, v = (directions.to(features.device) * deviation).unbind()
    # A coarse test in the network's own precision rules out most tails before anything is copied.
    far = (1e3 * u).to(features.dtype)
    if not _same_change(_change(cut, start, context, far), -_change(cut, start, context, -far), 1e-2):
        return None
    exact = cut.double()
    start, context = start.double(), {step: _double(value) for step, value in context.items()}
    unit = _change(exact, start, context, u)
    for scale in SCALES:
        for factor in (scale, -scale):
            if not _same_change(_change(exact, start, context, factor * u) / factor, unit, EXACT):
                return None
            both = _change(exact, start, context, factor * (u + v)) - _change(exact, start, context, factor * v)
            if not _same_change(both / factor, unit, EXACT):
                return None
    weights = _columns(exact, start, context, deviation, memory)
    predicted = torch.einsum("d,d...->...", u.flatten(), weights)
    if not _same_change(predicted.expand_as(unit.flatten(1)), unit.flatten(1), EXACT):
        return None
    return weights.reshape(features.shape[1], -1, weights.shape[1])


def contributions(weights: Tensor) -> Form:
    """Outputs (channels, rows, …) in float64, from the contribution δ wᵀ of each channel."""

    def run(rows: Rows, first: int, values: Tensor) -> Tensor:
        before = rows.features[:, first : first + len(values)].transpose(0, 1)
        change = (values.double() - before.double()).reshape(*values.shape[:2], -1)
        added = torch.bmm(change, weights[first : first + len(values)])
        return rows.outputs.double() + added.reshape(len(values), *rows.outputs.shape)

    # Bytes per row, channel and output: four float64 tables (change, contribution, outputs, difference) exist together.
    return Form(run, 32 * weights.shape[2])


def drawn_mse(
    weights: Tensor, rows: Rows, permutations: int | Tensor, generator: torch.Generator | None, memory: int
) -> tuple[Tensor, Tensor]:
    """Distances (draws, channels) for given or drawn permutations, and the deviation (channels,) of a single draw."""
    draws = permutations if isinstance(permutations, int) else len(permutations)
    channels, number = len(weights), len(rows.features)
    size = _channels_per_block(weights, number, memory)
    # If all channels fit into memory their terms are computed once, otherwise again for each draw: permutations are
    # drawn draw by draw, so all channels of a draw come before the next draw.
    whole = [_terms(weights, rows, 0, channels)] if size >= channels else []
    sums = torch.empty(draws, channels, dtype=torch.float64, device=weights.device)
    deviation = torch.empty(channels, dtype=torch.float64, device=weights.device)
    for draw, first, block in blocks(permutations, channels, number, size, generator):
        last = first + len(block)
        fixed, z, u, deviation[first:last] = whole[0] if whole else _terms(weights, rows, first, last)
        permuted = z.gather(1, block.to(z.device)[:, :, None].expand(-1, -1, z.shape[2]))
        sums[draw, first:last] = fixed + 2 * (permuted * u).sum(dim=(1, 2))
    return sums / rows.outputs.numel(), deviation / rows.outputs.numel()


def exact_mse(weights: Tensor, rows: Rows, memory: int) -> tuple[Tensor, Tensor]:
    """Mean (channels,) and deviation (channels,) of the distance over all permutations of the rows."""
    size = _channels_per_block(weights, len(rows.features), memory)
    terms = [_terms(weights, rows, first, last) for first, last in _ranges(len(weights), size)]
    # Z is centred, so the term 2 N Z̄ Ū of the mean is 0 and A alone remains.
    mean, deviation = (torch.cat([term[part] for term in terms]) / rows.outputs.numel() for part in (0, 3))
    return mean, deviation


def exact_l1(weights: Tensor, rows: Rows, memory: int) -> Tensor:
    """Mean (channels,) of the distance over all permutations of the rows."""
    residual = (rows.outputs.double() - rows.other_outputs.double()).flatten(1).T  # outputs, rows
    number = residual.shape[1]
    means = []
    for start, last in _ranges(len(weights), memory // (64 * residual.numel())):
        z = _centred(rows.features, start, last)
        added = torch.bmm(z, weights[start:last]).transpose(1, 2).contiguous()  # channels, outputs, rows
        # Σ_m |V_m - point| = point (2b - N) - 2 Σ_{m ≤ b} V_(m) + Σ_m V_m with b values below the point: one sort and
        # its prefix sums instead of N² differences.
        ordered = added.sort(dim=2).values
        sums = torch.nn.functional.pad(ordered.cumsum(dim=2), (1, 0))
        point = (added - residual).contiguous()
        below = torch.searchsorted(ordered, point)
        total = point * (2 * below - number) - 2 * sums.gather(2, below) + sums[:, :, -1:]
        means.append(total.sum(dim=(1, 2)) / number / residual.numel())
    return torch.cat(means)


def _terms(weights: Tensor, rows: Rows, first: int, last: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A, Z, U of some channels, and the deviation of A + 2 Σ Z_π U."""
    residual = (rows.outputs.double() - rows.other_outputs.double()).flatten(1)
    positions, outputs = weights.shape[1:]
    z, w = _centred(rows.features, first, last), weights[first:last]
    # A map with more positions than outputs is replaced by its contribution to the outputs, which has fewer columns.
    if positions > outputs:
        z, w = torch.bmm(z, w), torch.eye(outputs, dtype=w.dtype, device=w.device).expand(last - first, -1, -1)
    s = torch.einsum("nk,cpk->cnp", residual, w)
    zq = torch.bmm(z, torch.bmm(w, w.transpose(1, 2)))
    u = s - zq
    fixed = residual.square().sum() - 2 * (z * s).sum(dim=(1, 2)) + (z * zq).sum(dim=(1, 2)) * 2
    centred = u - u.mean(dim=1, keepdim=True)
    grams = torch.bmm(z.transpose(1, 2), z) * torch.bmm(centred.transpose(1, 2), centred)
    # The clamp: for a constant channel rounding can leave a negative sum, whose root would be nan.
    variance = grams.sum(dim=(1, 2)).clamp(min=0) / max(len(residual) - 1, 1)
    return fixed, z, u, 2 * variance.sqrt()


def _channels_per_block(weights: Tensor, rows: int, memory: int) -> int:
    # 64 bytes: about eight float64 tables of the size of Z exist together in `_terms`.
    return min(len(weights), max(1, memory // (64 * rows * min(weights.shape[1:]))))


def _centred(features: Tensor, start: int, last: int) -> Tensor:
    """Channels (channels, rows, positions) in float64, each with mean zero."""
    z = features[:, start:last].double().transpose(0, 1).reshape(last - start, len(features), -1)
    return z - z.mean(dim=1, keepdim=True)


def _ranges(channels: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, channels, max(1, size)):
        yield first, min(first + max(1, size), channels)


def _change(cut: Split, start: Tensor, context: object, change: Tensor) -> Tensor:
    before, after = (cut.tail(features, context) for features in (start, start + change))  # type: ignore[arg-type]
    return after - before


def _columns(cut: Split, start: Tensor, context: object, scale: float, memory: int) -> Tensor:
    """Change of the outputs per unit of each feature (features, outputs)."""
    shape, width = start.shape[1:], start[0].numel()
    context = cut.pick(context, len(start), torch.zeros(1, dtype=torch.long, device=start.device))  # type: ignore[arg-type]
    at_zero = cut.tail(torch.zeros_like(start[:1]), context)
    columns = []
    for first, last in _ranges(width, memory // (64 * width)):
        # Probes of the features' own size: a unit could be far below or above the values that the tail is built for.
        probes = torch.zeros(last - first, width, dtype=start.dtype, device=start.device)
        probes[torch.arange(last - first), torch.arange(first, last)] = scale
        first_row = torch.zeros(last - first, dtype=torch.long, device=start.device)
        outputs = cut.tail(probes.reshape(-1, *shape), cut.pick(context, 1, first_row))
        columns.append((outputs - at_zero).flatten(1) / scale)
    return torch.cat(columns)


def _magnitude(features: Tensor) -> float:
    """Mean standard deviation of the features; their mean size for a single row or constant features."""
    values = features.double()
    return float(values.std(dim=0, correction=0).mean()) or float(values.abs().mean()) or 1.0


def _same_change(changes: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether the changes have the expected values, and are equal in all rows."""
    return alike(changes, expected, tolerance) and alike(changes, changes[:1].expand_as(changes), tolerance)


def _double(value: object) -> object:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
