"""IDX files, the format of MNIST: a magic number, the lengths of the axes, then unsigned bytes; often gzipped.

offset  bytes
0       4      0x00000803: unsigned bytes, three axes (pictures); 0x00000801: one axis (labels)
4       4 each lengths of the axes, most significant byte first
8, 16          the numbers, row after row
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError
from xmodal.files import written_whole

# third byte of the magic number; the fourth is the number of axes
UNSIGNED_BYTES = 8
# largest array in bytes: a damaged header may promise terabytes, while MNIST has 47 million bytes
LIMIT = 2**31
Bytes = NDArray[np.uint8]


def read_idx(path: Path, *, axes: int) -> Bytes:
    """The array in an IDX file; a plain file is mapped to memory, a gzipped one is read.

    Args:
        path: the file; gzipped if it ends in ``.gz``.
        axes: the expected number of axes.
    """
    try:
        with _opened(path) as file:
            shape = _read_head(path, file, axes)
            start, count = 4 + 4 * axes, math.prod(shape)
            if path.suffix != ".gz":
                return _mapped(path, shape, start, count)
            # one byte more than expected, to notice a file that is too long without decompressing all of it
            body = file.read(count + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path.name} is a damaged gzip file ({error}). Get it again.") from None
    except OSError as error:
        raise InputError(f"{path.name} can't be read: {error.strerror or error}.") from None
    _check_length(path, shape, len(body), count)
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def write_idx(path: Path, array: Bytes) -> None:
    """Write an IDX file, gzipped if the name ends in ``.gz``."""
    head = np.array([UNSIGNED_BYTES * 256 + array.ndim, *array.shape], dtype=">u4").tobytes()
    content = head + np.ascontiguousarray(array, dtype=np.uint8).tobytes()
    # without a time stamp in the gzip header, the same digits give the same bytes
    with written_whole(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _read_head(path: Path, file: BinaryIO, axes: int) -> tuple[int, ...]:
    head = np.frombuffer(file.read(4 + 4 * axes), dtype=np.uint8)
    expected = UNSIGNED_BYTES * 256 + axes
    magic = int.from_bytes(head[:4].tobytes(), "big")
    if len(head) < 4 or magic != expected:
        start = f"the magic number 0x{magic:08x}" if len(head) >= 4 else f"{len(head)} bytes"
        raise InputError(f"{path.name} starts with {start}: an IDX file with {axes} axes starts with 0x{expected:08x}.")
    if len(head) < 4 + 4 * axes:
        raise InputError(f"{path.name} is cut off inside its header. Get it again.")
    shape = tuple(int(length) for length in head[4:].view(">u4"))
    if not all(shape):
        raise InputError(f"{path.name} holds nothing: its axes have the lengths {shape}.")
    if math.prod(shape) > LIMIT:
        raise InputError(f"{path.name} promises an array of {shape}: at most {LIMIT} bytes were expected.")
    return shape


def _mapped(path: Path, shape: tuple[int, ...], start: int, count: int) -> Bytes:
    _check_length(path, shape, path.stat().st_size - start, count)
    return np.memmap(path, dtype=np.uint8, mode="r", offset=start, shape=shape)


def _check_length(path: Path, shape: tuple[int, ...], size: int, expected: int) -> None:
    if size < expected:
        raise InputError(
            f"{path.name} is cut off: its header promises an array of {shape}, which is {expected} bytes, and {size} "
            "follow. Get it again."
        )
    if size > expected:
        raise InputError(
            f"{path.name} is longer than its header says: {expected} bytes were expected for an array of {shape}. "
            "Get it again."
        )
