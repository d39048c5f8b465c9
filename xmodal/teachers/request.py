"""What is asked for with `--teacher-from`; importing this file imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Kind = Literal["auto", "logits", "probabilities", "log-probabilities", "classes", "values", "embeddings"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class TeacherRequest:
    """A teacher that is used as it is.

    Attributes:
        source: path of a run folder, a student, a table (.npy, .npz), an .onnx file or a local model folder, or
            ``file.py:function``; in Python also an array, a dictionary of arrays, a module or a function.
        outputs: what the teacher returns, of `KINDS`; ``auto``: read from the source, or from the range of its values.
        classes: names of the teacher's classes in the order of its outputs, or teacher's class → class of the data; a
            file (.txt with a name per line, .json with a list or a dictionary), or the same as a Python object; None:
            those that the source names, or the classes of the data.
        probe: turn embeddings into a teacher by a linear probe on the labelled rows.
    """

    source: Any
    outputs: str = "auto"
    classes: Path | Sequence[str] | Mapping[str, str] | None = None
    probe: bool = False

    @property
    def label(self) -> str:
        """The source as text, for notes and errors.

        Example:
            >>> TeacherRequest(source="runs/a").label, TeacherRequest(source=len).label
            ("'runs/a'", 'the function len')
        """
        if isinstance(self.source, str | Path):
            return f"'{self.source}'"
        name = getattr(self.source, "__name__", "")
        return f"the function {name}" if name else f"the given {type(self.source).__name__}"
