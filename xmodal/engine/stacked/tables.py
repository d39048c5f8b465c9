"""Splits as lists of tensors, for one model and for many.

`Leaves` holds a whole split of one model: a list of tensors (shared ones once), and a layout that says where each
belongs in a `Batch`. In unpaired data each modality has its own rows in its own order, so each leaf has an owner. The
leaves of many models form a `Table`, from which batches are picked for all models together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xmodal.data.loader import in_order
from xmodal.data.split import Split
from xmodal.types import PARTS, Batch, DataInfo

Layout = tuple[tuple[str, str, int], ...]  # part of a batch (of `PARTS`), name in it, number of the leaf
TEACHER_OUTPUTS = "teacher outputs"  # a further part: what the teacher computes for the batch
ALL = ""  # owner of all rows in paired data


@dataclass(slots=True)
class Leaves:
    """A whole split of one model as a list of tensors.

    Attributes:
        layout: where each tensor belongs in a batch.
        tensors: each has one row per sample, or no row if it is not read.
        owners: of each tensor: the modality whose rows it has; `ALL` in paired data.
    """

    layout: Layout
    tensors: list[Tensor]
    owners: list[str]

    def copy(self) -> Leaves:
        """The same tensors in a new list."""
        return Leaves(self.layout, self.tensors[:], self.owners)

    def rows(self, owner: str = ALL) -> int:
        """Number of samples of an owner."""
        return max(len(tensor) for tensor, name in zip(self.tensors, self.owners, strict=True) if name == owner)

    @property
    def bytes(self) -> int:
        """Size of the tensors."""
        return bytes_of(self.tensors)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Size of some tensors in bytes."""
    return sum(tensor.nelement() * tensor.element_size() for tensor in tensors)


def read(split: Split, device: torch.device) -> Leaves:
    """All rows of a split, in order."""
    layout: list[tuple[str, str, int]] = []
    numbers: dict[int, int] = {}
    tensors: list[Tensor] = []
    owners: list[str] = []
    # batches as large as the split: one in paired data, one per modality otherwise
    for batch in in_order(split, batch_size=max(split.rows.values())):
        owner = ALL if split.paired else next(iter(batch.index))
        for part, values in batch.to(device).parts().items():
            for name, tensor in values.items():
                if id(tensor) not in numbers:
                    numbers[id(tensor)] = len(tensors)
                    tensors.append(tensor)
                    owners.append(owner)
                layout.append((part, name, numbers[id(tensor)]))
    return Leaves(tuple(layout), tensors, owners)


def with_teacher_outputs(leaves: Leaves, teacher_outputs: Mapping[str, Tensor]) -> Leaves:
    """The same leaves with the teacher's outputs for each row."""
    first = len(leaves.tensors)
    layout = [(TEACHER_OUTPUTS, name, first + number) for number, name in enumerate(teacher_outputs)]
    return Leaves(
        (*leaves.layout, *layout),
        [*leaves.tensors, *teacher_outputs.values()],
        [*leaves.owners, *[ALL] * len(teacher_outputs)],
    )


def batch_of(layout: Layout, tensors: Mapping[int, Tensor]) -> tuple[Batch, dict[str, Tensor]]:
    """A batch of some leaves, by number, and the teacher's outputs for it."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in (*PARTS, TEACHER_OUTPUTS)}
    for part, name, number in layout:
        if number in tensors:
            parts[part][name] = tensors[number]
    teacher_outputs = parts.pop(TEACHER_OUTPUTS)
    return Batch(**parts), teacher_outputs


def invalid_targets(leaves: Leaves, info: DataInfo) -> str:
    """Why targets are invalid; empty if they are not."""
    # losses check this in every step, but not in a recorded one, which may not branch on numbers
    batch = batch_of(leaves.layout, dict(enumerate(leaves.tensors)))[0]
    for name, target in batch.targets.items():
        # rows without a label have -1, which the training step leaves out
        target = target[batch.labelled[name]] if batch.labelled else target
        if info.task == "multiclass" and target.numel() and not (0 <= target.min() and target.max() < info.classes):
            return f"some targets are not among the classes 0 to {info.classes - 1}"
    return ""


class Table:
    """The leaves of many models.

    Args:
        members: of each model the same leaves in the same order; a tensor that all models share is stored once.
        owners: of each leaf.
    """

    def __init__(self, members: Sequence[Sequence[Tensor]], owners: Sequence[str]) -> None:
        self.models, self.owners = len(members), list(owners)
        columns = [list(column) for column in zip(*members, strict=True)]
        # by identity: models on the same data set hold the same tensor, and comparing numbers would take long
        self.shared = [all(tensor is column[0] for tensor in column) for column in columns]
        self.tensors = [
            column[0] if shared else torch.stack(column) for column, shared in zip(columns, self.shared, strict=True)
        ]

    @property
    def axes(self) -> list[int | None]:
        """Axis of the models in each leaf; None: models share it."""
        return [None if shared else 0 for shared in self.shared]

    def pick(self, rows: Mapping[str, Tensor]) -> list[Tensor]:
        """Leaves (models, batch, …) with the given rows: owner → (models, batch) row numbers in each model's split."""
        leaves = []
        for tensor, shared, owner in zip(self.tensors, self.shared, self.owners, strict=True):
            numbers = rows[owner]
            if shared:
                picked = tensor.index_select(0, numbers.flatten())
            else:
                # in the flat table row r of model m has the number m × rows + r
                first = torch.arange(self.models, device=numbers.device)[:, None] * tensor.shape[1]
                picked = tensor.flatten(0, 1).index_select(0, (numbers + first).flatten())
            leaves.append(picked.unflatten(0, numbers.shape))
        return leaves

    def slice(self, first: int, last: int) -> list[Tensor]:
        """The rows from ``first`` to ``last`` of every model."""
        return [
            tensor[first:last] if shared else tensor[:, first:last]
            for tensor, shared in zip(self.tensors, self.shared, strict=True)
        ]
