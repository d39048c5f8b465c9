"""The command `embed`: embeddings of samples by a student of the method discom, in their three parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from xmodal.cli.output import Answer
from xmodal.cli.parser import Flags
from xmodal.cli.recipe_flags import read_with_data
from xmodal.errors import InputError
from xmodal.files import written_whole
from xmodal.flags import Flag

CHUNK = 1024  # rows that are read at a time


class EmbedFlags(Flags):
    """Write the invariant, informative and irrelevant part of each sample's embedding.

    Only the student's file is needed. The output has one array per part, and the numbers of the rows. Options of a data
    set are flags that carry its name.
    """

    student: Annotated[Path, Flag(metavar="STUDENT", positional=True)] = Field(
        description="student.safetensors of the method discom, or its folder"
    )
    data: Annotated[str, Flag(metavar="DATA", positional=True)] = Field(
        description="folder with the array that the student reads, a .npy file, or a data set's name"
    )
    out: Path = Field(Path("embeddings.npz"), description="file to write")
    split: Literal["all", "train", "valid", "test"] = Field("all", description="rows to embed")
    seed: int = Field(0, ge=0, description="seed of splits that are drawn")


def embed(words: Sequence[str]) -> Answer:
    """The command ``xmodal embed STUDENT DATA``."""
    flags, options = read_with_data(EmbedFlags, words, prog="xmodal embed")
    # torch is imported after the flags are read, so that --help and wrong flags answer fast
    from xmodal.cli.inputs import open_samples
    from xmodal.deploy import embed as parts_of
    from xmodal.models.student_file import load_student

    if flags.out.suffix != ".npz" or flags.out.is_dir():
        raise InputError(f"--out {flags.out}: the name of a .npz file was expected.")
    student, description = load_student(flags.student)
    samples = open_samples(flags.data, student.needs, split=flags.split, seed=flags.seed, options=options)
    starts = range(0, len(samples.rows), CHUNK)
    chunks = [parts_of(student, description, samples.take(first, first + CHUNK)) for first in starts]
    arrays = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    with written_whole(flags.out) as temporary:
        np.savez(temporary, rows=samples.rows, **arrays)  # type: ignore[arg-type]
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    summary = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    return Answer({"file": str(flags.out), "shapes": shapes}, flags.as_json, [summary, f"Written: {flags.out}"])
