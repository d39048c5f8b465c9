"""Other code for frames of NYU Depth V2, for the comparison in `benchmarks/nyu_data.py`.

``looped_…`` are loops like those of published loaders: runs are written one after the other, classes are replaced one
after the other, blocks and pixels are visited in turn. The others are what a competent engineer would write: NumPy on
whole arrays. The distances to the surface are those of SciPy's Euclidean distance transform.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from xmodal.data.nyu.voxels import Grid


def looped_decode(content: bytes, merged: dict[int, int], grid: Grid) -> NDArray[np.uint8]:
    """Labels of a .bin file."""
    raw = np.zeros(grid.voxels, np.uint8)
    place = 0
    for value, length in struct.iter_unpack("<II", content[76:]):
        raw[place : place + length] = value
        place += length
    labels = np.zeros_like(raw)
    for value, label in merged.items():
        labels[raw == value] = label
    return labels.reshape(grid.volume)


def looped_coarse_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One label for each block of 4x4x4."""
    blocks = np.zeros([size // 4 for size in labels.shape], np.uint8)
    for x, h, y in np.ndindex(*blocks.shape):
        block = labels[4 * x : 4 * x + 4, 4 * h : 4 * h + 4, 4 * y : 4 * y + 4]
        empty, unknown = np.count_nonzero(block == 0), np.count_nonzero(block == 255)
        if empty + unknown > 0.95 * 64:
            blocks[x, h, y] = 0 if empty > unknown else 255
        else:
            blocks[x, h, y] = np.argmax(np.bincount(block[(block > 0) & (block < 255)]))
    return blocks


def looped_positions(depth: NDArray[np.float64], pose: Any, origin: Any, grid: Grid) -> NDArray[np.int32]:
    """The voxel of each pixel; 0 without one."""
    (fx, fy), (cx, cy), voxel = grid.focal, grid.centre, np.float32(grid.voxel)
    size_x, size_h, size_y = grid.volume
    position = np.zeros(depth.shape, np.int32)
    height, width = depth.shape
    for v in range(height):
        for u in range(width):
            d = depth[v, u]
            x, y, z = np.float32((u - cx) * d / fx), np.float32((v - cy) * d / fy), np.float32(d)
            right = ((pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]) - origin[0]) / voxel
            ahead = ((pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]) - origin[1]) / voxel
            up = ((pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]) - origin[2]) / voxel
            i, j, k = round(float(right)), round(float(up)), round(float(ahead))
            if 0 <= i < size_x and 0 <= j < size_h and 0 <= k < size_y:
                position[v, u] = (i * size_h + j) * size_y + k
    return position


def decode(content: bytes, merged: dict[int, int], grid: Grid) -> NDArray[np.uint8]:
    """Labels of a .bin file by `np.repeat` and a table of classes."""
    table = np.zeros(256, np.uint8)
    table[list(merged)] = list(merged.values())
    runs = np.frombuffer(content, np.uint32, offset=76).reshape(-1, 2)
    return np.repeat(table[runs[:, 0]], runs[:, 1]).reshape(grid.volume)


def coarse_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One label for each block, from the counts of each class in the reshaped volume."""
    x, h, y = (size // 4 for size in labels.shape)
    blocks = labels.reshape(x, 4, h, 4, y, 4).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 64)
    numbers = np.where(blocks == 255, 12, blocks) + 13 * np.arange(len(blocks), dtype=np.int32)[:, None]
    counts = np.bincount(numbers.ravel(), minlength=13 * len(blocks)).reshape(-1, 13)
    empty, unknown = counts[:, 0], counts[:, 12]
    free = np.where(empty > unknown, 0, 255)
    few = empty + unknown > 0.95 * 64
    return np.where(few, free, 1 + counts[:, 1:12].argmax(axis=1)).astype(np.uint8).reshape(x, h, y)


def positions(depth: NDArray[np.float64], pose: Any, origin: Any, grid: Grid) -> NDArray[np.int32]:
    """The voxel of each pixel by broadcasting; 0 without one."""
    (fx, fy), (cx, cy), (size_x, size_h, size_y) = grid.focal, grid.centre, grid.volume
    across, down = np.arange(depth.shape[1]) - cx, (np.arange(depth.shape[0]) - cy)[:, None]
    x, y, z = (part.astype(np.float32) for part in (across * depth / fx, down * depth / fy, depth))
    i, k, j = (
        np.rint((row[0] * x + row[1] * y + row[2] * z + row[3] - corner) / np.float32(grid.voxel)).astype(np.int32)
        for row, corner in zip(pose[:3], origin, strict=True)
    )
    inside = (i >= 0) & (i < size_x) & (j >= 0) & (j < size_h) & (k >= 0) & (k < size_y)
    return np.where(inside, (i * size_h + j) * size_y + k, 0).astype(np.int32)


def flipped_tsdf(depth: NDArray[np.float32], pose: Any, origin: Any, grid: Grid) -> NDArray[np.float32]:
    """The flipped TSDF, whole volumes at a time, from SciPy's distances."""
    height, width = depth.shape
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    camera = [(u - grid.centre[0]) * depth.astype(float) / grid.focal[0], None, depth]
    camera[1] = (v - grid.centre[1]) * depth.astype(float) / grid.focal[1]
    seen = np.stack([np.asarray(part, np.float32) for part in camera])
    world = [row[0] * seen[0] + row[1] * seen[1] + row[2] * seen[2] + row[3] for row in pose[:3]]
    occupied = np.zeros(grid.volume, bool)
    i, j, k = (np.floor((world[a] - origin[a]) / np.float32(grid.voxel)).astype(int).ravel() for a in (0, 2, 1))
    inside = (i >= 0) & (i < grid.volume[0]) & (j >= 0) & (j < grid.volume[1]) & (k >= 0) & (k < grid.volume[2])
    occupied[i[inside], j[inside], k[inside]] = True
    radius = round(grid.margin / grid.voxel)
    distance = np.minimum(distance_transform_edt(~occupied).astype(np.float32) / np.float32(radius), np.float32(1))

    x, z, y = (
        (np.float32(grid.voxel) * index.astype(np.float32) + origin[a]) - pose[a, 3]
        for index, a in zip(np.indices(grid.volume), (0, 2, 1), strict=True)
    )
    a, b, c = (pose[0, axis] * x + pose[1, axis] * y + pose[2, axis] * z for axis in range(3))
    with np.errstate(all="ignore"):
        column = c_round(np.float32(grid.focal[0]) * (a / c) + np.float32(grid.centre[0]))
        row = c_round(np.float32(grid.focal[1]) * (b / c) + np.float32(grid.centre[1]))
    shown = (c > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    measured = np.zeros(grid.volume, np.float32)
    measured[shown] = depth[row[shown].astype(int), column[shown].astype(int)]
    shown &= (measured >= 0.5) & (measured <= 8)
    apart = measured - c
    value = np.ones(grid.volume, np.float32)
    sign = np.where((np.abs(apart) < 1e-4) | (apart > 0), np.float32(1), np.float32(-1))
    value[shown] = (sign * distance)[shown]
    value[occupied] = 0
    sign = np.where((np.abs(value) < 0.001) | (value > 0), np.float32(1), np.float32(-1))
    return np.asarray(sign * np.maximum(np.float32(0.001), 1 - np.abs(value)), np.float32)


def c_round(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round half away from zero."""
    whole = np.trunc(values)
    return np.asarray(whole + np.copysign(np.abs(values - whole) >= 0.5, values), np.float32)
