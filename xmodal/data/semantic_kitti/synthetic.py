"""Drives in the form of SemanticKITTI that nobody drove: streets of boxes, seen by a ray-caster's LiDAR and camera.

A scene stands in the coordinates of the scanner, x forward, y to the left, z up, the ground at z = -1.73: a road with
sidewalks and terrain beyond, rows of buildings, cars on the road, persons and poles on the sidewalk, vegetation. Rays
of the scanner and of the camera's pixels meet the nearest box (by its slabs) or the ground.

What makes it a task for two: road, sidewalk and terrain lie in one plane and reflect almost alike, so the scanner can
hardly tell them apart, and in the picture they have different colours. Training sequences keep few of their labels, and
a teacher that sees every pixel can tell the student what the other points are. Test sequences keep all.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xmodal.data.prepare import in_processes
from xmodal.data.semantic_kitti.files import CALIBRATION, CLOUDS, IMAGES, LABELS, parse_sequences
from xmodal.errors import InputError, did_you_mean
from xmodal.files import write_text, written_whole

GROUND = -1.73
FAR = 60.0
ELEVATIONS = (2.0, -24.8)  # degrees, of the first and the last beam
LABELLED = 8  # from this sequence on, all labels are kept
ROAD, SIDEWALK, TERRAIN, BUILDING, CAR, PERSON, POLE, VEGETATION = 40, 48, 72, 50, 10, 30, 80, 70
REMISSION = {
    ROAD: 0.30,
    SIDEWALK: 0.33,
    TERRAIN: 0.36,
    VEGETATION: 0.35,
    BUILDING: 0.45,
    PERSON: 0.5,
    CAR: 0.55,
    POLE: 0.6,
}
PALETTE = {
    ROAD: (90, 90, 95),
    SIDEWALK: (175, 165, 155),
    TERRAIN: (110, 140, 60),
    BUILDING: (150, 75, 60),
    CAR: (40, 60, 170),
    PERSON: (220, 170, 30),
    POLE: (230, 230, 235),
    VEGETATION: (30, 95, 40),
}
SKY = (140, 190, 235)
COUNTED = (CAR, PERSON)  # whose instances are numbered
TURNS = (0.002, -0.003, 0.0015)  # of the camera against the scanner, radians
SHIFT = (-0.004, -0.076, -0.27)  # likewise metres


@dataclass(frozen=True)
class Scanner:
    """What a made frame is like.

    Attributes:
        width: of the picture.
        height: likewise.
        beams: of the scanner, one above the other.
        turns: directions in which each beam is fired.
        keep: share of the labels that stay in training sequences.
        seed: of everything.
    """

    width: int
    height: int
    beams: int
    turns: int
    keep: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """Boxes on the ground.

    Attributes:
        low: smallest corner of each box (n, 3).
        high: largest corner (n, 3).
        kinds: class of each box (n,).
        road: y at which the road's right and left edges lie.
        walks: y of the outer edges of the sidewalks, right and left.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    kinds: NDArray[np.int64]
    road: tuple[float, float]
    walks: tuple[float, float]


def make(
    root: str | Path,
    *,
    format: str = "raw",
    seed: int = 0,
    sequences: str = "0-3,8",
    frames: int = 20,
    width: int = 320,
    height: int = 96,
    beams: int = 64,
    turns: int = 512,
    keep: float = 0.02,
    workers: int = 0,
) -> Path:
    """Write drives as in SemanticKITTI.

    Args:
        root: a folder that is empty or does not exist.
        format: ``raw``, the form in which the data set is published; there is no other.
        seed: of everything.
        sequences: numbers of the drives; from 08 on all labels are kept.
        frames: of each drive.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        beams: of the scanner, one above the other.
        turns: directions in which each beam is fired.
        keep: share of the labels that stay in sequences before 08; the others become unlabeled.
        workers: processes; 0: this one.
    """
    root, numbers = Path(root), parse_sequences(sequences, "sequences")
    if format != "raw":
        raise InputError(f"format is '{format}'. {did_you_mean(format, ('raw',))}")
    _refuse(root, numbers, frames=frames, width=width, height=height, beams=beams, turns=turns, keep=keep)
    scanner = Scanner(width, height, beams, turns, keep, seed)
    for number in numbers:
        write_text(root / "sequences" / f"{number:02d}" / CALIBRATION, calibration_text(width, height))
    jobs = [(root, number, frame, scanner) for number in numbers for frame in range(frames)]
    for _ in in_processes(write_frame, jobs, workers):
        pass
    return root


def _refuse(root: Path, numbers: Sequence[int], *, keep: float, **counts: int) -> None:
    least = {"frames": 1, "width": 16, "height": 16, "beams": 2, "turns": 4}
    problems = [
        f"{name} is {counts[name]}: at least {bound} was expected."
        for name, bound in least.items()
        if counts[name] < bound
    ]
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        problems.append(f"{root} is there already. Name a folder that is empty or does not exist.")
    if not numbers or max(numbers) > 21:
        problems.append("sequences were expected to be numbers from 0 to 21, as in 0-3,8.")
    if not 0 <= keep <= 1:
        problems.append(f"keep is {keep:g}: a share from 0 to 1 was expected.")
    if problems:
        raise InputError(problems)


