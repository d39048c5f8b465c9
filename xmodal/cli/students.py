"""The students in a run folder: their files, the best one, and the data that they were trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.errors import InputError
from xmodal.files import read_json

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


@dataclass(frozen=True)
class Wanted:
    """What a user names of the student of a run; empty or None: not named.

    Attributes:
        modalities: exactly the modalities that the student reads.
        name: of the method or control, complete or up to a colon.
        seed: of its run.
        student: its name within its method.
    """

    modalities: Sequence[str] = ()
    name: str = ""
    seed: int | None = None
    student: str = ""

    def fits(self, student: SavedStudent, fact: Mapping[str, Any]) -> bool:
        """Whether a student is what was named; ``fact`` is its entry in the result."""
        return (
            (not self.modalities or _modalities_of(fact) == set(self.modalities))
            and self.name in ("", student.name, student.name.partition(": ")[0])
            and self.seed in (None, student.seed)
            and self.student in ("", student.student)
        )

    def __str__(self) -> str:
        parts = {
            "modalities": ", ".join(self.modalities) or "any",
            "name": self.name or "any",
            "seed": "any" if self.seed is None else self.seed,
            "student": self.student or "any",
        }
        return ", ".join(f"{key} {value}" for key, value in parts.items())


def choose(run: Path, wanted: Wanted, *, one_kind: bool = False) -> tuple[SavedStudent, str]:
    """The student of a run to use, and the reason for the choice.

    It is the one that the ship card of the run names; if that is not among those that match, another seed of the same
    name, or else the best match on the validation split, of a method rather than of a control. A teacher is returned
    only if nothing else matches.

    Args:
        run: folder of a comparison, of a single fit or of a student.
        wanted: what the user names.
        one_kind: refuse a choice between several methods, or several students of one; only seeds are compared.
    """
    students = find_students(run)
    # a student alone has no result, and what it reads is no choice
    result = read_json(run / "result.json") if (run / "result.json").is_file() else {}
    facts = (
        [result["students"][student.student] for student in students] if "students" in result else result.get("rows")
    )
    facts = facts or [{"needs": wanted.modalities}]
    matches = [(student, fact) for student, fact in zip(students, facts, strict=True) if wanted.fits(student, fact)]
    if not matches:
        sets = dict.fromkeys(", ".join(sorted(_modalities_of(fact))) for fact in facts)
        names, seeds, own = (
            ", ".join(dict.fromkeys(str(getattr(student, key)) for student in students))
            for key in ("name", "seed", "student")
        )
        raise InputError(
            f"No student of {run} matches ({wanted}). Its students read {'; or '.join(sets)}; their names are {names}, "
            f"their seeds {seeds}, and within their methods they are called {own}."
        )
    if len(students) == 1:
        return students[0], "the only one"
    shipped = _shipped(run, students, result)
    if shipped and shipped in [student for student, _ in matches]:
        return shipped, f"{shipped.name}, seed {shipped.seed}: {_why(result)}"
    same = [match for match in matches if shipped and match[0].name == shipped.name]
    left = same or matches
    if one_kind and len({(student.name, student.student) for student, _ in left}) > 1:
        listed = "; ".join(str(student) for student, _ in left)
        raise InputError(f"Several students of {run} match ({wanted}). Choose one of: {listed}.")
    best = _best(left, result)
    how = "the best match on the validation split" if len(left) > 1 else "chosen by flags"
    return best, f"{best.name}, seed {best.seed}: {how}"


def _shipped(run: Path, students: Sequence[SavedStudent], result: Mapping[str, Any]) -> SavedStudent | None:
    """The student of the ship card; results of earlier versions name a file alone."""
    file = (result.get("ship") or {}).get("file") or result.get("deploy")
    return next((student for student in students if student.path == run / str(file)), None)


def _why(result: Mapping[str, Any]) -> str:
    return (result.get("ship") or {}).get("why") or "the student that the run chose on the validation split"


def _best(matches: Sequence[tuple[SavedStudent, Mapping[str, Any]]], result: Mapping[str, Any]) -> SavedStudent:
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
