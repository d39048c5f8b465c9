r"""The truncated signed distance of voxels to what a depth camera sees, and its flipped form.

$$v = s \min\Big(1, \frac{1}{R} \min_{o} \lVert i - o \rVert\Big), \qquad
\text{flipped} = \operatorname{sign}(v) \max(0.001,\ 1 - |v|)$$

over the occupied voxels o, those in which a pixel's point lies; i and o are numbers of voxels. The sign s is + where
the camera sees a voxel before the surface and - where the surface hides it. Voxels beside the image, behind the camera,
or whose pixel has no depth from 0.5 to 8 m keep v = 1.

| symbol | argument | meaning |
|---|---|---|
| R | ``Grid.radius`` | voxels of the margin, 12 at the published size |

The published kernel looks at a cube of (2 R + 1)³ neighbours. All distances below R lie in it, so v follows from the
truncated Euclidean distance transform, which is computed here axis by axis: the minimum of g(i + k) + k² over |k| ≤ R,
three times, in whole numbers. The corner of a voxel stands for it, not the centre.

References: see `xmodal.data.nyu.voxels`; this is the ``flipped TSDF`` of SSCNet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xmodal.data.nyu.voxels import FAINT, PUBLISHED, Floats, Grid, flat, steps_to, within

NEAR, FAR = 0.5, 8.0  # metres between which a depth is believed
SAME = 1e-4  # metres within which a voxel lies on the surface


def occupied_voxels(depth: Floats, pose: Floats, origin: Floats, *, grid: Grid = PUBLISHED) -> NDArray[np.bool_]:
    """The voxels in which a pixel's point lies, (X, H, Y).

    Args:
        depth: metres, (height, width); pixels without one count as the camera itself.
        pose: camera to world, (4, 4).
        origin: of the volume in the world, (3,).
        grid: sizes.
    """
    steps = [np.floor(step) for step in steps_to(np.asarray(depth, np.float32), pose, origin, grid)]
    inside = within(steps, grid)
    found = np.zeros(grid.voxels, np.bool_)
    found[flat([step[inside] for step in steps], grid)] = True
    return found.reshape(grid.volume)


def squared_distances(occupied: NDArray[np.bool_], radius: int) -> NDArray[np.int16]:
    """Squared distance of each voxel to the nearest occupied one, at most radius².

    Args:
        occupied: (X, H, Y).
        radius: in voxels; distances beyond it are not told apart.

    Example:
        >>> squared_distances(np.array([[[True, False, False, False]]]), 2).tolist()
        [[[0, 1, 4, 4]]]
    """
    limit = np.int16(radius**2)
    found = np.where(occupied, np.int16(0), limit)
    for plane in found:  # planes fit into the cache of a core
        if plane.min() < limit:
            _spread(plane, radius, 1)
            _spread(plane, radius, 0)
    for row in range(found.shape[1]):
        plane = np.ascontiguousarray(found[:, row])
        if plane.min() < limit:
            _spread(plane, radius, 0)
            found[:, row] = plane
    return found


def _spread(plane: NDArray[np.int16], radius: int, axis: int) -> None:
    """The minimum of plane(i + k) + k² along one axis, in place."""
    source, target = plane.copy(), plane
    if axis:
        source, target = source.T, target.T
    room = np.empty_like(plane)
    room = room.T if axis else room
    for step in range(1, min(radius, len(source))):  # a step of the whole radius brings nothing below the limit
        further = np.add(source, np.int16(step * step), out=room)
        np.minimum(target[step:], further[:-step], out=target[step:])
        np.minimum(target[:-step], further[step:], out=target[:-step])


@np.errstate(all="ignore")  # beside the camera numbers may be as large as they like
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
        depth: metres, (height, width).
        pose: camera to world, (4, 4).
        origin: of the volume in the world, (3,).
        grid: sizes.
        squared: distances to the occupied voxels, where they are known already.
    """
    depth, pose, origin = (np.asarray(part, np.float32) for part in (depth, pose, origin))
    radius = grid.radius
    if squared is None:
        squared = squared_distances(occupied_voxels(depth, pose, origin, grid=grid), radius)
    magnitude = (np.sqrt(np.arange(radius**2 + 1, dtype=np.float32)) / np.float32(radius)).astype(np.float32)
    believed = np.where((depth >= NEAR) & (depth <= FAR), depth, np.float32(np.nan)).ravel()
    corners = [  # world coordinates of the corners along X, H and Y, seen from the camera's place
        (np.arange(size, dtype=np.float32) * np.float32(grid.voxel) + origin[axis]) - pose[axis, 3]
        for size, axis in zip(grid.volume, (0, 2, 1), strict=True)
    ]
    found = np.ones(grid.volume, np.float32)
    lifted = [pose[2, axis] * corners[1][:, None] for axis in range(3)]
    deep = [pose[1, axis] * corners[2][None, :] for axis in range(3)]
    for place, across in enumerate(corners[0]):
        camera = [(pose[0, axis] * across + deep[axis]) + lifted[axis] for axis in range(3)]
        ahead, number = _seen(camera, grid)
        # behind a surface: further away than it; without a depth nothing is known
        apart = believed[number] - camera[2].ravel()[ahead]
        sign = np.where(apart > -SAME, np.float32(1), np.float32(-1))
        value = magnitude[squared[place].ravel()[ahead]] * sign
        plane = found[place].reshape(-1)
        plane[ahead] = np.where(np.isnan(apart), np.float32(1), value)
        plane[squared[place].ravel() == 0] = 0
    return found


def _seen(camera: list[Floats], grid: Grid) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which voxels of a plane lie in the image, and in which pixel."""
    x, y, z = camera
    ahead = np.flatnonzero(z > 0)
    if not len(ahead):
        return ahead, ahead
    depth = z.ravel()[ahead]
    column, row = (
        nearest(np.float32(focal) * (part.ravel()[ahead] / depth) + np.float32(centre))
        for focal, part, centre in zip(grid.focal, (x, y), grid.centre, strict=True)
    )
    height, width = grid.image
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    number = row[inside].astype(np.intp) * width + column[inside].astype(np.intp)
    return ahead[inside], number


def nearest(values: Floats) -> Floats:
    """The nearest whole number, half away from zero, as C rounds.

    Example:
        >>> nearest(np.array([0.5, 1.5, 0.49999997, -0.5, -0.4], np.float32)).tolist()
        [1.0, 2.0, 0.0, -1.0, -0.0]
    """
    size = np.abs(values)
    below = np.floor(size)
    return np.asarray(np.copysign(below + (size - below >= 0.5), values), np.float32)


def flipped(values: Floats) -> Floats:
    """The flipped form: 1 on a surface, falling with the distance, ±0.001 far away.

    Args:
        values: of `tsdf`.

    Example:
        >>> flipped(np.array([0, 0.75, 1, -0.75, -1], np.float32)).tolist()
        [1.0, 0.25, 0.0010000000474974513, -0.25, -0.0010000000474974513]
    """
    size = np.abs(values)
    found = np.maximum(np.float32(FAINT), np.float32(1) - size)
    behind = (values < 0) & (size >= FAINT)
    np.negative(found, out=found, where=behind)
    return found
