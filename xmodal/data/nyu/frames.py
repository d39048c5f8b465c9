"""Frames of NYU Depth V2 as arrays: made from raw files, written to one .npz each, read key by key.

    NYUtrain_npz/NYU0001_0000_voxels.npz
        rgb        (3, 480, 640)        float32   (v / 255 - mean) / std with the numbers of ImageNet
        depth      (1, 480, 640)        float32   metres; 0: none was measured
        tsdf_hr    (1, 240, 144, 240)   float32   flipped TSDF along D, H, W
        tsdf_lr    (60, 36, 60)         float32   the same for blocks, along X, H, Y
        target_hr  (240, 144, 240)      uint8     12 classes and 255, along X, H, Y
        target_lr  (60, 36, 60)         uint8     the same for blocks, along X, H, Y
        position   (480, 640)           int32     number of the voxel that a pixel shows, along X, H, Y
        axes       text                           order of the axes of tsdf_hr: DHW; absent in the published files

The axes D, H, W of networks are Y, H, X turned around: ``volume.transpose(2, 1, 0)``. Published files store
``tsdf_hr`` along X, H, Y, with or without an axis of length 1. Since both orders have one shape (X and Y are as long),
files without ``axes`` are asked which of the two agrees with ``tsdf_lr``.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.nyu.raw import read_colours, read_depth, read_room
from xmodal.data.nyu.tsdf import flipped, tsdf
from xmodal.data.nyu.voxels import Grid, coarse_labels, coarse_tsdf, positions
from xmodal.errors import InputError

KEYS = ("rgb", "depth", "tsdf_hr", "tsdf_lr", "target_hr", "target_lr", "position")
ORDERS = ("DHW", "XHY")
COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of ImageNet, for values from 0 to 1
SUFFIX = "_voxels.npz"
LEVEL = 4  # of the compression: 6 takes twice as long and saves a hundredth
# what reading a foreign archive can raise; the last two: encrypted or too new, absurdly large
DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError)
Arrays = dict[str, NDArray[Any]]


def frame_of(depth: Path, room: Path, colours: Path, *, grid: Grid, rule: str = "reference") -> Arrays:
    """All arrays of a frame from its raw files.

    Args:
        depth: the .png with 16 bits.
        room: the .bin.
        colours: the .png with colours.
        grid: sizes.
        rule: of positions, ``reference`` or ``correct``.
    """
    seen, told, pixels = read_depth(depth, grid=grid), read_room(room, grid=grid), read_colours(colours, grid=grid)
    sharp = flipped(tsdf(seen.astype(np.float32), told.pose, told.origin, grid=grid))
    mean, std = (np.array(part, np.float32)[:, None, None] for part in COLOURS)
    return {
        "rgb": (pixels / np.float32(255) - mean) / std,
        "depth": seen.astype(np.float32)[None],
        "tsdf_hr": np.ascontiguousarray(sharp.transpose(2, 1, 0))[None],
        "tsdf_lr": coarse_tsdf(sharp),
        "target_hr": told.labels,
        "target_lr": coarse_labels(told.labels),
        "position": positions(seen, told.pose, told.origin, grid=grid, rule=rule),
        "axes": np.array(ORDERS[0]),
    }


def encode_frame(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of an .npz; the same arrays give the same bytes."""
    room = io.BytesIO()
    with zipfile.ZipFile(room, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getbuffer(), zipfile.ZIP_DEFLATED, LEVEL)
    return room.getvalue()


