"""Shared by the scripts in this folder: the location of the files, and the writer of a folder with own data."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.own.check import check_folder
from xmodal.data.prepare import write_npy
from xmodal.files import write_json


def stop(sentence: str) -> None:
    print(sentence, file=sys.stderr)
    raise SystemExit(2)


def arguments(name: str) -> tuple[Path, Path]:
    """The folder of the raw arrays (from XMODAL_DATA) and the one to write (from the command line)."""
    if len(sys.argv) != 2:
        stop(f"One argument was expected, the folder to write: python benchmarks/real/{name}.py OUT")
    root = os.environ.get("XMODAL_DATA", "")
    if not (Path(root) / name).is_dir() or not root:
        stop(f"XMODAL_DATA is '{root}': set it to the folder that holds {name}/, as its read-me file describes.")
    return Path(root) / name, Path(sys.argv[1])


def write_folder(
    out: Path,
    modalities: Mapping[str, np.ndarray[Any, Any]],
    labels: np.ndarray[Any, Any],
    splits: Mapping[str, np.ndarray[Any, Any]],
    about: Mapping[str, Any],
    groups: np.ndarray[Any, Any] | None = None,
) -> None:
    """Write the folder, check it, and print its contents; without splits they are drawn when it is opened."""
    out.mkdir(parents=True, exist_ok=True)
    for name, array in modalities.items():
        write_npy(out / f"{name}.npy", array)
    write_npy(out / "labels.npy", labels.astype(np.int64))
    for split, rows in splits.items():
        write_npy(out / f"{split}_idx.npy", rows.astype(np.int64))
    if groups is not None:
        write_npy(out / "groups.npy", groups.astype(np.int64))
    write_json(out / "data.json", {"modalities": list(modalities), "task": "multiclass", **about})
    report = check_folder(out)
    for sentence in (*report.errors, *report.warnings):
        print(sentence)
    if report.errors:
        raise SystemExit(1)
    shapes = ", ".join(f"{name} {array.shape[1:]}" for name, array in modalities.items())
    print(f"{out}: {len(labels)} samples, {shapes}. Next:")


def next_commands(out: Path, *pairs: tuple[str, str]) -> None:
    print(f"  xmodal data check {out}")
    for teacher, student in pairs:
        print(f"  xmodal compare {out} --teacher {teacher} --student {student} --methods supervised,kd --seeds 5")
