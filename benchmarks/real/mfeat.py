"""Multiple Features as a folder with own data: six feature vectors of the same handwritten digit.

XMODAL_DATA=… python benchmarks/real/mfeat.py OUT
"""

from __future__ import annotations

import numpy as np
from common import arguments, next_commands, write_folder

VIEWS = ("fac", "fou", "kar", "mor", "pix", "zer")


def main() -> None:
    root, out = arguments("mfeat")
    raw = np.load(root / "mfeat.npz", allow_pickle=False)
    splits = {split: raw[split] for split in ("train", "valid", "test")}
    views = {view: raw[view].astype(np.float32) for view in VIEWS}
    about = {"name": "mfeat", "class_names": [str(digit) for digit in range(10)]}
    write_folder(out, views, raw["label"], splits, about)
    next_commands(out, ("fac", "mor"), ("pix", "fou"))


if __name__ == "__main__":
    main()
