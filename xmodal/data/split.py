"""Columns, and splits of them: rows come in, batches go out.

A *column* is one modality of all samples (an array, a memory map, a folder of files); a *split* is some rows of the
columns.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmodal.data.augment import Augment
from xmodal.data.loader import Pick
from xmodal.types import Batch, Normalisation, owner

READY_BYTES = 256 * 2**20  # columns of a split up to this size are normalised once and kept as a tensor


class Column(Protocol):
    """One modality of all samples, indexed by row numbers; NumPy arrays and memory maps are columns."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers as they are stored."""

    def __getitem__(self, rows: Any) -> Any: ...


@runtime_checkable
class Redrawn(Column, Protocol):
    """A column whose samples differ from epoch to epoch; indexed by rows alone it gives one fixed draw of each.

    Attributes:
        redraws: False: it does not differ after all, and a frozen teacher may be asked once.
    """

    redraws: bool

    def redrawn(self, rows: NDArray[np.int64], epoch: int) -> Any:
        """Rows as a training pass of this epoch sees them: a function of its arguments alone."""


class Split:
    """Some rows of every column; ``split[pick]`` is a batch.

    Args:
        columns: input → column with all samples; what goes with a modality (``audio.lengths``) follows its rows.
        targets: modality → targets of all samples, the same array for paired data; empty when unlabelled.
        rows: modality → row numbers of this split.
        normalisation: statistics to apply, by modality.
        augment: applied to picks that carry an epoch.
        scored: modality → column with the regions that metrics look at, see `Batch`.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        targets: Mapping[str, NDArray[Any]],
        rows: Mapping[str, NDArray[np.int64]],
        *,
        paired: bool = True,
        normalisation: Mapping[str, Normalisation] | None = None,
        augment: Augment | None = None,
        scored: Mapping[str, Column] | None = None,
    ) -> None:
        self.columns, self.numbers, self.paired = dict(columns), dict(rows), paired
        self.scored = dict(scored or {})
        self._doubled = False
        self.rows: Mapping[str, int] = {modality: len(numbers) for modality, numbers in rows.items()}
        self.augment = augment if augment is not None and augment.operations else None
        self._inputs = {name: [each for each in columns if owner(each) == name] for name in rows}
        self._redrawn = {
            name: column for name, column in self.columns.items() if isinstance(column, Redrawn) and column.redraws
        }
        self._statistics = {
            modality: tuple(part.numpy() for part in statistics.tensors())
            for modality, statistics in (normalisation or {}).items()
        }
        self._empty = {modality for modality, statistics in (normalisation or {}).items() if statistics.empty}
        shared = {id(target): torch.from_numpy(target[rows[name]]) for name, target in targets.items()}
        self.targets: dict[str, Tensor] = {
            name: shared[id(target)] if paired else torch.from_numpy(target[rows[name]])
            for name, target in targets.items()
        }

    def __len__(self) -> int:
        return max(self.rows.values())

    @property
    def augmented(self) -> bool:
        """Whether a training pass sees other inputs than an ordered one."""
        return bool(self.changing)

    @property
    def changing(self) -> frozenset[str]:
        """The modalities of which it does."""
        drawn = {owner(name) for name in self._redrawn}
        return frozenset(name for name in self.rows if name in drawn or (self.augment and self.augment.changes(name)))

    def doubled(self) -> Split:
        """The same rows; batches carry their numbers in 64 bits, read and normalised in 32 as always."""
        found = copy.copy(self)
        found._doubled = True
        return found

    def raw(self) -> Split:
        """The same rows without any statistics applied."""
        raw = Split(self.columns, {}, self.numbers, paired=self.paired, scored=self.scored)
        raw.targets = self.targets
        return raw

    @functools.cached_property
    def _ready(self) -> dict[str, Tensor]:
        """Small columns, read once; inputs that are one column share their tensor."""
        found: dict[str, Tensor] = {}
        for modality, names in self._inputs.items():
            for name in names:
                if 4 * self.rows[modality] * int(np.prod(self.columns[name].shape[1:])) <= READY_BYTES:
                    twin = next((other for other in found if self._same(name, other)), None)
                    ready = torch.from_numpy(self._read(name, self.numbers[modality])) if twin is None else found[twin]
                    found[name] = ready
        return found

    def _same(self, name: str, other: str) -> bool:
        """Whether two inputs that go with modalities are one column of the same rows, such as a map that both use."""
        mine, theirs = owner(name), owner(other)
        beside = name != mine and other != theirs
        return beside and self.columns[name] is self.columns[other] and self.numbers[mine] is self.numbers[theirs]

    def _read(self, name: str, numbers: NDArray[np.int64], epoch: int | None = None) -> NDArray[Any]:
        if epoch is not None and name in self._redrawn:
            found = self._redrawn[name].redrawn(numbers, epoch)
        else:
            found = self.columns[name][numbers]
        if name not in self._statistics:
            return np.ascontiguousarray(found, dtype=batch_type(name, self.columns[name]))
        mean, std = self._statistics[name]
        # one new array: a batch of videos has hundreds of megabytes
        samples: NDArray[Any] = np.subtract(found, mean, dtype=np.float32, order="C", casting="same_kind")
        samples /= std
        if name in self._empty:
            samples *= (np.asarray(found) != 0).any(axis=1, keepdims=True)
        return samples

    def __getitem__(self, pick: Pick) -> Batch:
        batch = self.drawn(pick)
        return batch.doubled() if self._doubled else batch

    def drawn(self, pick: Pick) -> Batch:
        """The batch, its numbers in 32 bits; what ``split[pick]`` calls."""
        inputs: dict[str, Tensor] = {}
        targets: dict[str, Tensor] = {}
        taken: dict[tuple[int, int], Tensor] = {}  # paired targets stay one tensor
        for modality, positions in pick.rows.items():
            for name in self._inputs[modality]:
                twins = (
                    inputs[each] for each in inputs if self._same(name, each) and pick.rows[owner(each)] is positions
                )
                twin = next(twins, None)
                inputs[name] = self._picked(name, modality, positions, pick.epoch) if twin is None else twin
            if modality in self.targets:
                target = self.targets[modality]
                key = (id(target), id(positions))
                if key not in taken:
                    taken[key] = widened(target.index_select(0, positions))
                targets[modality] = taken[key]
        return Batch(inputs, targets, {}, dict(pick.rows), self._regions(pick))

    def _regions(self, pick: Pick) -> dict[str, Tensor]:
        """What metrics look at, one tensor where modalities share it."""
        found: dict[str, Tensor] = {}
        taken: dict[tuple[int, int], Tensor] = {}
        for modality, positions in pick.rows.items():
            if modality in self.scored:
                column = self.scored[modality]
                key = (id(column), id(positions))
                if key not in taken:
                    taken[key] = self._region(modality, positions)
                found[modality] = taken[key]
        return found

    def _region(self, modality: str, positions: Tensor) -> Tensor:
        if modality in self._ready_regions:
            return self._ready_regions[modality].index_select(0, positions)
        return torch.from_numpy(np.asarray(self.scored[modality][self.numbers[modality][positions.numpy()]]))

    @functools.cached_property
    def _ready_regions(self) -> dict[str, Tensor]:
        """Small columns of regions, read once: every epoch looks at them."""
        found: dict[tuple[int, int], Tensor] = {}
        ready = {}
        for modality, column in self.scored.items():
            numbers = self.numbers[modality]
            key = (id(column), id(numbers))
            if column.dtype.itemsize * len(numbers) * int(np.prod(column.shape[1:])) <= READY_BYTES:
                if key not in found:
                    found[key] = torch.from_numpy(np.asarray(column[numbers]))
                ready[modality] = found[key]
        return ready

    def _picked(self, name: str, modality: str, positions: Tensor, epoch: int | None) -> Tensor:
        """One input of a batch; augmentation changes modalities alone, not what goes with them."""
        if name in self._ready and not (epoch is not None and name in self._redrawn):
            samples = self._ready[name].index_select(0, positions)
        else:
            samples = torch.from_numpy(self._read(name, self.numbers[modality][positions.numpy()], epoch))
        if epoch is not None and self.augment is not None and name == modality:
            augmented = self.augment(name, samples.numpy(), epoch=epoch, index=positions.numpy())
            samples = torch.from_numpy(augmented)
        return samples


def widened(target: Tensor) -> Tensor:
    """Targets of a batch: whole numbers as int64, in which losses index."""
    return target.long() if target.dtype == torch.uint8 else target


def batch_type(name: str, column: Column) -> str:
    """NumPy's name of the type in which a batch carries an input: whole numbers beside a modality stay whole."""
    return "int64" if name != owner(name) and column.dtype.kind in "biu" else "float32"
