"""Frames of NYU Depth V2 as arrays: computed from raw files, stored in an .npz each, read array by array.

    NYUtrain_npz/NYU0001_0000_voxels.npz
        rgb        (3, 480, 640)        float32   (v / 255 - mean) / std with ImageNet's mean and std; optional
        depth      (1, 480, 640)        float32   metres; 0: not measured
        tsdf_hr    (1, 240, 144, 240)   float32   flipped TSDF along D, H, W
        tsdf_lr    (60, 36, 60)         float32   the same for blocks, along X, H, Y
        target_hr  (240, 144, 240)      uint8     12 classes and 255, along X, H, Y; missing without labels
        target_lr  (60, 36, 60)         uint8     the same for blocks, along X, H, Y
        position   (480, 640)           int32     index of the voxel that a pixel shows, along X, H, Y
        axes       text                           order of the axes of tsdf_hr: DHW; missing in the published files

The axes D, H, W of networks are X, H, Y in reverse order: ``volume.transpose(2, 1, 0)``. Published files store
``tsdf_hr`` along X, H, Y, with or without an axis of length 1. X and Y have the same length, so the shape does not
tell the order: for files without ``axes``, it is the one that agrees with ``tsdf_lr``.
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
# Mean and standard deviation of ImageNet per colour, for values from 0 to 1, as in the published files.
COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SUFFIX = "_voxels.npz"
# Compression level: level 6 takes twice as long and saves 1 %.
LEVEL = 4
# What zipfile and NumPy raise for damaged archives. RuntimeError: encrypted or too new; MemoryError: absurdly large.
DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError)
Arrays = dict[str, NDArray[Any]]


def frame_of(depth: Path, room: Path, colours: Path | None, *, grid: Grid, rule: str = "reference") -> Arrays:
    """All arrays of a frame, computed from its raw files.

    Args:
        depth: the .png with 16 bits.
        room: the .bin; without voxels, the frame has no labels.
        colours: the .png with colours; None: the frame has no ``rgb``.
        grid: sizes.
        rule: rule of positions, ``reference`` or ``correct``, see `positions`.
    """
    measured, scene = read_depth(depth, grid=grid), read_room(room, grid=grid)
    sharp = flipped(tsdf(measured.astype(np.float32), scene.pose, scene.origin, grid=grid))
    arrays: Arrays = {}
    if colours is not None:
        mean, std = (np.array(part, np.float32)[:, None, None] for part in COLOURS)
        arrays["rgb"] = (read_colours(colours, grid=grid) / np.float32(255) - mean) / std
    arrays |= {
        "depth": measured.astype(np.float32)[None],
        "tsdf_hr": np.ascontiguousarray(sharp.transpose(2, 1, 0))[None],
        "tsdf_lr": coarse_tsdf(sharp),
    }
    if scene.labels is not None:
        arrays |= {"target_hr": scene.labels, "target_lr": coarse_labels(scene.labels)}
    return {
        **arrays,
        "position": positions(measured, scene.pose, scene.origin, grid=grid, rule=rule),
        "axes": np.array(ORDERS[0]),
    }


def encode_frame(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of an .npz; the same arrays give the same bytes."""
    # np.savez_compressed has no level. ZipInfo: writestr with a plain name would store the time of day.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getbuffer(), zipfile.ZIP_DEFLATED, LEVEL)
    return buffer.getvalue()


class FrameFile:
    """The .npz of a frame. Only requested arrays are decompressed; the largest, tsdf_hr, is rarely needed.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def headers(self, names: Sequence[str]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and type of some arrays, read from their headers."""
        with self._archive() as archive:
            self._require(archive, names)
            return {name: self._header(archive, name) for name in names}

    def arrays(self, names: Sequence[str]) -> Arrays:
        """Some arrays, as stored."""
        with self._archive() as archive:
            self._require(archive, names)
            return {name: self._array(archive, name) for name in names}

    def names(self) -> list[str]:
        """The names of all arrays."""
        with self._archive() as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]

    def checksum(self, name: str) -> tuple[int, int]:
        """CRC-32 and size of an array, from the directory of the archive: a fingerprint without decompressing it."""
        with self._archive() as archive:
            self._require(archive, [name])
            stored = archive.getinfo(f"{name}.npy")
            return stored.CRC, stored.file_size

    def axes(self) -> str:
        """The order of the axes of ``tsdf_hr`` that the file states; empty if it states none."""
        with self._archive() as archive:
            axes = str(self._array(archive, "axes")) if "axes.npy" in archive.namelist() else ""
        if axes and axes not in ORDERS:
            raise InputError(f"{self.path} has axes '{axes}': {' or '.join(ORDERS)} was expected. Prepare it again.")
        return axes

    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except DAMAGED as error:
            raise InputError(f"{self.path} cannot be read as .npz ({error}). Prepare or copy it again.") from None

    def _require(self, archive: zipfile.ZipFile, names: Sequence[str]) -> None:
        present = sorted({name.removesuffix(".npy") for name in archive.namelist()})
        missing = [name for name in names if name not in present]
        if missing:
            raise InputError(
                f"{self.path} has no {', '.join(missing)}: {', '.join(names)} were expected, and it has "
                f"{', '.join(present)}. Prepare it again from the raw files."
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
                array = np.asarray(np.lib.format.read_array(file, allow_pickle=False))
                self._refuse_text(name, array.dtype)
                return array
        except DAMAGED as error:
            raise InputError(f"{self.path} has a damaged {name} ({error}). Prepare or copy it again.") from None

    def _refuse_text(self, name: str, dtype: np.dtype[Any]) -> None:
        if name != "axes" and not (np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating)):
            raise InputError(
                f"{self.path} has a {name} of the type {dtype}: numbers were expected. Prepare or copy it again."
            )


def volume_shape(shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    """The shape of a volume without an axis of length 1 before or after the three others."""
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
    """A stored volume as (1, D, H, W).

    Args:
        volume: three axes, with or without one of length 1 before or after them.
        axes: their order, ``DHW`` or ``XHY``.

    Example:
        >>> network_order(np.zeros((6, 4, 8, 1)), "XHY").shape, network_order(np.zeros((1, 8, 4, 6)), "DHW").shape
        ((1, 8, 4, 6), (1, 8, 4, 6))
    """
    three = volume.reshape(volume_shape(volume.shape, "tsdf_hr"))
    return (three if axes == "DHW" else three.transpose(2, 1, 0))[None]


def resolve_axes(path: Path) -> str:
    """The order of ``tsdf_hr`` that a file states, or else the only one that agrees with ``tsdf_lr``; otherwise empty.

    Args:
        path: the .npz.
    """
    file = FrameFile(path)
    axes = file.axes()
    if axes:
        return axes
    arrays = file.arrays(["tsdf_hr", "tsdf_lr"])
    sharp = arrays["tsdf_hr"].reshape(volume_shape(arrays["tsdf_hr"].shape, f"{path}: tsdf_hr"))
    consistent = [
        axes for axes in ORDERS if _agrees(sharp if axes == "XHY" else sharp.transpose(2, 1, 0), arrays["tsdf_lr"])
    ]
    return consistent[0] if len(consistent) == 1 else ""


def _agrees(sharp: NDArray[Any], blocks: NDArray[Any]) -> bool:
    """Whether downsampling a volume along X, H, Y gives these blocks."""
    if tuple(4 * size for size in blocks.shape) != sharp.shape:
        return False
    return bool(np.isclose(coarse_tsdf(np.ascontiguousarray(sharp, np.float32)), blocks, atol=1e-6).all())
