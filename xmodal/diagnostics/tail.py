"""Outputs of a network whose channels are disturbed one at a time, in several forms that give the same numbers.

| form | computation per draw and channel |
|---|---|
| ``naive`` | the whole network, with the layer's output replaced |
| ``tail`` | the layers behind |
| ``batched`` | the layers behind, for many channels in one call |
| ``rank_one`` | the result of the first layer behind is updated, H' = H + w(δ), and the layers behind it run |

Z are the channels of the layer, δ is the change of one of them by the disturbance. The first layer behind is linear or
a convolution, so its result is a sum over channels; w(δ) is the part of one channel: δ wᵀ for a column w of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xmodal.losses.divergence import ncjsd
from xmodal.models.cut import Split, alike
from xmodal.models.feature_layers import replacing

INVALID = -1  # target at invalid positions of dense data: never a class number
DISTANCES = ("mse", "l1", "ncjsd")
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
# Channels from which on the convolution of one of them saves time: 15 % of a saliency with 32 channels; with three it
# takes longer than that of all.
FEWEST = 16
# Bytes of the copies of one call on a CPU. Larger copies leave its caches, and new memory is mapped for each of them.
CACHED = 2**24


@dataclass(slots=True)
class Rows:
    """The rows of a batch, run up to the layer.

    Attributes:
        features: output of the layer (rows, channels, …).
        context: other results of the head that the tail needs, or the inputs where the network could not be cut.
        outputs: outputs of the network whose channels will be disturbed, before any disturbance.
        other_outputs: outputs of the other network.
        target: class numbers, for distances that need them.
    """

    features: Tensor
    context: Any
    outputs: Tensor
    other_outputs: Tensor
    target: Tensor | None


@dataclass(frozen=True, slots=True)
class Form:
    """A way to compute the outputs with disturbed channels.

    Attributes:
        run: maps rows, the number of the first channel and new values of some channels (channels, rows, …) to outputs
            (channels, rows, …), each with one channel replaced.
        bytes_per_row: approximate memory per row and channel.
        most: largest number of channels in a call; None: as many as memory allows.
    """

    run: Callable[[Rows, int, Tensor], Tensor]
    bytes_per_row: int
    most: int | None = None

    def size(self, rows: Tensor, channels: int, memory: int) -> int:
        """Number of channels in a call."""
        memory = min(memory, CACHED) if rows.device.type == "cpu" else memory
        fits = max(1, memory // max(1, len(rows) * self.bytes_per_row))
        return min(channels, fits, self.most or channels)


def naive(network: nn.Module, layer: str) -> Form:
    """Run the whole network each time: the reference that the other forms are compared with."""

    def run(rows: Rows, first: int, values: Tensor) -> Tensor:
        outputs = []
        for copy in disturbed(rows.features, first, values):
            with replacing(network, layer, lambda _, copy=copy: copy.clone()):  # type: ignore[misc]
                outputs.append(network(rows.context))
        return torch.stack(outputs)

    return Form(run, 0, most=1)


def one_by_one(cut: Split) -> Form:
    """Run the tail for one channel at a time."""

    def run(rows: Rows, first: int, values: Tensor) -> Tensor:
        return torch.stack([cut.tail(copy, rows.context) for copy in disturbed(rows.features, first, values)])

    return Form(run, 0, most=1)


def batched(cut: Split, example: Rows) -> Form:
    """Run the tail for many channels at a time. It must process rows independently: see `row_by_row`."""

    def run(rows: Rows, first: int, values: Tensor) -> Tensor:
        copies = disturbed(rows.features, first, values).flatten(0, 1)
        return stacked(cut, copies, rows.context, len(values), values.shape[1])

    # Four times the larger end of the tail: layers between may be wider, and inputs and outputs exist together.
    return Form(run, 4 * max(_row_bytes(example.features), _row_bytes(example.outputs)))


def rank_one(cut: Split, example: Rows) -> Form | None:
    """Update the result of the first layer behind; run the rest for many channels at a time.

    None where that layer is neither linear nor a convolution of all channels. The tail must process rows independently.
    """
    if (behind := cut.first_layer()) is None:
        return None
    layer, flat, rest = behind
    features = example.features
    add: Callable[[Tensor, int, Tensor], Tensor]
    if isinstance(layer, nn.Linear) and (flat or features.ndim == 2):
        add = _adding_products(layer, features[0, 0].numel())
    elif isinstance(layer, Convolution) and not flat and _sums_over_channels(layer, features):
        add = _adding_convolutions(layer)
    else:
        return None
    # The undisturbed result is computed once per batch; batches are identified by object because they are not hashable.
    hidden: dict[int, Tensor] = {}

    def run(rows: Rows, first: int, values: Tensor) -> Tensor:
        if id(rows) not in hidden:
            hidden[id(rows)] = layer(rows.features.flatten(1) if flat else rows.features)
        change = values - rows.features[:, first : first + len(values)].transpose(0, 1)
        copies = add(hidden[id(rows)], first, change)
        return stacked(rest, copies.flatten(0, 1), rows.context, *values.shape[:2])

    with torch.no_grad():
        result = layer(features[:1].flatten(1) if flat else features[:1])
    return Form(run, 4 * _row_bytes(result))


def _adding_products(layer: nn.Linear, positions: int) -> Callable[[Tensor, int, Tensor], Tensor]:
    """Copies (channels, rows, outputs) of the layer's result, with the changes (channels, rows, …) of channels."""
    # (channels, positions, outputs): a column of the weights for each number of a channel, in order in memory
    columns = layer.weight.detach().T.reshape(-1, positions, layer.out_features).contiguous()

    def add(before: Tensor, first: int, change: Tensor) -> Tensor:
        some, change = columns[first : first + len(change)], change.reshape(*change.shape[:2], positions)
        if positions == 1:
            return torch.addcmul(before, change, some)
        return torch.baddbmm(before.expand(len(change), *before.shape), change, some)

    return add


