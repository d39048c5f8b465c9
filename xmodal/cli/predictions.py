"""Predictions as rows, or as maps with a class per pixel: for files, for JSON, and as a summary to print."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError
from xmodal.files import written_whole

if TYPE_CHECKING:
    from xmodal.cli.inputs import Samples
    from xmodal.deploy import Predictions
    from xmodal.types import DataInfo

SCAN, WORDS = ".bin", ".label"  # endings of a LiDAR scan, and of the classes of its points
SHOWN = 12  # classes in a summary, which is one line on a terminal


def table(
    parts: Sequence[Predictions], rows: NDArray[np.int64], description: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One dictionary per sample.

    Keys for classes: ``class``, ``name`` and ``probability`` of the predicted class, and ``label``, the same class as
    the training data had it, if that had no class numbers. For several labels: ``class`` and
    ``name``, joined by spaces and commas, and one probability per label. For regression: ``value0``, ``value1``, ….
    """
    outputs = np.concatenate([part.outputs for part in parts])
    if description["task"] == "regression":
        return [
            {"row": int(row), **{f"value{index}": float(value) for index, value in enumerate(values)}}
            for row, values in zip(rows, outputs.reshape(len(outputs), -1), strict=True)
        ]
    classes = np.concatenate([part.classes for part in parts if part.classes is not None])
    names = [name for part in parts for name in part.labels]
    entries = zip(rows, classes, names, outputs, strict=True)
    if description["task"] == "multilabel":
        return [_labels(*entry, description["class_names"]) for entry in entries]
    if parts[0].label_values:
        labels = [label for part in parts for label in part.predicted.tolist()]
        return [{**_class(*entry), "label": label} for entry, label in zip(entries, labels, strict=True)]
    return [_class(*entry) for entry in entries]


def _class(row: Any, number: Any, name: str, probabilities: NDArray[Any]) -> dict[str, Any]:
    # a binary student has one output, the probability of class 1
    if len(probabilities) == 1:
        probabilities = np.array([1 - probabilities[0], probabilities[0]])
    return {"row": int(row), "class": int(number), "name": name, "probability": float(probabilities[number])}


def _labels(
    row: Any, present: NDArray[Any], name: str, probabilities: NDArray[Any], names: Sequence[str]
) -> dict[str, Any]:
    numbers = " ".join(map(str, np.flatnonzero(present)))
    columns = [f"p_{names[index] if names else index}" for index in range(len(probabilities))]
    return {
        "row": int(row),
        "class": numbers,
        "name": name,
        **dict(zip(columns, map(float, probabilities), strict=True)),
    }


def write_csv(path: Path, predictions: Sequence[Mapping[str, Any]]) -> None:
    """Write a table with a header; an interrupted write leaves no partial file."""
    with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        # the csv module ends lines with \\r\\n on every system
        writer = csv.DictWriter(file, fieldnames=list(predictions[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(predictions)


def summary(predictions: Sequence[Mapping[str, Any]], task: str) -> list[str]:
    """The number of samples, and how often each class is predicted."""
    if task == "regression":
        values = np.array([row["value0"] for row in predictions])
        text = f"the first value runs from {values.min():.4g} to {values.max():.4g}, its mean is {values.mean():.4g}"
    else:
        counts = Counter(row["name"] or "none" for row in predictions)
        text = ", ".join(f"{name}: {count}" for name, count in counts.most_common(SHOWN))
        text += f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return [f"{len(predictions)} samples: {text}"]


def write_maps(
    path: Path, parts: Iterable[Predictions], samples: Samples, info: DataInfo
) -> tuple[dict[str, int], list[int]]:
    """Write the class of every pixel as ``classes`` (rows, height, width).

    The file also holds ``rows``, the numbers of the rows in the data, and ``ids`` and ``class_names`` if there are any.

    Args:
        path: of an ``.npz`` file; an interrupted write leaves no partial file.
        parts: predictions of consecutive rows; only their classes are kept.
        samples: the rows that are predicted.
        info: of the student's data.

    Returns:
        Class → number of pixels with this prediction, the largest first, and the shape of ``classes``.
    """
    # the smallest integer type: a thousand pictures of 384 x 1232 pixels take 0.5 GB in uint8 and 3.8 GB in int64
    dtype = np.min_scalar_type(info.classes - 1)
    classes = np.concatenate([part.classes.astype(dtype) for part in parts if part.classes is not None])
    arrays: dict[str, Any] = {"class_names": np.array(info.class_names)} if info.class_names else {}
    if samples.ids:
        arrays["ids"] = np.array([samples.ids[row] for row in samples.rows])
    # an open file, because numpy appends .npz to a path with another ending, and the renaming would miss the file
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, rows=samples.rows, classes=classes, **arrays)
    counts = np.bincount(classes.reshape(-1), minlength=info.classes)
    names = info.class_names or tuple(map(str, range(info.classes)))
    ordered = sorted(range(info.classes), key=lambda number: (-counts[number], number))
    return {names[number]: int(counts[number]) for number in ordered if counts[number]}, list(classes.shape)


def maps_summary(counts: Mapping[str, int], shape: Sequence[int], *, unit: str = "pixels") -> str:
    """The number and size of the samples, and the share of pixels that is predicted for each class.

    Example:
        >>> maps_summary({"road": 24, "car": 8}, [2, 4, 4])
        '2 samples of 4 x 4: road 75.0 %, car 25.0 % of the pixels'
    """
    total = max(1, sum(counts.values()))
    text = ", ".join(f"{name} {count / total:.1%}".replace("%", " %") for name, count in list(counts.items())[:SHOWN])
    more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    number = "1 sample" if shape[0] == 1 else f"{shape[0]} samples"
    return f"{number} of {' x '.join(map(str, shape[1:]))}: {text} of the {unit}{more}"


def label_scan(
    student: Path, scan: Path, out: Path | None, *, calibration: Path | None, options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Write the class of every point of a LiDAR scan; returns the result and lines to print.

    Args:
        student: its safetensors file, or the folder of that file.
        scan: the points.
        out: file to write; None: the name of the scan, in the current folder.
        calibration: calib.txt of the camera.
        options: of the data; empty: those of the run that the student lies in.
    """
    from xmodal.cli.students import STUDENT, SavedStudent, source_of
    from xmodal.models.student_file import load_student
    from xmodal.recipes.semantic_kitti.scan import predict_scan

    out = Path(f"{scan.stem}{WORDS}") if out is None else out
    if out.suffix != WORDS:
        raise InputError(f"--out {out}: the classes of a scan's points go into a {WORDS} file.")
    if student.suffix == ".onnx":
        raise InputError(f"{student} reads pictures of one size, and a scan has another. Give its {STUDENT}.")
    loaded, _ = load_student(student)
    if not options:
        file = student / STUDENT if student.is_dir() else student
        source = source_of(SavedStudent(file, "", "", "", None))
        options = source.get("options", {}) if source.get("data") == "semantic-kitti" else {}
        # a student alone says nothing about its view: a calibration is of use in the camera's alone
        options = options or ({} if calibration is not None else {"view": "range"})
    done = predict_scan(loaded, scan, out, calibration=calibration, options=options)
    lines = [maps_summary(done.classes, [1, done.points], unit="points")]
    if done.outside:
        lines.append(f"{done.outside} of them are not in the view of the student: written as 0 (unlabeled).")
    facts = {"points": done.points, "outside": done.outside, "classes": done.classes}
    return {"file": str(out), "task": "multiclass", "student": str(student), **facts}, lines