class FrameFile:
    """An .npz of a frame; of what is not asked for, nothing is decompressed.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def headers(self, names: Sequence[str]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and type of some arrays, from their first bytes."""
        with self._archive() as archive:
            self._require(archive, names)
            return {name: self._header(archive, name) for name in names}

    def arrays(self, names: Sequence[str]) -> Arrays:
        """Some arrays as they are stored."""
        with self._archive() as archive:
            self._require(archive, names)
            return {name: self._array(archive, name) for name in names}

    def names(self) -> list[str]:
        """The arrays that it holds."""
        with self._archive() as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]

    def checksum(self, name: str) -> tuple[int, int]:
        """What an array that differs has another one of: its checksum in the archive, and how many bytes it has."""
        with self._archive() as archive:
            self._require(archive, [name])
            stored = archive.getinfo(f"{name}.npy")
            return stored.CRC, stored.file_size

    def axes(self) -> str:
        """What the file says of the order of ``tsdf_hr``; empty: nothing."""
        with self._archive() as archive:
            said = str(self._array(archive, "axes")) if "axes.npy" in archive.namelist() else ""
        if said and said not in ORDERS:
            raise InputError(f"{self.path} says axes '{said}': {' or '.join(ORDERS)} was expected. Prepare it again.")
        return said

    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except DAMAGED as error:
            raise InputError(f"{self.path} is no .npz that can be read ({error}). Prepare or copy it again.") from None

    def _require(self, archive: zipfile.ZipFile, names: Sequence[str]) -> None:
        there = sorted({name.removesuffix(".npy") for name in archive.namelist()})
        missing = [name for name in names if name not in there]
        if missing:
            raise InputError(
                f"{self.path} has no {', '.join(missing)}: {', '.join(names)} were expected, and {', '.join(there)} "
                "are there. Prepare it again from the raw files."
            )

    def _header(self, archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        try:
            with archive.open(f"{name}.npy") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                self._refuse_text(name, dtype)
        except DAMAGED as error:
            raise InputError(f"{self.path} has a damaged {name} ({error}). Prepare or copy it again.") from None
        return shape, dtype

    def _array(self, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
        try:
            with archive.open(f"{name}.npy") as file:
                found = np.asarray(np.lib.format.read_array(file, allow_pickle=False))
                self._refuse_text(name, found.dtype)
                return found
        except DAMAGED as error:
            raise InputError(f"{self.path} has a damaged {name} ({error}). Prepare or copy it again.") from None

    def _refuse_text(self, name: str, dtype: np.dtype[Any]) -> None:
        if name != "axes" and not (np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating)):
            raise InputError(
                f"{self.path} has a {name} of the type {dtype}: numbers were expected. Prepare or copy it again."
            )


def volume_shape(shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    """The three axes of a volume that may have one of length 1 before or behind them."""
    if len(shape) == 4 and shape[0] == 1:
        return shape[1:]
    if len(shape) == 4 and shape[3] == 1:
        return shape[:3]
    if len(shape) != 3:
        raise InputError(
            f"{where} has the shape {shape}: three axes, with or without one of length 1, were expected. Prepare it "
            "again."
        )
    return shape


def network_order(volume: NDArray[Any], axes: str) -> NDArray[Any]:
    """A volume (1, D, H, W) from what is stored.

    Args:
        volume: three axes, with or without one of length 1 before or behind them.
        axes: their order, ``DHW`` or ``XHY``.

    Example:
        >>> network_order(np.zeros((6, 4, 8, 1)), "XHY").shape, network_order(np.zeros((1, 8, 4, 6)), "DHW").shape
        ((1, 8, 4, 6), (1, 8, 4, 6))
    """
    three = volume.reshape(volume_shape(volume.shape, "tsdf_hr"))
    return (three if axes == "DHW" else three.transpose(2, 1, 0))[None]


def told_axes(path: Path) -> str:
    """The order of ``tsdf_hr`` in a file: what it says, else the one that agrees with ``tsdf_lr``; empty: neither does.

    Args:
        path: of the .npz.
    """
    file = FrameFile(path)
    said = file.axes()
    if said:
        return said
    found = file.arrays(["tsdf_hr", "tsdf_lr"])
    sharp = found["tsdf_hr"].reshape(volume_shape(found["tsdf_hr"].shape, f"{path}: tsdf_hr"))
    agreeing = [
        axes for axes in ORDERS if _agrees(sharp if axes == "XHY" else sharp.transpose(2, 1, 0), found["tsdf_lr"])
    ]
    return agreeing[0] if len(agreeing) == 1 else ""


def _agrees(sharp: NDArray[Any], blocks: NDArray[Any]) -> bool:
    """Whether a volume along X, H, Y becomes these blocks."""
    if tuple(4 * size for size in blocks.shape) != sharp.shape:
        return False
    return bool(np.isclose(coarse_tsdf(np.ascontiguousarray(sharp, np.float32)), blocks, atol=1e-6).all())
