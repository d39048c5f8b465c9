"""Synthetic rooms in the format of NYU Depth V2: boxes between walls, seen by a depth camera.

A room has a floor, a ceiling, walls at both sides and at the back, a window flush in the back wall, and three to six of
seven kinds of furniture on the floor. Depth is exact to the millimetre; colours are those of the classes, with noise.
Depth does not show the window, and distinguishes a bed from a sofa only by shape, while colour shows both directly.
So a teacher with colour has knowledge that a student with depth can use.

A voxel has the class of its centre. Walls are one voxel thick or a little more; voxels outside of the room are unknown,
and voxels outside of the image are empty. In training frames only a share of the blocks of 4x4x4 voxels is labelled,
and the rest is unknown, since distillation pays off where labels are scarce. The frames that choose the epoch and the
test frames are labelled completely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xmodal.data.nyu.files import FACTS, RAW_FOLDER, VALID_SHARE, held_out, prepare
from xmodal.data.nyu.raw import COLOURS, MERGED, encode_room, png_of, stored_depth
from xmodal.data.nyu.voxels import FACTOR, PUBLISHED, TINY, UNKNOWN, Floats, Grid
from xmodal.data.prepare import in_processes
from xmodal.errors import InputError, did_you_mean
from xmodal.files import write_json, written_whole

# Raw classes.
CEILING, FLOOR, WALL, WINDOW = 1, 2, 3, 4
# Raw class → width, depth and height in metres.
THINGS = {
    6: (0.5, 0.5, 0.9),  # chair
    7: (1.4, 1.9, 0.55),  # bed
    8: (1.7, 0.8, 0.75),  # sofa
    9: (1.1, 0.7, 0.75),  # table
    33: (1.0, 0.15, 0.6),  # tvs
    11: (0.9, 0.4, 1.8),  # bookshelf
    22: (0.4, 0.4, 0.35),  # pillow
}
# The television hangs on the back wall; everything else stands on the floor.
HANGING = 33
# Smallest distance of furniture from the camera along y, in metres.
NEAREST = 1.3
# Standard deviation of the noise on colours, out of 255.
NOISE = 10.0
SIZES = {"tiny": TINY, "full": PUBLISHED}


@dataclass(frozen=True)
class Scene:
    """The geometry of a room, in metres.

    Attributes:
        sides: x of the left and of the right wall.
        back: y of the back wall.
        ceiling: z of the ceiling.
        window: x and z of two corners, in the back wall.
        things: raw class and two corners of each box.
        pose: camera to world, (4, 4).
    """

    sides: tuple[float, float]
    back: float
    ceiling: float
    window: tuple[float, float, float, float]
    things: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]
    pose: Floats


def make(
    root: str | Path,
    *,
    format: str = "raw",
    seed: int = 0,
    size: Literal["tiny", "full"] = "tiny",
    train: int = 54,
    test: int = 16,
    labelled: float = 0.05,
    holes: float = 0.0,
    cad: bool = False,
    workers: int = 0,
) -> Path:
    """Write synthetic rooms as raw files of NYU Depth V2.

    Args:
        root: a folder that is empty or does not exist.
        format: ``raw``: pictures and .bin files; ``prepared``: also the .npz files that prepare writes from them.
        seed: seed of all random draws.
        size: tiny, 60x36x60 voxels and 120x160 pixels; full, 240x144x240 and 480x640 as in the published files.
        train: number of training frames, at least 2; the last tenth is labelled completely, for choosing the epoch.
        test: number of test frames.
        labelled: share of labelled blocks in the other training frames.
        holes: share of pixels without a depth, in patches; NYUCAD has none.
        cad: also write NYUCADtrain and NYUCADtest, the same rooms with the depth of every pixel.
        workers: worker processes; 0: work in this process.
    """
    root = Path(root)
    _refuse(root, format, size, train=train, test=test, labelled=labelled, holes=holes)
    grid = SIZES[size]
    complete = held_out(train, VALID_SHARE)
    shares = [labelled] * (train - complete) + [1.0] * (complete + test)
    jobs = [
        (root, grid, seed, number, "train" if number < train else "test", share, holes, cad)
        for number, share in enumerate(shares)
    ]
    for _ in in_processes(_write_frame, jobs, workers):
        pass
    write_json(root / FACTS, {"grid": asdict(grid), "made": {"seed": seed, "labelled": labelled, "holes": holes}})
    if format == "prepared":
        prepare(root, root, workers=workers)
    return root


def _refuse(root: Path, format: str, size: str, *, train: int, test: int, labelled: float, holes: float) -> None:
    problems = []
    for name, value, choices in (("format", format, ("raw", "prepared")), ("size", size, tuple(SIZES))):
        if value not in choices:
            problems.append(f"There is no {name} '{value}'. {did_you_mean(value, choices)}")
    for name, count, least in (("train", train, 2), ("test", test, 1)):
        if not least <= count <= 9000:
            problems.append(f"{name} is {count}: {least} to 9000 frames were expected.")
    if not 0 < labelled <= 1 or not 0 <= holes < 1:
        problems.append(
            f"labelled is {labelled} and holes is {holes}: shares above 0 and up to 1, and from 0 to below 1, were "
            "expected."
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        problems.append(f"{root} already exists: an empty or new folder was expected. Choose another folder.")
    if problems:
        raise InputError(problems)


def _write_frame(job: tuple[Path, Grid, int, int, str, float, float, bool]) -> None:
    """Write all raw files of a frame."""
    root, grid, seed, number, split, share, holes, cad = job
    # Seeded by the frame, not by a shared generator: the files do not depend on the number of workers.
    random = np.random.default_rng([seed, number])
    scene = draw_scene(random)
    depth, classes = look(scene, grid)
    raw = label(scene, grid)
    if share < 1:
        raw = hide_labels(raw, share, random)
    pixels = paint(classes, random)
    depth_with_holes = np.where(patches(grid, holes, random), 0, depth)
    frame = f"NYU{number + 1:04d}_"
    room = encode_room(origin_of(scene.pose, grid), scene.pose, raw)
    for kind, stored in (("NYU", depth_with_holes), *([("NYUCAD", depth)] if cad else [])):
        folder = root / RAW_FOLDER / f"{kind}{split}"
        for name, content in (
            (f"{frame}0000.png", png_of(stored_depth(stored.astype(np.uint16)))),
            (f"{frame}0000.bin", room),
            (f"{frame}rgb.png", png_of(pixels)),
        ):
            with written_whole(folder / name) as partial:
                partial.write_bytes(content)


def draw_scene(random: np.random.Generator) -> Scene:
    """A random room with its furniture, and the pose of the camera."""
    sides = (-random.uniform(1.5, 2.2), random.uniform(1.5, 2.2))
    back, ceiling = random.uniform(3.2, 4.3), random.uniform(2.4, 2.7)
    kinds = random.permutation(list(THINGS))[: random.integers(3, 7)].tolist()
    things = []
    for kind in kinds:
        width, depth, height = np.array(THINGS[kind]) * random.uniform(0.85, 1.15)
        x = random.uniform(sides[0], sides[1] - width)
        y = random.uniform(min(NEAREST, back - depth), back - depth)
        if kind == HANGING:
            y = back - depth
        z = random.uniform(0.6, 1.0) if kind == HANGING else 0.0
        low = np.array([x, y, z])
        things.append((kind, low, low + (width, depth, height)))
    window_width, window_height = random.uniform(0.9, 1.5), random.uniform(0.8, 1.2)
    left, bottom = random.uniform(sides[0] + 0.2, sides[1] - 0.2 - window_width), random.uniform(0.8, 1.1)
    yaw, pitch = np.radians(random.uniform(-10, 10)), np.radians(random.uniform(6, 15))
    pose = pose_of(random.uniform(1.1, 1.5), yaw, pitch)
    return Scene(sides, back, ceiling, (left, left + window_width, bottom, bottom + window_height), things, pose)


def pose_of(height: float, yaw: float, pitch: float) -> Floats:
    """Camera to world for a camera at (0, 0, height), turned to the left by yaw and down by pitch, in radians.

    Example:
        >>> pose_of(1.5, 0.0, 0.0).tolist()  # forward is along y, down against z
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 1.5], [0.0, 0.0, 0.0, 1.0]]
    """
    cos, sin = np.cos(yaw), np.sin(yaw)
    right = np.array([cos, sin, 0.0])
    ahead = np.array([-sin * np.cos(pitch), cos * np.cos(pitch), -np.sin(pitch)])
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, np.cross(ahead, right), ahead
    pose[2, 3] = height
    # Adding 0 turns -0.0 into 0.0, whose bytes differ in the .bin file.
    return pose.astype(np.float32) + np.float32(0)


def origin_of(pose: Floats, grid: Grid) -> Floats:
    """Corner of the volume in the world: its centre is 1 m and half of its depth ahead of the camera, as in SSCNet."""
    ahead = 0.5 * grid.volume[2] * grid.voxel + 1.0
    x, y = (pose[:2, 2] * ahead + pose[:2, 3]).tolist()
    half = (0.5 * grid.volume[0] * grid.voxel, 0.5 * grid.volume[2] * grid.voxel)
    return np.array([x - half[0], y - half[1], -0.05], np.float32)


def look(scene: Scene, grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Depth in millimetres and raw class of every pixel, (height, width)."""
    height, width = grid.image
    across = (np.arange(width) - grid.centre[0]) / grid.focal[0]
    down = (np.arange(height) - grid.centre[1]) / grid.focal[1]
    pose = scene.pose.astype(np.float64)
    # The z component of the rays is 1 in camera coordinates, so that the distance along a ray is the depth.
    rays = [row[0] * across + row[1] * down[:, None] + row[2] for row in pose[:3]]
    origin = pose[:3, 3]
    distance, classes = np.full(grid.image, np.inf), np.zeros(grid.image, np.uint8)
    planes = (
        (0, scene.sides[0], WALL),
        (0, scene.sides[1], WALL),
        (1, scene.back, WALL),
        (2, 0.0, FLOOR),
        (2, scene.ceiling, CEILING),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis, place, kind in planes:
            hit = (place - origin[axis]) / rays[axis]
            nearer = (hit > 0) & (hit < distance)
            distance, classes = np.where(nearer, hit, distance), np.where(nearer, np.uint8(kind), classes)
        x, z = (origin[axis] + distance * rays[axis] for axis in (0, 2))
        on_back = np.isclose(origin[1] + distance * rays[1], scene.back)
        left, right, bottom, top = scene.window
        classes[on_back & (x > left) & (x < right) & (z > bottom) & (z < top)] = WINDOW
        for kind, low, high in scene.things:
            slabs = [sorted_pair((low[a] - origin[a]) / rays[a], (high[a] - origin[a]) / rays[a]) for a in range(3)]
            enter = np.maximum.reduce([slab[0] for slab in slabs])
            leave = np.minimum.reduce([slab[1] for slab in slabs])
            nearer = (enter > 0) & (enter <= leave) & (enter < distance)
            distance, classes = np.where(nearer, enter, distance), np.where(nearer, np.uint8(kind), classes)
    return np.rint(1000 * distance).astype(np.int64), classes


def sorted_pair(
    one: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The elementwise minimum and maximum of two arrays."""
    return np.minimum(one, other), np.maximum(one, other)


def label(scene: Scene, grid: Grid) -> NDArray[np.uint8]:
    """Raw class of each voxel by its centre, (X, H, Y)."""
    origin, edge = origin_of(scene.pose, grid).astype(np.float64), grid.voxel
    x, z, y = (
        (origin[axis] + (np.arange(size) + 0.5) * edge).reshape(shape)
        for axis, size, shape in zip((0, 2, 1), grid.volume, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
    )
    raw = np.zeros(grid.volume, np.uint8)
    surfaces = (
        (scene.sides[0] - x, WALL),
        (x - scene.sides[1], WALL),
        (y - scene.back, WALL),
        (z - scene.ceiling, CEILING),
        (-z, FLOOR),
    )
    # In reverse, so that of two overlapping boxes the first one remains.
    for kind, low, high in reversed(scene.things):
        inside = [(part > low[axis]) & (part < high[axis]) for part, axis in ((x, 0), (y, 1), (z, 2))]
        raw[inside[0] & inside[1] & inside[2]] = kind
    left, right, bottom, top = scene.window
    for outward, kind in surfaces:
        layer = (outward >= -edge / 2) & (outward < edge)
        raw[np.broadcast_to(layer, raw.shape)] = kind
    pane = (x > left) & (x < right) & (z > bottom) & (z < top)
    raw[pane & (y - scene.back >= -edge / 2) & (y - scene.back < edge)] = WINDOW
    # After the walls, since these end at the edge of the image too; unknown comes last, and overrides empty.
    visible = in_view(x, y, z, scene.pose.astype(np.float64), grid)
    raw[~visible] = 0
    for outward, _ in surfaces:
        raw[np.broadcast_to(outward >= edge, raw.shape)] = UNKNOWN
    return raw


def in_view(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    pose: NDArray[np.float64],
    grid: Grid,
) -> NDArray[np.bool_]:
    """Whether points of the world are projected into the image; ``x``, ``y`` and ``z`` broadcast to a volume."""
    offset = (x - pose[0, 3], y - pose[1, 3], z - pose[2, 3])
    right, down, ahead = (
        (pose[0, axis] * offset[0] + pose[1, axis] * offset[1]) + pose[2, axis] * offset[2] for axis in range(3)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        column = grid.focal[0] * right / ahead + grid.centre[0]
        row = grid.focal[1] * down / ahead + grid.centre[1]
    height, width = grid.image
    return np.asarray(
        (ahead > 0) & (abs(column - (width - 1) / 2) <= width / 2) & (abs(row - (height - 1) / 2) <= height / 2)
    )


def hide_labels(raw: NDArray[np.uint8], share: float, random: np.random.Generator) -> NDArray[np.uint8]:
    """The labels of a share of the blocks; all other voxels are unknown."""
    labelled = random.random(tuple(size // FACTOR for size in raw.shape)) < share
    for axis in range(3):
        labelled = labelled.repeat(FACTOR, axis=axis)
    return np.where(labelled, raw, np.uint8(UNKNOWN))


def patches(grid: Grid, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """A mask of pixels without a depth, in square patches of a fifteenth of the height."""
    height, width = grid.image
    edge = max(1, height // 15)
    missing = random.random((-(-height // edge), -(-width // edge))) < share
    return missing.repeat(edge, axis=0).repeat(edge, axis=1)[:height, :width]


def paint(classes: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A colour picture of the classes with noise, (height, width, 3)."""
    palette = np.array([COLOURS[merged] for merged in MERGED], np.float32)
    noise = NOISE * random.standard_normal((*classes.shape, 3), dtype=np.float32)
    return np.clip(np.rint(palette[classes] + noise), 0, 255).astype(np.uint8)


def rooms(count: int, seed: int = 0) -> Sequence[Scene]:
    """The given number of scenes, for pictures and tests."""
    return [draw_scene(np.random.default_rng([seed, number])) for number in range(count)]
