r"""The truncated signed distance function (TSDF) of a depth picture, and its flipped form.

$$v = s \min\Big(1, \frac{1}{R} \min_{o} \lVert i - o \rVert\Big), \qquad
\text{flipped} = \operatorname{sign}(v) \max(0.001,\ 1 - |v|)$$

over the occupied voxels o, those that contain the point of a pixel; i and o are indices of voxels. The sign s is + for
voxels in front of the surface and - for voxels that it hides. Voxels outside of the image, behind the camera, or whose
pixel has no depth between 0.5 and 8 m keep v = 1.

| symbol | argument | meaning |
|---|---|---|
| R | ``Grid.radius`` | voxels of the margin, 12 at the published size |

The published kernel searches a cube of (2 R + 1)³ neighbours. It contains all voxels closer than R, so v follows from
the truncated Euclidean distance transform, which is computed here axis by axis: the minimum of g(i + k) + k² over
|k| ≤ R, three times, in integers. As in the published kernel, a voxel is projected by its corner, not by its centre.

References: see `xmodal.data.nyu.voxels`; this is the ``flipped TSDF`` of SSCNet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xmodal.data.nyu.voxels import FAINT, PUBLISHED, Floats, Grid, flat, steps_to, within

# Depths outside of this range, in metres, are ignored, as in the published kernel.
NEAR, FAR = 0.5, 8.0
# Tolerance in metres within which a voxel counts as in front of the surface, as in the published kernel.
SAME = 1e-4


def occupied_voxels(depth: Floats, pose: Floats, origin: Floats, *, grid: Grid = PUBLISHED) -> NDArray[np.bool_]:
    """The voxels that contain the point of a pixel, (X, H, Y).

    Args:
        depth: depth in metres, (height, width); pixels without a depth show the position of the camera.
        pose: camera to world, (4, 4).
        origin: corner of the volume in the world, (3,).
        grid: sizes.
    """
    steps = [np.floor(step) for step in steps_to(np.asarray(depth, np.float32), pose, origin, grid)]
    inside = within(steps, grid)
    occupied = np.zeros(grid.voxels, np.bool_)
    occupied[flat([step[inside] for step in steps], grid)] = True
    return occupied.reshape(grid.volume)


def squared_distances(occupied: NDArray[np.bool_], radius: int) -> NDArray[np.int16]:
    """Squared distance of each voxel to the nearest occupied one, at most radius².

    Args:
        occupied: mask of the occupied voxels, (X, H, Y).
        radius: distance in voxels at which the result is truncated.

    Example:
        >>> squared_distances(np.array([[[True, False, False, False]]]), 2).tolist()
        [[[0, 1, 4, 4]]]
    """
    limit = np.int16(radius**2)
    squared = np.where(occupied, np.int16(0), limit)
    # Plane by plane: a plane of int16 fits into the cache of a core, the volume does not.
    for plane in squared:
        if plane.min() < limit:
            _spread(plane, radius, 1)
            _spread(plane, radius, 0)
    for row in range(squared.shape[1]):
        plane = np.ascontiguousarray(squared[:, row])
        if plane.min() < limit:
            _spread(plane, radius, 0)
            squared[:, row] = plane
    return squared


def _spread(plane: NDArray[np.int16], radius: int, axis: int) -> None:
    """The minimum of plane(i + k) + k² along an axis, in place."""
    source, target = plane.copy(), plane
    if axis:
        source, target = source.T, target.T
    buffer = np.empty_like(plane)
    buffer = buffer.T if axis else buffer
    # Up to radius - 1: a step of the whole radius adds radius², which is the limit already.
    for step in range(1, min(radius, len(source))):
        further = np.add(source, np.int16(step * step), out=buffer)
        np.minimum(target[step:], further[:-step], out=target[step:])
        np.minimum(target[:-step], further[step:], out=target[:-step])


# Voxels in the plane of the camera are divided by almost 0; their pixels are outside of the image.
@np.errstate(all="ignore")
def tsdf(
    depth: Floats,
    pose: Floats,
    origin: Floats,
    *,
    grid: Grid = PUBLISHED,
    squared: NDArray[np.int16] | None = None,
) -> Floats:
    """The truncated signed distance, (X, H, Y).

    Args:
        depth: depth in metres, (height, width).
        pose: camera to world, (4, 4).
        origin: corner of the volume in the world, (3,).
        grid: sizes.
        squared: result of `squared_distances`, if it is already computed.
    """
    depth, pose, origin = (np.asarray(part, np.float32) for part in (depth, pose, origin))
    radius = grid.radius
    if squared is None:
        squared = squared_distances(occupied_voxels(depth, pose, origin, grid=grid), radius)
    # A table of all possible values: squared distances are integers up to radius².
    magnitude = (np.sqrt(np.arange(radius**2 + 1, dtype=np.float32)) / np.float32(radius)).astype(np.float32)
    valid_depth = np.where((depth >= NEAR) & (depth <= FAR), depth, np.float32(np.nan)).ravel()
    # World coordinates of the corners along X, H and Y, relative to the camera.
    corners = [
        (np.arange(size, dtype=np.float32) * np.float32(grid.voxel) + origin[axis]) - pose[axis, 3]
        for size, axis in zip(grid.volume, (0, 2, 1), strict=True)
    ]
    values = np.ones(grid.volume, np.float32)
    from_height = [pose[2, axis] * corners[1][:, None] for axis in range(3)]
    from_depth = [pose[1, axis] * corners[2][None, :] for axis in range(3)]
    for index, corner in enumerate(corners[0]):
        camera = [(pose[0, axis] * corner + from_depth[axis]) + from_height[axis] for axis in range(3)]
        visible, pixels = _visible(camera, grid)
        # NaN without a valid depth; negative if the voxel is further away than the surface, so hidden.
        difference = valid_depth[pixels] - camera[2].ravel()[visible]
        sign = np.where(difference > -SAME, np.float32(1), np.float32(-1))
        value = magnitude[squared[index].ravel()[visible]] * sign
        plane = values[index].reshape(-1)
        plane[visible] = np.where(np.isnan(difference), np.float32(1), value)
        plane[squared[index].ravel() == 0] = 0
    return values


def _visible(camera: list[Floats], grid: Grid) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The voxels of a plane that are in the image, and their pixels, as flat indices."""
    x, y, z = camera
    visible = np.flatnonzero(z > 0)
    if not len(visible):
        return visible, visible
    depth = z.ravel()[visible]
    column, row = (
        nearest(np.float32(focal) * (part.ravel()[visible] / depth) + np.float32(centre))
        for focal, part, centre in zip(grid.focal, (x, y), grid.centre, strict=True)
    )
    height, width = grid.image
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixels = row[inside].astype(np.intp) * width + column[inside].astype(np.intp)
    return visible[inside], pixels


def nearest(values: Floats) -> Floats:
    """The nearest integer, half away from zero like C's round(); np.rint rounds half to even.

    Example:
        >>> nearest(np.array([0.5, 1.5, 0.49999997, -0.5, -0.4], np.float32)).tolist()
        [1.0, 2.0, 0.0, -1.0, -0.0]
    """
    size = np.abs(values)
    below = np.floor(size)
    return np.asarray(np.copysign(below + (size - below >= 0.5), values), np.float32)


def flipped(values: Floats) -> Floats:
    """The flipped TSDF: 1 on a surface, smaller in magnitude with the distance, ±0.001 far away.

    Args:
        values: result of `tsdf`.

    Example:
        >>> flipped(np.array([0, 0.75, 1, -0.75, -1], np.float32)).tolist()
        [1.0, 0.25, 0.0010000000474974513, -0.25, -0.0010000000474974513]
    """
    size = np.abs(values)
    result = np.maximum(np.float32(FAINT), np.float32(1) - size)
    hidden = (values < 0) & (size >= FAINT)
    np.negative(result, out=result, where=hidden)
    return result
