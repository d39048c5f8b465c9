"""What a depth camera sees of a room, voxel by voxel and pixel by pixel, as the equations say; for small volumes."""

from __future__ import annotations

import itertools
import math

import numpy as np

F = np.float32


def world_point(u, v, depth, pose, grid):
    camera = (
        F((u - grid.centre[0]) * depth / grid.focal[0]),
        F((v - grid.centre[1]) * depth / grid.focal[1]),
        F(depth),
    )
    return [F(F(F(row[0] * camera[0] + row[1] * camera[1]) + row[2] * camera[2]) + row[3]) for row in pose[:3]]


def slow_positions(depth, pose, origin, grid):
    found = np.zeros(depth.shape, np.int32)
    for v, u in np.ndindex(*depth.shape):
        x, y, z = world_point(u, v, depth[v, u], pose, grid)
        steps = [
            round(float((part - start) / F(grid.voxel)))
            for part, start in ((x, origin[0]), (z, origin[2]), (y, origin[1]))
        ]
        if all(0 <= step < size for step, size in zip(steps, grid.volume, strict=True)):
            found[v, u] = (steps[0] * grid.volume[1] + steps[1]) * grid.volume[2] + steps[2]
    return found


def slow_occupied(depth, pose, origin, grid):
    found = np.zeros(grid.volume, bool)
    for v, u in np.ndindex(*depth.shape):
        x, y, z = world_point(u, v, depth[v, u], pose, grid)
        place = tuple(
            math.floor((part - start) / F(grid.voxel))
            for part, start in ((x, origin[0]), (z, origin[2]), (y, origin[1]))
        )
        if all(0 <= step < size for step, size in zip(place, grid.volume, strict=True)):
            found[place] = True
    return found


def slow_tsdf(depth, pose, origin, grid):
    """Each voxel looks at all others in its cube."""
    occupied, radius = slow_occupied(depth, pose, origin, grid), round(grid.margin / grid.voxel)
    surface = np.argwhere(occupied)
    found = np.ones(grid.volume, F)
    for place in np.ndindex(*grid.volume):
        if occupied[place]:
            found[place] = 0
            continue
        point = [F(F(i) * F(grid.voxel) + origin[axis]) for i, axis in zip(place, (0, 2, 1), strict=True)]
        x, z, y = (point[0] - pose[0, 3], point[1] - pose[2, 3], point[2] - pose[1, 3])
        camera = [F(F(pose[0, a] * x + pose[1, a] * y) + pose[2, a] * z) for a in range(3)]
        if camera[2] <= 0:
            continue
        u, v = (
            away(F(F(focal) * F(part / camera[2]) + F(centre)))
            for focal, part, centre in zip(grid.focal, camera, grid.centre, strict=False)
        )
        if not (0 <= u < grid.image[1] and 0 <= v < grid.image[0]):
            continue
        seen = F(depth[v, u])
        if seen < 0.5 or seen > 8:
            continue
        apart = seen - camera[2]
        sign = 1 if abs(apart) < 1e-4 or apart > 0 else -1
        near = surface[(abs(surface - place) <= radius).all(axis=1)] if len(surface) else surface
        nearest = min((math.sqrt(((other - place) ** 2).sum()) for other in near), default=radius)
        found[place] = sign * min(1, nearest / radius)
    return found


def away(value):
    """Half away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def slow_flipped(values):
    found = np.empty_like(values)
    for place, value in np.ndenumerate(values):
        sign = 1 if abs(value) < 0.001 or value > 0 else -1
        found[place] = sign * max(F(0.001), F(1) - abs(value))
    return found


def blocks(volume, factor=4):
    for place in itertools.product(*(range(size // factor) for size in volume.shape)):
        yield place, volume[tuple(slice(factor * i, factor * (i + 1)) for i in place)]


def slow_coarse_labels(labels, factor=4):
    found = np.empty(tuple(size // factor for size in labels.shape), np.uint8)
    for place, block in blocks(labels, factor):
        values = block.ravel().tolist()
        empty, unknown = values.count(0), values.count(255)
        if empty + unknown > 0.95 * len(values):
            found[place] = 0 if empty > unknown else 255
        else:
            classes = [value for value in values if 0 < value < 255]
            found[place] = max(sorted(set(classes)), key=classes.count)
    return found


def slow_coarse_tsdf(tsdf, factor=4):
    found = np.empty(tuple(size // factor for size in tsdf.shape), F)
    for place, block in blocks(tsdf, factor):
        ones = int((block == 1).sum())
        found[place] = 0.001 if not ones and (block > 0).all() else 1 if ones > 2 else -0.001
    return found
