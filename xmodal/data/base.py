"""Columns, splits and data sets: what every loader in this folder builds.

A *column* is one modality of all samples (an array, a memory map, a folder of files); a *split* is some rows of the
columns; `Data` is three splits and a `DataInfo`. Loaders find the columns and call `assemble`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmodal.data.augment import Augment
from xmodal.data.loader import Pick
from xmodal.errors import InputError, did_you_mean
from xmodal.types import SPLITS, Batch, DataInfo, InputInfo, Normalisation, owner

READY_BYTES = 256 * 2**20  # columns of a split up to this size are normalised once and kept as a tensor
CHUNK_BYTES = 64 * 2**20  # of a large column that statistics look at in one go
SELECT = {
    "multiclass": ("accuracy", "max"),
    "binary": ("accuracy", "max"),
    "multilabel": ("macro_f1", "max"),
    "regression": ("mse", "min"),
}
DENSE_SELECT = ("mean_iou", "max")
LAYOUTS = ("vector", "sequence", "image", "other")


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
        return self.augment is not None or bool(self._redrawn)

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


@dataclass
class Data:
    """Three splits and what is known of them.

    Attributes:
        source: JSON from which ``xmodal.data.open_data`` builds the same data again; empty for arrays in memory.
        decode: maps (index, outputs) to where predictions live, where that is not the network's grid.
        warnings: what is worth knowing of this data, in sentences.
        groups: of each row of the columns: what it belongs to besides its class, such as the person who speaks; None
            where nothing is known. Those of a split are ``groups[data.test.numbers[modality]]``.
        ids: names of the rows, by their numbers; empty where they have none.
    """

    train: Split
    valid: Split
    test: Split
    info: DataInfo
    source: dict[str, Any] = field(default_factory=dict)
    decode: Callable[[Tensor, Tensor], Any] | None = None
    warnings: list[str] = field(default_factory=list)
    groups: NDArray[np.int64] | None = None
    ids: Sequence[str] = ()

    def apart(self) -> Data:
        """The same rows as unpaired data: each modality is shuffled by itself, and no row belongs to another."""
        train, valid, test = (copy.copy(split) for split in (self.train, self.valid, self.test))
        for split in (train, valid, test):
            split.paired = False
        return replace(self, train=train, valid=valid, test=test, info=replace(self.info, paired=False))

    def split(self, name: str) -> Split:
        """A split by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


