"""Files of SemanticKITTI, written byte by byte without the code of the package."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

# A camera at the origin of the scanner that looks along x: u = 4 - 8 y / x, v = 2 - 8 z / x, d = x.
P2 = [8, 0, 4, 0, 0, 8, 2, 0, 0, 0, 1, 0]
TR = [0, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0]


def words(*numbers):
    return " ".join(repr(float(number)) for number in np.ravel(numbers))


def calibration(p2=P2, tr=TR):
    other = words(np.eye(3, 4))
    return f"P0: {other}\nP1: {other}\nP2: {words(p2)}\nP3: {other}\nTr: {words(tr)}\n"


def write_frame(folder, name, points, labels, pixels):
    """Write a frame: points (x, y, z, remission), label words or None, and a picture (height, width, 3)."""
    for part in ("velodyne", "labels", "image_2"):
        if part != "labels" or labels is not None:
            (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "velodyne" / f"{name}.bin").write_bytes(b"".join(struct.pack("<4f", *point) for point in points))
    if labels is not None:
        (folder / "labels" / f"{name}.label").write_bytes(struct.pack(f"<{len(labels)}I", *labels))
    Image.fromarray(np.asarray(pixels, np.uint8)).save(folder / "image_2" / f"{name}.png")


# The pixels (u, v) are computed manually.
POINTS = [
    (8.0, 1.0, 0.0, 0.5),  # (3, 2): a car
    (4.0, -1.0, -0.25, 0.25),  # (6, 2.5): road
    (2.0, 1.0, 0.0, 0.75),  # (0, 2): on the border, which is outside
    (-8.0, 1.0, 0.0, 0.5),  # behind the camera
    (16.0, 2.0, 0.0, 0.1),  # (3, 2) again, twice as far: a building
    (8.0, 0.5, 1.5, 0.9),  # (3.5, 0.5): vegetation
]
WORDS = [10, (5 << 16) + 40, 72, 30, 50, 70]
HEIGHT, WIDTH = 4, 8


def pixels(seed=0, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3))


def write_sequence(root, number, *, frames=1, points=POINTS, labels=WORDS, height=HEIGHT, width=WIDTH, p2=P2, tr=TR):
    """Write a drive of frames with equal clouds and different pictures."""
    folder = root / "sequences" / f"{number:02d}"
    for frame in range(frames):
        write_frame(folder, f"{frame:06d}", points, labels, pixels(100 * number + frame, height, width))
    (folder / "calib.txt").write_text(calibration(p2, tr))
    return folder


def write_root(root, *, train=4, test=2, **facts):
    """Write sequences 00 and 08."""
    write_sequence(root, 0, frames=train, **facts)
    write_sequence(root, 8, frames=test, **facts)
    return root
