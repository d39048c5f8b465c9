"""Synthetic drives in the format of SemanticKITTI: streets of boxes, seen by a ray-cast LiDAR and camera.

A scene is in the coordinates of the scanner, x forward, y to the left, z up, the ground at z = -1.73: a road with
sidewalks and terrain beyond, rows of buildings, cars on the road, persons and poles on the sidewalk, vegetation. Rays
of the scanner and of the pixels of the camera are intersected with the boxes (slab method) and the ground.

Cross-modal distillation helps here by design. Road, sidewalk and terrain are in the same plane and have almost the same
remission, so that LiDAR can hardly distinguish them, while their colours are different. Training sequences keep only
few labels, and a camera teacher can predict the classes of the other points. Test sequences keep all labels.
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

# Height of the ground: KITTI's scanner is 1.73 m above the street.
GROUND = -1.73
# Range of the scanner in metres.
FAR = 60.0
# Elevation of the first and the last beam in degrees, those of KITTI's HDL-64E scanner.
ELEVATIONS = (2.0, -24.8)
# From this sequence on, all labels are kept: 08 is the validation sequence of the benchmark.
FIRST_LABELLED = 8
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
WITH_INSTANCES = (CAR, PERSON)
# Rotation (radians) and translation (metres) of the camera relative to the scanner, of the size that real ones have:
# without them Tr would only exchange axes. The camera is 0.27 m ahead, as on KITTI's car.
CAMERA_ANGLES = (0.002, -0.003, 0.0015)
CAMERA_SHIFT = (-0.004, -0.076, -0.27)


@dataclass(frozen=True)
class Scanner:
    """The parameters of synthetic frames.

    Attributes:
        width: width of the picture.
        height: height of the picture.
        beams: number of beams of the scanner.
        turns: number of directions of each beam.
        keep: share of the labels that are kept in training sequences.
        seed: seed of all random draws.
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
        high: largest corner of each box (n, 3).
        kinds: class of each box (n,).
        road: y of the right and left edge of the road.
        walks: y of the outer edges of the right and left sidewalk.
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
    """Write synthetic drives in the format of SemanticKITTI.

    Args:
        root: a folder that is empty or does not exist.
        format: ``raw``, the published format; there is no other.
        seed: seed of all random draws.
        sequences: numbers of the drives; from 08 on all labels are kept.
        frames: frames of each drive.
        width: width of the pictures, in pixels.
        height: height of the pictures, in pixels.
        beams: number of beams of the scanner.
        turns: number of directions of each beam.
        keep: share of the labels that are kept in sequences before 08; the others become unlabeled.
        workers: worker processes; 0: work in this process.
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
        problems.append(f"{root} already exists: an empty or new folder was expected. Choose another folder.")
    if not numbers or max(numbers) > 21:
        problems.append("sequences were expected to be numbers from 0 to 21, as in 0-3,8.")
    if not 0 <= keep <= 1:
        problems.append(f"keep is {keep:g}: a share from 0 to 1 was expected.")
    if problems:
        raise InputError(problems)


def write_frame(job: tuple[Path, int, int, Scanner]) -> None:
    """Write the cloud, the labels and the picture of a frame."""
    from PIL import Image

    root, sequence, number, scanner = job
    # Seeded by the frame, not by a shared generator: the files do not depend on the number of workers.
    random = np.random.default_rng([scanner.seed, sequence, number])
    scene = draw_scene(random)
    cloud, words = scan(scene, scanner, random)
    if sequence < FIRST_LABELLED:
        words = np.where(random.random(len(words)) < scanner.keep, words, 0).astype(np.uint32)
    picture = io.BytesIO()
    Image.fromarray(photograph(scene, scanner, random)).save(picture, "PNG")
    folder, name = root / "sequences" / f"{sequence:02d}", f"{number:06d}"
    for path, content in (
        (folder / CLOUDS / f"{name}.bin", cloud.astype("<f4").tobytes()),
        (folder / LABELS / f"{name}.label", words.astype("<u4").tobytes()),
        (folder / IMAGES / f"{name}.png", picture.getvalue()),
    ):
        with written_whole(path) as partial:
            partial.write_bytes(content)


# ---- the scene


def draw_scene(random: np.random.Generator) -> Scene:
    """A random street with its boxes."""
    # A random offset to the scanner: otherwise the position in the picture alone would tell road from sidewalk.
    middle, half = random.uniform(-3, 3), random.uniform(2.5, 4.5)
    road = middle - half, middle + half
    walks = road[0] - random.uniform(1.5, 3), road[1] + random.uniform(1.5, 3)
    # Class, x, y, length, width, height.
    boxes: list[tuple[int, float, float, float, float, float]] = []
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
            box_width, box_height = (0.6, 1.75) if kind == PERSON else (0.25, 4.0)
            boxes.append((kind, random.uniform(4, 25), y, box_width, box_width, box_height))
    kinds = np.array([box[0] for box in boxes])
    centres, sides = np.array([box[1:3] for box in boxes]), np.array([box[3:] for box in boxes])
    low = np.column_stack([centres - sides[:, :2] / 2, np.full(len(boxes), GROUND)])
    high = np.column_stack([centres + sides[:, :2] / 2, GROUND + sides[:, 2]])
    # A box around the scanner would hide everything else.
    clear = (low[:, :2] > 0.5).any(axis=1) | (high[:, :2] < -0.5).any(axis=1)
    return Scene(low[clear], high[clear], kinds[clear], road, walks)


def cast(
    scene: Scene, origin: NDArray[np.float64], rays: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """The first intersection of rays with boxes and ground.

    Args:
        scene: boxes and ground.
        origin: origin of all rays (3,).
        rays: directions (n, 3), of any length.

    Returns:
        The distance in lengths of the ray (n,), inf for the sky; the class (n,), 0 for the sky; and the index of the
        box (n,), -1 for ground and sky.
    """
    with np.errstate(divide="ignore"):
        inverse = 1.0 / rays
    with np.errstate(invalid="ignore"):
        nearest = np.where(rays[:, 2] < 0, (GROUND - origin[2]) * inverse[:, 2], np.inf)
    box = np.full(len(rays), -1)
    heading = np.arctan2(rays[:, 1], rays[:, 0])
    order = np.argsort(heading, kind="stable")
    sorted_headings = heading[order]
    for number, (low, high) in enumerate(zip(scene.low, scene.high, strict=True)):
        for candidates in _rays_towards(order, sorted_headings, low - origin, high - origin):
            candidate_inverse = inverse[candidates]
            near, far = (low - origin) * candidate_inverse, (high - origin) * candidate_inverse
            enter = np.minimum(near, far).max(axis=1)
            leave = np.maximum(near, far).min(axis=1)
            hit = (enter <= leave) & (enter > 0) & (enter < nearest[candidates])
            nearest[candidates[hit]], box[candidates[hit]] = enter[hit], number
    kinds = np.zeros(len(rays), np.int64)
    kinds[box >= 0] = scene.kinds[box[box >= 0]]
    ground = (box < 0) & np.isfinite(nearest)
    y = origin[1] + nearest[ground] * rays[ground, 1]
    on_road = (y > scene.road[0]) & (y < scene.road[1])
    on_walk = (y > scene.walks[0]) & (y < scene.walks[1])
    kinds[ground] = np.where(on_road, ROAD, np.where(on_walk, SIDEWALK, TERRAIN))
    return nearest, kinds, box


def _rays_towards(
    order: NDArray[np.int64], sorted_headings: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> list[NDArray[np.int64]]:
    """Rays that may hit a box, by their headings: a box spans only a few degrees, so most rays need no test."""
    corners = np.array([(x, y) for x in (low[0], high[0]) for y in (low[1], high[1])])
    if low[0] <= 0 <= high[0] and low[1] <= 0 <= high[1]:
        return [order]
    headings = np.arctan2(corners[:, 1], corners[:, 0])
    first, last = headings.min(), headings.max()
    if last - first <= np.pi:
        spans = [(first, last)]
    else:
        # The box is behind the origin, across the jump of headings from π to -π.
        spans = [(headings[headings > 0].min(), np.pi), (-np.pi, headings[headings <= 0].max())]
    tolerance = 1e-9
    ends = [np.searchsorted(sorted_headings, (start - tolerance, stop + tolerance)) for start, stop in spans]
    return [order[start:stop] for start, stop in ends]


def scan(scene: Scene, scanner: Scanner, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Points (n, 4) of a revolution of the scanner, and their label words (n,), with instances in the high bits."""
    up = np.deg2rad(np.linspace(*ELEVATIONS, scanner.beams))[:, None]
    around = np.linspace(np.pi, -np.pi, scanner.turns, endpoint=False)[None]
    rays = np.stack(
        [np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up) * np.ones_like(around)], axis=2
    ).reshape(-1, 3)
    distance, kinds, box = cast(scene, np.zeros(3), rays)
    hit = distance < FAR
    count = int(hit.sum())
    measured = distance[hit] + random.normal(0, 0.02, count)
    brightness = np.array([REMISSION[kind] for kind in sorted(REMISSION)])
    means = brightness[np.searchsorted(sorted(REMISSION), kinds[hit])]
    remission = np.clip(means + random.normal(0, 0.08, count), 0, 1)
    cloud = np.column_stack([rays[hit] * measured[:, None], remission]).astype(np.float32)
    instance = np.where(np.isin(kinds[hit], WITH_INSTANCES), box[hit] + 1, 0)
    return cloud, (kinds[hit] + (instance << 16)).astype(np.uint32)