def assemble(
    columns: Mapping[str, Column],
    targets: Mapping[str, NDArray[Any]],
    splits: Mapping[str, Mapping[str, NDArray[np.int64]]],
    *,
    task: str = "",
    paired: bool = True,
    normalise: Mapping[str, str | Normalisation] | None = None,
    layouts: Mapping[str, str] | None = None,
    class_names: tuple[str, ...] = (),
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
    select: tuple[str, str] | None = None,
    metrics: str = "",
    ignore: int | None = None,
    label_losses: Mapping[str, float] | None = None,
    class_weights: tuple[float, ...] = (),
    scored: Mapping[str, Column] | None = None,
    inner: int = 0,
    source: dict[str, Any] | None = None,
) -> Data:
    """Build `Data` from columns.

    Args:
        columns: modality → column; and what goes with one, such as ``audio.lengths``, which is used as it is.
        targets: modality → targets; paired data gives the same array under each name.
        splits: split → modality → row numbers.
        task: kind of target; empty: `infer_task` of the targets.
        paired: whether row i of every modality shows the same thing.
        normalise: modality → ``standard`` (statistics of the training split), ``none`` (the default), or statistics.
        layouts: modality → layout, where the shape alone does not tell it.
        class_names: one name per class or label.
        train_fraction: share of the training rows to keep, drawn class by class: the low-label setting.
        augment: operations for training batches, see `Augment.parse`.
        seed: of the train fraction and of the augmentation.
        select: metric and direction for choosing an epoch; None: the usual one of the task.
        metrics: set of metrics in place of the usual ones, see `DataInfo`.
        ignore: target value that counts nowhere.
        label_losses: see `DataInfo`.
        class_weights: see `DataInfo`.
        scored: modality → column with the regions that metrics look at, see `Batch`.
        inner: see `DataInfo`.
        source: what `open_data` needs to build the same data again.
    """
    some = next(iter(targets.values()))
    task = task or infer_task(some)
    typed = {id(target): typed_target(target, task) for target in targets.values()}
    targets = {name: typed[id(target)] for name, target in targets.items()}
    dense = task == "multiclass" and next(iter(targets.values())).ndim > 1
    rows = {split: dict(splits[split]) for split in SPLITS}
    if train_fraction != 1.0:
        kept = {
            id(numbers): keep_fraction(numbers, targets[name], train_fraction, seed)
            for name, numbers in rows["train"].items()
        }
        rows["train"] = {name: kept[id(numbers)] for name, numbers in rows["train"].items()}
    inputs = {
        name: InputInfo(
            tuple(column.shape[1:]),
            dtype=batch_type(name, column),
            layout=(layouts or {}).get(name) or layout_of(name, column.shape[1:]),
        )
        for name, column in columns.items()
    }
    statistics = {
        name: how
        if isinstance(how, Normalisation)
        else statistics_of(columns[name], rows["train"][name], inputs[name].layout)
        for name, how in (normalise or {}).items()
        if how != "none"
    }
    operations = Augment.parse(augment, seed=seed)
    for name in operations.modalities:
        if name not in inputs or name != owner(name):
            raise InputError(f"The augmentation '{augment}' names a modality '{name}'. {did_you_mean(name, inputs)}")
    if dense and operations.moves:
        raise InputError(
            f"The augmentation '{augment}' moves what is in a sample, and its dense targets would stay where they are. "
            "Use noise or scale alone, or a loader that moves both."
        )
    made = {
        split: Split(
            columns,
            targets,
            rows[split],
            paired=paired,
            normalisation=statistics,
            augment=operations if split == "train" else None,
            scored=scored,
        )
        for split in SPLITS
    }
    info = DataInfo(
        inputs=inputs,
        task=task,
        classes=count_classes(targets, task, class_names, ignore=ignore),
        rows={split: made[split].rows for split in SPLITS},
        paired=paired,
        select=select or (DENSE_SELECT if dense else SELECT[task]),
        class_names=class_names,
        dense=dense,
        ignore=ignore,
        label_losses=label_losses or {},
        class_weights=class_weights,
        train_targets=made["train"].targets,
        normalisation=statistics,
        metrics=metrics,
        places=tuple(next(iter(targets.values())).shape[1:]) if dense else (),
        inner=inner,
    )
    return Data(made["train"], made["valid"], made["test"], info, source or {})


def infer_task(target: NDArray[Any]) -> str:
    """``regression`` for floats, ``multilabel`` for a table of integers, ``multiclass`` for a column or maps of them.

    Two classes are ``multiclass`` too; ``binary`` (one logit) is chosen by name.
    """
    if target.dtype.kind == "f":
        return "regression"
    return "multilabel" if target.ndim == 2 and target.shape[1] > 1 else "multiclass"


def typed_target(target: NDArray[Any], task: str) -> NDArray[Any]:
    """Targets in the type that losses and metrics expect: int64 classes, float32 (rows, width) for regression.

    Dense targets of single bytes stay as they are; a batch holds int64, see `widened`.
    """
    if task == "regression":
        return np.ascontiguousarray(target.reshape(len(target), -1), dtype=np.float32)
    if task == "multiclass" and target.ndim > 2 and target.dtype == np.uint8:
        return np.ascontiguousarray(target)
    column = task in ("multiclass", "binary") and target.ndim == 2 and target.shape[1] == 1
    return np.ascontiguousarray(target[:, 0] if column else target, dtype=np.int64)


def widened(target: Tensor) -> Tensor:
    """Targets of a batch: whole numbers as int64, in which losses index."""
    return target.long() if target.dtype == torch.uint8 else target


def count_classes(
    targets: Mapping[str, NDArray[Any]], task: str, names: tuple[str, ...], *, ignore: int | None = None
) -> int:
    """Width of the target: classes, labels or regressed values; ``ignore`` is no class unless larger ones are."""
    some = next(iter(targets.values()))
    if task == "binary":
        return 2
    if task in ("multilabel", "regression"):
        return int(some.shape[1])
    counted = [target if ignore is None else target[target != ignore] for target in targets.values()]
    return max(len(names), 1 + max(int(target.max(initial=0)) for target in counted))


def batch_type(name: str, column: Column) -> str:
    """NumPy's name of the type in which a batch carries an input: whole numbers beside a modality stay whole."""
    return "int64" if name != owner(name) and column.dtype.kind in "biu" else "float32"


