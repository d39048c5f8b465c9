"""Students of xmodal as teachers: from a file, from the folder of one, or from a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xmodal.errors import InputError
from xmodal.files import read_json
from xmodal.models.student_file import STUDENT, load_student
from xmodal.teachers.attached import ANSWERS
from xmodal.types import DataInfo, Student

RESULT = "result.json"


def open_teacher_student(path: Path) -> tuple[Student, dict[str, Any], Path]:
    """The student of a path, its description and its file.

    Of a run its teacher is taken (of several seeds the best one on the validation split), or else the student that the
    run deploys.
    """
    file = path
    if path.is_dir():
        file = path / STUDENT if (path / STUDENT).is_file() else _of_run(path)
    if file.suffix != ".safetensors":
        raise InputError(
            f"{path} is no teacher that can be read. Give a student.safetensors, a table or an .onnx file."
        )
    student, description = load_student(file)
    return student, description, file


def _of_run(run: Path) -> Path:
    if not (run / RESULT).is_file():
        raise InputError(
            f"{run} holds no student, no finished run and no model of transformers. Give a folder with {STUDENT}, "
            f"{RESULT}, or config.json and model.safetensors."
        )
    result = read_json(run / RESULT)
    rows = [row for row in result.get("rows") or () if row.get("role") == "teacher" and row["needs"] != [ANSWERS]]
    if rows:
        sign = 1.0 if result.get("direction") == "max" else -1.0
        metric = result["metric"] if result["metric"] in rows[0]["valid"] else next(iter(rows[0]["valid"]))
        best = max(rows, key=lambda row: sign * (row["valid"][metric] or 0.0))
        file: Path = run / best["folder"] / "students" / best["student"] / STUDENT
    elif result.get("deploy"):
        file = run / result["deploy"]
    elif len(result.get("students") or ()) == 1:
        file = run / "students" / next(iter(result["students"])) / STUDENT
    else:
        raise InputError(f"The run in {run} has no teacher and deploys no student. Give the file of a student in it.")
    # a result may come from elsewhere: it must not lead out of its folder
    if not file.resolve().is_relative_to(run.resolve()) or not file.is_file():
        raise InputError(f"{run} does not have the student {file}. Restore the folder, or run it again.")
    return file


def same_data(student: Student, description: Mapping[str, Any], info: DataInfo) -> bool:
    """Whether a network has the inputs, the task and the classes of some data, so that it can take part in training."""
    absent = [name for name in student.needs if name not in info.inputs]
    if absent:
        raise InputError(
            f"The teacher reads {', '.join(absent)}, and the data has {', '.join(info.inputs)}: the same names were "
            "expected. Rename them."
        )
    for name in student.needs:
        shape = tuple(description["inputs"][name]["shape"])
        if shape != info.inputs[name].shape and not description["inputs"][name]["dynamic"]:
            raise InputError(
                f"The teacher reads '{name}' with samples of {shape}, and those of the data are "
                f"{info.inputs[name].shape}: the same were expected."
            )
    names, ours = names_of_classes(description), info.class_names or tuple(map(str, info.label_values))
    alike = not names or not ours or names == tuple(map(str, ours))
    return description["task"] == info.task and description["classes"] == info.classes and alike


def names_of_classes(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a student's classes: those that it was given, or else its labels as text; empty: class numbers."""
    return tuple(map(str, description["class_names"] or description["label_values"]))
