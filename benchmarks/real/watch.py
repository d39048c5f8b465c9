"""Shoulder exercises on a smartwatch as a folder with own data: accelerometer and gyroscope (3, 100), ten people.

XMODAL_DATA=… python benchmarks/real/watch.py OUT

Each recording (50 Hz) is cut into windows of two seconds without overlap. The folder names the person of each window
and has no splits: `--folder.split-by-group` draws them by person.
"""

from __future__ import annotations

import numpy as np
from common import arguments, write_folder

WINDOW = 100


def main() -> None:
    root, out = arguments("watch")
    raw = np.load(root / "watch.npz", allow_pickle=False)
    windows, labels, people = [], [], []
    for number, (first, last) in enumerate(zip(raw["starts"], raw["starts"][1:], strict=False)):
        count = (last - first) // WINDOW
        windows.append(raw["values"][first : first + count * WINDOW].reshape(count, WINDOW, 6).transpose(0, 2, 1))
        labels.append(np.full(count, raw["label"][number]))
        people.append(np.full(count, raw["subject"][number]))
    values = np.ascontiguousarray(np.concatenate(windows), dtype=np.float32)
    about = {"name": "watch", "class_names": [str(name) for name in raw["classes"]]}
    sensors = {"acc": values[:, :3], "gyro": values[:, 3:]}
    write_folder(out, sensors, np.concatenate(labels), {}, about, groups=np.concatenate(people))
    print(f"  xmodal compare {out} --folder.split-by-group --teacher acc --student gyro --labelled-groups 2 --seeds 8")


if __name__ == "__main__":
    main()
