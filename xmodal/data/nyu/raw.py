"""Raw files of NYU Depth V2 in the format of SSCNet: a depth picture, run-length encoded labels, a colour picture.

    NYU0001_0000.png    16 bits per pixel: millimetres, rotated left by 3 bits; 0: not measured
    NYU0001_0000.bin    3 float32: corner of the volume in the world, in metres
                        16 float32: camera to world, row by row
                        pairs of uint32 until the end: raw class and number of voxels, along X, H, Y
    NYU0001_rgb.png     8 bits per pixel and colour

Numbers are little endian. Raw classes are 0 to 36, which are merged to 12, and 255 outside of the room.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xmodal.data.nyu.voxels import PUBLISHED, UNKNOWN, Floats, Grid
from xmodal.errors import InputError

# Bytes of corner and pose: 3 + 16 float32.
HEADER = 19 * 4
RAW_CLASSES = 37
# Raw class → class, the table of SSCNet: its 36 names (and 0 for empty) are merged to 11 (and 0).
MERGED = tuple(
    map(int, "0 1 2 3 4 11 5 6 7 8 8 10 10 10 11 11 9 8 11 11 11 11 11 11 11 11 11 10 10 11 8 10 11 9 11 11 11".split())
)
CLASSES = (
    *("empty", "ceiling", "floor", "wall", "window", "chair", "bed", "sofa", "table", "tvs", "furniture", "objects"),
)
# Red, green and blue of each class, as in the published pictures of scenes.
COLOURS = (
    *((22, 191, 206), (214, 38, 40), (43, 160, 4), (158, 216, 229), (114, 158, 206), (204, 204, 91)),
    *((255, 186, 119), (147, 102, 188), (30, 119, 181), (188, 188, 33), (255, 127, 12), (196, 175, 214)),
)
UNKNOWN_COLOUR = (153, 153, 153)
# The same as a lookup table that includes 255: about a hundred times as fast as mapping a room class by class.
TABLE = np.full(256, UNKNOWN, np.uint8)
TABLE[:RAW_CLASSES] = MERGED
# Pillow raises any of these for damaged files, even SyntaxError (for a broken PNG chunk).
DAMAGED = (OSError, ValueError, SyntaxError)


@dataclass(frozen=True)
class Room:
    """The content of a .bin file.

    Attributes:
        origin: corner of the volume in the world, (3,), in metres.
        pose: camera to world, (4, 4).
        labels: class of each voxel, (X, H, Y); None if the file holds origin and pose alone.
    """

    origin: Floats
    pose: Floats
    labels: NDArray[np.uint8] | None


def read_room(path: Path, *, grid: Grid = PUBLISHED) -> Room:
    """Read a .bin file and merge its classes to 12."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Copy it again.") from None
    return decode_room(content, grid=grid, where=str(path))


def decode_room(content: bytes, *, grid: Grid = PUBLISHED, where: str = "The file") -> Room:
    """The room in the bytes of a .bin file.

    Args:
        content: the bytes.
        grid: the expected number of voxels.
        where: name of the file in messages.

    Example:
        >>> content = bytes(HEADER) + np.array([2, 40, 255, 24], "<u4").tobytes()
        >>> room = decode_room(content, grid=Grid((4, 4, 4)))
        >>> room.labels.ravel()[[0, 39, 40, 63]].tolist()
        [2, 2, 255, 255]
    """
    if len(content) < HEADER or (len(content) - HEADER) % 8:
        raise InputError(
            f"{where} has {len(content)} bytes: {HEADER} and 8 for each run were expected, so it is cut off. Copy it "
            "again."
        )
    numbers = np.frombuffer(content, "<f4", 19)
    runs = np.frombuffer(content, "<u4", offset=HEADER).reshape(-1, 2)
    # In the type that np.repeat needs. Before it: a damaged run length may claim gigabytes; uint32 would wrap around.
    values, lengths = runs[:, 0], runs[:, 1].astype(np.int64)
    total = int(lengths.sum())
    if len(runs) and total != grid.voxels:
        sizes = "x".join(map(str, grid.volume))
        raise InputError(
            f"{where} has runs of {total} voxels: {grid.voxels} ({sizes}) were expected. Copy it again, or set another "
            "volume in nyu.json."
        )
    classes = values.astype(np.uint8)
    # As bytes, which are faster to compare; one alone of these two comparisons would let 256, say, pass as 0.
    if values.max(initial=0) > UNKNOWN or ((classes >= RAW_CLASSES) & (classes != UNKNOWN)).any():
        strange = values[(values >= RAW_CLASSES) & (values != UNKNOWN)]
        raise InputError(
            f"{where} has a voxel of class {strange[0]}: 0 to {RAW_CLASSES - 1} and {UNKNOWN} were expected. The file "
            "is damaged, or belongs to another data set."
        )
    if not np.isfinite(numbers).all():
        raise InputError(f"{where} has non-finite values in its camera pose. Copy it again.")
    # translated as bytes: an array as index of the table would be converted to eight times as many bytes first
    merged = np.frombuffer(classes.tobytes().translate(TABLE.tobytes()), np.uint8)
    labels = np.repeat(merged, lengths).reshape(grid.volume) if len(runs) else None
    return Room(numbers[:3].astype(np.float32), numbers[3:].reshape(4, 4).astype(np.float32), labels)


