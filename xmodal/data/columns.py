"""Columns on disk: one .npy file, or a folder with one per sample. Read row by row, never unpickled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError


def read_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a .npy file, from its first bytes; what can't be mapped to memory is refused."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            # versions 2 and 3 differ in the encoding of field names alone, and structured types are refused below
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            start = file.tell()
    except (ValueError, EOFError) as error:
        raise InputError(f"{_short(path)} is not a NumPy array file ({error}). Write it with numpy.save.") from None
    except OSError as error:
        raise InputError(f"{_short(path)} can't be read: {error.strerror}.") from None
    refuse_type(_short(path), dtype)
    expected, found = start + dtype.itemsize * int(np.prod(shape, dtype=np.int64)), path.stat().st_size
    if found < expected:
        raise InputError(
            f"{_short(path)} is cut off: its header promises {expected} bytes, the file has {found}. Write it again."
        )
    return shape, dtype


def refuse_type(where: str, dtype: np.dtype[Any]) -> None:
    """Raise an `InputError` unless the type is a real number or a boolean."""
    if dtype.kind in "biuf":
        return
    reasons = {
        "O": "holds Python objects, which are never opened. Save numbers with one shape for all samples",
        "U": "holds text. Save numbers; the names of classes belong into class_names of data.json",
        "S": "holds text. Save numbers; the names of classes belong into class_names of data.json",
        "c": "holds complex numbers. Save magnitude and phase, or real and imaginary part, as real numbers",
    }
    raise InputError(f"{where} {reasons.get(dtype.kind, f'has the type {dtype}. Save integers or floats')}.")


def _short(path: Path) -> str:
    """File name, with its folder for a file of one sample."""
    return f"{path.parent.name}/{path.name}" if (path.parent.parent / path.parent.name).is_dir() else path.name


class ArrayFile:
    """A column in one .npy file, mapped to memory: only the rows that are asked for are read.

    It travels to other processes as its path; a memory map would travel as all of its numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape, self.dtype = read_header(path)

    @functools.cached_property
    def array(self) -> NDArray[Any]:
        """The memory map."""
        if not all(self.shape):
            return np.zeros(self.shape, self.dtype)  # an empty file has nothing to map
        mapped: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return mapped

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        found: NDArray[Any] = self.array[rows]
        return found

    def __reduce__(self) -> tuple[type[ArrayFile], tuple[Path]]:
        return ArrayFile, (self.path,)


class ArrayFolder:
    """A column in a folder with one .npy file per sample, read when asked for.

    Args:
        path: the folder.
        files: the samples in their order; None: all of the folder, in the order of their names.
    """

    def __init__(self, path: Path, files: Sequence[Path] | None = None) -> None:
        self.path = path
        self.files = sample_files(path) if files is None else list(files)
        sample, self.dtype = read_header(self.files[0])
        self.shape = (len(self.files), *sample)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        chosen = np.arange(len(self.files))[rows]
        if chosen.ndim == 0:
            return self._sample(int(chosen))
        found = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for position, row in enumerate(chosen.tolist()):
            found[position] = self._sample(row)
        return found

    def _sample(self, row: int) -> NDArray[Any]:
        read_header(self.files[row])
        sample: NDArray[Any] = np.load(self.files[row], allow_pickle=False)
        if sample.shape != self.shape[1:]:
            raise InputError(
                f"{_short(self.files[row])} has the shape {sample.shape}, the first file of this folder has "
                f"{self.shape[1:]}. Give all samples of a modality one shape."
            )
        return sample


def sample_files(folder: Path) -> list[Path]:
    """The .npy files of a folder in the order of their names; hidden files are none of ours."""
    return sorted(path for path in folder.iterdir() if path.suffix == ".npy" and not path.name.startswith("."))


def open_column(path: Path) -> ArrayFile | ArrayFolder:
    """The column in a file or folder."""
    return ArrayFolder(path) if path.is_dir() else ArrayFile(path)


def gather(rows: Any, ends: NDArray[Any], open_part: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
    """Rows of arrays that lie one behind another.

    Args:
        rows: numbers, counted through all of them, or a slice.
        ends: number of rows up to the end of each.
        open_part: gives the array of this place; they differ in nothing but their number of rows.

    Example:
        >>> parts = [np.array([10, 11]), np.array([12, 13, 14])]
        >>> gather([4, 0, 2], np.array([2, 5]), lambda place: parts[place])
        array([14, 10, 12])
    """
    wanted = np.arange(ends[-1])[rows]
    where = np.searchsorted(ends, wanted, side="right")
    first = open_part(0)
    found = np.empty((len(wanted), *first.shape[1:]), first.dtype)
    for place in np.unique(where).tolist():
        mine = where == place
        found[mine] = open_part(place)[wanted[mine] - (ends[place - 1] if place else 0)]
    return found
