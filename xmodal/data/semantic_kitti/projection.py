r"""Projection of LiDAR points into a picture: that of the camera, or one of all directions around the scanner.

Camera (*perspective view*), for p = (x, y, z) in front of the scanner and M = P2 Tr:

$$(a, b, d)^T = M (x, y, z, 1)^T, \qquad row = \lfloor b / d \rfloor, \quad col = \lfloor a / d \rfloor$$

Directions (*range view*), with fields of view from f_down to f_up and from f_left to f_right, r = |p|:

$$col = \left\lfloor W \frac{-\mathrm{atan2}(y, x) + |f_{left}|}{|f_{left}| + |f_{right}|} \right\rfloor, \qquad
row = \left\lfloor H \left(1 - \frac{\arcsin(z / r) + |f_{down}|}{|f_{up}| + |f_{down}|}\right) \right\rfloor$$

| symbol | argument | meaning |
|---|---|---|
| M | ``matrix`` | matrix of a sequence, `xmodal.data.semantic_kitti.files.camera_matrix` |
| H, W | ``height``, ``width`` | size of the picture |
| f | ``field`` | field of view: up, down, left, right, in degrees |

Reference: read from the authors' code of arXiv 2409.02438, which takes it from Zhuang et al., ICCV 2021, arXiv
2106.15277.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Field of view up, down, left and right in degrees, as in the authors' configuration.
FIELD = (3.0, -25.0, -45.0, 45.0)
# Error of the float32 projection in `_candidates`, in pixels, that is allowed for.
MARGIN = 1.0
# Distance from the plane of the camera, in metres, below which the error may be larger: such points are candidates.
NEAR = 0.5
FEATURES = ("range", "x", "y", "z", "remission")


@dataclass(frozen=True, slots=True)
class Pixels:
    """The points that are projected into a picture, in the order of the file.

    Attributes:
        number: indices of the points in the file (k,).
        row: rows of their pixels (k,).
        col: columns of their pixels (k,).
    """

    number: NDArray[np.int64]
    row: NDArray[np.int32]
    col: NDArray[np.int32]


def to_camera(
    points: NDArray[np.float32],
    matrix: NDArray[np.float64],
    *,
    height: int,
    width: int,
    x_min: float = 0.0,
    behind: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Coordinates of points in the camera picture, in fractions of a pixel.

    Args:
        points: points (n, 3 or more).
        matrix: M.
        height: H.
        width: W.
        x_min: only points farther in front of the scanner than this are kept, in metres.
        behind: also keep points behind the plane of the camera, which the division mirrors into the picture, as the
            published code does.

    Returns:
        Row and column of the kept points (k, 2); a mask of the kept points (n,); and the depth d in front of the
        camera (n,), 0 for points that x_min drops.
    """
    # The camera is 0.27 m ahead of the scanner: x > 0 does not imply d > 0.
    front = np.flatnonzero(points[:, 0] > x_min)
    x, y, z = points[front, :3].T.astype(np.float64)
    a, b, d = (m[0] * x + m[1] * y + m[2] * z + m[3] for m in matrix)
    with np.errstate(divide="ignore", invalid="ignore"):
        col, row = a / d, b / d
    inside = (col > 0) & (col < width) & (row > 0) & (row < height)
    if not behind:
        inside &= d > 0
    keep, depth = np.zeros(len(points), np.bool_), np.zeros(len(points))
    keep[front[inside]] = True
    depth[front] = d
    return np.stack([row[inside], col[inside]], axis=1), keep, depth


def camera_pixels(
    points: NDArray[np.float32],
    matrix: NDArray[np.float64],
    *,
    height: int,
    width: int,
    x_min: float = 0.0,
    behind: bool = False,
) -> Pixels:
    """The points that are projected into the camera picture, and their pixels; for the arguments see `to_camera`."""
    candidates = _candidates(points, matrix, height, width, x_min)
    row_col, keep, _ = to_camera(points[candidates], matrix, height=height, width=width, x_min=x_min, behind=behind)
    # Truncation is the same as floor for these positive numbers.
    pixels = row_col.astype(np.int32)
    return Pixels(candidates[keep], pixels[:, 0], pixels[:, 1])


