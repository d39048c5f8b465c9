"""Students in a run folder: where their files are, and which data they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.errors import InputError
from xmodal.files import read_json

if TYPE_CHECKING:
    from xmodal.types import DataInfo

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
