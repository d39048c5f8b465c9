"""Raw files of NYU Depth V2, as SSCNet has them: a depth picture, a room in runs of labels, a colour picture.

    NYU0001_0000.png    16 bits a pixel: millimetres, rotated left by 3 bits; 0: none was measured
    NYU0001_0000.bin    3 float32: corner of the volume in the world, metres
                        16 float32: camera to world, row by row
                        pairs of uint32 up to the end: raw class and how many voxels have it, along X, H, Y
    NYU0001_rgb.png     8 bits and three colours a pixel

Numbers are little endian. Raw classes are 0 to 36, which become 12, and 255 outside of the room.
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

HEADER = 19 * 4  # bytes of corner and pose
RAW_CLASSES = 37
# the 12 classes by raw class, from 0: empty
MERGED = (
    *(
        0,
        1,
        2,
        3,
        4,
        11,
        5,
        6,
        7,
        8,
        8,
        10,
        10,
        10,
        11,
        11,
        9,
        8,
        11,
        11,
        11,
        11,
        11,
        11,
        11,
        11,
        11,
        10,
        10,
        11,
        8,
        10,
    ),
    *(11, 9, 11, 11, 11),
)
CLASSES = (
    *("empty", "ceiling", "floor", "wall", "window", "chair", "bed", "sofa", "table", "tvs", "furniture", "objects"),
)
COLOURS = (  # red, green and blue of each class, in pictures of scenes
    *((22, 191, 206), (214, 38, 40), (43, 160, 4), (158, 216, 229), (114, 158, 206), (204, 204, 91)),
    *((255, 186, 119), (147, 102, 188), (30, 119, 181), (188, 188, 33), (255, 127, 12), (196, 175, 214)),
)
UNKNOWN_COLOUR = (153, 153, 153)
TABLE = np.full(256, UNKNOWN, np.uint8)  # raw class → class
TABLE[:RAW_CLASSES] = MERGED
DAMAGED = (OSError, ValueError, SyntaxError)  # what Pillow raises for files that are none of its own


@dataclass(frozen=True)
class Room:
    """What a .bin file holds.

    Attributes:
        origin: corner of the volume in the world, (3,), metres.
        pose: camera to world, (4, 4).
        labels: class of each voxel, (X, H, Y).
    """

    origin: Floats
    pose: Floats
    labels: NDArray[np.uint8]


def read_room(path: Path, *, grid: Grid = PUBLISHED) -> Room:
    """A .bin file, its classes merged to 12."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}). Copy it again.") from None
    return decode_room(content, grid=grid, where=str(path))


def decode_room(content: bytes, *, grid: Grid = PUBLISHED, where: str = "The file") -> Room:
    """The bytes of a .bin file.

    Args:
        content: of the file.
        grid: says how many voxels there have to be.
        where: how a sentence names the file.

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
    values, lengths = runs[:, 0], runs[:, 1]
    total = int(lengths.sum(dtype=np.uint64))
    if total != grid.voxels:  # before anything of that size is made
        sizes = "x".join(map(str, grid.volume))
        raise InputError(
            f"{where} has runs of {total} voxels: {grid.voxels} ({sizes}) were expected. Copy it again, or say another "
            "volume in nyu.json."
        )
    strange = values[(values >= RAW_CLASSES) & (values != UNKNOWN)]
    if len(strange):
        raise InputError(
            f"{where} has a voxel of class {strange[0]}: 0 to {RAW_CLASSES - 1} and {UNKNOWN} were expected. It is "
            "damaged, or of another data set."
        )
    if not np.isfinite(numbers).all():
        raise InputError(f"{where} says a camera pose that is no number. Copy it again.")
    labels = np.repeat(TABLE[values], lengths).reshape(grid.volume)
    return Room(numbers[:3].astype(np.float32), numbers[3:].reshape(4, 4).astype(np.float32), labels)


def encode_room(origin: Floats, pose: Floats, raw: NDArray[np.uint8]) -> bytes:
    """The bytes of a .bin file.

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
    """Depth from what the picture holds: 16 bits rotated right by 3.

    Example:
        >>> millimetres(np.array([16000, 8 * 8191, 1], np.uint16)).tolist()
        [2000, 8191, 8192]
    """
    return np.asarray((stored >> np.uint16(3)) | (stored << np.uint16(13)), np.uint16)


def metres(stored: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Depth in metres from what the picture holds; 0: none was measured."""
    return np.asarray(millimetres(stored) / 1000.0, np.float64)


def stored_depth(millimetre: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """What a picture holds for depths in millimetres: 16 bits rotated left by 3."""
    return np.asarray((millimetre << np.uint16(3)) | (millimetre >> np.uint16(13)), np.uint16)


def read_depth(path: Path, *, grid: Grid = PUBLISHED) -> NDArray[np.float64]:
    """A depth picture in metres, (height, width)."""
    from PIL import Image

    try:
        with _honest(), Image.open(path) as picture:
            mode, size = picture.mode, (picture.height, picture.width)
            if mode.startswith("I") and size == grid.image:
                return metres(np.asarray(picture).astype(np.uint16))
    except DAMAGED as error:
        raise InputError(f"{path} is no picture that can be read ({error}). Copy it again.") from None
    if not mode.startswith("I"):
        raise InputError(
            f"{path} has 8 bits a pixel ({mode}): 16 bits of depth were expected. Take the picture from the archive, "
            "unconverted."
        )
    raise InputError(_size(path, size, grid))


def read_colours(path: Path, *, grid: Grid = PUBLISHED) -> NDArray[np.uint8]:
    """A colour picture, (3, height, width)."""
    from PIL import Image

    try:
        with _honest(), Image.open(path) as picture:
            size = picture.height, picture.width
            if size == grid.image:  # a header that claims more is not believed, nothing of that size is made
                return np.asarray(picture.convert("RGB"), np.uint8).transpose(2, 0, 1)
    except DAMAGED as error:
        raise InputError(f"{path} is no picture that can be read ({error}). Copy it again.") from None
    raise InputError(_size(path, size, grid))


@contextmanager
def _honest() -> Iterator[None]:
    """Pictures of absurd sizes are damaged ones; Pillow warns of large headers and stops at larger ones."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None


def _size(path: Path, size: tuple[int, ...], grid: Grid) -> str:
    arrived, wanted = ("x".join(map(str, part)) for part in (size, grid.image))
    return (
        f"{path} has {arrived} pixels: {wanted} were expected. Say another size in nyu.json, or copy the picture again."
    )


def png_of(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """A picture (height, width) of 16 bits or (height, width, 3) of 8 bits as PNG."""
    from PIL import Image

    room = io.BytesIO()
    Image.fromarray(pixels).save(room, "PNG", compress_level=6)
    return room.getvalue()
