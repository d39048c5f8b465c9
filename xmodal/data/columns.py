"""Columns on disk: one .npy file, or a folder with one .npy file per sample. Read row by row, never unpickled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError


def read_header(path: Path, *, text: bool = False) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a .npy file, from its header; refuses a file that can't be mapped to memory.

    Args:
        path: the file.
        text: whether it may hold text, as labels do.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            # NumPy has no reader for version 3, which differs from 2 only in the encoding of field names; types with
            # fields are refused below
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            start = file.tell()
    except (ValueError, EOFError) as error:
        raise InputError(f"{_short(path)} is not a NumPy array file ({error}). Write it with numpy.save.") from None
    except OSError as error:
        raise InputError(f"{_short(path)} can't be read: {error.strerror}.") from None
    if not (text and dtype.kind in "US"):
        refuse_type(_short(path), dtype)
    # a memory map beyond the end of a file would fail at the first access to those rows, perhaps epochs later
    expected, size = start + dtype.itemsize * int(np.prod(shape, dtype=np.int64)), path.stat().st_size
    if size < expected:
        raise InputError(
            f"{_short(path)} is cut off: its header promises {expected} bytes, the file has {size}. Write it again."
        )
    return shape, dtype


def refuse_type(where: str, dtype: np.dtype[Any]) -> None:
    """Raise an `InputError` unless the type is a real number or a boolean."""
    if dtype.kind in "biuf":
        return
    reasons = {
        "O": "holds Python objects, which are never opened. Save numbers with one shape for all samples",
        "U": "holds text. Save numbers; only labels may be text",
        "S": "holds text. Save numbers; only labels may be text",
        "c": "holds complex numbers. Save magnitude and phase, or real and imaginary part, as real numbers",
    }
    raise InputError(f"{where} {reasons.get(dtype.kind, f'has the type {dtype}. Save integers or floats')}.")


def _short(path: Path) -> str:
    """Name of a file for messages; a file of one sample has its folder in front."""
    return f"{path.parent.name}/{path.name}" if (path.parent.parent / path.parent.name).is_dir() else path.name


class ArrayFile:
    """A column in one .npy file, mapped to memory: only the rows that are indexed are read.

    Args:
        path: the file.
        text: whether it may hold text.
    """

    def __init__(self, path: Path, *, text: bool = False) -> None:
        self.path = path
        self.shape, self.dtype = read_header(path, text=text)

    @functools.cached_property
    def array(self) -> NDArray[Any]:
        """The memory map."""
        # an empty array has no bytes, and no bytes can't be mapped
        if not all(self.shape):
            return np.zeros(self.shape, self.dtype)
        mapped: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return mapped

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        values: NDArray[Any] = self.array[rows]
        return values

    # a worker process gets the path: pickle would copy all values of a memory map
    def __reduce__(self) -> tuple[type[ArrayFile], tuple[Path]]:
        return ArrayFile, (self.path,)


class ArrayFolder:
    """A column in a folder with one .npy file per sample, read when it is indexed.

    Args:
        path: the folder.
        files: files of the samples in order; None: all files of the folder, in the order of their names.
        dtype: type of the values that are read; None: that of the first file.
    """

    def __init__(self, path: Path, files: Sequence[Path] | None = None, *, dtype: np.dtype[Any] | None = None) -> None:
        self.path = path
        self.files = sample_files(path) if files is None else list(files)
        sample, first = read_header(self.files[0])
        self.dtype = first if dtype is None else dtype
        self.shape = (len(self.files), *sample)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        chosen = np.arange(len(self.files))[rows]
        if chosen.ndim == 0:
            return self._sample(int(chosen))
        samples = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for position, row in enumerate(chosen.tolist()):
            samples[position] = self._sample(row)
        return samples

    def _sample(self, row: int) -> NDArray[Any]:
        # only the first file was looked at so far: this refuses a damaged one with a message that names it
        read_header(self.files[row])
        sample: NDArray[Any] = np.load(self.files[row], allow_pickle=False)
        if sample.shape != self.shape[1:]:
            raise InputError(
                f"{_short(self.files[row])} has the shape {sample.shape}, the first file of this folder has "
                f"{self.shape[1:]}. Give all samples of a modality one shape."
            )
        return sample


def sample_files(folder: Path) -> list[Path]:
    """The .npy files of a folder in the order of their names, hidden files left out."""
    return sorted(path for path in folder.iterdir() if path.suffix == ".npy" and not path.name.startswith("."))


def open_column(path: Path) -> ArrayFile | ArrayFolder:
    """The column in a file or folder."""
    return ArrayFolder(path) if path.is_dir() else ArrayFile(path)


def gather(rows: Any, ends: NDArray[Any], open_part: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
    """Rows of a column that is stored in several arrays, one after the other.

    Args:
        rows: row numbers, counted over all arrays, or a slice.
        ends: for each array, the number of rows up to its end.
        open_part: number of an array → the array; all have the same type and the same shape of a row.

    Example:
        >>> parts = [np.array([10, 11]), np.array([12, 13, 14])]
        >>> gather([4, 0, 2], np.array([2, 5]), lambda number: parts[number])
        array([14, 10, 12])
    """
    # the numbers of the chosen rows alone: a list of all rows would cost each batch as much as the whole data
    chosen = np.arange(*rows.indices(ends[-1])) if isinstance(rows, slice) else np.asarray(rows)
    chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else np.where(chosen < 0, chosen + ends[-1], chosen)
    part_of_row = np.searchsorted(ends, chosen, side="right")
    first = open_part(0)
    values = np.empty((len(chosen), *first.shape[1:]), first.dtype)
    for number in np.unique(part_of_row).tolist():
        mask = part_of_row == number
        values[mask] = open_part(number)[chosen[mask] - (ends[number - 1] if number else 0)]
    return values
