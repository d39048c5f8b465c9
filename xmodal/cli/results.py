"""The commands that look at finished runs: `evaluate`, `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from xmodal.cards import RecipeCard, load
from xmodal.cli.output import Answer
from xmodal.cli.parser import Flags, parse
from xmodal.cli.recipe_flags import read_evaluation
from xmodal.cli.students import Found, find_students, source_of
from xmodal.errors import InputError
from xmodal.files import write_json
from xmodal.flags import Flag
from xmodal.recipes import scoring_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from xmodal.data.base import Data
    from xmodal.data.split import Split
    from xmodal.types import DataInfo, Student

Opened = tuple[Found, "Student", Mapping[str, Any]]


class EvaluateFlags(Flags):
    """Score all students of a run, on the data it was trained on or on other data; writes evaluation.json.

    Students see raw samples and bring the statistics of their own training data. Options of a data set are flags with
    its name. Data sets that are scored in a way of their own (semantic-kitti) have further flags, which say how.
    """

    run: Annotated[Path, Flag(metavar="RUN", positional=True)] = Field(
        description="run folder: a comparison, a single fit or a student's folder"
    )
    data: Annotated[str, Flag(metavar="DATA", positional=True)] = Field(
        "", description="a data set's name or a folder; default: the data of the run"
    )
    split: Literal["test", "valid", "train"] = Field("test", description="which split to score")
    seed: int = Field(0, ge=0, description="of drawn splits, where DATA is given")
    out: Path | None = Field(None, description="file to write; default: evaluation.json in the run folder")


@dataclass
class Way:
    """How a data set is scored.

    Attributes:
        card: of a data set that has a way of its own; None: by the metrics of the task.
        options: of this way.
        folder: where predictions may be written.
        notes: what is worth knowing.
    """

    card: RecipeCard | None
    options: Any
    folder: Path
    notes: list[str] = field(default_factory=list)


def evaluate(words: Sequence[str]) -> Answer:
    """The command ``xmodal evaluate RUN [DATA]``."""
    flags, options, own = read_evaluation(EvaluateFlags, words, prog="xmodal evaluate", data_of=_data_of)
    from xmodal.data import open_data, reopen
    from xmodal.engine.processes.launch import launch
    from xmodal.models.student_file import load_student
    from xmodal.reports.tables import metrics_table, plain_table

    opened: list[Opened] = [(found, *load_student(found.path)) for found in find_students(flags.run)]
    out = flags.out or _folder(flags.run) / "evaluation.json"
    rows: list[dict[str, Any]] = []
    tables: list[str] = []
    way = Way(None, own, out.parent / "preds")
    for part in _by_data(opened, given=bool(flags.data)):
        if flags.data:
            data = open_data(flags.data, options=options, task=part[0][2]["task"], seed=flags.seed)
        else:
            data = reopen(_source(part[0][0]))
        name = data.source["data"]
        way.card = scoring_of(name)
        more, said = (_own_way if way.card else _scored)(part, data, flags.split, launch(), way)
        rows += more
        tables += said
    if not rows:
        raise InputError([*dict.fromkeys(way.notes), "So no student of this run can be scored on this data."])
    _add_gains(rows, data.info.select)
    notes = list(dict.fromkeys(way.notes))
    result = {"run": str(flags.run), "data": data.source, "split": flags.split, "rows": rows, "notes": notes}
    result |= {"options": own.model_dump(mode="json")} if own is not None else {}
    write_json(out, result)
    scored = [(row["name"], _with_gains(row)) for row in rows if row["scores"]]
    lines = [*tables, plain_table(*metrics_table(scored)) if scored else "", *notes]
    lines += ["", *(f"Predictions: {row['written']}" for row in rows if row.get("written")), f"Written: {out}"]
    return Answer({**result, "file": str(out)}, flags.as_json, lines)


def _folder(run: Path) -> Path:
    return run if run.is_dir() else run.parent


def _data_of(run: Path) -> str:
    """The data set that a run was trained on, if it says so: its flags must be known before anything is read."""
    try:
        return str(source_of(find_students(run)[0]).get("data", ""))
    except InputError:  # said later, of the command itself
        return ""


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


def _scored(
    part: Sequence[Opened], data: Data, split: str, fabric: Fabric, way: Way
) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per student that this data can feed."""
    from xmodal.engine.evaluate import evaluate as score

    raw = data.split(split).raw()
    students = _fed(part, data, split, fabric, way)
    if not students:
        return [], []
    scores = score(students, raw, _known_classes(part, data), fabric=fabric, full=True)
    return [_row(part[int(number)][0], found) for number, found in scores.items()], []


