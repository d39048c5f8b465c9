"""Time of preparing a full-size frame of NYU Depth V2, and of straightforward code (`benchmarks/plain/nyu.py`).

One frame of a synthetic room, 240x144x240 voxels and 480x640 pixels, on one thread: CPU times, medians of ours, one
complete pass of the straightforward versions. Before a time is printed both must give identical arrays. The flipped
TSDF is compared, voxel by voxel, with one from SciPy's Euclidean distance transform.

    python benchmarks/nyu_data.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from plain import nyu as plain

from xmodal.data.nyu.frames import FrameFile, encode_frame, frame_of
from xmodal.data.nyu.raw import MERGED, read_depth, read_room
from xmodal.data.nyu.synthetic import make
from xmodal.data.nyu.tsdf import flipped, occupied_voxels, squared_distances, tsdf
from xmodal.data.nyu.voxels import PUBLISHED, UNKNOWN, coarse_labels, coarse_tsdf, positions

REPEATS = 7
GOALS = {"run-length decode": 30, "label / 4": 10, "position": 100}
TSDF_GOAL = 3.0  # seconds
T = TypeVar("T")


def timed(function: Callable[[], T], repeats: int = 1) -> tuple[float, T]:
    """Median CPU seconds, and the result."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        result = function()
        times.append(time.process_time() - began)
    return statistics.median(times), result


def compare(name: str, ours: Callable[[], np.ndarray], slow: Callable[[], np.ndarray]) -> bool:
    """Print both times if both give the same array; return whether ours reaches its goal."""
    seconds, result = timed(ours, REPEATS)
    slow_seconds, expected = timed(slow)
    assert np.array_equal(result, expected), name
    ratio = slow_seconds / seconds
    fast_enough = ratio >= GOALS[name]
    print(
        f"{name:18} {1e3 * seconds:8.2f} ms, straightforward {1e3 * slow_seconds:8.1f} ms, {ratio:6.0f} times; "
        f"goal {GOALS[name]}{'' if fast_enough else ' MISSED'}"
    )
    return fast_enough


def main() -> int:
    """All steps of one frame."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seconds, _ = timed(lambda: make(root, size="full", train=2, test=1))
        print(f"synthetic frame    {1e3 * seconds / 3:8.0f} ms a frame")
        frame = root / "depthbin" / "NYUtest" / "NYU0003_0000"
        files = (frame.with_suffix(".png"), frame.with_suffix(".bin"), frame.with_name("NYU0003_rgb.png"))
        content, depth, room = files[1].read_bytes(), read_depth(files[0]), read_room(files[1])
        merged = {**dict(enumerate(MERGED)), UNKNOWN: UNKNOWN}
        pose, origin = room.pose, room.origin
        reached = [
            compare(
                "run-length decode",
                lambda: read_room(files[1]).labels,  # with reading the file
                lambda: plain.decode(content, merged, PUBLISHED),
            ),
            compare("label / 4", lambda: coarse_labels(room.labels), lambda: plain.coarse_labels(room.labels)),
            compare(
                "position",
                lambda: positions(depth, pose, origin),
                lambda: plain.positions(depth, pose, origin, PUBLISHED),
            ),
        ]
        short = depth.astype(np.float32)
        ours, volume = timed(lambda: flipped(tsdf(short, pose, origin)), REPEATS)
        slow_seconds, expected = timed(lambda: plain.flipped_tsdf(short, pose, origin, PUBLISHED))
        differing = int((volume != expected).sum())
        occupied = occupied_voxels(short, pose, origin)
        distances, _ = timed(lambda: squared_distances(occupied, PUBLISHED.radius), REPEATS)
        transform, _ = timed(lambda: plain.distance_transform_edt(~occupied))
        print(
            f"flipped TSDF       {ours:8.2f} s, with SciPy's distance transform {slow_seconds:.2f} s; {differing} of "
            f"{volume.size} voxels differ; goal {TSDF_GOAL:.0f} s"
        )
        print(f"  distances alone  {distances:8.2f} s, SciPy {transform:.2f} s")
        blocks, _ = timed(lambda: coarse_tsdf(volume), REPEATS)
        print(f"TSDF / 4           {1e3 * blocks:8.2f} ms")
        whole, arrays = timed(lambda: frame_of(*files, grid=PUBLISHED), 3)
        packing, packed = timed(lambda: encode_frame(arrays), 3)
        print(f"whole frame        {whole:8.2f} s, and {packing:.2f} s to compress to {len(packed) / 1e6:.2f} MB")
        (root / "frame.npz").write_bytes(packed)
        file = FrameFile(root / "frame.npz")
        needed, _ = timed(lambda: file.arrays(["depth", "rgb", "position", "target_lr"]), REPEATS)
        all_keys, _ = timed(lambda: file.arrays(list(arrays)), 3)
        print(f"read from the npz  {1e3 * needed:8.1f} ms the inputs of DDRNet, {1e3 * all_keys:.1f} ms all keys")
    return int(not all(reached) or ours > TSDF_GOAL or differing > 0)


if __name__ == "__main__":
    sys.exit(main())
