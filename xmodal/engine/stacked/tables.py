"""Splits as plain tensors, one model's and many models'.

A whole split is one `Batch`; as `Leaves` it is a list of tensors (one that stands under several names once) and a
layout that says where each belongs. In unpaired data each modality has rows of its own, in an order of its own: every
leaf says whose. The leaves of many models form a `Table`, from which batches are picked for all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xmodal.data.loader import in_order
from xmodal.data.split import Split
from xmodal.types import Batch, DataInfo, _parts

Layout = tuple[tuple[int, str, int], ...]  # part of a batch (the last: what the teacher says), name, number of the leaf
TEACHER_OUTPUTS = 5
ALL = ""  # whose rows they are, where the rows of all modalities belong together


@dataclass(slots=True)
class Leaves:
    """A whole split of one model as a list of tensors.

    Attributes:
        layout: where each tensor belongs.
        tensors: with one row per sample each, or none where nobody reads it.
        owners: for each tensor the modality whose rows it has; `ALL` in paired data.
    """

    layout: Layout
    tensors: list[Tensor]
    owners: list[str]

    def copy(self) -> Leaves:
        """The same tensors in a list of its own."""
        return Leaves(self.layout, self.tensors[:], self.owners)

    def rows(self, owner: str = ALL) -> int:
        """How many samples a modality has, or all of them together."""
        return max(len(tensor) for tensor, own in zip(self.tensors, self.owners, strict=True) if own == owner)

    @property
    def bytes(self) -> int:
        """What the tensors take."""
        return bytes_of(self.tensors)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """What some tensors take."""
    return sum(tensor.nelement() * tensor.element_size() for tensor in tensors)


def read(split: Split, device: torch.device) -> Leaves:
    """All rows of a split, in order."""
    layout: list[tuple[int, str, int]] = []
    numbers: dict[int, int] = {}
    tensors: list[Tensor] = []
    owners: list[str] = []
    for batch in in_order(split, batch_size=max(split.rows.values())):  # one, or one per modality
        owner = ALL if split.paired else next(iter(batch.index))
        for part, values in enumerate(_parts(batch.to(device))):
            for name, tensor in values.items():
                if id(tensor) not in numbers:
                    numbers[id(tensor)] = len(tensors)
                    tensors.append(tensor)
                    owners.append(owner)
                layout.append((part, name, numbers[id(tensor)]))
    return Leaves(tuple(layout), tensors, owners)


def with_teacher_outputs(leaves: Leaves, teacher_outputs: Mapping[str, Tensor]) -> Leaves:
    """The same with what a teacher says of each row."""
    first = len(leaves.tensors)
    layout = [(TEACHER_OUTPUTS, name, first + number) for number, name in enumerate(teacher_outputs)]
    return Leaves(
        (*leaves.layout, *layout),
        [*leaves.tensors, *teacher_outputs.values()],
        [*leaves.owners, *[ALL] * len(teacher_outputs)],
    )


def batch_of(layout: Layout, tensors: Mapping[int, Tensor]) -> tuple[Batch, dict[str, Tensor]]:
    """A batch of the leaves that are there, by number, and what the teacher says of it."""
    parts: list[dict[str, Tensor]] = [{} for _ in range(TEACHER_OUTPUTS + 1)]
    for part, name, number in layout:
        if number in tensors:
            parts[part][name] = tensors[number]
    return Batch(*parts[:TEACHER_OUTPUTS]), parts[TEACHER_OUTPUTS]


def strange_targets(leaves: Leaves, info: DataInfo) -> str:
    """Losses look whether class numbers are possible, and can't while many models are recorded: it is done here."""
    targets = batch_of(leaves.layout, dict(enumerate(leaves.tensors)))[0].targets
    for target in targets.values():
        if info.task == "multiclass" and target.numel() and not (0 <= target.min() and target.max() < info.classes):
            return f"some targets are not among the classes 0 to {info.classes - 1}"
    return ""


class Table:
    """The leaves of many models.

    Args:
        members: the same leaves of each model, in the same order; the same tensor where models share it.
        owners: of each leaf.
    """

    def __init__(self, members: Sequence[Sequence[Tensor]], owners: Sequence[str]) -> None:
        self.models, self.owners = len(members), list(owners)
        columns = [list(column) for column in zip(*members, strict=True)]
        self.shared = [all(tensor is column[0] for tensor in column) for column in columns]
        self.tensors = [
            column[0] if shared else torch.stack(column) for column, shared in zip(columns, self.shared, strict=True)
        ]

    @property
    def axes(self) -> list[int | None]:
        """For each whole leaf the axis of the models."""
        return [None if shared else 0 for shared in self.shared]

    def pick(self, rows: Mapping[str, Tensor]) -> list[Tensor]:
        """Leaves (models, batch, …) of ``rows``, by owner (models, batch), which index each model's own split."""
        found = []
        for tensor, shared, owner in zip(self.tensors, self.shared, self.owners, strict=True):
            own = rows[owner]
            if shared:
                picked = tensor.index_select(0, own.flatten())
            else:
                first = torch.arange(self.models, device=own.device)[:, None] * tensor.shape[1]
                picked = tensor.flatten(0, 1).index_select(0, (own + first).flatten())
            found.append(picked.unflatten(0, own.shape))
        return found

    def slice(self, first: int, last: int) -> list[Tensor]:
        """The rows from ``first`` up to ``last`` of every model."""
        return [
            tensor[first:last] if shared else tensor[:, first:last]
            for tensor, shared in zip(self.tensors, self.shared, strict=True)
        ]