# ---- the camera


def calibration(width: int, height: int) -> dict[str, NDArray[np.float64]]:
    """P0 to P3 and Tr (3, 4) of a camera with pictures of this size."""
    # Proportions of KITTI's colour camera: focal length 0.58 widths, principal point a little above the middle.
    f = 0.58 * width
    matrix = np.array([[f, 0, width / 2], [0, f, 0.47 * height], [0, 0, 1]])
    shifts = {
        "P0": (0.0, 0.0, 0.0),
        "P1": (-0.54 * f, 0.0, 0.0),
        "P2": (0.06 * f, 0.2, 0.003),
        "P3": (-0.48 * f, 2.0, 0.003),
    }
    # Axes of the camera: x to the right, y down, z forward.
    axes = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    a, b, c = CAMERA_ANGLES
    rotation = np.eye(3) + np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
    matrices = {key: np.column_stack([matrix, shift]) for key, shift in shifts.items()}
    return matrices | {"Tr": np.column_stack([rotation @ axes, CAMERA_SHIFT])}


def calibration_text(width: int, height: int) -> str:
    """The content of calib.txt for pictures of this size."""
    return "".join(
        f"{key}: {' '.join(f'{number:.12e}' for number in values.reshape(-1))}\n"
        for key, values in calibration(width, height).items()
    )


def photograph(scene: Scene, scanner: Scanner, random: np.random.Generator) -> NDArray[np.uint8]:
    """The camera picture, (height, width, 3)."""
    camera = calibration(scanner.width, scanner.height)
    matrix = camera["P2"] @ np.vstack([camera["Tr"], [0, 0, 0, 1]])
    inverse = np.linalg.inv(matrix[:, :3])
    origin = -inverse @ matrix[:, 3]
    v, u = np.indices((scanner.height, scanner.width)).reshape(2, -1) + 0.5
    rays = np.stack([u, v, np.ones_like(u)], axis=1) @ inverse.T
    _, kinds, box = cast(scene, origin, rays)
    class_numbers = sorted({**PALETTE, 0: SKY})
    table = np.array([PALETTE.get(kind, SKY) for kind in class_numbers], np.float64)
    # The brightness of each box, and of ground and sky, whose index -1 is the last entry.
    lights = random.uniform(0.8, 1.2, len(scene.kinds) + 1)
    lights[-1] = 1.0
    colours = table[np.searchsorted(class_numbers, kinds)] * lights[box][:, None]
    noisy = colours + random.normal(0, 12, colours.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8).reshape(scanner.height, scanner.width, 3)
