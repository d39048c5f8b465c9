"""The seeds of a comparison, one after the other in this process, or several at a time in others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.study.opening import Study
from xmodal.study.parallel.task import Shared, Task, TrainSeed
from xmodal.study.plan import Opener, Plan, open_seed

if TYPE_CHECKING:
    from xmodal.data.base import Data


def each_seed(
    study: Study,
    train: TrainSeed,
    plan: Plan,
    seeds: Sequence[int],
    first: Data,
    *arguments: Any,
    opened: Opener = open_seed,
    same: bool = False,
) -> Iterator[dict[str, Any]]:
    """What was found for every seed, in their order.

    Args:
        study: the command, after its `start`.
        train: trains and scores a seed: a function of a module, called with study, seed, data and ``arguments``. What
            it returns and what it is given must be picklable, since other processes may do the work.
        plan: of the benches.
        seeds: to train.
        first: the data of the first seed, opened for the checks.
        *arguments: further arguments of ``train``.
        opened: opens the data of the other seeds.
        same: whether the data is the same for every seed, so that it need not be opened again.
    """
    tasks = [Task(f"seed-{seed}", seed, plan, arguments) for seed in seeds]
    return each_task(study, train, tasks, first=first, opened=opened, same=same)


def each_task(
    study: Study,
    train: TrainSeed,
    tasks: Sequence[Task],
    *,
    first: Data | None = None,
    opened: Opener = open_seed,
    same: bool = False,
) -> Iterator[dict[str, Any]]:
    """What was found for every task, in their order; see `each_seed`."""
    if study.jobs > 1 or study.cluster:
        yield from _together(study, train, tasks, opened)
        return
    for number, task in enumerate(tasks):
        data = first if first is not None and (same or number == 0) else opened(task.plan, task.seed)
        yield train(study, task.seed, data, *task.arguments)


def _together(study: Study, train: TrainSeed, tasks: Sequence[Task], opened: Opener) -> Iterator[dict[str, Any]]:
    import torch

    from xmodal.study.parallel.pool import run_tasks

    def share(channel: Path) -> Shared:
        return Shared(
            train=train,
            opened=opened,
            settings=study.settings,
            recipe=study.recipe,
            out=study.out and study.out.resolve(),
            threads=torch.get_num_threads(),
            channel=channel.resolve(),
            modules=study.modules,
            tells_epochs=bool(study.callbacks),
            sends_networks=study.keeps_networks,
            here=not study.cluster,
        )

    outcomes = run_tasks(study, tasks, share, jobs=study.jobs, cluster=study.cluster)
    for task in tasks:
        outcome = outcomes[task.name]
        if outcome.seed is not None:
            study.trained[task.seed] = outcome.seed
        assert outcome.found is not None, "a task without a result has raised an error"
        yield outcome.found
