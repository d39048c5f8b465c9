"""The commands around a finished student: `export` and `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from xmodal.cli.output import Answer, CheckFailed
from xmodal.cli.parser import Flags, parse
from xmodal.cli.recipe_flags import read_with_data
from xmodal.cli.students import Found, best_of, find_students, info_of, source_of
from xmodal.errors import InputError
from xmodal.files import read_json
from xmodal.flags import Flag
from xmodal.study.settings import Names

if TYPE_CHECKING:
    from xmodal.cli.inputs import Samples

COMPARED = 64  # rows on which an exported file must answer like the student
CHUNK = 1024  # rows read at a time


class ExportFlags(Flags):
    """Write the student of a run on its own; the file is run beside the student before this says done."""

    run: Annotated[Path, Flag(metavar="RUN", positional=True)] = Field(
        description="run folder: a comparison, a single fit or a student's folder"
    )
    format: Literal["safetensors", "torch", "onnx"] = Field("safetensors", description="format of the file")
    out: Path | None = Field(None, description="folder to write; default: export in the run folder")
    name: str = Field("", description="method or control; default: the run's choice on the validation split")
    seed: int | None = Field(None, ge=0, description="seed of the run to take the student from")
    student: str = Field("", description="name of the student, where a method trains several")
    data: str = Field("", description="samples to compare on; default: the validation split of the run's data")


def export(words: Sequence[str]) -> Answer:
    """The command ``xmodal export RUN``."""
    flags = parse(ExportFlags, words, prog="xmodal export")
    from xmodal.export import ExportMismatch, export_student
    from xmodal.models.student_file import load_student

    found, why = choose(flags)
    student, description = load_student(found.path)
    samples = _samples(flags, found, student.needs)
    out = flags.out or (flags.run if flags.run.is_dir() else flags.run.parent) / "export"
    try:
        done = export_student(
            student, info_of(description), out, format=flags.format, samples=samples.take(0, COMPARED)
        )
    except ExportMismatch as error:
        raise CheckFailed(str(error)) from error
    lines = [
        f"Student: {found.path} ({why})",
        f"Compared on {done['rows']} rows in batches of {', '.join(map(str, done['batch_sizes']))}: "
        f"largest difference {done['difference']:.2g}",
        *(f"Written: {file}" for file in done["files"]),
    ]
    return Answer({"student": str(found.path), "why": why, **done}, flags.as_json, lines)


def choose(flags: ExportFlags) -> tuple[Found, str]:
    """The student that is meant, and why this one."""
    found = find_students(flags.run)
    asked = {"name": flags.name, "seed": flags.seed, "student": flags.student}
    asked = {key: value for key, value in asked.items() if value not in ("", None)}
    if not asked:
        if len(found) == 1:
            return found[0], "the only one"
        return _deployed(flags.run, found)
    left = [student for student in found if all(getattr(student, key) == value for key, value in asked.items())]
    if len(left) != 1:
        what = "fits several students" if left else "fits no student"
        said = " ".join(f"--{key} {value}" for key, value in asked.items())
        raise InputError(f"{said} {what} of {flags.run}. Choose one of: {'; '.join(map(str, left or found))}.")
    return left[0], "chosen by flags"


def _deployed(run: Path, found: Sequence[Found]) -> tuple[Found, str]:
    result = read_json(run / "result.json")
    for student in found:
        if student.path == run / str(result.get("deploy")):
            return student, f"{student.name}, seed {student.seed}: the best one on the validation split"
    listed = "; ".join(map(str, found))
    raise InputError(f"{run} does not say which of its students is to be deployed. Choose one of: {listed}.")


def _samples(flags: ExportFlags, found: Found, needs: Sequence[str]) -> Samples:
    """Raw rows to compare on."""
    from xmodal.cli.inputs import open_samples, samples_of
    from xmodal.data import reopen

    if flags.data:
        return open_samples(flags.data, needs)
    source = source_of(found)
    if "data" not in source:
        raise InputError(
            f"Nothing says which data {found.path} was trained on (perhaps arrays in memory), and the "
            "exported file is compared with the student on real samples. Name a folder or data set with --data."
        )
    return samples_of(reopen(source), needs, "valid")


class PredictFlags(Flags):
    """What a student says of new samples, from its own file alone; writes one line per sample.

    A student that answers for every pixel writes an .npz file with all classes (rows, height, width) instead.
    STUDENT may be a run folder: then the best student on the validation split is taken, among those that read just the
    modalities of --modalities where these are named. Options of a data set are flags with its name. Rows are numbered
    as in the data, whatever the split.
    """

    student: Annotated[Path, Flag(metavar="STUDENT", positional=True)] = Field(
        description="student.safetensors, student.onnx, the folder of one, or a run folder"
    )
    data: Annotated[str, Flag(metavar="DATA", positional=True)] = Field(
        description="folder with the arrays that the student reads (labels aside), a .npy file, or a data set's name"
    )
    modalities: Names = Field((), description="of a run folder: what the student reads, no more and no less")
    name: str = Field("", description="of a run folder: method or control; default: a method, if there is one")
    run_seed: int | None = Field(None, ge=0, description="of a run folder: seed to take the student from")
    out: Path | None = Field(
        None, description="file to write, replaced in one step; default: predictions.csv (.npz, of every pixel)"
    )
    split: Literal["all", "train", "valid", "test"] = Field("all", description="rows to predict")
    seed: int = Field(0, ge=0, description="of drawn splits")


def predict(words: Sequence[str]) -> Answer:
    """The command ``xmodal predict STUDENT DATA``."""
    flags, options = read_with_data(PredictFlags, words, prog="xmodal predict")
    from xmodal.cli.inputs import open_samples
    from xmodal.cli.predictions import maps_summary, summary, table, write_csv, write_maps
    from xmodal.deploy import open_student

    path, lines = flags.student, []
    if (path / "result.json").is_file():
        found = best_of(path, modalities=flags.modalities, name=flags.name, seed=flags.run_seed)
        path, lines = found.path, [f"Student: {found.path} ({found.name}, seed {found.seed})"]
    elif flags.modalities or flags.name or flags.run_seed is not None:
        raise InputError(
            f"--modalities, --name and --run-seed choose among the students of a run folder, and {path} is none. Leave "
            "them out, or give the folder of a finished run."
        )
    predictor = open_student(path)
    samples = open_samples(flags.data, predictor.needs, split=flags.split, seed=flags.seed, options=options)
    dense = predictor.description["dense"] and predictor.description["task"] == "multiclass"
    out = _writable(flags.out, dense=dense)
    known = info_of(predictor.description)
    starts = range(0, len(samples.rows), step := known.block(CHUNK))
    parts = (predictor.predict(samples.take(first, first + step), batch_size=known.block(256)) for first in starts)
    result: dict[str, Any] = {"file": str(out), "task": known.task, "student": str(path)}
    if dense:
        counts, shape = write_maps(out, parts, samples, known)
        result |= {"rows": shape[0], "shape": shape, "pixels": counts}
        lines.append(maps_summary(counts, shape))
    else:
        predictions = table(list(parts), samples.rows, predictor.description)
        if samples.ids:
            predictions = [{"row": line["row"], "id": samples.ids[line["row"]], **line} for line in predictions]
        write_csv(out, predictions)
        result["predictions"] = predictions
        lines += summary(predictions, known.task)
    return Answer(result, flags.as_json, [*lines, f"Written: {out}"])


def _writable(out: Path | None, *, dense: bool) -> Path:
    """The file to write, of a kind that holds these predictions."""
    ending = ".npz" if dense else ".csv"
    if out is None:
        return Path(f"predictions{ending}")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: the name of a {ending} file was expected.")
    if dense and out.suffix != ending:
        raise InputError(f"--out {out}: this student tells a class of every pixel, which goes into an .npz file.")
    return out
