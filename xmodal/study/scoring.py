"""The interface for data sets with their own scoring: arguments and results of the function that `evaluate` calls.

A network predicts on its own grid. If a data set is scored elsewhere, such as on the points of a scan, the card of its
recipe names a function with the signature of `Evaluate` and the pydantic class of its options, which become flags. That
class must load without torch, since `--help` imports it and must respond immediately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.devices import Devices
    from xmodal.types import Student


@dataclass
class Scored:
    """The scores of one student.

    Attributes:
        scores: name → number, for the table of all students; empty if nothing could be scored.
        tables: what is counted, such as ``points`` → metric → value, with values per class and confusion matrices.
        lines: the tables as text.
        written: folder of its predictions; None: there are none.
    """

    scores: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: Sequence[str] = ()
    written: Path | None = None


class Evaluate(Protocol):
    """The signature of a function that scores the students of one data set."""

    def __call__(
        self,
        students: Mapping[str, Student],
        data: Data,
        split: str,
        options: Any,
        *,
        fabric: Devices,
        folders: Mapping[str, Path],
        teachers: Mapping[str, str],
    ) -> tuple[dict[str, Scored], list[str]]:
        """Scores of all students, and notes for the user.

        Args:
            students: by key; they take raw inputs, are on the device and in eval mode.
            data: the opened data set, of the class that belongs to the function.
            split: name of the split.
            options: an object of the class that the card names.
            fabric: devices; several processes share the samples.
            folders: key → folder for the predictions of this student.
            teachers: key of a student → key of the teacher of its run; a student without a teacher has no entry.
        """