def _adding_convolutions(layer: Convolution) -> Callable[[Tensor, int, Tensor], Tensor]:
    """The same, for a layer whose results are maps."""
    convolve = CONVOLUTIONS[type(layer)]
    weight, options = layer.weight.detach(), (layer.stride, layer.padding, layer.dilation)

    def add(before: Tensor, first: int, change: Tensor) -> Tensor:
        copies = before.new_empty(len(change), *before.shape)
        for number, (copy, part) in enumerate(zip(copies, change, strict=True), start=first):
            torch.add(before, convolve(part[:, None], weight[:, number : number + 1], None, *options), out=copy)
        return copies

    return add


def _sums_over_channels(layer: Convolution, features: Tensor) -> bool:
    """Whether every result is a sum of one convolution per channel of the features, and these are many enough."""
    plain = layer.groups == 1 and layer.padding_mode == "zeros"
    return plain and features.ndim == 2 + len(layer.kernel_size) and features.shape[1] >= FEWEST


def disturbed(features: Tensor, first: int, values: Tensor) -> Tensor:
    """Copies of the features (copies, rows, channels, …): copy i has values[i] as channel first + i."""
    copies = features.expand(len(values), *features.shape).clone()
    number = torch.arange(len(values), device=features.device)
    copies[number, :, first + number] = values.to(copies.dtype)
    return copies


def stacked(cut: Split, copies: Tensor, context: Any, number: int, rows: int) -> Tensor:
    """Outputs of the tail (number, rows, …) for concatenated copies (number · rows, …)."""
    if context:
        context = cut.pick(context, rows, torch.arange(rows, device=copies.device).repeat(number))
    # Copies and context are created here and used once, so layers that work in place may overwrite them.
    outputs = cut.tail(copies, context, spend=True)
    return outputs.reshape(number, rows, *outputs.shape[1:])


def row_by_row(cut: Split, rows: Rows) -> bool:
    """Whether each row's output depends on that row alone, so that copies of a batch may be stacked."""
    few = min(4, len(rows.features))
    index = torch.arange(few, device=rows.features.device)
    context = cut.pick(rows.context, len(rows.features), index)
    features = rows.features[:few]
    # Other values in another order, so that a tail that mixes rows, or compares them by position, gives other outputs.
    changed = -2 * features.flip(0) if features.is_floating_point() else features.flip(0)
    try:
        together = stacked(cut, torch.cat([features, changed]), context, 2, few)
        alone = torch.stack([cut.tail(features, context), cut.tail(changed, context)])
        first = cut.tail(changed[:1], cut.pick(context, few, index[:1]))
    # A tail may require the number of rows of the batch and raise any exception. It can then not be stacked, and the
    # caller uses a slower form.
    except Exception:
        return False
    return alike(together, alone) and alike(first, alone[1, :1])


def distance_of(name: str, outputs: Tensor, rows: Rows) -> Tensor:
    """Distance of each row's outputs (copies, rows, …) from the other network's, averaged over outputs: (copies, rows).

    Example:
        >>> rows = Rows(torch.zeros(1, 1), None, torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]), None)
        >>> distance_of("mse", torch.tensor([[[0.0, 0.0]]]), rows).tolist()
        [[2.0]]
    """
    # float64: the effect of one channel is a small difference of two large distances.
    disturbed_outputs, other_outputs = outputs.double(), rows.other_outputs.double()
    if name == "ncjsd":
        assert rows.target is not None
        target = rows.target.expand(len(disturbed_outputs), *rows.target.shape).flatten(0, 1)
        valid = (target != INVALID).reshape(*disturbed_outputs.shape[:2], -1)
        logits = other_outputs.expand_as(disturbed_outputs).flatten(0, 1), disturbed_outputs.flatten(0, 1)
        values = ncjsd(*logits, target.clamp(min=0), reduction="none").reshape(valid.shape)
        return (values * valid).sum(dim=2) / valid.sum(dim=2).clamp(min=1)
    difference = (disturbed_outputs - other_outputs).flatten(2)
    return (difference.square() if name == "mse" else difference.abs()).mean(dim=2)


def _row_bytes(tensor: Tensor) -> int:
    return tensor[0].numel() * tensor.element_size()