def write_frame(job: tuple[Path, int, int, Scanner]) -> None:
    """Cloud, labels and picture of one frame."""
    from PIL import Image

    root, sequence, number, scanner = job
    random = np.random.default_rng([scanner.seed, sequence, number])
    scene = draw_scene(random)
    cloud, words = scan(scene, scanner, random)
    if sequence < LABELLED:
        words = np.where(random.random(len(words)) < scanner.keep, words, 0).astype(np.uint32)
    picture = io.BytesIO()
    Image.fromarray(photograph(scene, scanner, random)).save(picture, "PNG")
    folder, name = root / "sequences" / f"{sequence:02d}", f"{number:06d}"
    for path, content in (
        (folder / CLOUDS / f"{name}.bin", cloud.astype("<f4").tobytes()),
        (folder / LABELS / f"{name}.label", words.astype("<u4").tobytes()),
        (folder / IMAGES / f"{name}.png", picture.getvalue()),
    ):
        with written_whole(path) as beside:
            beside.write_bytes(content)


# ---- the scene


def draw_scene(random: np.random.Generator) -> Scene:
    """A street; where it lies beside the scanner is drawn as well, so that no place in the picture tells the class."""
    middle, half = random.uniform(-3, 3), random.uniform(2.5, 4.5)
    road = middle - half, middle + half
    walks = road[0] - random.uniform(1.5, 3), road[1] + random.uniform(1.5, 3)
    boxes: list[tuple[int, float, float, float, float, float]] = []  # class, x, y, length, width, height
    for side in (-1, 1):
        edge = walks[0] if side < 0 else walks[1]
        x = random.uniform(2, 8) - FAR / 2
        while x < FAR:
            length, depth = random.uniform(6, 14), random.uniform(5, 9)
            y = edge + side * (random.uniform(1, 4) + depth / 2)
            boxes.append((BUILDING, x + length / 2, y, length, depth, random.uniform(4, 9)))
            x += length + random.uniform(2, 8)
        for _ in range(random.integers(1, 4)):
            x, y, length = random.uniform(5, 35), edge + side * random.uniform(0.8, 1.5), random.uniform(1.2, 3)
            boxes.append((VEGETATION, x, y, length, 1.2, random.uniform(1, 3)))
    for _ in range(random.integers(2, 6)):
        boxes.append((CAR, random.uniform(6, 35), random.uniform(road[0] + 1, road[1] - 1), 4.0, 1.8, 1.5))
    for kind in (PERSON, POLE):
        for _ in range(random.integers(2, 6)):
            side = int(random.integers(0, 2))
            y = random.uniform(min(road[side], walks[side]), max(road[side], walks[side]))
            thick, tall = (0.6, 1.75) if kind == PERSON else (0.25, 4.0)
            boxes.append((kind, random.uniform(4, 25), y, thick, thick, tall))
    kinds = np.array([box[0] for box in boxes])
    centres, sides = np.array([box[1:3] for box in boxes]), np.array([box[3:] for box in boxes])
    low = np.column_stack([centres - sides[:, :2] / 2, np.full(len(boxes), GROUND)])
    high = np.column_stack([centres + sides[:, :2] / 2, GROUND + sides[:, 2]])
    # nothing stands where the scanner is
    clear = (low[:, :2] > 0.5).any(axis=1) | (high[:, :2] < -0.5).any(axis=1)
    return Scene(low[clear], high[clear], kinds[clear], road, walks)


