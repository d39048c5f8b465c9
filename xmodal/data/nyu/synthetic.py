"""Rooms in the files of NYU Depth V2 that nobody lived in: boxes between walls, seen by one depth camera.

A room has a floor, a ceiling, walls at both sides and at the back, a window flush in the back wall, and three to six of
seven kinds of things on the floor. Depth is exact to the millimetre, colours are those of the classes with noise. The
depth knows nothing of the window, and tells a bed from a sofa by its shape alone; colours tell both at once. So a
network that sees colours has something to teach to one that sees depth.

Voxels are labelled by their centres: walls are one voxel thick or a little more, what is outside of the room is
unknown, what no pixel could show is empty. In training frames all but a share of the blocks of 4x4x4 voxels are
unknown, as if few people had labelled them. The frames that choose an epoch, and those of the test, are complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xmodal.data.nyu.files import FACTS, RAW_FOLDER, VALID_SHARE, kept_back, prepare
from xmodal.data.nyu.raw import COLOURS, MERGED, encode_room, png_of, stored_depth
from xmodal.data.nyu.voxels import FACTOR, PUBLISHED, TINY, UNKNOWN, Floats, Grid
from xmodal.data.prepare import in_processes
from xmodal.errors import InputError, did_you_mean
from xmodal.files import write_json, written_whole

CEILING, FLOOR, WALL, WINDOW = 1, 2, 3, 4  # raw classes
THINGS = {  # raw class → width, depth and height in metres
    6: (0.5, 0.5, 0.9),  # chair
    7: (1.4, 1.9, 0.55),  # bed
    8: (1.7, 0.8, 0.75),  # sofa
    9: (1.1, 0.7, 0.75),  # table
    33: (1.0, 0.15, 0.6),  # tvs
    11: (0.9, 0.4, 1.8),  # bookshelf
    22: (0.4, 0.4, 0.35),  # pillow
}
HANGING = 33  # stands on no floor, but hangs at the back wall
NEAREST = 1.3  # metres before the camera where things begin
NOISE = 10.0  # deviation of colours
SIZES = {"tiny": TINY, "full": PUBLISHED}


@dataclass(frozen=True)
class Scene:
    """What is where, in metres of the world.

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
    """Write rooms in the files of NYU Depth V2.

    Args:
        root: a folder that is empty or does not exist.
        format: ``raw``, pictures and .bin files; ``prepared``: the arrays that prepare makes of them as well.
        seed: of everything.
        size: tiny, 60x36x60 voxels and 120x160 pixels; full, 240x144x240 and 480x640 as in the published files.
        train: training frames, 2 or more; the last tenth of them is complete, for choosing an epoch.
        test: test frames.
        labelled: share of the blocks that have a label in the other training frames.
        holes: share of pixels without a depth, in patches; not in the frames of NYUCAD.
        cad: also NYUCADtrain and NYUCADtest, the same rooms with all depths.
        workers: processes; 0: this one.
    """
    root = Path(root)
    _refuse(root, format, size, train=train, test=test, labelled=labelled, holes=holes)
    grid = SIZES[size]
    kept = kept_back(train, VALID_SHARE)
    shares = [labelled] * (train - kept) + [1.0] * (kept + test)
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
    for what, value, known in (("format", format, ("raw", "prepared")), ("size", size, tuple(SIZES))):
        if value not in known:
            problems.append(f"There is no {what} '{value}'. {did_you_mean(value, known)}")
    for what, count, least in (("train", train, 2), ("test", test, 1)):
        if not least <= count <= 9000:
            problems.append(f"{what} is {count}: {least} to 9000 frames were expected.")
    if not 0 < labelled <= 1 or not 0 <= holes < 1:
        problems.append(f"labelled is {labelled} and holes is {holes}: shares above 0 to 1, and 0 to below 1.")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        problems.append(f"{root} is there already: an empty or new folder was expected. Choose another one.")
    if problems:
        raise InputError(problems)