def _own_way(
    part: Sequence[Opened], data: Data, split: str, fabric: Fabric, way: Way
) -> tuple[list[dict[str, Any]], list[str]]:
    """The same by the data set's own rules, with what it writes and its tables."""
    assert way.card is not None
    students = _fed(part, data, split, fabric, way)
    if not students:
        return [], []
    found_of = {key: part[int(key)][0] for key in students}
    teacher_of = {found.seed: key for key, found in found_of.items() if found.role == "teacher"}
    scored, notes = load(way.card.evaluate)(
        students,
        replace(data, info=_known_classes(part, data)),
        split,
        way.options,
        fabric=fabric,
        folders={key: way.folder / _place(found) for key, found in found_of.items()},
        teachers={
            key: teacher_of[found.seed]
            for key, found in found_of.items()
            if found.seed in teacher_of and found.role != "teacher"
        },
    )
    way.notes += notes
    rows, tables = [], []
    for key, each in scored.items():
        row = _row(found_of[key], each.scores)
        rows.append({**row, "tables": each.tables, "written": str(each.written) if each.written else None})
        if each.lines:
            tables += [f"{found_of[key].name}, seed {found_of[key].seed}", *each.lines, ""]
    return rows, tables


def _place(found: Found) -> Path:
    """Folder of what is written of a student, below the folder of all of them."""
    name = "".join(letter if letter.isalnum() or letter in "+_.-" else "-" for letter in found.name)
    seed = [] if found.seed is None else [f"seed-{found.seed}"]
    return Path(*seed, name, found.student)


def _fed(part: Sequence[Opened], data: Data, split: str, fabric: Fabric, way: Way) -> dict[str, Student]:
    """Number within the part → student that takes raw samples; those whose modalities are missing are noted."""
    students: dict[str, Student] = {}
    problems: list[str] = []
    for number, (found, student, description) in enumerate(part):
        missing = [name for name in student.needs if name not in data.info.inputs]
        if missing:
            way.notes.append(f"{found.name} reads {', '.join(missing)}, which this data does not have: left out.")
            continue
        problems += _unfit(found, description, data.info, any_size=way.card is not None)
        students[str(number)] = _ready(student, data.split(split), fabric)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return students


def _known_classes(part: Sequence[Opened], data: Data) -> DataInfo:
    """What is known of the data, with the classes that the students know."""
    facts = part[0][2]
    return replace(data.info, classes=facts["classes"], class_names=tuple(facts["class_names"]))


def _row(found: Found, scores: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"name": found.name, "role": found.role, "seed": found.seed, "student": found.student}
    return {**facts, "path": str(found.path), "scores": dict(scores)}


def _add_gains(rows: Sequence[dict[str, Any]], select: tuple[str, str]) -> None:
    """Beside the score of what learned from a teacher: how much better it is than the control of its seed."""
    metric, direction = select
    control = {row["seed"]: row["scores"].get(metric) for row in rows if row["role"] == "control"}
    for row in rows:
        mine, theirs = row["scores"].get(metric), control.get(row["seed"])
        if row["role"] in ("method", "shuffled", "untrained") and isinstance(mine, float) and isinstance(theirs, float):
            row["gains"] = {metric: mine - theirs if direction == "max" else theirs - mine}


def _with_gains(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row["scores"], **{f"gain in {name}": value for name, value in row.get("gains", {}).items()}}


def _ready(student: Student, split: Split, fabric: Fabric) -> Student:
    """A student that takes raw samples, on the device."""
    from xmodal.deploy import deployed
    from xmodal.types import Student

    target = student.target if student.target in split.rows else next(iter(split.rows))
    return Student(deployed(student).to(fabric.device).eval(), student.needs, target)


def _unfit(found: Found, description: Mapping[str, Any], info: DataInfo, *, any_size: bool = False) -> list[str]:
    """Why a student can't be scored on this data; ``any_size``: maps may be larger or smaller than those it knows."""
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
            side != wanted and axis not in facts["dynamic"] and not (any_size and axis)
            for axis, (side, wanted) in enumerate(zip(shape, facts["shape"], strict=False))
        ):
            problems.append(f"{found.name} reads '{name}' of shape {tuple(facts['shape'])}, and this data has {shape}.")
    return problems


class ReportFlags(Flags):
    """Draw run folders again as one self-contained page; nothing is trained and no network is asked."""

    runs: Annotated[tuple[Path, ...], Flag(metavar="RUN [RUN ...]", positional=True)] = Field(
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
