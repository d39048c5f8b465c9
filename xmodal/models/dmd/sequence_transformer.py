"""Several transformer encoders of equal size, computed together: their weights and their sequences are stacked.

    x₀ = drop(√w x + P(x)),   k₀ and v₀ likewise from another sequence (or from x itself)
    x  ← x + drop(A(LN₀(x), LN₀(k₀), LN₀(v₀)) W_o + b_o),   x ← x + drop(W₂ drop(relu(W₁ LN₁(x) + b₁)) + b₂)
    out = LN(x)

| symbol | attribute | shape |
|---|---|---|
| packed projections of A: Q, K, V | ``in_weight``, ``in_bias`` | (layers, members, 3 w, w), (…, 3 w) |
| W_o, b_o | ``out_weight``, ``out_bias`` | (layers, members, w, w), (…, w) |
| W₁, b₁ | ``up_weight``, ``up_bias`` | (layers, members, 4 w, w), (…, 4 w) |
| W₂, b₂ | ``down_weight``, ``down_bias`` | (layers, members, w, 4 w), (…, w) |
| LN₀, LN₁ | ``attention_norm_*``, ``feed_norm_*`` | (layers, members, w) |
| LN | ``norm_*`` | (members, w) |

P(x) is the code of `position_codes` for step t + 1, and zero where channel 0 of x is exactly zero: this is how the
authors' code recognises padding. A is `xmodal.models.dmd.attention.attend`; a query sees the keys of `future_mask`.

The result equals that of separate encoders up to rounding, and is computed faster: scale and shift of LN₀ and LN₁ are
multiplied into the matrix that follows, so the other sequence is normalised once for all layers, and all its keys and
values come from one product. If only the last step is needed, the last layer computes no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.dmd.attention import attend, future_of
from xmodal.models.dropout import dropout

# Smallest width: with two or three channels there is one frequency, and the formula of the frequencies divides by zero.
SMALLEST = 4
LAYERED = ("in", "out", "up", "down", "attention_norm", "feed_norm")
Weights = Mapping[str, Tensor]


class EncoderStack(nn.Module):
    """Encoders of equal size, see above.

    Args:
        members: name of each encoder.
        width: w, the width of their sequences.
        heads: of attention; the width must be a multiple of them.
        layers: of each encoder.
        longest: number of steps of the longest sequence.
        attention_dropout: rate for the attention weights of each member.
        embed_dropout: rate behind the position codes; queries, keys and values have separate masks.
        relu_dropout: rate inside the feed-forward part.
        residual_dropout: rate on what is added to x.
        causal: whether later keys are hidden, see `future_mask`.
    """

    codes: Tensor

    def __init__(
        self,
        members: Iterable[str],
        width: int,
        *,
        heads: int,
        layers: int,
        longest: int,
        attention_dropout: Sequence[float] = (),
        embed_dropout: float = 0.0,
        relu_dropout: float = 0.0,
        residual_dropout: float = 0.0,
        causal: bool = True,
    ) -> None:
        super().__init__()
        problems = [] if heads >= 1 and width % heads == 0 else [_indivisible(width, heads)]
        if width < SMALLEST:
            problems.append(f"A transformer of width {width} has no position codes: expected {SMALLEST} or more.")
        if problems:
            raise InputError(problems)
        self.members = tuple(members)
        self.width, self.heads, self.layers, self.causal = width, heads, layers, causal
        self.attention_dropout = tuple(attention_dropout) or (0.0,) * len(self.members)
        self.embed_dropout, self.relu_dropout, self.residual_dropout = embed_dropout, relu_dropout, residual_dropout
        each = (layers, len(self.members))
        # Initial values of the authors' code: Xavier uniform matrices, zero biases. Random draws follow the order of
        # this loop.
        for name, rows, columns in (("in", 3, 1), ("out", 1, 1), ("up", 4, 1), ("down", 1, 4)):
            matrices = torch.empty(*each, rows * width, columns * width)
            self.register_parameter(f"{name}_weight", nn.Parameter(_xavier(matrices)))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(*each, rows * width)))
        for name, axes in (("attention_norm", each), ("feed_norm", each), ("norm", each[1:])):
            self.register_parameter(f"{name}_weight", nn.Parameter(torch.ones(*axes, width)))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(*axes, width)))
        self.register_buffer("codes", position_codes(longest, width), persistent=False)

    def forward(
        self,
        queries: Sequence[Tensor],
        sources: Sequence[Tensor] | None = None,
        *,
        query_steps: Sequence[Tensor | None] = (),
        source_steps: Sequence[Tensor | None] = (),
        last: bool = False,
    ) -> list[Tensor]:
        """One sequence (batch, time, w) for each member in, one out.

        Args:
            queries: x of each member.
            sources: sequence from which each member takes keys and values; None: its own x.
            query_steps: for each member the number of real steps (batch,), which determines the last step; empty: there
                is no padding.
            source_steps: the same for the sources; padding is hidden.
            last: return only the last step, (batch, w).
        """
        lengths = [x.shape[1] for x in queries]
        source_lengths = lengths if sources is None else [x.shape[1] for x in sources]
        # Only members with equal lengths can be stacked in one tensor.
        groups: dict[tuple[int, int], list[int]] = {}
        for member, sizes in enumerate(zip(lengths, source_lengths, strict=True)):
            groups.setdefault(sizes, []).append(member)
        # By identity, since several members read the same sequence: its codes are added once.
        distinct = {id(x): x for x in (*queries, *(sources or ()))}
        coded = {key: self.coded(x) for key, x in distinct.items()}
        outputs: dict[int, Tensor] = {}
        for group, weights in zip(groups.values(), self._weights(list(groups.values())), strict=True):
            x = torch.stack([coded[id(queries[member])] for member in group])
            source = None if sources is None else torch.stack([coded[id(sources[member])] for member in group])
            ends = _together(query_steps, group)
            steps = _together(source_steps if sources is not None else query_steps, group)
            hidden = _padding(steps, source_lengths[group[0]])
            rates = tuple(self.attention_dropout[member] for member in group) if self.training else ()
            out = self._run(weights, x, source, rates, ends, hidden, last)
            outputs.update(zip(group, out.unbind(0), strict=True))
        return [outputs[member] for member in range(len(queries))]

    def coded(self, x: Tensor) -> Tensor:
        """√w x + P(x) of a sequence (batch, time, w)."""
        return x * math.sqrt(self.width) + self.codes[: x.shape[1]] * (x[..., :1] != 0).to(x.dtype)

    def _weights(self, groups: Sequence[Sequence[int]]) -> list[Weights]:
        """The parameters of each group of members."""
        parameters = dict(self.named_parameters())
        if len(groups) == 1:
            return [parameters]
        # The axis of the members: the final norm has no axis of layers before it.
        axes = {name: 0 if name.startswith("norm_") else 1 for name in parameters}
        parts = {name: torch.split(parameter, 1, axes[name]) for name, parameter in parameters.items()}
        return [
            {
                name: torch.cat([part[member] for member in group], axes[name]) if len(group) > 1 else part[group[0]]
                for name, part in parts.items()
            }
            for group in groups
        ]

    def _run(
        self,
        weights: Weights,
        x: Tensor,
        source: Tensor | None,
        rates: Sequence[float],
        ends: Tensor | None,
        hidden: Tensor | None,
        last: bool,
    ) -> Tensor:
        """All layers of members whose sequences have equal shapes: (members, batch, time, w) in and out."""
        layers = _layers(weights)
        read = None if source is None else self.keys_and_values(layers, source)
        x = dropout(x, self.embed_dropout, self.training)
        for number, layer in enumerate(layers):
            # Where x reads itself, earlier layers need all steps: the last layer takes keys and values from them.
            only_last = last and number == len(layers) - 1
            keys = None if read is None else read[number]
            x = self.layer(layer, x, keys, rates=rates, hidden=hidden, ends=ends, last=only_last)
        x = _normed(x) * weights["norm_weight"][:, None, None] + weights["norm_bias"][:, None, None]
        return x[:, :, 0] if last else x

    def keys_and_values(self, layers: Sequence[Weights], source: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of another sequence for every layer."""
        w, count = self.width, len(layers)
        matrices, biases = ([layer[name] for layer in layers] for name in ("in_weight", "in_bias"))
        # The authors' code drops keys and values with two masks, so in training they cannot share one product.
        if self.training and self.embed_dropout:
            keys, values = (_normed(dropout(source, self.embed_dropout)) for _ in range(2))
            rows = (slice(w, 2 * w), slice(2 * w, 3 * w))  # of K and of V in the packed projections
            projected = [
                _linear(x, torch.cat([m[:, part] for m in matrices], 1), torch.cat([b[:, part] for b in biases], 1))
                for x, part in zip((keys, values), rows, strict=True)
            ]
            return list(zip(*(self._heads(x, count) for x in projected), strict=True))
        matrix, bias = torch.cat([m[:, w:] for m in matrices], 1), torch.cat([b[:, w:] for b in biases], 1)
        parts = self._heads(_linear(_normed(source), matrix, bias), 2 * count)
        return list(zip(parts[::2], parts[1::2], strict=True))

    def layer(
        self,
        weights: Weights,
        x: Tensor,
        keys_and_values: tuple[Tensor, Tensor] | None = None,
        *,
        rates: Sequence[float] = (),
        hidden: Tensor | None = None,
        ends: Tensor | None = None,
        last: bool = False,
    ) -> Tensor:
        """One layer.

        Args:
            weights: of this layer, as `folded` returns them.
            x: (members, batch, time, w).
            keys_and_values: of another sequence, (members, batch, heads, w / heads, time) each; None: x's own.
            rates: dropout of attention weights for each member.
            hidden: (members, batch, keys), True for padding.
            ends: (members, batch) number of real steps of x; None: there is no padding.
            last: compute only the last real step, (members, batch, 1, w).
        """
        w, steps = self.width, x.shape[2]
        normed, matrix, bias = _normed(x), weights["in_weight"], weights["in_bias"]
        if keys_and_values is None and not last:
            query, key, value = self._heads(_linear(normed, matrix, bias), 3)
        else:
            if keys_and_values is None:
                key, value = self._heads(_linear(normed, matrix[:, w:], bias[:, w:]), 2)
            else:
                key, value = keys_and_values
            if last:
                x, normed = _at_end(x, ends), _at_end(normed, ends)
            (query,) = self._heads(_linear(normed, matrix[:, :w], bias[:, :w]), 1)
        # The last step sees every key that is not padding, so it needs no mask of later keys.
        future = future_of(steps, key.shape[-1]) if self.causal and not last else None
        read = attend(query, key, value, future=future, padding=hidden, dropout=rates)
        read = read.flatten(2, 3).transpose(2, 3)
        x = x + self._residual(_linear(read, weights["out_weight"], weights["out_bias"]))
        inner = _linear(_normed(x), weights["up_weight"], weights["up_bias"]).relu_()
        inner = dropout(inner, self.relu_dropout, self.training)
        return x + self._residual(_linear(inner, weights["down_weight"], weights["down_bias"]))

    def _residual(self, x: Tensor) -> Tensor:
        return dropout(x, self.residual_dropout, self.training)

    def _heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(members, batch, time, parts w) → of each part (members, batch, heads, w / heads, time)."""
        members, batch, steps, _ = projected.shape
        split = projected.view(members, batch, steps, parts, self.heads, self.width // self.heads)
        return torch.unbind(split.permute(3, 0, 1, 4, 5, 2).contiguous())


def _layers(weights: Weights) -> list[Weights]:
    """The weights of each layer, `folded`."""
    by_layer = {name: weights[name] for kind in LAYERED for name in (f"{kind}_weight", f"{kind}_bias")}
    whole = folded(by_layer)
    parts = {name: tensor.unbind(0) for name, tensor in whole.items()}
    return [{name: part[number] for name, part in parts.items()} for number in range(len(parts["in_weight"]))]


def folded(weights: Weights) -> dict[str, Tensor]:
    """Weights that contain the scale g and the shift b of both norms: W (g x + b) + c = (W g) x + (W b + c)."""
    out = {name: weights[name] for kind in ("out", "down") for name in (f"{kind}_weight", f"{kind}_bias")}
    for norm, kind in (("attention_norm", "in"), ("feed_norm", "up")):
        matrix, scale, shift = weights[f"{kind}_weight"], weights[f"{norm}_weight"], weights[f"{norm}_bias"]
        out[f"{kind}_weight"] = matrix * scale.unsqueeze(-2)
        out[f"{kind}_bias"] = weights[f"{kind}_bias"] + torch.matmul(matrix, shift.unsqueeze(-1)).squeeze(-1)
    return out


def position_codes(steps: int, width: int) -> Tensor:
    """Codes (steps, width) of the positions 1, 2, …: sines of all frequencies, then cosines, then zero if w is odd.

    The frequencies are exp(-n ln 10000 / (h - 1)) for n = 0 … h - 1 with h = ⌊w / 2⌋.

    Example:
        >>> position_codes(2, 5)[:, [0, 2, 4]].round(decimals=3).tolist()
        [[0.8410000205039978, 0.5400000214576721, 0.0], [0.9089999794960022, -0.41600000858306885, 0.0]]
    """
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / (half - 1)))
    angles = torch.arange(1, steps + 1, dtype=torch.float32).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos(), torch.zeros(steps, width - 2 * half)], dim=1)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(members, batch, time, in) → (members, batch, time, out), each member with its own matrix."""
    flat = torch.baddbmm(bias.unsqueeze(1), x.flatten(1, 2), weight.transpose(1, 2))
    return flat.view(*x.shape[:3], weight.shape[1])


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def _at_end(x: Tensor, ends: Tensor | None) -> Tensor:
    """The last real step, (members, batch, 1, w)."""
    if ends is None:
        return x[:, :, -1:]
    return x.gather(2, (ends - 1)[:, :, None, None].expand(-1, -1, 1, x.shape[-1]))


def _together(steps: Sequence[Tensor | None], group: Sequence[int]) -> Tensor | None:
    parts = [part for part in (steps[member] for member in group if steps) if part is not None]
    return torch.stack(parts) if parts else None


def _padding(steps: Tensor | None, longest: int) -> Tensor | None:
    if steps is None:
        return None
    return torch.arange(longest, device=steps.device) >= steps.unsqueeze(-1)


def _xavier(matrices: Tensor) -> Tensor:
    # nn.init.xavier_uniform_ would take the axes of layers and members for those of a convolution.
    bound = math.sqrt(6.0 / (matrices.shape[-1] + matrices.shape[-2]))
    return nn.init.uniform_(matrices, -bound, bound)


def _indivisible(width: int, heads: int) -> str:
    return f"The width is {width} and heads is {heads}: the width must be a multiple of the heads. Change one of them."
