"""Columns and splits: from row numbers to batches.

A *column* is one modality of all samples (an array, a memory map, a folder of files); a *split* is a subset of the rows
of all columns. An *auxiliary input* belongs to a modality and follows its rows: ``audio.lengths`` belongs to ``audio``.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmodal.data.augment import Augment
from xmodal.data.loader import Pick
from xmodal.types import Batch, Normalisation, owner, rows_with

DERIVED = ("_places", "_read_inputs", "_tables")  # attributes that follow from others
# columns of a split up to this size are normalised once and kept as a tensor; larger ones are read for each batch
READY_BYTES = 256 * 2**20


class Column(Protocol):
    """One modality of all samples, indexed by row numbers; NumPy arrays and memory maps are columns."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""

    def __getitem__(self, rows: Any) -> Any: ...


@runtime_checkable
class Redrawn(Column, Protocol):
    """A column whose samples are drawn anew in each epoch; indexing by rows alone gives one fixed draw of each.

    Attributes:
        redraws: False: all draws are the same, so the outputs of a frozen teacher may be cached.
    """

    redraws: bool

    def redrawn(self, rows: NDArray[np.int64], epoch: int) -> Any:
        """Rows as drawn for training in this epoch: a function of the arguments alone."""


@runtime_checkable
class Partial(Column, Protocol):
    """A column that some samples lack, see `xmodal.data.present.PartialColumn`.

    Attributes:
        present: mask of the samples that have it, (samples,).
    """

    present: NDArray[np.bool_]


