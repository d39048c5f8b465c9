"""What one pass over a column finds besides NaN: values that never change, and a digest of every sample.

Columns may be larger than the memory, so the pass that searches for NaN hands over each block, and nothing is read
twice.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xmodal.data.split import Column

Number = TypeVar("Number", bound=np.generic)

# bytes of a column that are read at a time
CHUNK_BYTES = 8 * 2**20


class Scan:
    """Collects facts about the samples of a column, block by block.

    Example:
        >>> scan = Scan()
        >>> scan.add(np.array([[1.0, 5.0], [2.0, 5.0], [1.0, 5.0]]))
        >>> scan.constant.tolist(), (scan.digests[0] == scan.digests).tolist()
        ([False, True], [True, False, True])
    """

    def __init__(self) -> None:
        self._smallest: NDArray[Any] | None = None
        self._largest: NDArray[Any] | None = None
        self._digests: list[NDArray[np.uint64]] = []

    def add(self, block: NDArray[Any]) -> None:
        """Take the next samples, (rows, …)."""
        smallest, largest = np.fmin.reduce(block, axis=0), np.fmax.reduce(block, axis=0)
        self._smallest = smallest if self._smallest is None else np.fmin(self._smallest, smallest)
        self._largest = largest if self._largest is None else np.fmax(self._largest, largest)
        rows = np.ascontiguousarray(block)
        # 64 bits: among ten million samples, two different ones have the same digest with a chance of 3 in a million
        digests = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows)
        self._digests.append(np.frombuffer(digests, dtype=np.uint64))

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Mask of the shape of one sample: which positions have the same value in all samples."""
        same: NDArray[np.bool_] = np.asarray(self._smallest == self._largest)
        return same

    @property
    def digests(self) -> NDArray[np.uint64]:
        """One number per sample; equal samples have equal numbers."""
        return np.concatenate(self._digests)


def scanned(column: Column) -> Scan:
    """The scan of a whole column."""
    scan, size = Scan(), max(1, int(np.prod(column.shape[1:])) * column.dtype.itemsize)
    step = max(1, CHUNK_BYTES // size)
    for start in range(0, column.shape[0], step):
        scan.add(np.asarray(column[np.arange(start, min(start + step, column.shape[0]))]))
    return scan


def repeated(
    digests: NDArray[np.uint64], numbers: NDArray[np.int64], rows: NDArray[np.int64], others: NDArray[np.int64]
) -> int:
    """How many of some rows equal another row.

    Args:
        digests: of the stored samples.
        numbers: of the stored samples.
        rows: which are counted.
        others: with which they are compared.
    """
    mine = np.sort(digests[np.isin(numbers, rows)])
    theirs = distinct(digests[np.isin(numbers, others)])
    if not len(theirs):
        return 0
    places = np.searchsorted(theirs, mine).clip(max=len(theirs) - 1)
    return int((theirs[places] == mine).sum())


def distinct(numbers: NDArray[Number]) -> NDArray[Number]:
    """The different numbers, in ascending order.

    By a sort: the hash table of ``numpy.unique`` outgrows the processor's cache, and with millions of different numbers
    it takes ten times as long.

    Example:
        >>> distinct(np.array([3, 1, 3, 2]))
        array([1, 2, 3])
    """
    ordered = np.sort(numbers)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def in_both(first: NDArray[Number], second: NDArray[Number]) -> NDArray[Number]:
    """The different numbers that occur in both lists, in ascending order.

    Example:
        >>> in_both(np.array([4, 4, 1, 3]), np.array([3, 9, 4]))
        array([3, 4])
    """
    ordered = np.sort(np.concatenate([distinct(first), distinct(second)]))
    both: NDArray[Number] = ordered[1:][ordered[1:] == ordered[:-1]]
    return both
