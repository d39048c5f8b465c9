"""The files that DisCoM-KD leaves beside the data: one folder per modality, named as in the released code.

DIR/
├── OUR-DisCoM-KD_<modality>/
│   ├── WEIGHTS.pth        tensors by name: this modality's encoders, projection and head; read with weights_only=True
│   ├── model.json         what they belong to: encoder and its numbers, width, classes
│   ├── metrics.json       validation after each epoch, best epoch, test metrics, time, seed
│   └── predictions.npy    one line per test sample: row, true, predicted, then a probability per class
└── run.json               settings and scores of all of it

Of several splits or seeds the one is taken whose validation score is best, for each modality by itself. For values
`predictions.npy` holds the row, the true and the predicted values; for several labels the row, the true ones, the
probabilities.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xmodal.data import DATA
from xmodal.data.own.layout import PUBLISHED
from xmodal.errors import InputError
from xmodal.files import read_json, read_rows, write_json, written_whole
from xmodal.models.student_file import load_student, tensors_of

RUN = "run.json"
WEIGHTS = "WEIGHTS.pth"


def files_in(data: str, out: Path | None) -> Path | None:
    """Where the folders go: the run folder that was asked for, else the data's own; None for data without a folder."""
    if out is not None:
        return out
    return None if data in DATA else Path(data)


def refuse_existing(folder: Path, modalities: Sequence[str]) -> None:
    """Nothing is written over, and nothing is trained that can't be written."""
    there = [str(path) for name in modalities if (path := folder / f"{PUBLISHED}{name}").exists()]
    if there:
        raise InputError(
            f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} there already, and nothing is written over "
            "unasked. Add --overwrite, or write elsewhere with --out."
        )
    if folder.exists() and not os.access(folder, os.W_OK):
        raise InputError(
            f"{folder} can't be written to, and the students are left beside the data. Write elsewhere with --out, or "
            "not at all with --no-published-files."
        )


def write_published(folder: Path, run: Path, result: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Write the folders of all modalities; returns their paths.

    Args:
        folder: where they go.
        run: folder of the run.
        result: its result; rows of the method name their student.
        settings: of the run.
    """
    sign = 1.0 if result["direction"] == "max" else -1.0
    metric, written = result["metric"], []
    for name in result["student"]:
        rows = [row for row in result["rows"] if row["role"] == "method" and row["student"] == name]
        best = max(rows, key=lambda row: sign * row["valid"][metric])
        written.append(
            str(_write_modality(folder / f"{PUBLISHED}{name}", run / best["folder"], best, result, settings))
        )
    write_json(folder / RUN, {"run": str(run), "settings": settings, "rows": result["rows"], "folders": written})
    return written


def _write_modality(
    folder: Path, fit: Path, row: Mapping[str, Any], result: Mapping[str, Any], settings: Mapping[str, Any]
) -> Path:
    name = row["student"]
    student, description = load_student(fit / "students" / name)
    with written_whole(folder / WEIGHTS) as beside:
        torch.save(tensors_of(student.module), beside)
    write_json(folder / "model.json", {**description, "modalities": result["student"]})
    kept = read_json(fit / "result.json")
    history = [epoch["valid"][name] for epoch in read_rows(fit / "history.jsonl")]
    facts = {key: row[key] for key in ("seed", "best_epoch", "valid", "test", "parameters")}
    write_json(folder / "metrics.json", {**facts, "epochs": history, "seconds": kept["seconds"], "settings": settings})
    with np.load(fit / "predictions" / f"{name}.npz", allow_pickle=False) as found:
        table = lines(found["rows"], found["target"], found["outputs"], task=description["task"])
    with written_whole(folder / "predictions.npy") as beside:
        np.save(beside, table)
    return folder


def lines(rows: NDArray[Any], target: NDArray[Any], outputs: NDArray[Any], *, task: str) -> NDArray[np.float64]:
    """One line per sample: its row, what is true, what is predicted, and probabilities.

    Example:
        >>> lines(np.array([7]), np.array([1]), np.array([[0.0, 0.0]]), task="multiclass").tolist()
        [[7.0, 1.0, 0.0, 0.5, 0.5]]
    """
    raw = torch.from_numpy(outputs).double()
    truth = target.reshape(len(target), -1)
    if task == "regression":
        told = [raw.numpy()]
    elif task == "multilabel":
        told = [raw.sigmoid().numpy()]
    elif task == "binary":
        yes = raw.reshape(-1, 1).sigmoid()
        told = [(yes > 0.5).double().numpy(), torch.cat([1 - yes, yes], dim=1).numpy()]
    else:
        told = [raw.argmax(dim=1, keepdim=True).double().numpy(), raw.softmax(dim=1).numpy()]
    table: NDArray[np.float64] = np.hstack([rows.reshape(-1, 1), truth, *told]).astype(np.float64)
    return table
