"""`Data`, which every loader returns: three splits (`xmodal.data.split`) and a `DataInfo`.

A loader reads columns, targets and row numbers; `assemble` does what is the same for all data sets: the train fraction,
normalisation statistics, augmentation, and the `DataInfo`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmodal.data.augment import Augment
from xmodal.data.draw import fold_rows
from xmodal.data.groups import rows_of_each
from xmodal.data.present import complete, count_present, masks_of
from xmodal.data.request import DataRequest
from xmodal.data.split import Column, Partial, Split, batch_type
from xmodal.data.targets import infer_task
from xmodal.data.unlabelled import label_of, mark_unlabelled
from xmodal.errors import InputError, did_you_mean
from xmodal.types import SPLITS, DataInfo, InputInfo, Label, Normalisation, owner

# bytes of a column that statistics read at a time: a column may be a memory map larger than the memory
CHUNK_BYTES = 64 * 2**20
SELECT = {
    "multiclass": ("accuracy", "max"),
    "binary": ("accuracy", "max"),
    "multilabel": ("macro_f1", "max"),
    "regression": ("mse", "min"),
}
DENSE_SELECT = ("mean_iou", "max")


@dataclass
class Data:
    """Three splits and their description.

    Attributes:
        train: rows to train on.
        valid: rows that choose an epoch.
        test: rows that are scored once, at the end.
        info: shapes, task and classes, from which networks are built.
        source: JSON from which ``xmodal.data.open_data`` builds the same data again; empty for arrays in memory.
        decode: maps (index, outputs) to the grid of the predictions, where it is not the network's grid.
        warnings: sentences to show to the user, which stop nothing.
        groups: group of each row of the columns besides its class, such as the person who speaks; None where there are
            no groups. Those of a split are ``groups[data.test.numbers[modality]]``.
        ids: names of the rows of the columns; empty where they have none.
        folds: into how many folds the rows are divided, of which one is the test split; 0: these are other splits.
        labels_from: what the labels were given as, such as ``strings`` or ``categories``; empty: not known.
        revealed: the same data with all labels, where `xmodal.data.labels.hide_labels` has hidden some; None: nothing
            is hidden.
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
    folds: int = 0
    labels_from: str = ""
    revealed: Data | None = None

    def apart(self) -> Data:
        """The same rows as unpaired data: batches shuffle each modality by itself, so their rows do not correspond."""
        train, valid, test = (copy.copy(split.without_gaps()) for split in (self.train, self.valid, self.test))
        for split in (train, valid, test):
            split.paired = False
        revealed = None if self.revealed is None else self.revealed.apart()
        info = replace(self.info, paired=False, **_without_gaps(self.info, train))
        return replace(self, train=train, valid=valid, test=test, info=info, revealed=revealed)

    def doubled(self) -> Data:
        """The same rows as float64, see `Split.doubled`."""
        if self.info.doubled:
            return self
        train, valid, test = (split.doubled() for split in (self.train, self.valid, self.test))
        revealed = None if self.revealed is None else self.revealed.doubled()
        info = self.info.typed("float64")
        return replace(self, train=train, valid=valid, test=test, info=info, revealed=revealed)

    def numbered_as(self, labels: Sequence[Label], names: tuple[str, ...]) -> Data:
        """The same rows with the class numbers of other data, such as those that a student was trained on.

        Args:
            labels: the label of each class there; those of this data must be among them.
            names: of these classes; empty: their numbers.
        """
        own = self.info.label_values or tuple(range(self.info.classes))
        numbers = {label: number for number, label in enumerate(labels)}
        places = torch.tensor([numbers[label] for label in own], dtype=torch.int64)
        parts = {name: self.split(name).renumbered(places) for name in SPLITS}
        info = replace(
            self.info,
            classes=len(labels),
            class_names=names,
            label_values=tuple(labels) if self.info.label_values else (),
            train_targets=parts["train"].targets,
        )
        return replace(self, train=parts["train"], valid=parts["valid"], test=parts["test"], info=info)

    def split(self, name: str) -> Split:
        """A split by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


def _without_gaps(info: DataInfo, train: Split) -> dict[str, Any]:
    """The facts that change where each modality keeps the rows that have it."""
    if not info.present:
        return {}
    labelled = {name: int(mask.sum()) for name, mask in train.labelled.items()}
    rows = {**info.rows, "train": train.rows}
    return {"present": {}, "rows": rows, "labelled": labelled, "train_targets": train.targets}


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
    label_values: tuple[Label, ...] = (),
    request: DataRequest | None = None,
    select: tuple[str, str] | None = None,
    metrics: str = "",
    ignore: int | None = None,
    label_losses: Mapping[str, float] | None = None,
    class_weights: tuple[float, ...] = (),
    scored: Mapping[str, Column] | None = None,
    inner: int = 0,
    source: dict[str, Any] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Data:
    """Build `Data` from columns.

    Args:
        columns: modality → column; an auxiliary input, such as ``audio.lengths``, is never normalised.
        targets: modality → targets; paired data has the same array under each name. Training rows whose target is -1
            (integers) or NaN (regression) everywhere have no label.
        splits: split → modality → row numbers.
        task: kind of target; empty: `infer_task` of the targets.
        paired: whether row i of every modality is the same sample.
        normalise: modality → ``standard`` (statistics of the training split), ``none`` (the default), or statistics.
        layouts: modality → layout, where the shape of a sample leaves it open.
        class_names: one name per class or label.
        label_values: the label of each class as it was given, see `DataInfo`.
        request: train fraction, augmentation, and the seed of both; its task is not used.
        select: metric and direction for choosing an epoch; None: the default of the task.
        metrics: name of a set of metrics in place of the default, see `DataInfo`.
        ignore: target value that neither losses nor metrics count.
        label_losses: see `DataInfo`.
        class_weights: see `DataInfo`.
        scored: modality → column with the regions on which metrics are computed, see `Batch`.
        inner: see `DataInfo`.
        source: what `open_data` needs to build the same data again.
        groups: group of each row of the columns, which folds keep together.
    """
    request = request or DataRequest()
    task = task or infer_task(next(iter(targets.values())))
    # by identity: modalities that share one array of targets, or of rows, still share one afterwards
    typed = {id(target): typed_target(target, task) for target in targets.values()}
    targets = {name: typed[id(target)] for name, target in targets.items()}
    target_shape = next(iter(targets.values())).shape[1:]
    dense = task == "multiclass" and bool(target_shape)
    rows = {split: dict(splits[split]) for split in SPLITS}
    warnings = []
    if request.folds:
        rows, sentence = fold_rows(
            targets,
            rows,
            folds=request.folds,
            fold=request.fold,
            groups=groups,
            label=label_of(ignore),
            complete=complete(masks_of(columns)),
            class_names=class_names,
        )
        warnings.append(sentence)
    if request.train_fraction != 1.0:
        kept = {
            id(numbers): keep_fraction(numbers, targets[name], request.train_fraction, request.seed)
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
    # after the train fraction: with few labels, the statistics are those of the few rows that are kept
    statistics = {
        name: choice
        if isinstance(choice, Normalisation)
        else statistics_of(columns[name], stored_rows(columns[name], rows["train"][name]), inputs[name].layout)
        for name, choice in (normalise or {}).items()
        if choice != "none"
    }
    operations = Augment.parse(request.augment, seed=request.seed)
    for name in operations.modalities:
        if name not in inputs or name != owner(name):
            raise InputError(
                f"The augmentation '{request.augment}' names a modality '{name}'. {did_you_mean(name, inputs)}"
            )
    if dense and operations.moves:
        raise InputError(
            f"The augmentation '{request.augment}' moves what is in a sample, and its dense targets would not "
            "follow. Use noise or scale alone, or a loader that moves both."
        )
    parts = {
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
        rows={split: parts[split].rows for split in SPLITS},
        paired=paired,
        select=select or (DENSE_SELECT if dense else SELECT[task]),
        class_names=class_names,
        label_values=label_values,
        dense=dense,
        ignore=ignore,
        label_losses=label_losses or {},
        class_weights=class_weights,
        train_targets=parts["train"].targets,
        normalisation=statistics,
        metrics=metrics,
        target_shape=tuple(target_shape) if dense else (),
        inner=inner,
    )
    info = count_present(parts, info)
    train, info = mark_unlabelled(parts, info)
    data = Data(train, parts["valid"], parts["test"], info, source or {}, warnings=warnings)
    data.groups, data.folds = groups, request.folds
    return data


def typed_target(target: NDArray[Any], task: str) -> NDArray[Any]:
    """Targets in the type that losses and metrics expect: int64 classes, float32 (rows, width) for regression.

    Dense targets in uint8 keep their type; a batch converts them to int64, see `widened`.
    """
    if task == "regression":
        return np.ascontiguousarray(target.reshape(len(target), -1), dtype=np.float32)
    # int64 takes eight times the memory, which for the voxels or pixels of all frames is gigabytes
    if task == "multiclass" and target.ndim > 2 and target.dtype == np.uint8:
        return np.ascontiguousarray(target)
    column = task in ("multiclass", "binary") and target.ndim == 2 and target.shape[1] == 1
    return np.ascontiguousarray(target[:, 0] if column else target, dtype=np.int64)


def count_classes(
    targets: Mapping[str, NDArray[Any]], task: str, names: tuple[str, ...], *, ignore: int | None = None
) -> int:
    """Number of classes, labels or regressed values.

    Args:
        targets: modality → targets of all rows.
        task: kind of target.
        names: of the classes; more names than classes in the targets make more classes.
        ignore: value that marks missing labels; it takes the number of a class only where larger classes occur.
    """
    if task == "binary":
        return 2
    if task in ("multilabel", "regression"):
        return int(next(iter(targets.values())).shape[1])
    counted = [target if ignore is None else target[target != ignore] for target in targets.values()]
    return max(len(names), 1 + max(int(target.max(initial=0)) for target in counted))


def layout_of(name: str, shape: tuple[int, ...]) -> str:
    """``vector``, ``sequence`` or ``image`` from the shape of one sample; an auxiliary input is ``other``.

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
        # a recording has many more steps than channels; a picture has sides of about the same length
        if steps >= 4 * channels:
            return "sequence"
        raise InputError(
            f"'{name}' has samples of shape {shape}, which could be a picture without a channel axis or a sequence. "
            "Store (channels, height, width) or (channels, time), or set its layout to sequence in data.json."
        )
    return "other"