def cast(
    scene: Scene, origin: NDArray[np.float64], rays: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """What rays meet first.

    Args:
        scene: boxes and ground.
        origin: where all rays begin (3,).
        rays: directions (n, 3).

    Returns:
        How many times its length a ray goes until it meets something (n,), inf for the sky; the class (n,), 0 for the
        sky; and the number of the box (n,), -1 for ground and sky.
    """
    with np.errstate(divide="ignore"):
        inverse = 1.0 / rays
    with np.errstate(invalid="ignore"):
        nearest = np.where(rays[:, 2] < 0, (GROUND - origin[2]) * inverse[:, 2], np.inf)
    box = np.full(len(rays), -1)
    heading = np.arctan2(rays[:, 1], rays[:, 0])
    order = np.argsort(heading, kind="stable")
    turned = heading[order]
    for number, (low, high) in enumerate(zip(scene.low, scene.high, strict=True)):
        for mine in _towards(order, turned, low - origin, high - origin):
            part = inverse[mine]
            near, far = (low - origin) * part, (high - origin) * part
            enter = np.minimum(near, far).max(axis=1)
            leave = np.maximum(near, far).min(axis=1)
            hit = (enter <= leave) & (enter > 0) & (enter < nearest[mine])
            nearest[mine[hit]], box[mine[hit]] = enter[hit], number
    kinds = np.zeros(len(rays), np.int64)
    kinds[box >= 0] = scene.kinds[box[box >= 0]]
    ground = (box < 0) & np.isfinite(nearest)
    y = origin[1] + nearest[ground] * rays[ground, 1]
    on_road = (y > scene.road[0]) & (y < scene.road[1])
    on_walk = (y > scene.walks[0]) & (y < scene.walks[1])
    kinds[ground] = np.where(on_road, ROAD, np.where(on_walk, SIDEWALK, TERRAIN))
    return nearest, kinds, box


def _towards(
    order: NDArray[np.int64], turned: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> list[NDArray[np.int64]]:
    """Rays that may meet a box, by their headings; the others are not looked at."""
    corners = np.array([(x, y) for x in (low[0], high[0]) for y in (low[1], high[1])])
    if low[0] <= 0 <= high[0] and low[1] <= 0 <= high[1]:
        return [order]
    headings = np.arctan2(corners[:, 1], corners[:, 0])
    first, last = headings.min(), headings.max()
    if last - first <= np.pi:
        spans = [(first, last)]
    else:  # behind, where headings jump
        spans = [(headings[headings > 0].min(), np.pi), (-np.pi, headings[headings <= 0].max())]
    slack = 1e-9
    ends = [np.searchsorted(turned, (start - slack, stop + slack)) for start, stop in spans]
    return [order[start:stop] for start, stop in ends]


def scan(scene: Scene, scanner: Scanner, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Points (n, 4) of one turn of the scanner, and their words (n,), instances in the high bits."""
    up = np.deg2rad(np.linspace(*ELEVATIONS, scanner.beams))[:, None]
    around = np.linspace(np.pi, -np.pi, scanner.turns, endpoint=False)[None]
    rays = np.stack(
        [np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up) * np.ones_like(around)], axis=2
    ).reshape(-1, 3)
    distance, kinds, box = cast(scene, np.zeros(3), rays)
    seen = distance < FAR
    count = int(seen.sum())
    measured = distance[seen] + random.normal(0, 0.02, count)
    brightness = np.array([REMISSION[kind] for kind in sorted(REMISSION)])
    means = brightness[np.searchsorted(sorted(REMISSION), kinds[seen])]
    remission = np.clip(means + random.normal(0, 0.08, count), 0, 1)
    cloud = np.column_stack([rays[seen] * measured[:, None], remission]).astype(np.float32)
    instance = np.where(np.isin(kinds[seen], COUNTED), box[seen] + 1, 0)
    return cloud, (kinds[seen] + (instance << 16)).astype(np.uint32)


# ---- the camera


def calibration(width: int, height: int) -> dict[str, NDArray[np.float64]]:
    """P0 to P3 and Tr (3, 4) of a camera whose pictures have this size."""
    f = 0.58 * width
    matrix = np.array([[f, 0, width / 2], [0, f, 0.47 * height], [0, 0, 1]])
    shifts = {
        "P0": (0.0, 0.0, 0.0),
        "P1": (-0.54 * f, 0.0, 0.0),
        "P2": (0.06 * f, 0.2, 0.003),
        "P3": (-0.48 * f, 2.0, 0.003),
    }
    axes = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # camera: x to the right, y down, z forward
    a, b, c = TURNS
    turn = np.eye(3) + np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
    found = {key: np.column_stack([matrix, shift]) for key, shift in shifts.items()}
    return found | {"Tr": np.column_stack([turn @ axes, SHIFT])}


def calibration_text(width: int, height: int) -> str:
    """The calib.txt of this camera."""
    return "".join(
        f"{key}: {' '.join(f'{number:.12e}' for number in values.reshape(-1))}\n"
        for key, values in calibration(width, height).items()
    )


def photograph(scene: Scene, scanner: Scanner, random: np.random.Generator) -> NDArray[np.uint8]:
    """The camera's picture (height, width, 3)."""
    known = calibration(scanner.width, scanner.height)
    matrix = known["P2"] @ np.vstack([known["Tr"], [0, 0, 0, 1]])
    inverse = np.linalg.inv(matrix[:, :3])
    origin = -inverse @ matrix[:, 3]
    v, u = np.indices((scanner.height, scanner.width)).reshape(2, -1) + 0.5
    rays = np.stack([u, v, np.ones_like(u)], axis=1) @ inverse.T
    _, kinds, box = cast(scene, origin, rays)
    known_kinds = sorted({**PALETTE, 0: SKY})
    table = np.array([PALETTE.get(kind, SKY) for kind in known_kinds], np.float64)
    lights = random.uniform(0.8, 1.2, len(scene.kinds) + 1)  # of each box and, last, of the ground
    lights[-1] = 1.0
    colours = table[np.searchsorted(known_kinds, kinds)] * lights[box][:, None]
    noisy = colours + random.normal(0, 12, colours.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8).reshape(scanner.height, scanner.width, 3)
