"""Data sets: what every loader in this folder builds.

`Data` is three splits (`xmodal.data.split`) and a `DataInfo`. Loaders find the columns and call `assemble`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xmodal.data.augment import Augment
from xmodal.data.request import DataRequest
from xmodal.data.split import Column, Split, batch_type
from xmodal.errors import InputError, did_you_mean
from xmodal.types import SPLITS, DataInfo, InputInfo, Normalisation, owner

CHUNK_BYTES = 64 * 2**20  # of a large column that statistics look at in one go
SELECT = {
    "multiclass": ("accuracy", "max"),
    "binary": ("accuracy", "max"),
    "multilabel": ("macro_f1", "max"),
    "regression": ("mse", "min"),
}
DENSE_SELECT = ("mean_iou", "max")
LAYOUTS = ("vector", "sequence", "image", "other")


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

    def doubled(self) -> Data:
        """The same rows as numbers of 64 bits, see `Split.doubled`."""
        if self.info.doubled:
            return self
        train, valid, test = (split.doubled() for split in (self.train, self.valid, self.test))
        return replace(self, train=train, valid=valid, test=test, info=self.info.typed("float64"))

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
    request: DataRequest | None = None,
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
        request: share of the training rows to keep, augmentation, and the seed of both; its task is not read.
        select: metric and direction for choosing an epoch; None: the usual one of the task.
        metrics: set of metrics in place of the usual ones, see `DataInfo`.
        ignore: target value that counts nowhere.
        label_losses: see `DataInfo`.
        class_weights: see `DataInfo`.
        scored: modality → column with the regions that metrics look at, see `Batch`.
        inner: see `DataInfo`.
        source: what `open_data` needs to build the same data again.
    """
    request = request or DataRequest()
    augment, seed = request.augment, request.seed
    some = next(iter(targets.values()))
    task = task or infer_task(some)
    typed = {id(target): typed_target(target, task) for target in targets.values()}
    targets = {name: typed[id(target)] for name, target in targets.items()}
    dense = task == "multiclass" and next(iter(targets.values())).ndim > 1
    rows = {split: dict(splits[split]) for split in SPLITS}
    if request.train_fraction != 1.0:
        kept = {
            id(numbers): keep_fraction(numbers, targets[name], request.train_fraction, seed)
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
        target_shape=tuple(next(iter(targets.values())).shape[1:]) if dense else (),
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