def stored_rows(column: Column, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the rows that have this modality."""
    return rows[column.present[rows]] if isinstance(column, Partial) else rows


def statistics_of(column: Column, rows: NDArray[np.int64], layout: str) -> Normalisation:
    """Mean and standard deviation over some rows: per feature (vector) or per channel (sequence, image)."""
    dims = len(column.shape)
    axes = {"vector": (0,), "sequence": (0, 2), "image": (0, 2, 3)}.get(layout, tuple(range(dims)))
    chunk = max(1, min(1024, CHUNK_BYTES // (8 * max(1, int(np.prod(column.shape[1:]))))))
    count, total = 0, np.zeros(1)
    for first in range(0, len(rows), chunk):
        part = np.asarray(column[rows[first : first + chunk]], dtype=np.float64)
        total = total + part.sum(axis=axes, keepdims=True)
        count += int(np.prod([part.shape[axis] for axis in axes]))
    # a modality without a row is refused later, with all other problems of the splits
    mean = total / max(count, 1)
    # a second pass over the rows: E[x²] - E[x]² in one pass is the difference of two large sums and loses digits
    square = np.zeros(1)
    for first in range(0, len(rows), chunk):
        part = np.asarray(column[rows[first : first + chunk]], dtype=np.float64)
        square = square + ((part - mean) ** 2).sum(axis=axes, keepdims=True)
    std = np.sqrt(square / max(count, 1))
    # a constant feature has a deviation of 0, or of rounding errors: dividing by it would give NaN or huge values
    std[std < 1e-8 * (1.0 + np.abs(mean))] = 1.0
    return Normalisation(mean[0].tolist(), std[0].tolist())


def keep_fraction(rows: NDArray[np.int64], target: NDArray[Any], fraction: float, seed: int) -> NDArray[np.int64]:
    """A share of some rows, drawn class by class, at least one row per class; regression has one class of all rows."""
    if not 0.0 < fraction <= 1.0:
        raise InputError(f"train_fraction is {fraction}: expected a share above 0 and up to 1.")
    random = np.random.default_rng(seed)
    if target.ndim > 1 or target.dtype.kind == "f":
        groups = [rows]
    else:
        groups = [rows[members] for members in rows_of_each(target[rows])]
    kept = [random.permutation(group)[: max(1, round(fraction * len(group)))] for group in groups]
    return np.sort(np.concatenate(kept))
