"""What can be put right in data when asked for: holes in arrays, gaps in class numbers, repeated rows.

Nothing here happens by itself: `Rules` are all strict unless an option says otherwise, and every repair is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.split import Column

CHUNK_BYTES = 8 * 2**20
Targets = NDArray[Any]


@dataclass(frozen=True)
class Rules:
    """How strictly a folder is read.

    Attributes:
        split: number of the index files (``train_idx_3.npy``); None: those without a number.
        nan: what becomes of rows with NaN or infinite values: ``refuse``, ``drop`` or ``zero``.
        overlap: whether a row may be in two splits.
        repeated: a row that is listed twice in a split ``count``s twice, or ``once``.
        renumber: whether class numbers are counted anew without gaps.
    """

    split: int | None = None
    nan: str = "refuse"
    overlap: bool = False
    repeated: str = "count"
    renumber: bool = False


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
        found = np.asarray(self.column[rows])
        return np.where(finite(found), found, found.dtype.type(0))


def finite(block: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values a batch can carry, which is float32."""
    if block.dtype.kind != "f":
        return np.ones(block.shape, dtype=bool)
    with np.errstate(over="ignore"):
        return np.isfinite(block.astype(np.float32))


def bad_rows(column: Column) -> NDArray[np.int64]:
    """Numbers of the rows that hold NaN or infinite values."""
    size = max(1, int(np.prod(column.shape[1:])) * column.dtype.itemsize)
    step = max(1, CHUNK_BYTES // size)
    found = []
    for start in range(0, column.shape[0], step):
        block = np.asarray(column[start : start + step])
        found.append(start + np.flatnonzero(~finite(block).reshape(len(block), -1).all(axis=1)))
    rows: NDArray[np.int64] = np.concatenate(found).astype(np.int64)
    return rows


def once(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same rows, each where it comes first.

    Example:
        >>> once(np.array([3, 1, 3, 2, 1]))
        array([3, 1, 2])
    """
    _, places = np.unique(rows, return_index=True)
    kept: NDArray[np.int64] = rows[np.sort(places)]
    return kept


def class_values(targets: Sequence[Targets]) -> list[int]:
    """All class numbers that occur, in order; nothing where the targets are no class numbers."""
    if not targets or not all(target.ndim == 1 and target.size and _whole(target) for target in targets):
        return []
    return sorted({int(value) for target in targets for value in np.unique(target)})


def renumbered(target: Targets, values: Sequence[int]) -> NDArray[np.int64]:
    """Each class number replaced by its place among ``values``.

    Example:
        >>> renumbered(np.array([7, 3, 7, 9]), [3, 7, 9])
        array([1, 0, 1, 2])
    """
    places: NDArray[np.int64] = np.searchsorted(np.asarray(values), target).astype(np.int64)
    return places


def without(
    rows: Mapping[str, Mapping[str, NDArray[np.int64]]], bad: Mapping[str, NDArray[np.int64]], *, paired: bool
) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Split → modality → rows without the bad ones; what is bad in one of paired modalities is bad in all."""
    if paired:
        every = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *bad.values()]))
        bad = dict.fromkeys(bad, every)
    left: dict[tuple[int, int], NDArray[np.int64]] = {}  # modalities that shared their rows go on sharing them
    for parts in rows.values():
        for name, part in parts.items():
            key = id(part), id(bad[name])
            left.setdefault(key, part[~np.isin(part, bad[name])])
    return {
        split: {name: left[id(part), id(bad[name])] for name, part in parts.items()} for split, parts in rows.items()
    }


def _whole(target: Targets) -> bool:
    if target.dtype.kind in "biu":
        return True
    return target.dtype.kind == "f" and bool(np.isfinite(target).all() and (target == np.round(target)).all())
