"""Fingerprints of rows, which show whether a table of outputs was made for the rows that it is used with.

A row is hashed as float32, so a copy of the data in another floating-point type has the same fingerprints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from xmodal.data.split import Column

# All rows of smaller columns are compared, and a sample of larger ones: reading these again takes minutes.
WHOLE_BYTES = 256 * 2**20
SAMPLED = 256
BLOCK = 256  # rows that are read at a time


def row_hashes(column: Column, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One 64-bit number for each of these rows.

    Example:
        >>> table = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
        >>> first, second, third = row_hashes(table, np.arange(3))
        >>> bool(first == third), bool(first == second)
        (True, False)
    """
    numbers = np.empty(len(rows), dtype=np.uint64)
    for first in range(0, len(rows), BLOCK):
        part = np.ascontiguousarray(column[rows[first : first + BLOCK]], dtype=np.float32)
        for place, row in enumerate(part, start=first):
            numbers[place] = int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little")
    return numbers


def compared_rows(column: Column, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions within ``rows`` to compare: all, or some that are spread evenly where the column is large."""
    size = 4 * len(rows) * int(np.prod(column.shape[1:]))
    if size <= WHOLE_BYTES or len(rows) <= SAMPLED:
        return np.arange(len(rows))
    return np.unique(np.linspace(0, len(rows) - 1, SAMPLED).astype(np.int64))


def digest(arrays: Iterable[NDArray[np.generic]]) -> str:
    """A hash of the types, shapes and values of some arrays."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
