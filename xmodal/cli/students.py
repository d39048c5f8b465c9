"""The students in a run folder: their files, the best one, and the data that they were trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.errors import InputError
from xmodal.files import read_json

if TYPE_CHECKING:
    from xmodal.types import DataInfo

DIRECTIONS = {"weighted_f1": "max", "accuracy": "max", "mae": "min", "mse": "min"}  # metric → which end is better
STUDENT = "student.safetensors"  # the name in models.student_file, whose import takes a second because of torch


@dataclass(frozen=True)
class SavedStudent:
    """A student on disk.

    Attributes:
        path: of its safetensors file.
        name: method or control that trained it.
        role: ``teacher``, ``control``, ``method``, ``shuffled``, or empty if the folder does not contain it.
        student: name of the student within its method.
        seed: of its run; None if the folder does not contain it.
    """

    path: Path
    name: str
    role: str
    student: str
    seed: int | None

    def __str__(self) -> str:
        return f"--name '{self.name}' --seed {self.seed} --student {self.student}"


def find_students(run: Path) -> list[SavedStudent]:
    """All students of a comparison, of a single fit, or of a student's own folder or file."""
    from xmodal.reports.read import read_rows, read_run

    if run.is_file() or (run / STUDENT).is_file():
        file = run if run.is_file() else run / STUDENT
        # a run writes FIT/students/STUDENT/student.safetensors
        fit = file.absolute().parent.parent.parent
        return [SavedStudent(file, fit.name, "", file.absolute().parent.name, None)]
    files = read_run(run)
    if not files.finished:
        raise InputError(f"The run in {run} is not finished, so it has no students yet. Continue it with --resume.")
    if files.kind == "sweep":
        raise InputError(
            f"{run} is a sweep: it stores means over many small networks, and no network. Give another run."
        )
    if files.kind == "fit":
        seed = files.result.get("seed")
        students = [
            SavedStudent(run / "students" / name / STUDENT, run.absolute().name, "", name, seed)
            for name in files.result["students"]
        ]
    else:
        # result.json may come from elsewhere: a folder such as ../../x in a row raises an error
        read_rows(files)
        students = [_of_row(run, row) for row in files.result["rows"]]
    _check_files(run, students)
    return students


def _of_row(run: Path, row: Mapping[str, Any]) -> SavedStudent:
    path = run / row.get("folder", "") / "students" / row.get("student", "") / STUDENT
    return SavedStudent(path, row["name"], row["role"], row.get("student", ""), row["seed"])


def best_of(run: Path, *, modalities: Sequence[str] = (), name: str = "", seed: int | None = None) -> SavedStudent:
    """The best student of a run on the validation split, among those that match.

    Students of methods are preferred to controls; a teacher is returned only if nothing else matches.

    Args:
        run: folder of a comparison or of a single fit.
        modalities: exactly the modalities that the student reads; empty: any.
        name: of the method or control, complete or up to a colon; empty: any.
        seed: of its run; None: any.
    """
    result, students = read_json(run / "result.json"), find_students(run)
    facts = [result["students"][student.student] for student in students] if "students" in result else result["rows"]
    matches = [
        (student, fact)
        for student, fact in zip(students, facts, strict=True)
        if (not modalities or _modalities_of(fact) == set(modalities))
        and name in ("", student.name, student.name.partition(": ")[0])
        and seed in (None, student.seed)
    ]
    if not matches:
        sets = dict.fromkeys(", ".join(sorted(_modalities_of(fact))) for fact in facts)
        names = dict.fromkeys(student.name for student in students)
        seeds = dict.fromkeys(str(student.seed) for student in students)
        raise InputError(
            f"No student of {run} matches (modalities {', '.join(modalities) or 'any'}, name {name or 'any'}, seed "
            f"{'any' if seed is None else seed}). Its students read {'; or '.join(sets)}; their names are "
            f"{', '.join(names)}, their seeds {', '.join(seeds)}."
        )
    # a teacher reads modalities that are missing at deployment, so its better score does not count
    roles = [student.role for student, _ in matches]
    first = next((role for role in ("method", "", "control") if role in roles), roles[0])
    metric, direction = _metric_of(result, matches[0][1]["valid"])
    sign = 1.0 if direction == "max" else -1.0

    def score(match: tuple[SavedStudent, Mapping[str, Any]]) -> float:
        value = match[1]["valid"].get(metric)
        # JSON has no NaN: a score that is not finite is stored as null
        return sign * value if isinstance(value, int | float) else -math.inf

    return max((match for match in matches if match[0].role == first), key=score)[0]


def _modalities_of(fact: Mapping[str, Any]) -> set[str]:
    """The modalities of a student; an input such as audio.lengths belongs to audio."""
    return {need.partition(".")[0] for need in fact["needs"]}


def _metric_of(result: Mapping[str, Any], valid: Mapping[str, Any]) -> tuple[str, str]:
    """Metric and direction by which students of a run are compared."""
    if "metric" in result:
        return result["metric"], result["direction"]
    # the result of a single fit has no metric: take the first usual one among its scores
    metric = next((name for name in (*DIRECTIONS, *valid) if name in valid), "")
    return metric, DIRECTIONS.get(metric, "max")


def _check_files(run: Path, students: Sequence[SavedStudent]) -> None:
    missing = [str(student.path) for student in students if not student.path.is_file()]
    if missing or not students:
        problem = f"missing: {', '.join(missing[:3])}" if missing else "its result names none"
        raise InputError(f"{run} does not have all of its students ({problem}). Restore the folder, or run it again.")


def source_of(student: SavedStudent) -> dict[str, Any]:
    """The argument for `xmodal.data.reopen` to open the data that a student was trained on; empty if unknown."""
    seed = student.seed
    # six levels up: COMPARISON/seed-0/METHOD/students/STUDENT/student.safetensors, and one to spare
    for folder in list(student.path.absolute().parents)[:6]:
        if not (folder / "result.json").is_file():
            continue
        result = read_json(folder / "result.json")
        seed = result.get("seed", seed) if seed is None else seed
        if "source" in result:
            source = dict(result["source"])
            # a comparison stores the source of its last seed, but each seed may draw its own splits
            return {**source, "seed": source.get("seed", 0) if seed is None else seed} if source else {}
    return {}


def info_of(description: Mapping[str, Any]) -> DataInfo:
    """The facts about the training data that a student's file contains."""
    from xmodal.types import DataInfo, InputInfo, Normalisation

    inputs = {
        name: InputInfo(tuple(facts["shape"]), facts["dtype"], facts["layout"], tuple(facts["dynamic"]))
        for name, facts in description["inputs"].items()
    }
    return DataInfo(
        inputs=inputs,
        task=description["task"],
        classes=description["classes"],
        rows={},
        class_names=tuple(description["class_names"]),
        label_values=tuple(description["label_values"]),
        dense=description["dense"],
        normalisation={name: Normalisation(**part) for name, part in description["normalisation"].items()},
    )
