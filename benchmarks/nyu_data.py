"""Time of preparing a full-size frame of NYU Depth V2, relative to other code (`benchmarks/plain/nyu.py`).

One frame of a synthetic room, 240x144x240 voxels and 480x640 pixels, on one thread: CPU times, medians, in turns.

- Fair peers: `np.repeat` for the runs of labels, counts of the reshaped volume for the labels of blocks, broadcasting
  for the voxels of pixels, SciPy's Euclidean distance transform for the TSDF.
- Published way: loops over runs, blocks and pixels, run once.

Before a time is printed all must give identical arrays.

    python benchmarks/nyu_data.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from plain import nyu as plain
from plain.timing import Row, show, turns

from xmodal.data.nyu.frames import FrameFile, encode_frame, frame_of
from xmodal.data.nyu.raw import MERGED, decode_room, read_depth, read_room
from xmodal.data.nyu.synthetic import make
from xmodal.data.nyu.tsdf import flipped, occupied_voxels, squared_distances, tsdf
from xmodal.data.nyu.voxels import PUBLISHED, UNKNOWN, coarse_labels, coarse_tsdf, positions

REPEATS = 9
T = TypeVar("T")


def timed(function: Callable[[], T], repeats: int = 1) -> tuple[float, T]:
    """Median CPU seconds, and the result."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        result = function()
        times.append(time.process_time() - began)
    return statistics.median(times), result


def compare(
    name: str, ours: Callable[[], np.ndarray], fair: Callable[[], np.ndarray], loop: Callable[[], np.ndarray]
) -> Row:
    """The times, if all three give the same array."""
    published, expected = timed(loop)
    assert np.array_equal(ours(), expected) and np.array_equal(fair(), expected), name
    seconds = turns({"ours": ours, "peer": fair}, REPEATS)
    return Row(name, seconds["ours"], seconds["peer"], published)


def main() -> None:
    """All steps of one frame."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seconds, _ = timed(lambda: make(root, size="full", train=2, test=1))
        frame = root / "depthbin" / "NYUtest" / "NYU0003_0000"
        files = (frame.with_suffix(".png"), frame.with_suffix(".bin"), frame.with_name("NYU0003_rgb.png"))
        content, depth, room = files[1].read_bytes(), read_depth(files[0]), read_room(files[1])
        merged = {**dict(enumerate(MERGED)), UNKNOWN: UNKNOWN}
        pose, origin, labels = room.pose, room.origin, room.labels
        short = depth.astype(np.float32)
        rows = [
            compare(
                ".bin to 12 classes",
                lambda: decode_room(content).labels,
                lambda: plain.decode(content, merged, PUBLISHED),
                lambda: plain.looped_decode(content, merged, PUBLISHED),
            ),
            compare(
                "labels of blocks",
                lambda: coarse_labels(labels),
                lambda: plain.coarse_labels(labels),
                lambda: plain.looped_coarse_labels(labels),
            ),
            compare(
                "positions",
                lambda: positions(depth, pose, origin),
                lambda: plain.positions(depth, pose, origin, PUBLISHED),
                lambda: plain.looped_positions(depth, pose, origin, PUBLISHED),
            ),
        ]
        volume = flipped(tsdf(short, pose, origin))
        assert np.array_equal(volume, plain.flipped_tsdf(short, pose, origin, PUBLISHED))
        occupied = occupied_voxels(short, pose, origin)
        ways = {
            "ours": lambda: flipped(tsdf(short, pose, origin)),
            "peer": lambda: plain.flipped_tsdf(short, pose, origin, PUBLISHED),
            "our distances": lambda: squared_distances(occupied, PUBLISHED.radius),
            "its distances": lambda: plain.distance_transform_edt(~occupied),
        }
        times = turns(ways, 3)
        rows.append(Row("flipped TSDF", times["ours"], times["peer"]))
        rows.append(Row("… its distances alone", times["our distances"], times["its distances"]))
        show(rows, "ms", published="loops")
        print(f"\nsynthetic frame    {1e3 * seconds / 3:8.0f} ms a frame")
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


if __name__ == "__main__":
    main()