class Split:
    """A subset of the rows of every column; ``split[pick]`` is a batch.

    Args:
        columns: input → column with all samples, auxiliary inputs among them.
        targets: modality → targets of all samples, the same array for paired data; empty when unlabelled.
        rows: modality → row numbers of this split.
        paired: whether row i of every modality is the same sample.
        normalisation: modality → statistics to apply.
        augment: applied to picks that carry an epoch.
        scored: modality → column with the regions on which metrics are computed, see `Batch`.
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
        # modalities that no augmentation changes, see `with_modality`
        self._fixed: frozenset[str] = frozenset()
        # inputs of batches, see `reading`; None: all
        self._wanted: frozenset[str] | None = None
        # small columns that were read, by input; views of the same rows share it
        self._ready: dict[str, Tensor] = {}
        # paired modalities share one tensor of targets: a batch selects, keeps and moves it once
        shared = {id(target): torch.from_numpy(target[rows[name]]) for name, target in targets.items()}
        self.targets: dict[str, Tensor] = {
            name: shared[id(target)] if paired else torch.from_numpy(target[rows[name]])
            for name, target in targets.items()
        }
        # modality → mask of the rows with a label; empty: all rows have one. See `without_labels`
        self.labelled: Mapping[str, Tensor] = {}
        # a weight for each row of the columns of paired data, see `xmodal.data.weights`; None: all count alike
        self.weights: NDArray[np.float32] | None = None
        self.present: Mapping[str, Tensor] = self._present()

    def __copy__(self) -> Split:
        """A split with the same attributes, without what follows from them: whoever copies a split changes some."""
        copied = object.__new__(type(self))
        vars(copied).update({name: value for name, value in vars(self).items() if name not in DERIVED})
        return copied

    def _present(self) -> dict[str, Tensor]:
        """Modality → mask of the rows that have it; empty: all rows have all modalities."""
        masks = {
            name: column.present[rows]
            for name, rows in self.numbers.items()
            if isinstance(column := self.columns[name], Partial)
        }
        if all(mask.all() for mask in masks.values()):
            return {}
        # by identity: modalities that no row lacks share one mask
        whole = torch.ones(len(self), dtype=torch.bool)
        return {name: torch.from_numpy(masks[name]) if name in masks else whole for name in self.numbers}

    def __len__(self) -> int:
        return max(self.rows.values())

    @property
    def augmented(self) -> bool:
        """Whether inputs in training differ from inputs in evaluation."""
        return bool(self.changing)

    @property
    def changing(self) -> frozenset[str]:
        """The modalities whose inputs in training differ from those in evaluation."""
        drawn = {owner(name) for name in self._redrawn}
        return frozenset(name for name in self.rows if name in drawn or self._augments(name))

    def _augments(self, modality: str) -> bool:
        """Whether training batches hold augmented samples of a modality."""
        return self.augment is not None and modality not in self._fixed and self.augment.changes(modality)

    def doubled(self) -> Split:
        """The same rows with batches in float64; reading and normalisation stay in float32, with the same values."""
        split = copy.copy(self)
        split._doubled = True
        return split

    def raw(self) -> Split:
        """The same rows without normalisation."""
        raw = Split(self.columns, {}, self.numbers, paired=self.paired, scored=self.scored)
        raw.targets, raw.labelled = self.targets, self.labelled
        return raw

    def reading(self, inputs: Collection[str] | None) -> Split:
        """The same rows in the same order, whose batches hold these inputs alone; None: all. No other column is read.

        Targets, row numbers and masks are those of all modalities, so the length of an epoch does not change.
        """
        wanted = None if inputs is None else frozenset(inputs)
        if wanted == self._wanted:
            return self
        changed = copy.copy(self)
        changed._wanted = wanted
        return changed

    @functools.cached_property
    def _read_inputs(self) -> dict[str, list[str]]:
        """Modality → its inputs that batches hold."""
        return {modality: list(filter(self._wants, names)) for modality, names in self._inputs.items()}

    def _wants(self, name: str) -> bool:
        return self._wanted is None or name in self._wanted

    def _kept(self, name: str) -> Tensor | None:
        """A small column, read and normalised once; the same column under two names is one tensor. None: it is large.

        Of a column that some rows lack it holds the others: `_picked` knows their places.
        """
        if name not in self._ready:
            modality = owner(name)
            numbers = self.numbers[modality]
            if modality in self.present:
                numbers = numbers[self.present[modality].numpy()]
            # 4 bytes: the size that a float32 column has after normalisation, whatever its type in the file
            if 4 * len(numbers) * int(np.prod(self.columns[name].shape[1:])) > READY_BYTES:
                return None
            twin = next((other for other in self._ready if self._same(name, other)), None)
            read = torch.from_numpy(self._read(name, numbers)) if twin is None else self._ready[twin]
            self._ready[name] = read
        return self._ready[name]

    def _same(self, name: str, other: str) -> bool:
        """Whether two auxiliary inputs are one column with the same rows, such as a map that two modalities use."""
        first, second = owner(name), owner(other)
        auxiliary = name != first and other != second
        return auxiliary and self.columns[name] is self.columns[other] and self.numbers[first] is self.numbers[second]

    def _read(self, name: str, numbers: NDArray[np.int64], epoch: int | None = None) -> NDArray[Any]:
        if epoch is not None and name in self._redrawn:
            values = self._redrawn[name].redrawn(numbers, epoch)
        else:
            values = self.columns[name][numbers]
        if name not in self._statistics:
            return np.ascontiguousarray(values, dtype=batch_type(name, self.columns[name]))
        mean, std = self._statistics[name]
        # one new array and then in place: a batch of videos has hundreds of megabytes
        samples: NDArray[Any] = np.subtract(values, mean, dtype=np.float32, order="C", casting="same_kind")
        samples /= std
        # positions without a measurement are 0 in all channels, and would become -mean / std
        if name in self._empty:
            samples *= (np.asarray(values) != 0).any(axis=1, keepdims=True)
        return samples

    def __getitem__(self, pick: Pick) -> Batch:
        batch = self.drawn(pick)
        if self.labelled:
            self._mark(batch)
        if self.present:
            self._mark_present(batch)
        if self.weights is not None:
            name, positions = next(iter(batch.index.items()))
            weights = torch.from_numpy(self.weights[self.numbers[name][positions.numpy()]])
            batch.weights = dict.fromkeys(batch.index, weights)
        return batch.doubled() if self._doubled else batch

    def _mark_present(self, batch: Batch) -> None:
        """Say in the batch which rows have which modality."""
        masks: dict[tuple[int, int], Tensor] = {}
        for modality, positions in batch.index.items():
            key = (id(self.present[modality]), id(positions))
            if key not in masks:
                masks[key] = self.present[modality].index_select(0, positions)
            batch.present[modality] = masks[key]

    def _mark(self, batch: Batch) -> None:
        """Say in the batch which rows have a label; targets of the others become -1 or NaN."""
        # by identity, as in `drawn`: what paired modalities share stays one tensor
        masks: dict[tuple[int, int], Tensor] = {}
        targets: dict[tuple[int, int], Tensor] = {}
        for modality, positions in batch.index.items():
            key = (id(self.labelled[modality]), id(positions))
            if key not in masks:
                masks[key] = self.labelled[modality].index_select(0, positions)
            mask, target = masks[key], batch.targets[modality]
            batch.labelled[modality] = mask
            if (id(target), id(mask)) not in targets:
                targets[id(target), id(mask)] = unlabelled(target, ~mask)
            batch.targets[modality] = targets[id(target), id(mask)]

    def without_labels(self, labelled: Mapping[str, Tensor]) -> Split:
        """The same rows, of which only those in these masks (modality → rows) have a label."""
        changed = copy.copy(self)
        if all(mask.all() for mask in labelled.values()):
            changed.labelled = {}
            return changed
        changed.labelled = dict(labelled)
        shared: dict[tuple[int, int], Tensor] = {}
        for modality, target in self.targets.items():
            key = (id(target), id(labelled[modality]))
            if key not in shared:
                shared[key] = unlabelled(target, ~labelled[modality])
        changed.targets = {name: shared[id(target), id(labelled[name])] for name, target in self.targets.items()}
        return changed

    def with_modality(self, name: str, column: Column) -> Split:
        """The same rows of paired data with a further modality, which is neither normalised nor augmented."""
        changed = copy.copy(self)
        # a copy: another table of outputs under the same name is another column
        changed._ready = dict(self._ready)
        first = next(iter(self.numbers))
        changed.columns = {**self.columns, name: column}
        changed.numbers = {**self.numbers, name: self.numbers[first]}
        changed.rows = {**self.rows, name: self.rows[first]}
        # paired modalities share one tensor of targets
        changed.targets = {**self.targets, name: self.targets[first]} if self.targets else {}
        changed.labelled = {**self.labelled, name: self.labelled[first]} if self.labelled else {}
        changed._inputs = {**self._inputs, name: [name]}
        changed._fixed = self._fixed | {name}
        changed.present = changed._present()
        return changed

    def renumbered(self, places: Tensor) -> Split:
        """The same rows, of which class i has the number ``places[i]``; rows without a label keep -1."""
        changed = copy.copy(self)
        # by identity: paired modalities share their targets
        shared = {
            id(target): torch.where(target < 0, target, places[target.clamp(min=0)]) for target in self.targets.values()
        }
        changed.targets = {name: shared[id(target)] for name, target in self.targets.items()}
        return changed

    def subset(self, positions: Mapping[str, Tensor]) -> Split:
        """Some of the rows: modality → positions within the split."""
        changed = copy.copy(self)
        # what was read is read again: these have one entry for each row of the split
        vars(changed).pop("_ready_regions", None)
        changed._ready = {}
        numbers: dict[tuple[int, int], NDArray[np.int64]] = {}
        parts: dict[tuple[int, int], Tensor] = {}
        changed.numbers, changed.targets = {}, {}
        labelled: dict[str, Tensor] = {}
        for name, rows in positions.items():
            key = (id(self.numbers[name]), id(rows))
            numbers.setdefault(key, self.numbers[name][rows.numpy()])
            changed.numbers[name] = numbers[key]
            for old, new in ((self.targets, changed.targets), (self.labelled, labelled)):
                if name in old:
                    key = (id(old[name]), id(rows))
                    parts.setdefault(key, old[name].index_select(0, rows))
                    new[name] = parts[key]
        changed.labelled, changed.rows = labelled, {name: len(rows) for name, rows in positions.items()}
        changed.present = changed._present()
        return changed

    def having(self, modalities: Iterable[str]) -> Split:
        """The rows that have all of these modalities."""
        if not self.present:
            return self
        rows = rows_with(self.present, modalities).nonzero().flatten()
        return self.subset(dict.fromkeys(self.rows, rows))

    def complete(self) -> Split:
        """The rows that have a label and all modalities."""
        masks = dict(self.labelled)
        if self.present:
            # samples that lack a modality are paired, so one mask is that of all modalities
            whole = rows_with(self.present, None)
            masks = dict.fromkeys(self.rows, whole & next(iter(masks.values())) if masks else whole)
        positions = {id(mask): mask.nonzero().flatten() for mask in masks.values()}
        return self.subset({name: positions[id(mask)] for name, mask in masks.items()}) if masks else self

    def without_gaps(self) -> Split:
        """The rows of each modality that have it, which no longer correspond where some lack one."""
        if not self.present:
            return self
        return self.subset({name: mask.nonzero().flatten() for name, mask in self.present.items()})

    def drawn(self, pick: Pick) -> Batch:
        """The batch in float32, from which ``split[pick]`` starts."""
        inputs: dict[str, Tensor] = {}
        targets: dict[str, Tensor] = {}
        tables = self._tables
        # by identity of tables and rows, so that what modalities share stays one tensor
        selected: dict[tuple[int, int], Tensor] = {}
        for modality, positions in pick.rows.items():
            for name in self._read_inputs[modality]:
                if tables is None:
                    twin = None if name == modality else self._twin(name, positions, inputs, pick)
                    inputs[name] = self._picked(name, modality, positions, pick.epoch) if twin is None else twin
                    continue
                key = (id(tables[name]), id(positions))
                if key not in selected:
                    selected[key] = tables[name].index_select(0, positions)
                inputs[name] = selected[key]
            if modality in self.targets:
                target = self.targets[modality]
                key = (id(target), id(positions))
                if key not in selected:
                    selected[key] = widened(target.index_select(0, positions))
                targets[modality] = selected[key]
        return Batch(inputs, targets, {}, dict(pick.rows), self._regions(pick) if self.scored else {})

    @functools.cached_property
    def _tables(self) -> dict[str, Tensor] | None:
        """Each input as a tensor with a row for each of the split; None: some are read or changed for each batch."""
        if self.present or self.changing:
            return None
        tables: dict[str, Tensor] = {}
        for name in itertools.chain(*self._read_inputs.values()):
            table = self._kept(name)
            if table is None:
                return None
            tables[name] = table
        return tables

    def _twin(self, name: str, positions: Tensor, inputs: Mapping[str, Tensor], pick: Pick) -> Tensor | None:
        """The input of the batch that is the same column as an auxiliary input, with the same rows."""
        twins = (inputs[each] for each in inputs if self._same(name, each) and pick.rows[owner(each)] is positions)
        return next(twins, None)

    def _regions(self, pick: Pick) -> dict[str, Tensor]:
        """Regions on which metrics are computed, one tensor where modalities share a column."""
        regions: dict[str, Tensor] = {}
        selected: dict[tuple[int, int], Tensor] = {}
        for modality, positions in pick.rows.items():
            if modality in self.scored:
                column = self.scored[modality]
                key = (id(column), id(positions))
                if key not in selected:
                    selected[key] = self._region(modality, positions)
                regions[modality] = selected[key]
        return regions

    def _region(self, modality: str, positions: Tensor) -> Tensor:
        if modality in self._ready_regions:
            return self._ready_regions[modality].index_select(0, positions)
        return torch.from_numpy(np.asarray(self.scored[modality][self.numbers[modality][positions.numpy()]]))

    @functools.cached_property
    def _ready_regions(self) -> dict[str, Tensor]:
        """Small columns of regions, read once: the metrics of every epoch need them."""
        loaded: dict[tuple[int, int], Tensor] = {}
        ready = {}
        for modality, column in self.scored.items():
            numbers = self.numbers[modality]
            key = (id(column), id(numbers))
            if column.dtype.itemsize * len(numbers) * int(np.prod(column.shape[1:])) <= READY_BYTES:
                if key not in loaded:
                    loaded[key] = torch.from_numpy(np.asarray(column[numbers]))
                ready[modality] = loaded[key]
        return ready

    def _picked(self, name: str, modality: str, positions: Tensor, epoch: int | None) -> Tensor:
        """One input of a batch, of which the rows that lack it are NaN, or -1 among integers."""
        if modality not in self.present:
            return self._existing(name, modality, positions, positions, epoch)
        there = self.present[modality].index_select(0, positions)
        places = self._places[modality].index_select(0, positions)
        samples = self._existing(name, modality, positions[there], places[there], epoch)
        filled = samples.new_full((len(positions), *samples.shape[1:]), nothing_of(samples))
        filled[there] = samples
        return filled

    @functools.cached_property
    def _places(self) -> dict[str, Tensor]:
        """Modality → position of each row among the rows that have it."""
        return {name: mask.cumsum(0) - 1 for name, mask in self.present.items()}

    def _existing(self, name: str, modality: str, positions: Tensor, places: Tensor, epoch: int | None) -> Tensor:
        """An input of rows that have it; augmentation changes modalities and leaves auxiliary inputs alone.

        ``positions`` are those within the split, ``places`` those among the rows that have the modality.
        """
        kept = None if epoch is not None and name in self._redrawn else self._kept(name)
        if kept is not None:
            samples = kept.index_select(0, places)
        else:
            samples = torch.from_numpy(self._read(name, self.numbers[modality][positions.numpy()], epoch))
        if epoch is not None and self.augment is not None and name == modality and self._augments(name):
            augmented = self.augment(name, samples.numpy(), epoch=epoch, index=positions.numpy())
            samples = torch.from_numpy(augmented)
        return samples


def widened(target: Tensor) -> Tensor:
    """Targets of a batch: uint8 becomes int64, the type that losses need to index with."""
    return target.long() if target.dtype == torch.uint8 else target


def unlabelled(target: Tensor, rows: Tensor) -> Tensor:
    """Targets with -1 in these rows (a boolean mask); NaN in floating-point ones, 255 in uint8 ones."""
    nothing = float("nan") if target.is_floating_point() else 255 if target.dtype == torch.uint8 else -1
    return target.masked_fill(rows.reshape(-1, *[1] * (target.ndim - 1)), nothing)


def nothing_of(tensor: Tensor) -> float:
    """The value that marks what is not there in tensors of this type: NaN, or -1 among integers."""
    return float("nan") if tensor.is_floating_point() else -1


def batch_type(name: str, column: Column) -> str:
    """NumPy's name of the type of an input in a batch: float32, or int64 for auxiliary integers such as lengths."""
    return "int64" if name != owner(name) and column.dtype.kind in "biu" else "float32"
