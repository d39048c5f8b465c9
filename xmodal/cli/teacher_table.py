"""The command `teacher-table`: the outputs of any teacher for the rows of some data, for `--teacher-from`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from xmodal.cli.output import Answer
from xmodal.cli.parser import Flags
from xmodal.cli.recipe_flags import read_with_data
from xmodal.flags import Flag
from xmodal.study.settings import Names
from xmodal.teachers.request import Kind, TeacherRequest


class TeacherTableFlags(Flags):
    """Write the outputs of a teacher as a table, with what is needed to refuse it for other rows.

    The table holds the ids of the rows, or their numbers, and a fingerprint of the teacher's inputs for each of them.
    `distill` and `compare` read it with --teacher-from; neither the teacher nor its modalities are needed there.
    """

    source: Annotated[str, Flag(metavar="SOURCE", positional=True)] = Field(
        description="a run folder, a student, an .onnx file, a local model folder, or file.py:function"
    )
    data: Annotated[str, Flag(metavar="DATA", positional=True)] = Field(description="a data set's name or a folder")
    out: Path = Field(Path("teacher.npz"), description="file to write: .npz, or .npy and a file beside it")
    teacher: Names = Field((), description="modalities that the teacher receives; default: all")
    teacher_outputs: Kind = Field("auto", description="what the teacher returns; auto: read from its values")
    teacher_classes: Annotated[Path | None, Flag(metavar="FILE")] = Field(
        None, description="names of the teacher's classes, one in a line; or .json, a list or teacher's → yours"
    )
    split: Literal["all", "train", "valid", "test"] = Field("all", description="rows to answer for")
    seed: int = Field(0, ge=0, description="seed of splits that are drawn")


def teacher_table(words: Sequence[str]) -> Answer:
    """The command ``xmodal teacher-table SOURCE DATA``."""
    flags, options = read_with_data(TeacherTableFlags, words, prog="xmodal teacher-table")
    request = TeacherRequest(source=flags.source, outputs=flags.teacher_outputs, classes=flags.teacher_classes)
    lines = outputs_table(
        request, flags.data, flags.out, split=flags.split, seed=flags.seed, options=options, modalities=flags.teacher
    )
    return Answer({"file": str(flags.out), "lines": lines}, flags.as_json, lines)


def outputs_table(
    request: TeacherRequest,
    data: str,
    out: Path,
    *,
    split: str,
    seed: int,
    options: Mapping[str, Any],
    modalities: Sequence[str] = (),
) -> list[str]:
    """Write the table of a teacher for some data; returns lines about it.

    Args:
        request: the teacher.
        data: name or folder of the data.
        out: file to write.
        split: name of the split, or ``all``.
        seed: of splits that are drawn.
        options: of the data set.
        modalities: that the teacher receives; empty: all.
    """
    # torch is imported after the flags are read, so that --help and wrong flags answer fast
    from xmodal.data import open_data
    from xmodal.teachers.given import open_teacher
    from xmodal.teachers.tabulate import write_outputs
    from xmodal.types import SPLITS

    opened = open_data(data, options=options, seed=seed)
    receives = opened.info.require(tuple(modalities) or opened.info.modalities, "teacher")
    given = open_teacher(request, opened, receives)
    splits = SPLITS if split == "all" else (split,)
    return write_outputs(out, given, opened, splits=splits, modalities=modalities)
