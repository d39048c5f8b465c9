"""Columns of Python objects: arrays, several arrays in a row, and a torch `Dataset`, which returns whole samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from xmodal.data.present import PartialColumn, stored_of
from xmodal.data.split import Column
from xmodal.data.unlabelled import is_missing, is_missing_row
from xmodal.errors import InputError


def as_array(where: str, value: Any) -> NDArray[Any]:
    """Convert an array, a tensor or nested lists to a NumPy array.

    Args:
        where: name of the value for error messages.
        value: to convert.
    """
    # NumPy has no bfloat16, and float32 holds all of its values
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().to_dense()
        detached: NDArray[Any] = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        return detached
    # np.asarray would drop the mask and keep the values under it
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        raise InputError(f"{where} is a masked array with masked values. Fill or remove them first.")
    try:
        return np.asarray(value)
    except ValueError:
        raise InputError(f"{where} has samples of several shapes: give all samples of a modality one shape.") from None


def as_column(where: str, value: Any) -> Column:
    """Convert an input like `as_array`; samples that lack it are None, or NaN in all of their values.

    Args:
        where: name of the input for error messages.
        value: to convert.

    Example:
        >>> as_column("sound", [[1.0, 2.0], None])[np.array([0, 1])].tolist()
        [[1.0, 2.0], [nan, nan]]
        >>> as_column("sound", np.array([[1.0, np.nan], [np.nan, np.nan]])).present.tolist()
        [True, False]
    """
    objects = _with_none(value)
    if objects is None:
        stored = as_array(where, value)
        rows = np.arange(stored.shape[0] if stored.ndim else 0)
    else:
        rows = np.flatnonzero([not is_missing(sample) for sample in objects])
        stored = as_array(where, [objects[row] for row in rows.tolist()])
    empty = _all_nan(stored)
    # a column of nothing but NaN is no column with gaps: the check of its values says what is wrong
    if objects is None and (empty.all() or not empty.any()):
        return stored
    if not len(rows):
        raise InputError(f"{where} has no sample: all {len(objects or rows)} are None or NaN. Leave it out.")
    return PartialColumn(stored[~empty], rows[~empty], len(rows) if objects is None else len(objects))


def _with_none(value: Any) -> list[Any] | None:
    """The samples of a list, or of an array of objects, that holds None or pandas' NA; None: of anything else."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O" and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, list | tuple) or not any(map(is_missing, value)):
        return None
    return list(value)


def _all_nan(array: NDArray[Any]) -> NDArray[np.bool_]:
    """(samples,) which samples are NaN in all of their values; none of a column of single numbers."""
    lacking = np.zeros(array.shape[:1], dtype=bool)
    if array.dtype.kind != "f" or array.ndim < 2 or not array.size:
        return lacking
    flat = array.reshape(len(array), -1)
    # all values are read only where the first one is missing
    rows = np.flatnonzero(np.isnan(flat[:, 0]))
    lacking[rows] = np.isnan(flat[rows]).all(axis=1)
    return lacking


def joined(first: Column, second: Column, *, auxiliary: bool = False) -> Column:
    """Two columns, one below the other, of which some samples may lack either."""
    if not isinstance(first, PartialColumn) and not isinstance(second, PartialColumn):
        return Joined(first, second)
    samples = first.shape[0]
    (above, rows), (below, more) = stored_of(first), stored_of(second)
    rows = np.arange(samples) if rows is None else rows
    more = np.arange(second.shape[0]) if more is None else more
    numbers = np.concatenate([rows, samples + more])
    return PartialColumn(Joined(above, below), numbers, samples + second.shape[0], auxiliary=auxiliary)


