"""Repairs of data that an option requests: NaN in arrays, repeated rows.

By default all `Rules` are strict and nothing is repaired; every repair adds a warning to the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.present import PartialColumn
from xmodal.data.split import Column
from xmodal.names import UNLABELLED

# bytes of a column that are searched at a time: a column may be a memory map larger than the memory
CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Rules:
    """How strict the reading of a folder is.

    Attributes:
        split: number of the index files (``train_idx_3.npy``); None: those without a number.
        nan: treatment of rows with NaN or infinite values: ``refuse``, ``drop`` or ``zero``.
        overlap: whether a row may be in two splits.
        repeated: whether a row that is listed twice in a split ``count``s twice or ``once``.
        label: integer that marks rows without a label, besides NaN; None: no integer.
    """

    split: int | None = None
    nan: str = "refuse"
    overlap: bool = False
    repeated: str = "count"
    label: int | None = UNLABELLED


class Zeroed:
    """A column whose NaN and infinite values read as zero.

    Example:
        >>> Zeroed(np.array([[1.0, np.nan], [np.inf, 2.0]]))[np.array([0, 1])]
        array([[1., 0.],
               [0., 2.]])
    """

    def __init__(self, column: Column) -> None:
        self.column, self.shape, self.dtype = column, tuple(column.shape), column.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        values = np.asarray(self.column[rows])
        return np.where(finite(values), values, values.dtype.type(0))


def zeroed(column: Column) -> Column:
    """A column whose NaN and infinite values read as zero; rows that lack it lack it still."""
    if isinstance(column, PartialColumn):
        return PartialColumn(Zeroed(column.stored), column.rows, column.shape[0])
    return Zeroed(column)


def finite(block: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of the values that are finite in float32, the type of a batch."""
    if block.dtype.kind != "f":
        return np.ones(block.shape, dtype=bool)
    # a float64 beyond 3.4e38 is finite in the file and infinite in a batch
    with np.errstate(over="ignore"):
        return np.isfinite(block.astype(np.float32))


def bad_rows(column: Column) -> NDArray[np.int64]:
    """Numbers of the rows that hold NaN or infinite values; rows that lack the column do not."""
    if isinstance(column, PartialColumn):
        return np.sort(column.rows[bad_rows(column.stored)])
    size = max(1, int(np.prod(column.shape[1:])) * column.dtype.itemsize)
    step = max(1, CHUNK_BYTES // size)
    parts = []
    for start in range(0, column.shape[0], step):
        block = np.asarray(column[start : start + step])
        parts.append(start + np.flatnonzero(~finite(block).reshape(len(block), -1).all(axis=1)))
    rows: NDArray[np.int64] = np.concatenate(parts).astype(np.int64)
    return rows


def once(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same rows, each at its first position.

    Example:
        >>> once(np.array([3, 1, 3, 2, 1]))
        array([3, 1, 2])
    """
    _, places = np.unique(rows, return_index=True)
    kept: NDArray[np.int64] = rows[np.sort(places)]
    return kept


def without(
    rows: Mapping[str, Mapping[str, NDArray[np.int64]]], bad: Mapping[str, NDArray[np.int64]], *, paired: bool
) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Split → modality → rows without the bad ones, which paired modalities leave out together.

    Args:
        rows: split → modality → row numbers.
        bad: modality → numbers of its bad rows.
        paired: whether row i of every modality is the same sample.
    """
    if paired:
        union = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *bad.values()]))
        bad = dict.fromkeys(bad, union)
    # by identity: modalities that shared an array of rows still share one afterwards
    good: dict[tuple[int, int], NDArray[np.int64]] = {}
    for parts in rows.values():
        for name, part in parts.items():
            good.setdefault((id(part), id(bad[name])), part[~np.isin(part, bad[name])])
    return {
        split: {name: good[id(part), id(bad[name])] for name, part in parts.items()} for split, parts in rows.items()
    }
