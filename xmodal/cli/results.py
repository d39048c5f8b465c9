"""The commands that read finished runs: `evaluate` and `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from xmodal.cards import RecipeCard, load
from xmodal.cli.authors_weights import is_weights, open_weights
from xmodal.cli.output import Answer
from xmodal.cli.parser import Flags, parse
from xmodal.cli.recipe_flags import read_evaluation
from xmodal.cli.students import SavedStudent, find_students, source_of
from xmodal.errors import InputError
from xmodal.files import write_json
from xmodal.flags import Flag
from xmodal.recipes import scoring_of

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.data.split import Split
    from xmodal.devices import Devices
    from xmodal.types import DataInfo, Student

Opened = tuple[SavedStudent, "Student", Mapping[str, Any]]


class EvaluateFlags(Flags):
    """Score all students of a run, on the data it was trained on or on other data, and write evaluation.json.

    Students read raw samples and normalise them with the statistics of their training data. Options of a data set are
    flags that carry its name. Data sets with their own scores (semantic-kitti) have further flags for these.
    """

    run: Annotated[Path, Flag(metavar="RUN", positional=True)] = Field(
        description="folder of a comparison, of a single fit or of a student, or a .pth file of the authors' code"
    )
    data: Annotated[str, Flag(metavar="DATA", positional=True)] = Field(
        "", description="a data set's name or a folder; default: the data of the run"
    )
    network: str = Field(
        "", description="of a .pth file: its network, such as ddrnet_rgbd (nyu) or pmf (semantic-kitti)"
    )
    split: Literal["test", "valid", "train"] = Field("test", description="split to score")
    seed: int = Field(0, ge=0, description="seed of splits that are drawn, if DATA is given")
    out: Path | None = Field(None, description="file to write; default: evaluation.json in the run folder")


@dataclass
class Scoring:
    """How students are scored.

    Attributes:
        card: recipe that scores this data set; None: the metrics of the task.
        options: settings of the recipe's scoring.
        folder: for predictions.
        notes: for the user.
    """

    card: RecipeCard | None
    options: Any
    folder: Path
    notes: list[str] = field(default_factory=list)


def evaluate(words: Sequence[str]) -> Answer:
    """The command ``xmodal evaluate RUN [DATA]``."""
    flags, options, settings = read_evaluation(EvaluateFlags, words, prog="xmodal evaluate", data_of=_data_of)
    # torch is imported after the flags are read, so that --help and wrong flags answer fast
    from xmodal.data import open_data, reopen
    from xmodal.engine.processes.launch import launch
    from xmodal.models.student_file import load_student
    from xmodal.reports.tables import metrics_table, plain_table

    published = is_weights(flags.run)
    if published and not flags.data:
        raise InputError(f"{flags.run} names no data. Give it: xmodal evaluate {flags.run} nyu --network ddrnet_rgbd.")
    if flags.network and not published:
        raise InputError(f"--network is for a .pth file of the authors' code, and {flags.run} is none. Leave it out.")
    opened: list[Opened] = (
        [] if published else [(saved, *load_student(saved.path)) for saved in find_students(flags.run)]
    )
    out = flags.out or _folder(flags.run) / "evaluation.json"
    rows: list[dict[str, Any]] = []
    tables: list[str] = []
    scoring = Scoring(None, settings, out.parent / "preds")
    for part in [[]] if published else _by_data(opened, same=bool(flags.data)):
        if published:
            data = open_data(flags.data, options=options, seed=flags.seed)
            part = [open_weights(flags.run, flags.network, flags.data, data.info)]
        elif flags.data:
            data = open_data(flags.data, options=options, task=part[0][2]["task"], seed=flags.seed)
        else:
            data = reopen(_source(part[0][0]))
        data = _with_classes_of(part[0], data)
        scoring.card = scoring_of(data.source["data"])
        score = _score_by_recipe if scoring.card else _score_by_task
        new_rows, new_tables = score(part, data, flags.split, launch(), scoring)
        rows += new_rows
        tables += new_tables
    if not rows:
        raise InputError([*dict.fromkeys(scoring.notes), "So no student of this run can be scored on this data."])
    _add_gains(rows, data.info.select)
    notes = list(dict.fromkeys(scoring.notes))
    result = {"run": str(flags.run), "data": data.source, "split": flags.split, "rows": rows, "notes": notes}
    result |= {"options": settings.model_dump(mode="json")} if settings is not None else {}
    write_json(out, result)
    scored = [(row["name"], _with_gains(row)) for row in rows if row["scores"]]
    lines = [*tables, plain_table(*metrics_table(scored)) if scored else "", *notes]
    lines += ["", *(f"Predictions: {row['written']}" for row in rows if row.get("written")), f"Written: {out}"]
    return Answer({**result, "file": str(out)}, flags.as_json, lines)


def _folder(run: Path) -> Path:
    return run if run.is_dir() else run.parent


def _data_of(run: Path) -> str:
    """Name of the data set that a run was trained on, which decides what flags there are; empty if unknown."""
    try:
        return str(source_of(find_students(run)[0]).get("data", ""))
    except InputError:
        # the command reads the folder again and reports this, together with problems of other flags
        return ""


def _by_data(opened: Sequence[Opened], *, same: bool) -> list[list[Opened]]:
    """Groups of students that are scored on the same data; without ``same`` each seed may have its own splits."""
    parts: dict[int | None, list[Opened]] = {}
    for entry in opened:
        parts.setdefault(None if same else entry[0].seed, []).append(entry)
    return list(parts.values())


def _source(student: SavedStudent) -> dict[str, Any]:
    source = source_of(student)
    if "data" not in source:
        raise InputError(
            f"The run of {student.path} does not name its data (it was arrays in memory). Give it: xmodal evaluate RUN "
            "DATA."
        )
    return source


def _with_classes_of(opened: Opened, data: Data) -> Data:
    """The data with the class numbers of a student: new data may lack a class, and then counts its classes itself."""
    from xmodal.data.targets import as_text
    from xmodal.data.unlabelled import SINGLE

    saved, _, description = opened
    labels, names = tuple(description["label_values"]), tuple(description["class_names"])
    own = data.info.label_values or tuple(range(data.info.classes))
    # other tasks are refused later; class numbers of both are the same numbers
    if description["task"] not in SINGLE or data.info.task != description["task"] or data.info.dense:
        return data
    if not labels and not data.info.label_values:
        return data
    # students of earlier versions have their labels as names, or as class numbers
    if not labels and set(map(as_text, own)) <= set(names):
        labels, own = names, tuple(map(as_text, own))
        data = replace(data, info=replace(data.info, label_values=own))
    labels = labels or tuple(range(description["classes"]))
    unknown = [as_text(label) for label in own if label not in labels]
    if unknown:
        known = ", ".join(map(as_text, labels))
        raise InputError(f"{saved.name} knows the classes {known}, and this data has {', '.join(unknown)}.")
    return data.numbered_as(labels, names)


def _score_by_task(
    part: Sequence[Opened], data: Data, split: str, fabric: Devices, scoring: Scoring
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of scores by the metrics of the task, one per student whose inputs the data has."""
    from xmodal.engine.evaluate import evaluate as score

    students = _usable(part, data, split, fabric, scoring)
    if not students:
        return [], []
    # a deployed student normalises its inputs itself, so it gets raw ones
    raw = data.split(split).raw()
    scores = score(students, raw, _info_with_classes(part, data), fabric=fabric, full=True)
    return [_row(part[int(number)][0], values) for number, values in scores.items()], []


