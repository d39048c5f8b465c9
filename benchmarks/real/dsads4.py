"""Daily and sports activities as a folder with own data: nine sequences (3, 125), split by subject.

XMODAL_DATA=… python benchmarks/real/dsads4.py OUT

Subjects 1 and 2 are for training, 3 for validation, 4 for testing: the test person is in no other split.
"""

from __future__ import annotations

import numpy as np
from common import arguments, next_commands, write_folder

PLACES, SENSORS = ("torso", "right_arm", "right_leg"), ("acc", "gyro", "mag")


def main() -> None:
    root, out = arguments("dsads4")
    raw = np.load(root / "dsads4.npz", allow_pickle=False)
    sequences = {
        f"{place}_{sensor}": raw[f"{place}_{sensor}"].transpose(0, 2, 1).astype(np.float32) * raw[f"scale_{sensor}"]
        for place in PLACES
        for sensor in SENSORS
    }
    splits = {split: raw[split] for split in ("train", "valid", "test")}
    write_folder(out, sequences, raw["label"], splits, {"name": "dsads4"}, groups=raw["subject"])
    next_commands(out, ("right_leg_acc", "right_arm_gyro"), ("torso_acc", "torso_gyro"))


if __name__ == "__main__":
    main()
