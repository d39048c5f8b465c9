"""Students in a run folder: where their files are, and which data they were made from."""

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

USUAL = {"weighted_f1": "max", "accuracy": "max", "mae": "min", "mse": "min"}  # metric → its good direction
STUDENT = "student.safetensors"  # as in models.student_file, which would bring torch along


@dataclass(frozen=True)
class Found:
    """A student on disk.

    Attributes:
        path: its safetensors file.
        name: of the method or control that made it.
        role: ``teacher``, ``control``, ``method``, ``shuffled``, or empty where the folder does not say.
        student: name of the student within its method.
        seed: of its run, None where the folder does not say.
    """

    path: Path
    name: str
    role: str
    student: str
    seed: int | None

    def __str__(self) -> str:
        return f"--name '{self.name}' --seed {self.seed} --student {self.student}"


def find_students(run: Path) -> list[Found]:
    """All students of a comparison folder, a fit folder, or a student's own folder or file."""
    from xmodal.reports.read import read_rows, read_run

    if run.is_file() or (run / STUDENT).is_file():
        file = run if run.is_file() else run / STUDENT
        fit = file.absolute().parent.parent.parent
        return [Found(file, fit.name, "", file.absolute().parent.name, None)]
    files = read_run(run)
    if not files.finished:
        raise InputError(f"The run in {run} is not finished, so it has no students yet. Go on with it by --resume.")
    if files.kind == "sweep":
        raise InputError(f"{run} is a sweep: means over many small networks, none of which was kept. Give another run.")
    if files.kind == "fit":
        seed = files.result.get("seed")
        found = [
            Found(run / "students" / name / STUDENT, run.absolute().name, "", name, seed)
            for name in files.result["students"]
        ]
    else:
        read_rows(files)  # refuses folders outside of the run
        found = [_of_row(run, row) for row in files.result["rows"]]
    _refuse_missing(run, found)
    return found


def _of_row(run: Path, row: Mapping[str, Any]) -> Found:
    path = run / row.get("folder", "") / "students" / row.get("student", "") / STUDENT
    return Found(path, row["name"], row["role"], row.get("student", ""), row["seed"])


def best_of(run: Path, *, modalities: Sequence[str] = (), name: str = "", seed: int | None = None) -> Found:
    """The best student of a run on the validation split, among those that are meant.

    Methods go before controls, and a teacher is never meant unless nothing else is left.

    Args:
        run: folder of a comparison or of a single fit.
        modalities: which it reads, all of them and no others; empty: any.
        name: of the method or control, whole or up to a colon; empty: any.
        seed: of its run.
    """
    result, found = read_json(run / "result.json"), find_students(run)
    facts = [result["students"][one.student] for one in found] if "students" in result else result["rows"]
    left = [
        (student, fact)
        for student, fact in zip(found, facts, strict=True)
        if (not modalities or _read_by(fact) == set(modalities))
        and name in ("", student.name, student.name.partition(": ")[0])
        and seed in (None, student.seed)
    ]
    if not left:
        sets = dict.fromkeys(", ".join(sorted(_read_by(fact))) for fact in facts)
        names = dict.fromkeys(student.name for student in found)
        seeds = dict.fromkeys(str(student.seed) for student in found)
        raise InputError(
            f"No student of {run} is what was asked for (modalities {', '.join(modalities) or 'any'}, name "
            f"{name or 'any'}, seed {'any' if seed is None else seed}). Its students read {'; or '.join(sets)}; their "
            f"names are {', '.join(names)}, their seeds {', '.join(seeds)}."
        )
    roles = [student.role for student, _ in left]
    first = next((role for role in ("method", "", "control") if role in roles), roles[0])
    metric, direction = _measure(result, left[0][1]["valid"])
    sign = 1.0 if direction == "max" else -1.0

    def score(entry: tuple[Found, Mapping[str, Any]]) -> float:
        value = entry[1]["valid"].get(metric)
        return sign * value if isinstance(value, int | float) else -math.inf

    return max((entry for entry in left if entry[0].role == first), key=score)[0]


def _read_by(fact: Mapping[str, Any]) -> set[str]:
    """The modalities of a student; what goes with one is part of it."""
    return {need.partition(".")[0] for need in fact["needs"]}


def _measure(result: Mapping[str, Any], valid: Mapping[str, Any]) -> tuple[str, str]:
    """The metric that students of a run are chosen by; a single fit names none, and its usual one is taken."""
    if "metric" in result:
        return result["metric"], result["direction"]
    metric = next((name for name in (*USUAL, *valid) if name in valid), "")
    return metric, USUAL.get(metric, "max")


def _refuse_missing(run: Path, found: Sequence[Found]) -> None:
    missing = [str(student.path) for student in found if not student.path.is_file()]
    if missing or not found:
        listed = f"missing: {', '.join(missing[:3])}" if missing else "its result names none"
        raise InputError(f"The students of {run} are not all there ({listed}). Restore the folder, or run it again.")


def source_of(student: Found) -> dict[str, Any]:
    """From what `xmodal.data.reopen` opens the data that a student was trained on; empty if nothing says so."""
    seed = student.seed
    for folder in list(student.path.absolute().parents)[:6]:
        if not (folder / "result.json").is_file():
            continue
        result = read_json(folder / "result.json")
        seed = result.get("seed", seed) if seed is None else seed
        if "source" in result:
            source = dict(result["source"])
            # the source of a comparison is that of its last seed, and a seed may draw its own splits
            return {**source, "seed": source.get("seed", 0) if seed is None else seed} if source else {}
    return {}


def info_of(description: Mapping[str, Any]) -> DataInfo:
    """What a student's file knows of its data."""
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
        dense=description["dense"],
        normalisation={name: Normalisation(**part) for name, part in description["normalisation"].items()},
    )