def _write_frame(job: tuple[Path, Grid, int, int, str, float, float, bool]) -> None:
    """All raw files of one frame."""
    root, grid, seed, number, split, share, holes, cad = job
    random = np.random.default_rng([seed, number])
    scene = draw_scene(random)
    depth, seen = look(scene, grid)
    raw = label(scene, grid)
    if share < 1:
        raw = forget(raw, share, random)
    pixels = paint(seen, random)
    pierced = np.where(patches(grid, holes, random), 0, depth)
    frame = f"NYU{number + 1:04d}_"
    room = encode_room(origin_of(scene.pose, grid), scene.pose, raw)
    for kind, told in (("NYU", pierced), *([("NYUCAD", depth)] if cad else [])):
        folder = root / RAW_FOLDER / f"{kind}{split}"
        for name, content in (
            (f"{frame}0000.png", png_of(stored_depth(told.astype(np.uint16)))),
            (f"{frame}0000.bin", room),
            (f"{frame}rgb.png", png_of(pixels)),
        ):
            with written_whole(folder / name) as beside:
                beside.write_bytes(content)


def draw_scene(random: np.random.Generator) -> Scene:
    """A room, its things and the place of the camera."""
    sides = (-random.uniform(1.5, 2.2), random.uniform(1.5, 2.2))
    back, ceiling = random.uniform(3.2, 4.3), random.uniform(2.4, 2.7)
    kinds = random.permutation(list(THINGS))[: random.integers(3, 7)].tolist()
    things = []
    for kind in kinds:
        width, deep, high = np.array(THINGS[kind]) * random.uniform(0.85, 1.15)
        x = random.uniform(sides[0], sides[1] - width)
        y = random.uniform(min(NEAREST, back - deep), back - deep)
        if kind == HANGING:
            y = back - deep
        z = random.uniform(0.6, 1.0) if kind == HANGING else 0.0
        low = np.array([x, y, z])
        things.append((kind, low, low + (width, deep, high)))
    wide, tall = random.uniform(0.9, 1.5), random.uniform(0.8, 1.2)
    left, bottom = random.uniform(sides[0] + 0.2, sides[1] - 0.2 - wide), random.uniform(0.8, 1.1)
    turned, tilted = np.radians(random.uniform(-10, 10)), np.radians(random.uniform(6, 15))
    pose = pose_of(random.uniform(1.1, 1.5), turned, tilted)
    return Scene(sides, back, ceiling, (left, left + wide, bottom, bottom + tall), things, pose)


def pose_of(height: float, turned: float, tilted: float) -> Floats:
    """Camera to world: at (0, 0, height), turned to the left around the vertical and tilted down, in radians.

    Example:
        >>> pose_of(1.5, 0.0, 0.0).tolist()  # what is before the camera is along y, what is below it against z
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 1.5], [0.0, 0.0, 0.0, 1.0]]
    """
    cos, sin = np.cos(turned), np.sin(turned)
    right = np.array([cos, sin, 0.0])
    ahead = np.array([-sin * np.cos(tilted), cos * np.cos(tilted), -np.sin(tilted)])
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, np.cross(ahead, right), ahead
    pose[2, 3] = height
    return pose.astype(np.float32) + np.float32(0)  # no -0.0


