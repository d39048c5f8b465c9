"""Files of the released code, read; and the files written next to the data: a folder per modality, named as there.

DIR/
├── OUR-DisCoM-KD_<modality>/
│   ├── WEIGHTS.pth        tensors by name: this modality's encoders, projection and head; read with weights_only=True
│   ├── model.json         description of the network: encoder and its numbers, width, classes
│   ├── metrics.json       validation after each epoch, best epoch, test metrics, time, seed
│   └── predictions.npy    one line per test sample: row, true, predicted, then a probability per class
└── run.json               settings and scores of the whole run

Of several splits or seeds, the one with the best validation score is written, separately for each modality. For
regression, `predictions.npy` holds the row, the true and the predicted values; for several labels the row, the true
labels, and the probabilities.

The released code writes its joint network to each ``WEIGHTS.pth``; `start_from` reads such files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from xmodal.data import DATA
from xmodal.data.own.layout import PUBLISHED
from xmodal.errors import InputError
from xmodal.files import read_json, read_rows, write_json, written_whole
from xmodal.models.discom_weights import load_joint, read_joint
from xmodal.models.student_file import load_student, tensors_of

if TYPE_CHECKING:
    from xmodal.methods.discom import DisCoM

RUN = "run.json"
WEIGHTS = "WEIGHTS.pth"


def files_in(data: str, out: Path | None) -> Path | None:
    """The parent of the folders: the run folder of ``--out``, or else that of the data; None for built-in data."""
    if out is not None:
        return out
    return None if data in DATA else Path(data)


def refuse_existing(folder: Path, modalities: Sequence[str]) -> None:
    """Raise an error about folders that would be overwritten or can't be written, before anything is trained."""
    # the released code overwrites them, and with them the weights of the last training
    existing = [str(path) for name in modalities if (path := folder / f"{PUBLISHED}{name}").exists()]
    if existing:
        raise InputError(
            f"{' and '.join(existing)} {'exists' if len(existing) == 1 else 'exist'} already, and nothing is "
            "overwritten without --overwrite. Add that flag, or write elsewhere with --out."
        )
    if folder.exists() and not os.access(folder, os.W_OK):
        raise InputError(
            f"{folder} can't be written to, and the students are written next to the data. Give another folder with "
            "--out, or write no such files with --no-published-files."
        )


def write_published(folder: Path, run: Path, result: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Write the folders of all modalities; returns their paths.

    Args:
        folder: parent of these folders.
        run: folder of the run.
        result: of the run; rows of the method name their student.
        settings: of the run.
    """
    sign = 1.0 if result["direction"] == "max" else -1.0
    metric, written = result["metric"], []
    for name in result["student"]:
        rows = [row for row in result["rows"] if row["role"] == "method" and row["student"] == name]
        # by validation: the test score of the chosen split is then an estimate for new data
        scores = [sign * row["valid"][metric] for row in rows]
        best = rows[scores.index(max(scores))]
        written.append(
            str(_write_modality(folder / f"{PUBLISHED}{name}", run / best["folder"], best, result, settings))
        )
    write_json(folder / RUN, {"run": str(run), "settings": settings, "rows": result["rows"], "folders": written})
    return written


def _write_modality(
    folder: Path, fit: Path, row: Mapping[str, Any], result: Mapping[str, Any], settings: Mapping[str, Any]
) -> Path:
    name = row["student"]
    # from the run folder: the networks in memory have the weights of the last epoch, not of the best one
    student, description = load_student(fit / "students" / name)
    with written_whole(folder / WEIGHTS) as file:
        torch.save(tensors_of(student.module), file)
    write_json(folder / "model.json", {**description, "modalities": result["student"]})
    seconds = read_json(fit / "result.json")["seconds"]
    history = [epoch["valid"][name] for epoch in read_rows(fit / "history.jsonl")]
    facts = {key: row[key] for key in ("seed", "best_epoch", "valid", "test", "parameters")}
    write_json(folder / "metrics.json", {**facts, "epochs": history, "seconds": seconds, "settings": settings})
    with np.load(fit / "predictions" / f"{name}.npz", allow_pickle=False) as arrays:
        table = lines(arrays["rows"], arrays["target"], arrays["outputs"], task=description["task"])
    with written_whole(folder / "predictions.npy") as file:
        np.save(file, table)
    return folder


def start_from(method: DisCoM, weights: Path) -> None:
    """Load the authors' weights: of one file, or of a folder with a file for each modality."""
    if not weights.is_dir():
        load_joint(method.each, method.heads, read_joint(weights), str(weights))
        return
    files = {name: weights / f"{PUBLISHED}{name}" / WEIGHTS for name in method.modalities}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise InputError(
            f"There is no file {' and no file '.join(missing)}. Give the folder that holds a folder for each modality, "
            f"or one {WEIGHTS}."
        )
    # a file holds the whole network in the best epoch of one modality, and this modality is taken from it; the shared
    # heads, which are not deployed, are those of the first file
    kept = {}
    for number, file in reversed(list(enumerate(files.values()))):
        load_joint(method.each, method.heads, read_joint(file), str(file))
        kept[number] = {name: tensor.clone() for name, tensor in method.each[number].state_dict().items()}
    for number, tensors in kept.items():
        method.each[number].load_state_dict(tensors)


def lines(rows: NDArray[Any], target: NDArray[Any], outputs: NDArray[Any], *, task: str) -> NDArray[np.float64]:
    """One line per sample: its row, the target, the prediction, and probabilities.

    Example:
        >>> lines(np.array([7]), np.array([1]), np.array([[0.0, 0.0]]), task="multiclass").tolist()
        [[7.0, 1.0, 0.0, 0.5, 0.5]]
    """
    raw = torch.from_numpy(outputs).double()
    truth = target.reshape(len(target), -1)
    if task == "regression":
        columns = [raw.numpy()]
    elif task == "multilabel":
        columns = [raw.sigmoid().numpy()]
    elif task == "binary":
        probability = raw.reshape(-1, 1).sigmoid()
        columns = [(probability > 0.5).double().numpy(), torch.cat([1 - probability, probability], dim=1).numpy()]
    else:
        columns = [raw.argmax(dim=1, keepdim=True).double().numpy(), raw.softmax(dim=1).numpy()]
    table: NDArray[np.float64] = np.hstack([rows.reshape(-1, 1), truth, *columns]).astype(np.float64)
    return table
