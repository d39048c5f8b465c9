"""Data sets that are scored in a way of their own: what `xmodal evaluate` gives them, and what it gets back.

A network predicts on its own grid. Where a data set is scored elsewhere (on the points of a scan, in the voxels that
can be seen), the card of its recipe names a function with the signature of `Evaluate` and the pydantic class of its
options, which become flags. That class must load without torch, since help texts are shown at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from xmodal.data.base import Data
    from xmodal.types import Student


@dataclass
class Scored:
    """What is known of one student.

    Attributes:
        scores: name → number, for the table of all students; empty where nothing could be scored.
        tables: further scores by what they count, with numbers per class and tables of counts.
        lines: the tables as people read them.
        written: folder of its predictions; None: there are none.
    """

    scores: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: Sequence[str] = ()
    written: Path | None = None


class Evaluate(Protocol):
    """A data set's own way of scoring."""

    def __call__(
        self,
        students: Mapping[str, Student],
        data: Data,
        split: str,
        options: Any,
        *,
        fabric: Fabric,
        folders: Mapping[str, Path],
        teachers: Mapping[str, str],
    ) -> tuple[dict[str, Scored], list[str]]:
        """Scores of all students, and what is worth knowing in sentences.

        Args:
            students: by key; they take raw inputs, on the device, in eval mode.
            data: opened; what it knows of its files is the function's business.
            split: which samples.
            options: an object of the class that the card names.
            fabric: devices; several processes share the samples.
            folders: key → where predictions of this student may be written.
            teachers: key of a student → key of the teacher of its run, for those that have one.
        """