def _candidates(
    points: NDArray[np.float32], matrix: NDArray[np.float64], height: int, width: int, x_min: float
) -> NDArray[np.int64]:
    """Points that may be in the picture, from a projection in float32 with a margin for its error.

    It takes a quarter of the time of float64, which is then used only for the fifth of the points that remain.
    """
    matrix32 = matrix.astype(np.float32)
    a, b, d = matrix32[:, :3] @ points[:, :3].T + matrix32[:, 3:]
    # For points near the plane of the camera, 1 / ∞ = 0 gives the pixel (0, 0), which is inside.
    inverse = 1.0 / np.where(np.abs(d) < NEAR, np.float32(np.inf), d)
    col, row = a * inverse, b * inverse
    inside = (col > -MARGIN) & (col < width + MARGIN) & (row > -MARGIN) & (row < height + MARGIN)
    return np.flatnonzero(inside & (points[:, 0] > x_min))


def range_pixels(
    points: NDArray[np.float32],
    *,
    height: int,
    width: int,
    field: tuple[float, float, float, float] = FIELD,
) -> Pixels:
    """The pixels of all points in the range view; points outside of the field of view are put on its border."""
    up, down, left, right = np.abs(np.deg2rad(np.array(field)))
    distance = ranges(points)
    yaw = -np.arctan2(points[:, 1], points[:, 0])
    # A point at the origin has no direction: 0 / 0 is NaN, which becomes 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        pitch = np.nan_to_num(np.arcsin(points[:, 2] / distance))
    col = np.floor((yaw + left) / (left + right) * width)
    row = np.floor((1.0 - (pitch + down) / (up + down)) * height)
    return Pixels(
        np.arange(len(points)),
        np.clip(row, 0, height - 1).astype(np.int32),
        np.clip(col, 0, width - 1).astype(np.int32),
    )


def ranges(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of each point from the scanner, (n,)."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    distance: NDArray[np.float32] = np.sqrt(x * x + y * y + z * z)
    return distance


def features_of(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Range, x, y, z and remission of each point, (n, 5)."""
    return np.concatenate([ranges(points)[:, None], points[:, :4]], axis=1)


def drawing_order(distance: NDArray[np.float32], rule: str) -> NDArray[np.int64]:
    """The order in which points are drawn; of several points of a pixel, the last one remains.

    Args:
        distance: distances of the points.
        rule: ``nearest``: from far to near; ``file``: the order of the file.

    Example:
        >>> drawing_order(np.array([3.0, 9.0, 5.0], np.float32), "nearest").tolist()
        [1, 2, 0]
    """
    numbers = np.arange(len(distance), dtype=np.uint64)
    if rule != "nearest":
        return numbers.astype(np.int64)
    # The bits of positive floats are in the order of their values. With the index in the low bits, a single sort of
    # integers gives the order of a stable sort.
    farthest = 2**32 - 1 - np.ascontiguousarray(distance, np.float32).view(np.uint32).astype(np.uint64)
    ordered = np.sort(farthest << np.uint64(32) | numbers)
    return (ordered & np.uint64(2**32 - 1)).astype(np.int64)


def draw(
    row: NDArray[np.integer[Any]], col: NDArray[np.integer[Any]], values: NDArray[Any], *, height: int, width: int
) -> NDArray[Any]:
    """Maps (…, height, width) of values (k, …) of points. Empty pixels are 0; the last point of a pixel remains."""
    maps = np.zeros((*values.shape[1:], height * width), values.dtype)
    maps[..., row.astype(np.int64) * width + col] = np.moveaxis(values, 0, -1)
    return maps.reshape(*values.shape[1:], height, width)
