"""What is left of a bench when its seed is finished: networks and histories, without data and devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from xmodal.types import DataInfo, Student


class TrainedRun(Protocol):
    """A finished training: an `xmodal.engine.run.result.Run`, or what another process sent of it."""

    @property
    def students(self) -> Mapping[str, Student]:
        """Name → student with its final weights."""

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """One row per epoch."""


class TrainedSeed(Protocol):
    """A `xmodal.study.bench.Bench` whose seed is finished, or what another process sent of it."""

    @property
    def info(self) -> DataInfo:
        """Description of the data."""

    @property
    def runs(self) -> Mapping[str, TrainedRun]:
        """Name → training."""

    def student_in(self, folder: str, student: str) -> Student:
        """The student of a row, by the ``folder`` and ``student`` that the row names."""


@dataclass(frozen=True)
class SentRun:
    """See `TrainedRun`."""

    students: Mapping[str, Student]
    history: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class SentSeed:
    """See `TrainedSeed`; ``places``: folder → name of the run in it."""

    info: DataInfo
    runs: Mapping[str, SentRun]
    places: Mapping[str, str]

    def student_in(self, folder: str, student: str) -> Student:
        """The student of a row, by the ``folder`` and ``student`` that the row names."""
        return self.runs[self.places[folder]].students[student]


def sent(seed: TrainedSeed, places: Mapping[str, str]) -> SentSeed:
    """A finished seed as it is sent to another process; its networks move to the CPU."""
    runs = {}
    for name, run in seed.runs.items():
        for student in run.students.values():
            student.module.cpu()
        runs[name] = SentRun(dict(run.students), list(run.history))
    return SentSeed(seed.info, runs, dict(places))