def _score_by_recipe(
    part: Sequence[Opened], data: Data, split: str, fabric: Devices, scoring: Scoring
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of scores by the recipe of the data set, and its tables; it may write predictions."""
    assert scoring.card is not None
    students = _usable(part, data, split, fabric, scoring)
    if not students:
        return [], []
    saved = {key: part[int(key)][0] for key in students}
    teachers = {student.seed: key for key, student in saved.items() if student.role == "teacher"}
    results, notes = load(scoring.card.evaluate)(
        students,
        replace(data, info=_info_with_classes(part, data)),
        split,
        scoring.options,
        fabric=fabric,
        folders={key: scoring.folder / _folder_of(student) for key, student in saved.items()},
        teachers={
            key: teachers[student.seed]
            for key, student in saved.items()
            if student.seed in teachers and student.role != "teacher"
        },
    )
    scoring.notes += notes
    rows, tables = [], []
    for key, result in results.items():
        row = _row(saved[key], result.scores)
        rows.append({**row, "tables": result.tables, "written": str(result.written) if result.written else None})
        if result.lines:
            tables += [f"{saved[key].name}, seed {saved[key].seed}", *result.lines, ""]
    return rows, tables


def _folder_of(saved: SavedStudent) -> Path:
    """Folder for the predictions of a student, relative to the folder of all predictions."""
    # names such as "kd: temperature=2" are no portable folder names
    name = "".join(letter if letter.isalnum() or letter in "+_.-" else "-" for letter in saved.name)
    seed = [] if saved.seed is None else [f"seed-{saved.seed}"]
    return Path(*seed, name, saved.student)


def _usable(part: Sequence[Opened], data: Data, split: str, fabric: Devices, scoring: Scoring) -> dict[str, Student]:
    """Number within the part → student for raw samples; students whose inputs are missing become a note."""
    students: dict[str, Student] = {}
    problems: list[str] = []
    for number, (saved, student, description) in enumerate(part):
        missing = [name for name in student.needs if name not in data.info.inputs]
        if missing:
            scoring.notes.append(f"{saved.name} reads {', '.join(missing)}, which this data does not have: left out.")
            continue
        problems += _mismatches(saved, description, data.info, any_size=scoring.card is not None)
        students[str(number)] = _deployed(student, data.split(split), fabric)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return students


def _info_with_classes(part: Sequence[Opened], data: Data) -> DataInfo:
    """The facts about the data, with the classes of the students: new data may lack the last classes."""
    facts = part[0][2]
    return replace(
        data.info,
        classes=facts["classes"],
        class_names=tuple(facts["class_names"]),
        label_values=tuple(facts["label_values"]),
    )


def _row(saved: SavedStudent, scores: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"name": saved.name, "role": saved.role, "seed": saved.seed, "student": saved.student}
    return {**facts, "path": str(saved.path), "scores": dict(scores)}


def _add_gains(rows: Sequence[dict[str, Any]], select: tuple[str, str]) -> None:
    """Add to the rows of distilled students their gain over the no-KD control of the same seed."""
    metric, direction = select
    controls = {row["seed"]: row["scores"].get(metric) for row in rows if row["role"] == "control"}
    for row in rows:
        score, control = row["scores"].get(metric), controls.get(row["seed"])
        distilled = row["role"] in ("method", "shuffled", "untrained")
        if distilled and isinstance(score, float) and isinstance(control, float):
            row["gains"] = {metric: score - control if direction == "max" else control - score}


def _with_gains(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row["scores"], **{f"gain in {name}": value for name, value in row.get("gains", {}).items()}}


def _deployed(student: Student, split: Split, fabric: Devices) -> Student:
    """A student that normalises raw samples itself, on the device."""
    from xmodal.deploy import deployed
    from xmodal.types import Student

    # its target may belong to a modality that is missing here; all modalities of paired rows have the same target
    target = student.target if student.target in split.rows else next(iter(split.rows))
    return Student(deployed(student).to(fabric.device).eval(), student.needs, target)


def _mismatches(
    saved: SavedStudent, description: Mapping[str, Any], info: DataInfo, *, any_size: bool = False
) -> list[str]:
    """Reasons why a student cannot be scored on this data; with ``any_size`` pictures may have any height and width."""
    problems, names = [], tuple(description["class_names"])
    if info.task != description["task"]:
        problems.append(f"{saved.name} was trained for {description['task']}, and this data is {info.task}.")
    # rows of the last classes may be absent in new data; outputs of other tasks have a fixed number of columns
    exact = info.task not in ("multiclass", "binary")
    if info.classes > description["classes"] or (exact and info.classes != description["classes"]):
        problems.append(f"{saved.name} knows {description['classes']} classes, and this data has {info.classes}.")
    if names and info.class_names and names != info.class_names:
        problems.append(
            f"{saved.name} knows the classes {', '.join(names)}, and this data has {', '.join(info.class_names)}."
        )
    for name in description["needs"]:
        # axis 0 holds the channels, whose number no scoring can change
        facts, shape = description["inputs"][name], info.inputs[name].shape
        if len(shape) != len(facts["shape"]) or any(
            size != expected and axis not in facts["dynamic"] and not (any_size and axis)
            for axis, (size, expected) in enumerate(zip(shape, facts["shape"], strict=True))
        ):
            problems.append(f"{saved.name} reads '{name}' of shape {tuple(facts['shape'])}, and this data has {shape}.")
    return problems


class ReportFlags(Flags):
    """Draw the report of run folders again, as one self-contained page; nothing is trained or evaluated."""

    runs: Annotated[tuple[Path, ...], Flag(metavar="RUN [RUN ...]", positional=True)] = Field(
        description="run folders, in the order of the page", min_length=1
    )
    out: Path | None = Field(
        None, description="file to write; default: report.html, in the run folder or for several runs in this folder"
    )


def report(words: Sequence[str]) -> Answer:
    """The command ``xmodal report RUN…``."""
    from xmodal.reports.page import write_page

    flags = parse(ReportFlags, words, prog="xmodal report")
    default = flags.runs[0] / "report.html" if len(flags.runs) == 1 else Path("report.html")
    written = write_page(flags.runs, flags.out or default)
    return Answer({"file": str(written), "runs": list(map(str, flags.runs))}, flags.as_json, [f"Report: {written}"])