class Joined:
    """Two columns, one below the other, which are read only where rows are asked for.

    Example:
        >>> Joined(np.array([[1], [2]]), np.array([[3]]))[np.array([2, 0])].tolist()
        [[3], [1]]
    """

    def __init__(self, first: Column, second: Column) -> None:
        self.first, self.second = first, second
        self.shape = (first.shape[0] + second.shape[0], *first.shape[1:])
        self.dtype = np.result_type(first.dtype, second.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        numbers = np.arange(len(self))[rows]
        flat, start = np.atleast_1d(numbers), self.first.shape[0]
        values = np.empty((len(flat), *self.shape[1:]), self.dtype)
        below = flat >= start
        values[~below] = self.first[flat[~below]]
        values[below] = self.second[flat[below] - start]
        return values if numbers.ndim else values[0]


class DatasetColumn:
    """One modality of a dataset, read sample by sample when it is indexed."""

    def __init__(self, samples: Samples, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.samples, self.name, self.shape, self.dtype = samples, name, shape, dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        chosen = np.arange(len(self))[rows]
        values = [self.samples.at(row)[self.name] for row in np.atleast_1d(chosen).tolist()]
        return np.stack(values) if chosen.ndim else values[0]


class Samples:
    """Inputs of the samples of a dataset, the latest of which are cached."""

    # a batch reads one modality after the other: without a cache as large as a batch, each sample would be loaded once
    # per modality
    CACHED = 1024

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        self._cache: dict[int, dict[str, NDArray[Any]]] = {}

    def at(self, row: int) -> dict[str, NDArray[Any]]:
        """Inputs of one sample."""
        if row not in self._cache:
            # dictionaries keep the order of insertion, so the first entry is the oldest
            if len(self._cache) >= self.CACHED:
                self._cache.pop(next(iter(self._cache)))
            self._cache[row] = _inputs_and_target(self.dataset[row], row)[0]
        return self._cache[row]


def _inputs_and_target(sample: Any, row: int) -> tuple[dict[str, NDArray[Any]], Any]:
    """Inputs and target of one sample in any of the three forms."""
    if isinstance(sample, (tuple, list)) and len(sample) == 2 and isinstance(sample[0], Mapping):
        inputs, target = sample
    elif isinstance(sample, Mapping) and "target" in sample:
        target = sample["target"]
        inputs = sample.get("inputs", {name: value for name, value in sample.items() if name != "target"})
    else:
        raise InputError(
            f"Sample {row} of the dataset is a {type(sample).__name__} of an unknown form: (inputs, target), "
            '{"inputs": inputs, "target": target} or a dictionary of modalities and "target" was expected.'
        )
    return {name: as_array(f"{name} of sample {row}", value) for name, value in inputs.items()}, target


def read_once(dataset: Dataset[Any], keep_bytes: int) -> tuple[dict[str, Column], list[Any]]:
    """Columns and targets of a dataset, the latter None where there is no label; each sample is read once.

    Args:
        dataset: see `xmodal.data.arrays.from_dataset`.
        keep_bytes: up to this size the columns are arrays in memory; above, they read the dataset for each row.
    """
    count = len(dataset) if hasattr(dataset, "__len__") else 0
    if not count:
        raise InputError("The dataset is empty or has no length: a map-style dataset with samples was expected.")
    first, _ = _inputs_and_target(dataset[0], 0)
    keep = count * sum(value.nbytes for value in first.values()) <= keep_bytes
    kept = {name: np.empty((count if keep else 0, *value.shape), value.dtype) for name, value in first.items()}
    # inputs that are not kept are still checked: a bad sample should stop now and not in the middle of an epoch
    targets: list[Any] = []
    for row in range(count):
        inputs, target = _inputs_and_target(dataset[row], row)
        _check_sample(row, inputs, first)
        targets.append(None if is_missing_row(target) else as_array("target", target))
        for name in kept if keep else ():
            kept[name][row] = inputs[name]
    shapes = {target.shape for target in targets if target is not None}
    if len(shapes) > 1:
        raise InputError("The targets of the dataset have several shapes: one shape was expected.")
    if keep:
        return dict(kept), targets
    samples = Samples(dataset)
    lazy = {name: DatasetColumn(samples, name, (count, *value.shape), value.dtype) for name, value in first.items()}
    return dict(lazy), targets


def _check_sample(row: int, inputs: Mapping[str, NDArray[Any]], first: Mapping[str, NDArray[Any]]) -> None:
    if inputs.keys() != first.keys():
        raise InputError(
            f"Sample {row} of the dataset has the modalities {', '.join(inputs)}, sample 0 has {', '.join(first)}: all "
            "samples must have the same."
        )
    for name, value in inputs.items():
        if value.shape != first[name].shape:
            raise InputError(
                f"{name} of sample {row} has the shape {value.shape}, of sample 0 {first[name].shape}: give all "
                "samples of a modality one shape."
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise InputError(f"{name} of sample {row} holds NaN or infinite values. Repair or remove this sample.")