def layout_of(name: str, shape: tuple[int, ...]) -> str:
    """``vector``, ``sequence`` or ``image`` from the shape of one sample; two axes may need to be told.

    What goes with a modality is ``other``.

    Example:
        >>> layout_of("gyro", (3, 125)), layout_of("pixels", (1, 8, 8)), layout_of("pixels", (64,))
        ('sequence', 'image', 'vector')
    """
    if name != owner(name):
        return "other"
    if len(shape) == 1:
        return "vector"
    if len(shape) == 3:
        return "image"
    if len(shape) == 2:
        channels, steps = shape
        if steps >= 4 * channels:
            return "sequence"
        raise InputError(
            f"'{name}' has samples of shape {shape}, which could be a picture without a channel axis or a sequence. "
            "Store (channels, height, width) or (channels, time), or set its layout to sequence in data.json."
        )
    return "other"


def statistics_of(column: Column, rows: NDArray[np.int64], layout: str) -> Normalisation:
    """Mean and deviation over some rows, read in chunks: per feature (vector) or per channel (sequence, image)."""
    dims = len(column.shape)
    axes = {"vector": (0,), "sequence": (0, 2), "image": (0, 2, 3)}.get(layout, tuple(range(dims)))
    chunk = max(1, min(1024, CHUNK_BYTES // (8 * max(1, int(np.prod(column.shape[1:]))))))
    count, total = 0, np.zeros(1)
    for first in range(0, len(rows), chunk):
        part = np.asarray(column[rows[first : first + chunk]], dtype=np.float64)
        total = total + part.sum(axis=axes, keepdims=True)
        count += int(np.prod([part.shape[axis] for axis in axes]))
    mean = total / count
    square = np.zeros(1)
    for first in range(0, len(rows), chunk):  # a second pass: the difference of two large sums loses digits
        part = np.asarray(column[rows[first : first + chunk]], dtype=np.float64)
        square = square + ((part - mean) ** 2).sum(axis=axes, keepdims=True)
    std = np.sqrt(square / count)
    std[std < 1e-8 * (1.0 + np.abs(mean))] = 1.0  # a constant input stays constant instead of exploding
    return Normalisation(mean[0].tolist(), std[0].tolist())


def keep_fraction(rows: NDArray[np.int64], target: NDArray[Any], fraction: float, seed: int) -> NDArray[np.int64]:
    """A share of some rows, at least one per class, drawn class by class; regression draws from all rows at once."""
    if not 0.0 < fraction <= 1.0:
        raise InputError(f"train_fraction is {fraction}: expected a share above 0 and up to 1.")
    random = np.random.default_rng(seed)
    if target.ndim > 1 or target.dtype.kind == "f":
        groups = [rows]
    else:
        groups = [rows[target[rows] == value] for value in np.unique(target[rows])]
    kept = [random.permutation(group)[: max(1, round(fraction * len(group)))] for group in groups]
    return np.sort(np.concatenate(kept))


def stratified_split(
    target: NDArray[Any], fractions: tuple[float, float, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Train, valid and test rows, class by class in these shares; regression is split without classes."""
    random = np.random.default_rng(seed)
    strata = np.zeros(len(target), dtype=int) if target.ndim > 1 or target.dtype.kind == "f" else target
    parts: dict[str, list[NDArray[np.int64]]] = {split: [] for split in SPLITS}
    for value in np.unique(strata):
        rows = random.permutation(np.flatnonzero(strata == value))
        train = round(fractions[0] * len(rows))
        valid = round((fractions[0] + fractions[1]) * len(rows))
        for split, part in zip(SPLITS, (rows[:train], rows[train:valid], rows[valid:]), strict=True):
            parts[split].append(part)
    return {split: np.sort(np.concatenate(found)).astype(np.int64) for split, found in parts.items()}


def draw_splits(
    targets: Mapping[str, NDArray[Any]], fractions: tuple[float, float, float], seed: int
) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Split → modality → rows, drawn by `stratified_split`; modalities that share their targets share the rows."""
    drawn = {id(target): stratified_split(target, fractions, seed) for target in targets.values()}
    for target in targets.values():
        empty = [split for split, rows in drawn[id(target)].items() if not len(rows)]
        if empty:
            raise InputError(
                f"{len(target)} samples are too few to draw splits of {fractions} class by class: {', '.join(empty)} "
                "would be empty. Add samples, or give the splits."
            )
    return {split: {name: drawn[id(target)][split] for name, target in targets.items()} for split in SPLITS}