def encode_room(origin: Floats, pose: Floats, raw: NDArray[np.uint8]) -> bytes:
    """The bytes of a .bin file of a room.

    Args:
        origin: corner of the volume in the world, (3,).
        pose: camera to world, (4, 4).
        raw: raw class of each voxel, (X, H, Y).

    Example:
        >>> room = encode_room(np.zeros(3), np.eye(4), np.repeat([7, 0], 32).reshape(4, 4, 4).astype(np.uint8))
        >>> len(room), decode_room(room, grid=Grid((4, 4, 4))).labels.ravel()[[31, 32]].tolist()
        (92, [6, 0])
    """
    values = np.ascontiguousarray(raw).ravel()
    starts = np.concatenate([[0], 1 + np.flatnonzero(values[1:] != values[:-1])])
    runs = np.stack([values[starts], np.diff(np.append(starts, len(values)))], axis=1)
    head = np.concatenate([np.ravel(origin), np.ravel(pose)]).astype("<f4")
    return head.tobytes() + runs.astype("<u4").tobytes()


def millimetres(stored: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Depth in millimetres from the values of a depth picture: the 16 bits rotated right by 3.

    Example:
        >>> millimetres(np.array([16000, 8 * 8191, 1], np.uint16)).tolist()
        [2000, 8191, 8192]
    """
    return np.asarray((stored >> np.uint16(3)) | (stored << np.uint16(13)), np.uint16)


def metres(stored: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Depth in metres from the values of a depth picture; 0: not measured."""
    # The published loader divides by 8000 instead, which is the same only below 8.192 m.
    return np.asarray(millimetres(stored) / 1000.0, np.float64)


def stored_depth(millimetre: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Values of a depth picture from depths in millimetres: the 16 bits rotated left by 3."""
    return np.asarray((millimetre << np.uint16(3)) | (millimetre >> np.uint16(13)), np.uint16)


def read_depth(path: Path, *, grid: Grid = PUBLISHED) -> NDArray[np.float64]:
    """Read a depth picture, in metres, (height, width)."""
    from PIL import Image

    try:
        with _oversized_as_damaged(), Image.open(path) as picture:
            mode, size = picture.mode, (picture.height, picture.width)
            if mode.startswith("I") and size == grid.image:
                return metres(np.asarray(picture).astype(np.uint16))
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read as a picture ({error}). Copy it again.") from None
    if not mode.startswith("I"):
        raise InputError(
            f"{path} has 8 bits per pixel ({mode}): 16 bits of depth were expected. Use the original picture of the "
            "archive, without conversion."
        )
    raise InputError(_wrong_size(path, size, grid))


def read_colours(path: Path, *, grid: Grid = PUBLISHED) -> NDArray[np.uint8]:
    """Read a colour picture, (3, height, width)."""
    from PIL import Image

    try:
        with _oversized_as_damaged(), Image.open(path) as picture:
            size = picture.height, picture.width
            # Before the pixels are decoded: the header of a damaged file may claim gigabytes.
            if size == grid.image:
                return np.asarray(picture.convert("RGB"), np.uint8).transpose(2, 0, 1)
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read as a picture ({error}). Copy it again.") from None
    raise InputError(_wrong_size(path, size, grid))


@contextmanager
def _oversized_as_damaged() -> Iterator[None]:
    """Raise a `ValueError` for pictures whose header claims an absurd size, and no warning for large ones."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None


def _wrong_size(path: Path, size: tuple[int, ...], grid: Grid) -> str:
    actual, expected = ("x".join(map(str, part)) for part in (size, grid.image))
    return f"{path} has {actual} pixels: {expected} were expected. Copy it again, or set another size in nyu.json."


def png_of(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """The bytes of a PNG of a picture (height, width) of 16 bits or (height, width, 3) of 8 bits."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
