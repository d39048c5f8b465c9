"""Write dictionaries of arrays as a pickle of protocol 4, the format in which MOSI and MOSEI are published.

Used only for synthetic data, so that other programs can read it. Only numbers, text, lists and dictionaries can be
written, since `xmodal.data.mosi.pickle_reader` reads nothing else.

`pickle.dump` is not used: its bytes depend on the version of NumPy, so that a seed would not give the same file
everywhere, and NumPy 2 writes module names that old versions cannot read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xmodal.files import written_whole


def write_pickle(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dictionary as a pickle. The file appears only when it is complete.

    Args:
        path: the file.
        content: key → array of numbers, array of text (stored as objects), list of integers, or such a dictionary.

    Example:
        >>> import tempfile
        >>> from xmodal.data.mosi.pickle_reader import read_pickle
        >>> path = Path(tempfile.mkdtemp()) / "some.pkl"
        >>> write_pickle(path, {"lengths": [3, 300]})
        >>> read_pickle(path)
        {'lengths': [3, 300]}
    """
    with written_whole(path) as partial, partial.open("wb") as file:
        file.write(b"\x80\x04")
        _write(file, content)
        file.write(b".")


def _write(file: BinaryIO, value: Any) -> None:
    if isinstance(value, Mapping):
        file.write(b"}(")
        for key, entry in value.items():
            _write(file, key)
            _write(file, entry)
        file.write(b"u")
    elif isinstance(value, np.ndarray):
        _write_array(file, value)
    elif isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        file.write(b"X" + struct.pack("<I", len(text)) + text)
    elif isinstance(value, list | tuple):
        file.write(b"](")
        for entry in value:
            _write(file, entry)
        file.write(b"e")
    elif isinstance(value, int) and -(2**31) <= value < 2**31:
        file.write(b"J" + struct.pack("<i", value))
    else:
        raise TypeError(f"a {type(value).__name__} cannot be written: expected numbers, text, lists or dictionaries")


def _write_array(file: BinaryIO, array: NDArray[Any]) -> None:
    """An empty array, and the state that fills it: version, shape, type, order, elements."""
    objects = array.dtype.kind in "OU"
    # The old module name: NumPy 2 reads both, NumPy 1 only this one.
    _global(file, "numpy.core.multiarray", "_reconstruct")
    _global(file, "numpy", "ndarray")
    file.write(b"K\x00\x85C\x01b\x87R(K\x01(")
    for side in array.shape:
        _write(file, side)
    file.write(b"t")
    _write_type(file, "O8" if objects else array.dtype.str[1:], "|" if objects else array.dtype.str[0])
    # NEWFALSE: the elements are in C order.
    file.write(b"\x89")
    if objects:
        _write(file, [str(entry) for entry in array.ravel()])
    else:
        numbers = np.ascontiguousarray(array)
        file.write(b"\x8e" + struct.pack("<Q", numbers.nbytes))
        file.write(numbers.data if numbers.size else b"")
    file.write(b"tb")


def _write_type(file: BinaryIO, code: str, order: str) -> None:
    _global(file, "numpy", "dtype")
    _write(file, code)
    file.write(b"\x89\x88\x87R(K\x03")
    _write(file, order)
    file.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK" + (b"\x3f" if code == "O8" else b"\x00") + b"tb")


def _global(file: BinaryIO, module: str, name: str) -> None:
    _write(file, module)
    _write(file, name)
    file.write(b"\x93")
