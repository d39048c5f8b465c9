"""The commands that look at finished runs: `evaluate`, `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import Field

from xmodal.cli.flags import Flags
from xmodal.cli.output import Answer
from xmodal.cli.reading import parse
from xmodal.cli.recipe_flags import read_with_data
from xmodal.cli.students import Found, find_students, source_of
from xmodal.errors import InputError
from xmodal.files import write_json

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from xmodal.data.base import Data, Split
    from xmodal.types import DataInfo, Student

Opened = tuple[Found, "Student", Mapping[str, Any]]


class EvaluateFlags(Flags):
    """Score all students of a run, on the data it was trained on or on other data; writes evaluation.json.

    Students see raw samples and bring the statistics of their own training data. Options of a data set are flags with
    its name.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = Field(
        description="run folder: a comparison, a single fit or a student's folder"
    )
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")] = Field(
        "", description="a data set's name or a folder; default: the data of the run"
    )
    split: Literal["test", "valid", "train"] = Field("test", description="which split to score")
    seed: int = Field(0, ge=0, description="of drawn splits, where DATA is given")
    out: Path | None = Field(None, description="file to write; default: evaluation.json in the run folder")


def evaluate(words: Sequence[str]) -> Answer:
    """The command ``xmodal evaluate RUN [DATA]``."""
    flags, options = read_with_data(EvaluateFlags, words, prog="xmodal evaluate", place=1)
    from xmodal.data import open_data, reopen
    from xmodal.engine.launch import launch
    from xmodal.models.student_file import load_student
    from xmodal.reports.tables import metrics_table, plain_table

    opened: list[Opened] = [(found, *load_student(found.path)) for found in find_students(flags.run)]
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for part in _by_data(opened, given=bool(flags.data)):
        if flags.data:
            data = open_data(flags.data, options=options, task=part[0][2]["task"], seed=flags.seed)
        else:
            data = reopen(_source(part[0][0]))
        rows += _scored(part, data, flags.split, launch(), notes)
    if not rows:
        raise InputError([*dict.fromkeys(notes), "So no student of this run can be scored on this data."])
    result = {"run": str(flags.run), "data": data.source, "split": flags.split, "rows": rows, "notes": notes}
    out = flags.out or _folder(flags.run) / "evaluation.json"
    write_json(out, result)
    table = plain_table(*metrics_table((row["name"], row["scores"]) for row in rows))
    return Answer({**result, "file": str(out)}, flags.as_json, [table, *notes, "", f"Written: {out}"])


def _folder(run: Path) -> Path:
    return run if run.is_dir() else run.parent


def _by_data(opened: Sequence[Opened], *, given: bool) -> list[list[Opened]]:
    """Students that are scored on the same data: each seed may have its own splits."""
    parts: dict[int | None, list[Opened]] = {}
    for entry in opened:
        parts.setdefault(None if given else entry[0].seed, []).append(entry)
    return list(parts.values())


def _source(student: Found) -> dict[str, Any]:
    source = source_of(student)
    if "data" not in source:
        raise InputError(
            f"The run of {student.path} does not say where its data is (it was given as arrays in memory), so give it: "
            "xmodal evaluate RUN DATA."
        )
    return source


def _scored(part: Sequence[Opened], data: Data, split: str, fabric: Fabric, notes: list[str]) -> list[dict[str, Any]]:
    """One row per student that this data can feed."""
    from xmodal.engine.evaluate import evaluate as score

    raw = _raw(data.split(split))
    students: dict[str, Student] = {}
    problems: list[str] = []
    for number, (found, student, description) in enumerate(part):
        missing = [name for name in student.needs if name not in data.info.inputs]
        if missing:
            notes.append(f"{found.name} reads {', '.join(missing)}, which this data does not have: left out.")
            continue
        problems += _unfit(found, description, data.info)
        students[str(number)] = _ready(student, raw, fabric)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    if not students:
        return []
    facts = part[0][2]
    info = replace(data.info, classes=facts["classes"], class_names=tuple(facts["class_names"]))
    scores = score(students, raw, info, fabric=fabric, full=True)
    return [_row(part[int(number)][0], found) for number, found in scores.items()]


def _row(found: Found, scores: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"name": found.name, "role": found.role, "seed": found.seed, "student": found.student}
    return {**facts, "path": str(found.path), "scores": dict(scores)}


def _raw(split: Split) -> Split:
    """The same rows without any statistics applied."""
    from xmodal.data.base import Split

    raw = Split(split.columns, {}, split.numbers, paired=split.paired, scored=split.scored)
    raw.targets = split.targets
    return raw


def _ready(student: Student, split: Split, fabric: Fabric) -> Student:
    """A student that takes raw samples, on the device."""
    from xmodal.deploy import deployed
    from xmodal.types import Student

    target = student.target if student.target in split.targets else next(iter(split.targets))
    return Student(deployed(student).to(fabric.device).eval(), student.needs, target)


def _unfit(found: Found, description: Mapping[str, Any], info: DataInfo) -> list[str]:
    """Why a student can't be scored on this data."""
    problems, names = [], tuple(description["class_names"])
    if info.task != description["task"]:
        problems.append(f"{found.name} was trained for {description['task']}, and this data is {info.task}.")
    exact = info.task not in ("multiclass", "binary")  # new data may lack the last classes
    if info.classes > description["classes"] or (exact and info.classes != description["classes"]):
        problems.append(f"{found.name} knows {description['classes']} classes, and this data has {info.classes}.")
    if names and info.class_names and names != info.class_names:
        problems.append(
            f"{found.name} knows the classes {', '.join(names)}, and this data has {', '.join(info.class_names)}."
        )
    for name in description["needs"]:
        facts, shape = description["inputs"][name], info.inputs[name].shape
        if len(shape) != len(facts["shape"]) or any(
            side != wanted and axis not in facts["dynamic"]
            for axis, (side, wanted) in enumerate(zip(shape, facts["shape"], strict=False))
        ):
            problems.append(f"{found.name} reads '{name}' of shape {tuple(facts['shape'])}, and this data has {shape}.")
    return problems


class ReportFlags(Flags):
    """Draw run folders again as one self-contained page; nothing is trained and no network is asked."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")] = Field(
        description="run folders, in the order of their sections", min_length=1
    )
    out: Path | None = Field(None, description="file; default: report.html in the run folder, or here for several")


def report(words: Sequence[str]) -> Answer:
    """The command ``xmodal report RUN…``."""
    from xmodal.reports.page import write_page

    flags = parse(ReportFlags, words, prog="xmodal report")
    usual = flags.runs[0] / "report.html" if len(flags.runs) == 1 else Path("report.html")
    written = write_page(flags.runs, flags.out or usual)
    return Answer({"file": str(written), "runs": list(map(str, flags.runs))}, flags.as_json, [f"Report: {written}"])
