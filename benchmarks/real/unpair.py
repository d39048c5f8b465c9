"""An unpaired copy of a folder with own data: each modality keeps its own share of training rows, in its own order.

python benchmarks/real/unpair.py IN OUT pix=1 fou=0.2

Each modality gets its own labels and splits; rows that are left out of training are in no split. Validation and test
rows stay. The order of the rows is drawn for each modality, so that the files contain no information on the pairs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import stop

from xmodal.data.own.check import check_folder
from xmodal.data.prepare import write_npy
from xmodal.files import write_json


def main() -> None:
    if len(sys.argv) < 5 or not all("=" in word for word in sys.argv[3:]):
        stop("IN, OUT and two or more MODALITY=SHARE were expected: python benchmarks/real/unpair.py IN OUT a=1 b=0.2")
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True)
    labels = np.load(source / "labels.npy", allow_pickle=False)
    rows = {split: np.load(source / f"{split}_idx.npy", allow_pickle=False) for split in ("train", "valid", "test")}
    for number, word in enumerate(sys.argv[3:]):
        name, _, share = word.partition("=")
        random = np.random.default_rng(number)
        order = random.permutation(len(labels))  # row i of the copy is row order[i] of the source
        place = np.argsort(order)
        kept = [part[: max(2, round(float(share) * len(part)))] for part in _by_class(rows["train"], labels, random)]
        write_npy(out / f"{name}.npy", np.load(source / f"{name}.npy", allow_pickle=False)[order])
        write_npy(out / f"{name}_labels.npy", labels[order])
        for split, part in {**rows, "train": np.concatenate(kept)}.items():
            write_npy(out / f"{name}_{split}_idx.npy", np.sort(place[part]))
    write_json(out / "data.json", {"modalities": [word.partition("=")[0] for word in sys.argv[3:]], "paired": False})
    report = check_folder(out)
    print("\n".join([*report.errors, *report.warnings, f"{out}: unpaired, {', '.join(sys.argv[3:])}"]))


def _by_class(rows: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    return [random.permutation(rows[labels[rows] == value]) for value in np.unique(labels)]


if __name__ == "__main__":
    main()
