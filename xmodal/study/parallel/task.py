"""A task: the trainings of one seed, and what comes back of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.study.opening import StudySettings
from xmodal.study.parallel.trained import SentSeed
from xmodal.study.plan import Opener, Plan

if TYPE_CHECKING:
    from torch import nn

# Trains and scores everything of one seed; a function of a module, so that other processes find it. It is called with
# the study, the seed, its data and the arguments of the task, and returns what the report needs: rows, notes, ….
TrainSeed = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """One seed of a study, at one value of a sweep.

    Attributes:
        name: of its files.
        seed: of the bench.
        plan: of the bench.
        arguments: for the function that trains, after study, seed and data.
    """

    name: str
    seed: int
    plan: Plan
    arguments: Sequence[Any] = ()


@dataclass(frozen=True)
class Shared:
    """What all tasks of a run have in common.

    Attributes:
        train: the function that trains.
        opened: opens the data of a seed.
        settings: of the recipe.
        recipe: name of its card.
        out: the run folder; None: nothing is written.
        threads: of each process.
        channel: folder of the messages.
        modules: the user's own networks by side.
        tells_epochs: whether the parent has callbacks, which are told of every epoch.
        sends_networks: whether the networks come back with the result.
        here: whether the processes are children of the parent, which serve nobody else.
    """

    train: TrainSeed
    opened: Opener
    settings: StudySettings
    recipe: str
    out: Path | None
    threads: int
    channel: Path
    modules: Mapping[str, nn.Module]
    tells_epochs: bool
    sends_networks: bool
    here: bool


@dataclass(frozen=True)
class Outcome:
    """What a process returns of a task.

    Attributes:
        name: of the task.
        found: what the function returned; None: it did not end.
        seed: the networks, where they are sent.
        error: why it did not end.
        signal: number of the signal that stopped it; 0: none.
        deaths: processes that died at this task, if the last one gave up for that reason.
    """

    name: str
    found: dict[str, Any] | None = None
    seed: SentSeed | None = None
    error: Exception | None = None
    signal: int = 0
    deaths: int = 0
