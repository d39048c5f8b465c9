"""The answers of a network whose channels are disturbed one at a time, in several ways that give the same numbers.

| form | per draw and channel |
|---|---|
| ``naive`` | the whole network, with the place replaced |
| ``tail`` | the layers behind the place |
| ``batched`` | the same, many channels in one call |
| ``rank_one`` | the linear layer that comes first is updated, H' = H + δ wᵀ, and the layers behind it run |

Z holds the channels at the place, δ what a disturbance adds to a column of Z, w that column's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xmodal.losses.divergence import ncjsd
from xmodal.models.cut import Split, alike
from xmodal.models.feature_layers import replacing

NOWHERE = -1  # in place of the target, at places that do not count
DISTANCES = ("mse", "l1", "ncjsd")


@dataclass(slots=True)
class Rows:
    """Some rows, run as far as the place.

    Attributes:
        features: what stands at the place (rows, channels, …).
        given: what the tail needs besides, or the inputs where the network could not be cut.
        answers: of the network whose channels are disturbed, undisturbed.
        other: answers of the other network.
        target: class numbers, for distances that need them.
    """

    features: Tensor
    given: Any
    answers: Tensor
    other: Tensor
    target: Tensor | None


@dataclass(frozen=True, slots=True)
class Form:
    """A way to get the answers (channels, rows, …) for some channels, from the first one on, and their new values.

    Attributes:
        run: maps rows, first channel and new values (channels, rows, …) to answers.
        bytes_per_row: memory per row and channel, roughly.
        most: channels in a call, at most; None: as many as memory allows.
    """

    run: Callable[[Rows, int, Tensor], Tensor]
    bytes_per_row: int
    most: int | None = None

    def size(self, rows: int, channels: int, memory: int) -> int:
        """Channels in a call."""
        fits = max(1, memory // max(1, rows * self.bytes_per_row))
        return min(channels, fits, self.most or channels)


def naive(network: nn.Module, place: str) -> Form:
    """The whole network each time: what the others are compared with."""

    def run(rows: Rows, first: int, values: Tensor) -> Tensor:
        answers = []
        for copy in disturbed(rows.features, first, values):
            with replacing(network, place, lambda _, copy=copy: copy.clone()):  # type: ignore[misc]
                answers.append(network(rows.given))
        return torch.stack(answers)

    return Form(run, 0, most=1)


def one_by_one(cut: Split) -> Form:
    """The tail, for one channel at a time."""

    def run(rows: Rows, first: int, values: Tensor) -> Tensor:
        return torch.stack([cut.tail(copy, rows.given) for copy in disturbed(rows.features, first, values)])

    return Form(run, 0, most=1)


def batched(cut: Split, example: Rows) -> Form:
    """The tail, for many channels at a time. The tail must treat rows one by one: `row_by_row`."""

    def run(rows: Rows, first: int, values: Tensor) -> Tensor:
        copies = disturbed(rows.features, first, values).flatten(0, 1)
        return stacked(cut, copies, rows.given, len(values), values.shape[1])

    return Form(run, 4 * max(_row_bytes(example.features), _row_bytes(example.answers)))


def rank_one(layer: nn.Linear, rest: Split) -> Form:
    """The linear layer that comes first is updated; the rest runs for many channels at a time."""
    weight = layer.weight.detach()
    hidden: dict[int, Tensor] = {}

    def run(rows: Rows, first: int, values: Tensor) -> Tensor:
        before = hidden.setdefault(id(rows), layer(rows.features))
        change = values - rows.features[:, first : first + len(values)].T
        copies = torch.addcmul(before, change[:, :, None], weight[:, first : first + len(values)].T[:, None, :])
        return stacked(rest, copies.flatten(0, 1), rows.given, *values.shape)

    return Form(run, 4 * layer.out_features * weight.element_size())


def disturbed(features: Tensor, first: int, values: Tensor) -> Tensor:
    """Copies of features (copies, rows, channels, …): copy i has values[i] as channel first + i."""
    copies = features.expand(len(values), *features.shape).clone()
    number = torch.arange(len(values), device=features.device)
    copies[number, :, first + number] = values.to(copies.dtype)
    return copies


def stacked(cut: Split, copies: Tensor, context: Any, number: int, rows: int) -> Tensor:
    """The tail's answers (number, rows, …) to copies that lie one behind another (number · rows, …)."""
    index = torch.arange(rows, device=copies.device).repeat(number)
    answers = cut.tail(copies, cut.pick(context, rows, index), spend=True)  # all of it was made here
    return answers.reshape(number, rows, *answers.shape[1:])


def row_by_row(cut: Split, rows: Rows) -> bool:
    """Whether a row's answer depends on that row alone, so that copies of a batch may be stacked."""
    few = min(4, len(rows.features))
    index = torch.arange(few, device=rows.features.device)
    context = cut.pick(rows.given, len(rows.features), index)
    features = rows.features[:few]
    other = -2 * features.flip(0) if features.is_floating_point() else features.flip(0)
    try:
        together = stacked(cut, torch.cat([features, other]), context, 2, few)
        alone = torch.stack([cut.tail(features, context), cut.tail(other, context)])
        first = cut.tail(other[:1], cut.pick(context, few, index[:1]))
    except Exception:  # a tail may insist on the number of rows, in any words
        return False
    return alike(together, alone) and alike(first, alone[1, :1])


def distance_of(name: str, answers: Tensor, rows: Rows) -> Tensor:
    """Distance of each row's answers (copies, rows, …) from the other network's, averaged over outputs: (copies, rows).

    Example:
        >>> rows = Rows(torch.zeros(1, 1), None, torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]), None)
        >>> distance_of("mse", torch.tensor([[[0.0, 0.0]]]), rows).tolist()
        [[2.0]]
    """
    ours, theirs = answers.double(), rows.other.double()
    if name == "ncjsd":
        assert rows.target is not None
        target = rows.target.expand(len(ours), *rows.target.shape).flatten(0, 1)
        known = (target != NOWHERE).reshape(*ours.shape[:2], -1)
        sides = theirs.expand_as(ours).flatten(0, 1), ours.flatten(0, 1)
        found = ncjsd(*sides, target.clamp(min=0), reduction="none").reshape(known.shape)
        return (found * known).sum(dim=2) / known.sum(dim=2).clamp(min=1)
    gap = (ours - theirs).flatten(2)
    return (gap.square() if name == "mse" else gap.abs()).mean(dim=2)


def _row_bytes(tensor: Tensor) -> int:
    return tensor[0].numel() * tensor.element_size()