def origin_of(pose: Floats, grid: Grid) -> Floats:
    """Corner of a volume in the world: around what lies 1 m and half of its depth before the camera, floor included."""
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
    rays = [row[0] * across + row[1] * down[:, None] + row[2] for row in pose[:3]]  # their depth grows by 1
    start = pose[:3, 3]
    found, seen = np.full(grid.image, np.inf), np.zeros(grid.image, np.uint8)
    planes = (
        (0, scene.sides[0], WALL),
        (0, scene.sides[1], WALL),
        (1, scene.back, WALL),
        (2, 0.0, FLOOR),
        (2, scene.ceiling, CEILING),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis, place, kind in planes:
            far = (place - start[axis]) / rays[axis]
            nearer = (far > 0) & (far < found)
            found, seen = np.where(nearer, far, found), np.where(nearer, np.uint8(kind), seen)
        x, z = (start[axis] + found * rays[axis] for axis in (0, 2))
        on_back = np.isclose(start[1] + found * rays[1], scene.back)
        left, right, bottom, top = scene.window
        seen[on_back & (x > left) & (x < right) & (z > bottom) & (z < top)] = WINDOW
        for kind, low, high in scene.things:
            slabs = [sorted_pair((low[a] - start[a]) / rays[a], (high[a] - start[a]) / rays[a]) for a in range(3)]
            enter = np.maximum.reduce([slab[0] for slab in slabs])
            leave = np.minimum.reduce([slab[1] for slab in slabs])
            nearer = (enter > 0) & (enter <= leave) & (enter < found)
            found, seen = np.where(nearer, enter, found), np.where(nearer, np.uint8(kind), seen)
    return np.rint(1000 * found).astype(np.int64), seen


def sorted_pair(
    one: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two arrays as the smaller and the larger one."""
    return np.minimum(one, other), np.maximum(one, other)


def label(scene: Scene, grid: Grid) -> NDArray[np.uint8]:
    """Raw class of each voxel by its centre, (X, H, Y)."""
    origin, thick = origin_of(scene.pose, grid).astype(np.float64), grid.voxel
    x, z, y = (
        (origin[axis] + (np.arange(size) + 0.5) * thick).reshape(shape)
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
    for kind, low, high in reversed(scene.things):  # of two in one place the first is there
        inside = [(part > low[axis]) & (part < high[axis]) for part, axis in ((x, 0), (y, 1), (z, 2))]
        raw[inside[0] & inside[1] & inside[2]] = kind
    left, right, bottom, top = scene.window
    for outward, kind in surfaces:
        layer = (outward >= -thick / 2) & (outward < thick)
        raw[np.broadcast_to(layer, raw.shape)] = kind
    pane = (x > left) & (x < right) & (z > bottom) & (z < top)
    raw[pane & (y - scene.back >= -thick / 2) & (y - scene.back < thick)] = WINDOW
    shown = in_view(x, y, z, scene.pose.astype(np.float64), grid)
    raw[~shown] = 0
    for outward, _ in surfaces:
        raw[np.broadcast_to(outward >= thick, raw.shape)] = UNKNOWN
    return raw


def in_view(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    pose: NDArray[np.float64],
    grid: Grid,
) -> NDArray[np.bool_]:
    """Which points of the world a pixel could show; ``x``, ``y`` and ``z`` broadcast to a volume."""
    apart = (x - pose[0, 3], y - pose[1, 3], z - pose[2, 3])
    right, down, ahead = (
        (pose[0, axis] * apart[0] + pose[1, axis] * apart[1]) + pose[2, axis] * apart[2] for axis in range(3)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        column = grid.focal[0] * right / ahead + grid.centre[0]
        row = grid.focal[1] * down / ahead + grid.centre[1]
    height, width = grid.image
    return np.asarray(
        (ahead > 0) & (abs(column - (width - 1) / 2) <= width / 2) & (abs(row - (height - 1) / 2) <= height / 2)
    )


def forget(raw: NDArray[np.uint8], share: float, random: np.random.Generator) -> NDArray[np.uint8]:
    """The same room, with labels for a share of its blocks."""
    known = random.random(tuple(size // FACTOR for size in raw.shape)) < share
    for axis in range(3):
        known = known.repeat(FACTOR, axis=axis)
    return np.where(known, raw, np.uint8(UNKNOWN))


def patches(grid: Grid, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Pixels without a depth, in patches of a fifteenth of the height."""
    height, width = grid.image
    edge = max(1, height // 15)
    drawn = random.random((-(-height // edge), -(-width // edge))) < share
    return drawn.repeat(edge, axis=0).repeat(edge, axis=1)[:height, :width]


def paint(seen: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """The colour picture, (height, width, 3)."""
    palette = np.array([COLOURS[merged] for merged in MERGED], np.float32)
    noise = NOISE * random.standard_normal((*seen.shape, 3), dtype=np.float32)
    return np.clip(np.rint(palette[seen] + noise), 0, 255).astype(np.uint8)


def rooms(count: int, seed: int = 0) -> Sequence[Scene]:
    """So many scenes, for pictures and tests."""
    return [draw_scene(np.random.default_rng([seed, number])) for number in range(count)]
