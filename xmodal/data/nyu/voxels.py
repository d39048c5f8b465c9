r"""A room as voxels, seen by one depth camera: which voxel a pixel shows, blocks of voxels as one, and what is scored.

A volume has the axes (X, H, Y): to the right, up and into the room, as in the files of SSCNet. A pixel (u, v) with the
depth d shows the point

$$p = R \Big( (u - c_x) \frac{d}{f_x},\ (v - c_y) \frac{d}{f_y},\ d \Big)^T + t$$

of a world whose third axis points up; x right, y down and z forward are those of the camera. Everything is float32, as
in the published code, since a rounded border decides about a voxel.

| symbol | argument | meaning |
|---|---|---|
| f, c | ``Grid.focal``, ``Grid.centre`` | of the camera, in pixels |
| R, t | ``pose`` (4, 4) | camera to world |
| d | ``depth`` (height, width) | metres; 0: none was measured |

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

FACTOR = 4  # voxels of an edge that become one
UNKNOWN = 255  # label of a voxel outside of the room, or that nobody labelled
FAINT = 0.001  # magnitude of a flipped TSDF far from every surface
HIDDEN, SURFACE = 1, 2  # regions of an evaluation
RULES = ("reference", "correct", "box")
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Sizes of a volume and of the camera that looks into it; the published ones unless others are given.

    Attributes:
        volume: voxels along X, H and Y.
        voxel: edge of a voxel in metres.
        image: height and width in pixels.
        focal: lengths along the two axes of the image.
        centre: where the optical axis meets the image, along the width and the height.
        margin: metres beyond which a distance to a surface is not told from others.
    """

    volume: tuple[int, int, int] = (240, 144, 240)
    voxel: float = 0.02
    image: tuple[int, int] = (480, 640)
    focal: tuple[float, float] = (518.8579, 518.8579)
    centre: tuple[float, float] = (320.0, 240.0)
    margin: float = 0.24

    def __post_init__(self) -> None:
        """Refuse sizes that no volume can have."""
        if min(*self.volume, *self.image, self.voxel, *self.focal, self.margin) <= 0:
            raise InputError(
                f"A volume of {self.volume} voxels of {self.voxel} m, seen in {self.image} pixels at a focal length of "
                f"{self.focal}, was asked for: sizes above 0 were expected. Repair nyu.json."
            )

    @property
    def voxels(self) -> int:
        """How many there are."""
        return math.prod(self.volume)

    @property
    def coarse(self) -> tuple[int, int, int]:
        """Blocks along X, H and Y."""
        x, h, y = (size // FACTOR for size in self.volume)
        return x, h, y

    @property
    def radius(self) -> int:
        """Voxels within which a distance counts."""
        return round(self.margin / self.voxel)


PUBLISHED = Grid()
TINY = Grid((60, 36, 60), 0.08, (120, 160), (518.8579 / 4, 518.8579 / 4), (80.0, 60.0), 0.24)


@np.errstate(all="ignore")  # a damaged pose leads nowhere, which is seen later
def steps_to(depth: NDArray[Any], pose: Floats, origin: Floats, grid: Grid) -> list[Floats]:
    """How many voxels along X, H and Y lie before what each pixel shows, (height, width) each, not rounded.

    Args:
        depth: metres.
        pose: camera to world, (4, 4).
        origin: of the volume in the world, (3,).
        grid: sizes.
    """
    height, width = depth.shape
    across = np.arange(width) - grid.centre[0]
    down = np.arange(height) - grid.centre[1]
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
    """The voxel that each pixel shows, counted along X, H and Y as in a flat volume: (height, width).

    Voxels are taken by rounding, half to even, which lays the grid half a voxel beside the one of `data.nyu.tsdf`.

    Args:
        depth: metres, (height, width).
        pose: camera to world, (4, 4).
        origin: of the volume in the world, (3,).
        grid: sizes.
        rule: ``reference``: pixels without a voxel get number 0, which is a voxel too; ``correct``: -1, which
            projections leave out. Without a depth there is no voxel by the correct rule; by the other one the camera
            itself is what the pixel shows.

    Example:
        >>> at_two_metres, level = np.full((1, 1), 2.0), np.eye(4, dtype=np.float32)[[0, 2, 1, 3]]
        >>> grid = Grid((8, 4, 8), 0.5, (1, 1), (1.0, 1.0), (0.0, 0.0))
        >>> positions(at_two_metres, level, np.zeros(3, np.float32), grid=grid).tolist()
        [[4]]
    """
    if rule not in RULES[:2]:
        raise InputError(f"There is no rule of positions called '{rule}'. {did_you_mean(rule, RULES[:2])}")
    if depth.shape != grid.image:
        raise InputError(f"A depth of {depth.shape} pixels was given: {grid.image} were expected. Check the header.")
    steps = [np.rint(step) for step in steps_to(depth, pose, origin, grid)]
    inside = within(steps, grid)
    if rule == "correct":
        inside &= depth > 0
    found = np.full(depth.shape, -1 if rule == "correct" else 0, np.int32)
    found[inside] = flat([step[inside] for step in steps], grid)
    return found


def within(steps: list[Floats], grid: Grid) -> NDArray[np.bool_]:
    """Which steps along X, H and Y lead to a voxel."""
    inside = [(step >= 0) & (step < size) for step, size in zip(steps, grid.volume, strict=True)]
    return np.asarray(inside[0] & inside[1] & inside[2])


def flat(steps: list[Floats], grid: Grid) -> NDArray[np.int32]:
    """Number of a voxel in a flat volume."""
    x, h, y = (step.astype(np.int32) for step in steps)
    return np.asarray((x * grid.volume[1] + h) * grid.volume[2] + y, np.int32)


def block_sums(mask: NDArray[np.bool_], factor: int = FACTOR) -> NDArray[np.uint16]:
    """How many voxels of each block are marked; the long axis first, where whole planes are added."""
    if any(size % factor for size in mask.shape):
        raise InputError(f"A volume of {mask.shape} voxels has no blocks of {factor}: multiples of it were expected.")
    counts: NDArray[Any] = mask.view(np.uint8)
    if factor**3 > 255:
        counts = counts.astype(np.uint16)
    for axis in range(3):
        parts = np.moveaxis(counts, axis, 0)
        total = parts[::factor].copy()
        for step in range(1, factor):
            np.add(total, parts[step::factor], out=total)
        counts = np.moveaxis(total, 0, axis)
    return counts.astype(np.uint16)


def block_rows(volume: NDArray[Any], chosen: NDArray[np.bool_], factor: int = FACTOR) -> NDArray[Any]:
    """The voxels of some blocks, (blocks, factor³)."""
    x, h, y = chosen.shape
    blocks = volume.reshape(x, factor, h, factor, y, factor).transpose(0, 2, 4, 1, 3, 5)
    rows: NDArray[Any] = blocks[chosen].reshape(-1, factor**3)
    return rows


def coarse_labels(labels: NDArray[np.uint8], factor: int = FACTOR) -> NDArray[np.uint8]:
    """One label for each block of voxels.

    A block that is empty or unknown by more than 95 % is what it is more of, unknown if equal. Others are the class
    that most of their voxels have, empty and unknown ones aside; the smallest where several have as many.

    Args:
        labels: classes with 0 for empty and 255 for unknown, (X, H, Y).
        factor: edge of a block.
    """
    empty, unknown = block_sums(labels == 0, factor), block_sums(labels == UNKNOWN, factor)
    found = np.where(empty > unknown, 0, UNKNOWN).astype(np.uint8)
    filled = ~(empty + unknown > 0.95 * factor**3)
    rows = block_rows(labels, filled, factor)
    numbers = rows + 256 * np.arange(len(rows))[:, None]
    counts = np.bincount(numbers.ravel(), minlength=256 * len(rows)).reshape(-1, 256)
    found[filled] = 1 + counts[:, 1:UNKNOWN].argmax(axis=1)
    return found


def coarse_tsdf(tsdf: Floats, factor: int = FACTOR) -> Floats:
    """A flipped TSDF for blocks: 1 (more than 2 voxels on the surface), -0.001 (any hidden or one) or 0.001 (others).

    Args:
        tsdf: flipped, (X, H, Y).
        factor: edge of a block.
    """
    surface = block_sums(tsdf == 1, factor)
    behind = block_sums(tsdf <= 0, factor)
    return np.where(surface > 2, 1, np.where(surface + behind > 0, -FAINT, FAINT)).astype(np.float32)


def regions(tsdf: Floats, labels: NDArray[np.uint8], *, rule: str = "reference") -> NDArray[np.uint8]:
    """Where a scene is scored: 0 nowhere, `HIDDEN` behind a surface, `SURFACE` on one.

    Args:
        tsdf: of `coarse_tsdf`, of any shape.
        labels: of `coarse_labels`, of the same shape.
        rule: ``reference``: hidden voxels with a label and all of the surface; ``correct``: with a label both;
            ``box``: with or without, in the box around the surface (unused in the published code).

    Example:
        >>> tsdf, labels = np.array([1, 1, -0.001, -0.001, 0.001], np.float32), np.array([3, 255, 0, 255, 0], np.uint8)
        >>> regions(tsdf, labels).tolist(), regions(tsdf, labels, rule="correct").tolist()
        ([2, 2, 1, 0, 0], [2, 0, 1, 0, 0])
    """
    if rule not in RULES:
        raise InputError(f"There is no rule of what is scored called '{rule}'. {did_you_mean(rule, RULES)}")
    surface, known = tsdf == 1, labels != UNKNOWN
    if rule == "box":
        inside = _box(surface)
        return np.where(surface, SURFACE, np.where((tsdf <= 0) & inside, HIDDEN, 0)).astype(np.uint8)
    hidden = known & (tsdf < FAINT)
    if rule == "correct":
        surface = surface & known
    return np.where(surface, SURFACE, np.where(hidden, HIDDEN, 0)).astype(np.uint8)


def _box(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The smallest box with all that is marked."""
    inside = np.zeros(marked.shape, np.bool_)
    places = np.argwhere(marked)
    if len(places):
        inside[tuple(slice(low, high + 1) for low, high in zip(places.min(0), places.max(0), strict=True))] = True
    return inside
