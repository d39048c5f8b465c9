"""Pictures of a finished study: a fault in drawing becomes a note, and never costs what was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xmodal.types import Student


@contextmanager
def drawing(notes: list[str], what: str) -> Iterator[None]:
    """In this block an error does not end the command; a note says what is missing, and why."""
    try:
        yield
    except Exception as error:
        notes.append(f"{what} could not be drawn ({type(error).__name__}: {error}). Everything else is complete.")


def networks_of(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Student]]:
    """Name and network of each row, from its file in the run folder ``folder``, wherever it was trained."""
    from xmodal.models.student_file import load_student

    for row in rows:
        file = folder / row["folder"] / "students" / row["student"] / "student.safetensors"
        student, _ = load_student(file)
        yield row["name"], student
