"""The commands that use a trained student: `export` and `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from xmodal.cli.output import Answer, CheckFailed
from xmodal.cli.parser import Flags, parse
from xmodal.cli.recipe_flags import read_with_data
from xmodal.cli.students import SavedStudent, Wanted, choose, source_of
from xmodal.errors import InputError
from xmodal.flags import Flag
from xmodal.study.settings import Names

if TYPE_CHECKING:
    from xmodal.cli.inputs import Samples

COMPARED = 64  # rows on which the outputs of an exported file must equal those of the student
CHUNK = 1024  # rows that are read at a time


class ExportFlags(Flags):
    """Write the student of a run in a format for deployment, and compare its outputs with those of the student."""

    run: Annotated[Path, Flag(metavar="RUN", positional=True)] = Field(
        description="folder of a comparison, of a single fit or of a student"
    )
    format: Literal["safetensors", "torch", "onnx"] = Field("safetensors", description="format of the file")
    out: Path | None = Field(None, description="folder to write; default: export, in the run folder")
    name: str = Field("", description="method or control; default: the student of the run's ship card")
    seed: int | None = Field(None, ge=0, description="seed of the student; default: the best on the validation split")
    student: str = Field("", description="name of the student, if a method trains several")
    data: str = Field("", description="data for the comparison; default: the validation split of the run's data")


def export(words: Sequence[str]) -> Answer:
    """The command ``xmodal export RUN``."""
    flags = parse(ExportFlags, words, prog="xmodal export")
    # torch is imported after the flags are read, so that --help and wrong flags answer fast
    from xmodal.export import ExportMismatch, export_student
    from xmodal.models.description import info_of
    from xmodal.models.student_file import load_student

    saved, why = choose(flags.run, Wanted(name=flags.name, seed=flags.seed, student=flags.student), one_kind=True)
    student, description = load_student(saved.path)
    samples = _samples(flags, saved, student.needs)
    out = flags.out or (flags.run if flags.run.is_dir() else flags.run.parent) / "export"
    try:
        done = export_student(
            student, info_of(description), out, format=flags.format, samples=samples.take(0, COMPARED)
        )
    except ExportMismatch as error:
        raise CheckFailed(str(error)) from error
    lines = [
        f"Student: {saved.path} ({why})",
        f"Compared on {done['rows']} rows in batches of {', '.join(map(str, done['batch_sizes']))}: "
        f"largest difference {done['difference']:.2g}",
        *(f"Written: {file}" for file in done["files"]),
    ]
    return Answer({"student": str(saved.path), "why": why, **done}, flags.as_json, lines)


def _samples(flags: ExportFlags, saved: SavedStudent, needs: Sequence[str]) -> Samples:
    """Raw rows for the comparison."""
    from xmodal.cli.inputs import open_samples, samples_of
    from xmodal.data import reopen

    if flags.data:
        return open_samples(flags.data, needs)
    source = source_of(saved)
    if "data" not in source:
        raise InputError(
            f"The run of {saved.path} does not name its data (perhaps it was arrays in memory), and the exported file "
            "is compared with the student on real samples. Name a folder or data set with --data."
        )
    return samples_of(reopen(source), needs, "valid")


class PredictFlags(Flags):
    """Predict new samples with a student and write one line per sample. Only the student's file is needed.

    A student with a prediction per pixel writes an .npz file with all classes (rows, height, width) instead; of a LiDAR
    scan (.bin) it writes the class of every point (.label). If STUDENT is a run folder, the student of its ship card is
    used; --modalities, --name and --run-seed choose another. Options of a data set are flags that carry its name. Rows
    are numbered as in the data, for every split.
    """

    student: Annotated[Path, Flag(metavar="STUDENT", positional=True)] = Field(
        description="student.safetensors, student.onnx, the folder of such a file, or a run folder"
    )
    data: Annotated[str, Flag(metavar="DATA", positional=True)] = Field(
        description="folder with the arrays that the student reads (without labels), a .npy file, a LiDAR scan (.bin), "
        "or a data set's name"
    )
    calib: Path | None = Field(None, description="of a LiDAR scan: calib.txt of the camera, for a student of its view")
    modalities: Names = Field((), description="of a run folder: exactly the modalities that the student reads")
    name: str = Field("", description="of a run folder: method or control")
    run_seed: int | None = Field(None, ge=0, description="of a run folder: seed of the student")
    out: Path | None = Field(
        None,
        description="file to write; default: predictions.csv, predictions.npz with a class per pixel, or the scan's "
        "name with .label",
    )
    outputs: Path | None = Field(
        None, description="also write the outputs before softmax as a table for --teacher-from (.npy or .npz)"
    )
    split: Literal["all", "train", "valid", "test"] = Field("all", description="rows to predict")
    seed: int | None = Field(
        None, ge=0, description="seed of splits that are drawn; default: that of the student in a run folder, or 0"
    )


def predict(words: Sequence[str]) -> Answer:
    """The command ``xmodal predict STUDENT DATA``."""
    flags, options = read_with_data(PredictFlags, words, prog="xmodal predict")
    from xmodal.cli.inputs import open_samples
    from xmodal.cli.predictions import SCAN, label_scan, maps_summary, summary, table, write_csv, write_maps
    from xmodal.deploy import open_student
    from xmodal.models.description import info_of

    path, lines, seed = flags.student, [], flags.seed
    if (path / "result.json").is_file():
        best, why = choose(path, Wanted(flags.modalities, flags.name, flags.run_seed))
        path, lines = best.path, [f"Student: {best.path} ({why})"]
        # its own split: rows that it was trained on are no test rows for it
        seed = best.seed if seed is None else seed
    elif flags.modalities or flags.name or flags.run_seed is not None:
        raise InputError(
            f"--modalities, --name and --run-seed choose among the students of a run folder, and {path} is not a run "
            "folder. Leave them out, or give the folder of a finished run."
        )
    if Path(flags.data).suffix == SCAN:
        written, found = label_scan(path, Path(flags.data), flags.out, calibration=flags.calib, options=options)
        return Answer(written, flags.as_json, [*lines, *found, f"Written: {written['file']}"])
    if flags.calib is not None:
        raise InputError(f"--calib belongs to a LiDAR scan ({SCAN}), and {flags.data} is none. Leave it out.")
    predictor, seed = open_student(path), seed or 0
    if flags.outputs is not None:
        from xmodal.cli.teacher_table import outputs_table
        from xmodal.teachers.request import TeacherRequest

        teacher = TeacherRequest(source=path)
        lines += outputs_table(teacher, flags.data, flags.outputs, split=flags.split, seed=seed, options=options)
    samples = open_samples(flags.data, predictor.needs, split=flags.split, seed=seed, options=options)
    dense = predictor.description["dense"] and predictor.description["task"] == "multiclass"
    out = _writable(flags.out, dense=dense)
    info = info_of(predictor.description)
    # a generator, so that outputs of large pictures are reduced to classes before the next rows are read
    starts = range(0, len(samples.rows), step := info.block(CHUNK))
    parts = (predictor.predict(samples.take(first, first + step), batch_size=info.block(256)) for first in starts)
    result: dict[str, Any] = {"file": str(out), "task": info.task, "student": str(path)}
    if dense:
        counts, shape = write_maps(out, parts, samples, info)
        result |= {"rows": shape[0], "shape": shape, "pixels": counts}
        lines.append(maps_summary(counts, shape))
    else:
        predictions = table(list(parts), samples.rows, predictor.description)
        if samples.ids:
            predictions = [{"row": line["row"], "id": samples.ids[line["row"]], **line} for line in predictions]
        write_csv(out, predictions)
        result["predictions"] = predictions
        lines += summary(predictions, info.task)
    return Answer(result, flags.as_json, [*lines, f"Written: {out}"])


def _writable(out: Path | None, *, dense: bool) -> Path:
    """The file to write; raises an error if its ending does not fit these predictions."""
    ending = ".npz" if dense else ".csv"
    if out is None:
        return Path(f"predictions{ending}")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: the name of a {ending} file was expected.")
    if dense and out.suffix != ending:
        raise InputError(f"--out {out}: this student predicts a class for every pixel, which goes into an .npz file.")
    return out
