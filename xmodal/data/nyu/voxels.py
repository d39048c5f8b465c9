r"""A room as voxels, seen by a depth camera: voxels of pixels, downsampled labels and distances, evaluation regions.

A volume has the axes (X, H, Y): to the right, up and into the room, as in the files of SSCNet. A pixel (u, v) with
depth d shows the point

$$p = R \Big( (u - c_x) \frac{d}{f_x},\ (v - c_y) \frac{d}{f_y},\ d \Big)^T + t$$

of a world whose third axis points up; the axes of the camera are x right, y down and z forward. All computations are
float32 in the order of the published code: close to the border of a voxel, the last bit decides its index.

| symbol | argument | meaning |
|---|---|---|
| f, c | ``Grid.focal``, ``Grid.centre`` | focal lengths and principal point of the camera, in pixels |
| R, t | ``pose`` (4, 4) | camera to world |
| d | ``depth`` (height, width) | metres; 0: not measured |

References: Song et al.: Semantic Scene Completion from a Single Depth Image, CVPR 2017 (SSCNet), authors' code. Li et
al.: RGBD Based Dimensional Decomposition Residual Network for 3D Semantic Scene Completion, CVPR 2019 (DDRNet),
authors' code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError, did_you_mean

# Edge of a block, in voxels: networks predict a label per block, since 8.3 million voxels are too many.
FACTOR = 4
# Label of a voxel that is outside of the room or unlabelled.
UNKNOWN = 255
# Magnitude of a flipped TSDF far from every surface. Not 0, so that the sign still tells free from hidden space.
FAINT = 0.001
# Regions of the evaluation.
HIDDEN, SURFACE = 1, 2
RULES = ("reference", "correct", "box")
# Rows of pixels that are computed at a time: their numbers stay in the cache of a processor, which saves a third.
BAND = 48
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Sizes of a volume and parameters of the camera. The defaults are the published ones.

    Attributes:
        volume: number of voxels along X, H and Y.
        voxel: edge of a voxel, in metres.
        image: height and width, in pixels.
        focal: focal lengths along width and height, in pixels.
        centre: principal point along width and height, in pixels.
        margin: distance to a surface at which the TSDF is truncated, in metres.
    """

    volume: tuple[int, int, int] = (240, 144, 240)
    voxel: float = 0.02
    image: tuple[int, int] = (480, 640)
    focal: tuple[float, float] = (518.8579, 518.8579)
    centre: tuple[float, float] = (320.0, 240.0)
    margin: float = 0.24

    def __post_init__(self) -> None:
        """Refuse sizes that are not positive."""
        if min(*self.volume, *self.image, self.voxel, *self.focal, self.margin) <= 0:
            raise InputError(
                f"The volume has {self.volume} voxels of {self.voxel} m, the image {self.image} pixels and the camera "
                f"the focal lengths {self.focal}: sizes above 0 were expected. Repair nyu.json."
            )

    @property
    def voxels(self) -> int:
        """The number of voxels."""
        return math.prod(self.volume)

    @property
    def coarse(self) -> tuple[int, int, int]:
        """The number of blocks along X, H and Y."""
        x, h, y = (size // FACTOR for size in self.volume)
        return x, h, y

    @property
    def radius(self) -> int:
        """The margin in voxels."""
        return round(self.margin / self.voxel)


PUBLISHED = Grid()
TINY = Grid((60, 36, 60), 0.08, (120, 160), (518.8579 / 4, 518.8579 / 4), (80.0, 60.0), 0.24)


# A damaged pose overflows. Its points are outside of the volume, which `within` finds out.
@np.errstate(all="ignore")
def steps_to(depth: NDArray[Any], pose: Floats, origin: Floats, grid: Grid, top: int = 0) -> list[Floats]:
    """Coordinates of the point that each pixel shows, in voxels, not rounded: (height, width) along X, H and Y each.

    Args:
        depth: depth in metres.
        pose: camera to world, (4, 4).
        origin: corner of the volume in the world, (3,).
        grid: sizes.
        top: number of the first row of pixels, where ``depth`` has some of them.
    """
    height, width = depth.shape
    across = np.arange(width) - grid.centre[0]
    down = np.arange(top, top + height) - grid.centre[1]
    pose, origin = np.asarray(pose, np.float32), np.asarray(origin, np.float32)
    camera = (
        (across * depth / grid.focal[0]).astype(np.float32),
        (down[:, None] * depth / grid.focal[1]).astype(np.float32),
        np.asarray(depth, np.float32),
    )
    x, y, z = (row[0] * camera[0] + row[1] * camera[1] + row[2] * camera[2] + row[3] for row in pose[:3])
    return [(part - start) / np.float32(grid.voxel) for part, start in ((x, origin[0]), (z, origin[2]), (y, origin[1]))]


def positions(
    depth: NDArray[Any], pose: Floats, origin: Floats, *, grid: Grid = PUBLISHED, rule: str = "reference"
) -> NDArray[np.int32]:
    """Index of the voxel that each pixel shows, in the flattened volume (X, H, Y): (height, width).

    As in the published code, coordinates are rounded half to even, so that this grid is shifted by half a voxel
    against the one of `data.nyu.tsdf`, which rounds down.

    Args:
        depth: depth in metres, (height, width).
        pose: camera to world, (4, 4).
        origin: corner of the volume in the world, (3,).
        grid: sizes.
        rule: value of pixels outside of the volume. ``reference``: 0, which is also the index of a real voxel;
            ``correct``: -1, which projections skip. Pixels without a depth count as outside by the correct rule; by the
            other, depth 0 means that they show the position of the camera.

    Example:
        >>> at_two_metres, level = np.full((1, 1), 2.0), np.eye(4, dtype=np.float32)[[0, 2, 1, 3]]
        >>> grid = Grid((8, 4, 8), 0.5, (1, 1), (1.0, 1.0), (0.0, 0.0))
        >>> positions(at_two_metres, level, np.zeros(3, np.float32), grid=grid).tolist()
        [[4]]
    """
    if rule not in RULES[:2]:
        raise InputError(f"There is no rule of positions called '{rule}'. {did_you_mean(rule, RULES[:2])}")
    if depth.shape != grid.image:
        raise InputError(f"The depth has {depth.shape} pixels: {grid.image} were expected. Check nyu.json.")
    outside = -1 if rule == "correct" else 0
    numbers = np.empty(depth.shape, np.int32)
    for top in range(0, len(depth), BAND):
        rows = depth[top : top + BAND]
        steps = [np.rint(step, out=step) for step in steps_to(rows, pose, origin, grid, top)]
        inside = within(steps, grid)
        if rule == "correct":
            inside &= rows > 0
        numbers[top : top + BAND] = np.where(inside, flat(steps, grid), outside)
    return numbers


def within(steps: list[Floats], grid: Grid) -> NDArray[np.bool_]:
    """Whether coordinates along X, H and Y are inside of the volume."""
    inside = [(step >= 0) & (step < size) for step, size in zip(steps, grid.volume, strict=True)]
    return np.asarray(inside[0] & inside[1] & inside[2])


# What is outside of the volume has no index: its number is not used.
@np.errstate(all="ignore")
def flat(steps: list[Floats], grid: Grid) -> NDArray[np.int32]:
    """Indices in the flattened volume."""
    x, h, y = (step.astype(np.int32) for step in steps)
    return np.asarray((x * grid.volume[1] + h) * grid.volume[2] + y, np.int32)


def block_sums(mask: NDArray[np.bool_], factor: int = FACTOR) -> NDArray[np.uint16]:
    """The number of voxels of each block for which a mask is true."""
    if any(size % factor for size in mask.shape):
        raise InputError(f"A volume of {mask.shape} voxels has no blocks of {factor}: multiples of it were expected.")
    # Bytes are faster to add than wider integers, and a block of at most 255 voxels cannot overflow them.
    counts: NDArray[Any] = mask.view(np.uint8)
    if factor**3 > 255:
        counts = counts.astype(np.uint16)
    # The slowest axis first: there whole planes are added, and the other axes get a quarter of the work.
    for axis in range(3):
        parts = np.moveaxis(counts, axis, 0)
        total = parts[::factor].copy()
        for step in range(1, factor):
            np.add(total, parts[step::factor], out=total)
        counts = np.moveaxis(total, 0, axis)
    return counts.astype(np.uint16)


def block_rows(volume: NDArray[Any], chosen: NDArray[np.bool_], factor: int = FACTOR) -> NDArray[Any]:
    """The voxels of the chosen blocks, (blocks, factor³)."""
    x, h, y = chosen.shape
    blocks = volume.reshape(x, factor, h, factor, y, factor).transpose(0, 2, 4, 1, 3, 5)
    rows: NDArray[Any] = blocks[chosen].reshape(-1, factor**3)
    return rows


def coarse_labels(labels: NDArray[np.uint8], factor: int = FACTOR) -> NDArray[np.uint8]:
    """A label for each block of voxels.

    If more than 95 % of the voxels are empty or unknown, the block is empty or unknown, whichever is more frequent;
    unknown if both are equal. Otherwise it gets the most frequent of the other classes, and the smallest of several.

    Args:
        labels: classes, 0 for empty and 255 for unknown, (X, H, Y).
        factor: edge of a block.
    """
    empty, unknown = block_sums(labels == 0, factor), block_sums(labels == UNKNOWN, factor)
    coarse = np.where(empty > unknown, 0, UNKNOWN).astype(np.uint8)
    filled = ~(empty + unknown > 0.95 * factor**3)
    # Histograms only of the few percent of blocks that contain something; one bincount with an offset per block.
    rows = block_rows(labels, filled, factor)
    numbers = rows + 256 * np.arange(len(rows))[:, None]
    counts = np.bincount(numbers.ravel(), minlength=256 * len(rows)).reshape(-1, 256)
    coarse[filled] = 1 + counts[:, 1:UNKNOWN].argmax(axis=1)
    return coarse


def coarse_tsdf(tsdf: Floats, factor: int = FACTOR) -> Floats:
    """A flipped TSDF of blocks: 1 for more than 2 surface voxels, else -0.001 if any is hidden or surface, else 0.001.

    Args:
        tsdf: flipped TSDF, (X, H, Y).
        factor: edge of a block.
    """
    surface = block_sums(tsdf == 1, factor)
    behind = block_sums(tsdf <= 0, factor)
    return np.where(surface > 2, 1, np.where(surface + behind > 0, -FAINT, FAINT)).astype(np.float32)


def regions(tsdf: Floats, labels: NDArray[np.uint8], *, rule: str = "reference") -> NDArray[np.uint8]:
    """The regions on which a scene is scored: `HIDDEN` behind a surface, `SURFACE` on one, 0 elsewhere.

    Args:
        tsdf: result of `coarse_tsdf`, of any shape.
        labels: result of `coarse_labels`, of the same shape.
        rule: ``reference``: labelled hidden blocks and all surface blocks; ``correct``: only labelled blocks of both;
            ``box``: also unlabelled blocks, within the bounding box of the surface (unused in the published code).

    Example:
        >>> tsdf, labels = np.array([1, 1, -0.001, -0.001, 0.001], np.float32), np.array([3, 255, 0, 255, 0], np.uint8)
        >>> regions(tsdf, labels).tolist(), regions(tsdf, labels, rule="correct").tolist()
        ([2, 2, 1, 0, 0], [2, 0, 1, 0, 0])
    """
    if rule not in RULES:
        raise InputError(f"There is no rule of scored regions called '{rule}'. {did_you_mean(rule, RULES)}")
    surface, labelled = tsdf == 1, labels != UNKNOWN
    if rule == "box":
        inside = _bounding_box(surface)
        return np.where(surface, SURFACE, np.where((tsdf <= 0) & inside, HIDDEN, 0)).astype(np.uint8)
    hidden = labelled & (tsdf < FAINT)
    if rule == "correct":
        surface = surface & labelled
    return np.where(surface, SURFACE, np.where(hidden, HIDDEN, 0)).astype(np.uint8)


def _bounding_box(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The bounding box of a mask, as a mask."""
    inside = np.zeros(mask.shape, np.bool_)
    indices = np.argwhere(mask)
    if len(indices):
        inside[tuple(slice(low, high + 1) for low, high in zip(indices.min(0), indices.max(0), strict=True))] = True
    return inside
