r"""Where the points of a LiDAR lie in a picture: that of the camera, or one of all directions around the scanner.

Camera (*perspective view*), for p = (x, y, z) in front of the scanner and M = P2 Tr:

$$(a, b, d)^T = M (x, y, z, 1)^T, \qquad row = \lfloor b / d \rfloor, \quad col = \lfloor a / d \rfloor$$

Directions (*range view*), with fields of view from f_down to f_up and from f_left to f_right, r = |p|:

$$col = \left\lfloor W \frac{-\mathrm{atan2}(y, x) + |f_{left}|}{|f_{left}| + |f_{right}|} \right\rfloor, \qquad
row = \left\lfloor H \left(1 - \frac{\arcsin(z / r) + |f_{down}|}{|f_{up}| + |f_{down}|}\right) \right\rfloor$$

| symbol | argument | meaning |
|---|---|---|
| M | ``matrix`` | of a sequence, `xmodal.data.semantic_kitti.files.camera_matrix` |
| H, W | ``height``, ``width`` | of the picture |
| f | ``field`` | up, down, left, right, in degrees |

Reference: read from the authors' code of arXiv 2409.02438, which takes it from Zhuang et al., ICCV 2021, arXiv
2106.15277.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELD = (3.0, -25.0, -45.0, 45.0)  # degrees up, down, left, right
ROOM = 1.0  # pixels by which a quick look may be wrong
NEAR = 0.5  # metres from the plane of the camera within which it may be wrong by more
FEATURES = ("range", "x", "y", "z", "remission")


@dataclass(frozen=True, slots=True)
class Pixels:
    """Points that lie in a picture, in the order of the file.

    Attributes:
        number: which of the stored points they are (k,).
        row: of their pixels (k,).
        col: likewise.
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
    """Where points lie in the camera's picture, to a fraction of a pixel.

    Args:
        points: (n, 3 or more).
        matrix: M.
        height: H.
        width: W.
        x_min: points must lie farther in front of the scanner than this, in metres.
        behind: keep points behind the plane of the camera as well, which the division mirrors into the picture, as
            the published code does.

    Returns:
        Rows and columns of the points that are kept (k, 2); which are kept (n,); and the depth d before the camera
        (n,), 0 where x is not large enough.
    """
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
    """The points that lie in the camera's picture, and their pixels; arguments as those of `to_camera`."""
    some = _perhaps(points, matrix, height, width, x_min)
    place, keep, _ = to_camera(points[some], matrix, height=height, width=width, x_min=x_min, behind=behind)
    whole = place.astype(np.int32)  # of positive numbers: the next smaller one
    return Pixels(some[keep], whole[:, 0], whole[:, 1])


def _perhaps(
    points: NDArray[np.float32], matrix: NDArray[np.float64], height: int, width: int, x_min: float
) -> NDArray[np.int64]:
    """Points that may lie in the picture: a quick look at all of them, with room for its rounding."""
    low = matrix.astype(np.float32)
    a, b, d = low[:, :3] @ points[:, :3].T + low[:, 3:]  # float32: a quarter of the time
    inverse = 1.0 / np.where(np.abs(d) < NEAR, np.float32(np.inf), d)  # too near to tell: 0 is inside
    col, row = a * inverse, b * inverse
    seen = (col > -ROOM) & (col < width + ROOM) & (row > -ROOM) & (row < height + ROOM)
    return np.flatnonzero(seen & (points[:, 0] > x_min))


def range_pixels(
    points: NDArray[np.float32],
    *,
    height: int,
    width: int,
    field: tuple[float, float, float, float] = FIELD,
) -> Pixels:
    """The pixels of all points in the view of directions; those outside of the fields of view lie on its border."""
    up, down, left, right = np.abs(np.deg2rad(np.array(field)))
    distance = ranges(points)
    yaw = -np.arctan2(points[:, 1], points[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        pitch = np.nan_to_num(np.arcsin(points[:, 2] / distance))  # a point in the scanner has no direction
    col = np.floor((yaw + left) / (left + right) * width)
    row = np.floor((1.0 - (pitch + down) / (up + down)) * height)
    return Pixels(
        np.arange(len(points)),
        np.clip(row, 0, height - 1).astype(np.int32),
        np.clip(col, 0, width - 1).astype(np.int32),
    )


def ranges(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of each point from the scanner (n,)."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    found: NDArray[np.float32] = np.sqrt(x * x + y * y + z * z)
    return found


def features_of(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Range, x, y, z and remission (n, 5)."""
    return np.concatenate([ranges(points)[:, None], points[:, :4]], axis=1)


def drawing_order(distance: NDArray[np.float32], rule: str) -> NDArray[np.int64]:
    """The order in which points are drawn, where the last one of a pixel stays.

    Args:
        distance: of the points.
        rule: ``nearest``: the farthest is drawn first; ``file``: as they are stored.

    Example:
        >>> drawing_order(np.array([3.0, 9.0, 5.0], np.float32), "nearest").tolist()
        [1, 2, 0]
    """
    numbers = np.arange(len(distance), dtype=np.uint64)
    if rule != "nearest":
        return numbers.astype(np.int64)
    # numbers of one sign have the order of their bits; with the place behind them, equal ones keep theirs
    farthest = 2**32 - 1 - np.ascontiguousarray(distance, np.float32).view(np.uint32).astype(np.uint64)
    ordered = np.sort(farthest << np.uint64(32) | numbers)
    return (ordered & np.uint64(2**32 - 1)).astype(np.int64)


def draw(
    row: NDArray[np.integer[Any]], col: NDArray[np.integer[Any]], values: NDArray[Any], *, height: int, width: int
) -> NDArray[Any]:
    """Maps (…, height, width) of values (k, …) of points, zero where there is none; the last one of a pixel stays."""
    maps = np.zeros((*values.shape[1:], height * width), values.dtype)
    maps[..., row.astype(np.int64) * width + col] = np.moveaxis(values, 0, -1)
    return maps.reshape(*values.shape[1:], height, width)


def range_maps(
    points: NDArray[np.float32],
    *,
    height: int,
    width: int,
    field: tuple[float, float, float, float] = FIELD,
    lose_first: bool = False,
) -> dict[str, NDArray[Any]]:
    """``range``, ``idx`` and ``mask`` (height, width) of the range view, -1 where there is no point; the nearest stays.

    Args:
        points: (n, 4).
        height: H.
        width: W.
        field: f.
        lose_first: leave the first point of the file out of the mask, as the published code does.
    """
    pixels = range_pixels(points, height=height, width=width, field=field)
    distance = ranges(points)
    order = drawing_order(distance, "nearest")
    flat = (pixels.row.astype(np.int64) * width + pixels.col)[order]
    number, nearest = np.full(height * width, -1, np.int32), np.full(height * width, -1, np.float32)
    number[flat], nearest[flat] = order, distance[order]
    idx = number.reshape(height, width)
    return {
        "range": nearest.reshape(height, width),
        "idx": idx,
        "mask": (idx > (0 if lose_first else -1)).astype(np.int32),
    }
