"""The parent of several jobs: it hands out the tasks, shows what they tell, and passes on signals.

joblib runs the tasks: in processes of this machine (loky), or on a Dask cluster. It does so in a thread of its own, so
that the main thread can show the progress, call callbacks, and answer a signal. When a process dies, joblib ends the
others too; then the tasks without a result are handed out again, and each continues from its checkpoints.
"""

from __future__ import annotations

import pickle
import queue
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.engine.callbacks import tell_epoch
from xmodal.engine.processes import interrupt
from xmodal.engine.progress import JobProgress
from xmodal.errors import InputError, Interrupted, ProcessDied, listed
from xmodal.study.parallel.channel import PREFIX, Channel, await_earlier
from xmodal.study.parallel.cluster import on_cluster
from xmodal.study.parallel.task import Outcome, Shared, Task
from xmodal.study.parallel.worker import DEATHS, train_seed

if TYPE_CHECKING:
    from xmodal.study.opening import Study

LOOK = 0.05  # seconds between two looks at what the processes tell
IDLE = 10  # seconds without work after which a process ends
LEFT = 30.0  # seconds that processes have to save when the parent must leave


def run_tasks(
    study: Study, tasks: Sequence[Task], share: Callable[[Path], Shared], *, jobs: int, cluster: str
) -> dict[str, Outcome]:
    """Train all tasks, so many at a time; returns their outcomes by name.

    Args:
        study: the command.
        tasks: to train.
        share: makes what they have in common, from the folder of the messages.
        jobs: how many at the same time.
        cluster: where, in place of this machine, see `on_cluster`; empty: here.
    """
    with ExitStack() as stack:
        channel = stack.enter_context(_channel(study.out))
        shared = share(channel.folder)
        parallel = stack.enter_context(on_cluster(cluster, jobs) if cluster else _processes(jobs, shared.threads))
        watch = _Watch(study, channel, tasks)
        outcomes: dict[str, Outcome] = {}
        with interrupt.deferred():
            while left := [task for task in tasks if task.name not in outcomes]:
                outcomes |= _attempt(parallel, shared, left, watch)
                _raise_first(outcomes, tasks, study)
                # who was asked to stop and has not answered was ended by the same signal
                if watch.stopping:
                    raise Interrupted(watch.stopping, saved=None if study.out is None else str(study.out))
    return outcomes


def _attempt(parallel: Any, shared: Shared, tasks: Sequence[Task], watch: _Watch) -> dict[str, Outcome]:
    """Hand out the tasks once; a task whose process died, or was ended with it, has no outcome."""
    from joblib import delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    arrived: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()

    def hand_out() -> None:
        try:
            for outcome in parallel(delayed(train_seed)(shared, task) for task in tasks):
                arrived.put(outcome)
        except TerminatedWorkerError:
            # the tasks without an outcome say it all
            pass
        except BaseException as error:
            arrived.put(error)
        arrived.put(None)

    thread = threading.Thread(target=hand_out, daemon=True, name="jobs")
    thread.start()
    outcomes: dict[str, Outcome] = {}
    try:
        while True:
            watch.look()
            try:
                message = arrived.get(timeout=LOOK)
            except queue.Empty:
                continue
            if message is None:
                break
            if isinstance(message, pickle.PicklingError):
                # the cause is a traceback as text
                reason = [line for line in str(message.__cause__ or message).splitlines() if line.strip('" ')]
                raise InputError(
                    "Several jobs send networks, data and functions to other processes, and one of these can't be sent "
                    f"({reason[-1]}). Use one job, or objects of a module."
                ) from message
            if isinstance(message, BaseException):
                raise message
            outcomes[message.name] = message
            watch.views[message.name].close()
            # the first that failed ends the others, which save before
            if message.error is not None or message.deaths:
                watch.stop(15)
    except BaseException:
        # a second Ctrl-C, or an error in a callback: who still trains saves, if it can
        watch.stop(15)
        thread.join(timeout=LEFT)
        raise
    watch.look()
    return outcomes


class _Watch:
    """What the main thread does while others train."""

    def __init__(self, study: Study, channel: Channel, tasks: Sequence[Task]) -> None:
        self.study, self.channel = study, channel
        self.views = {task.name: JobProgress(study.progress) for task in tasks}
        self.stopping = 0

    def look(self) -> None:
        """Show what was told, and pass on a signal."""
        self.channel.beat()
        if (number := interrupt.pending()) and not self.stopping:
            self.stop(number)
        for name, event in self.channel.events():
            self._show(self.views[name], event)

    def stop(self, number: int) -> None:
        """Ask all processes to save and end."""
        if not self.stopping:
            self.stopping = number
            self.channel.stop(number)

    def _show(self, view: JobProgress, event: Mapping[str, Any]) -> None:
        kind = event["kind"]
        if kind == "begin":
            view.begin()
        elif kind == "start":
            view.start(event["title"], event["epochs"], event["at"])
        elif kind == "epoch":
            view.epoch(event["epoch"], event["text"])
        elif kind == "end":
            view.end()
        elif kind == "expect":
            view.expect(event["fits"])
        elif kind == "say":
            self.study.progress.say(event["sentence"])
        elif kind == "row":
            tell_epoch(self.study.callbacks, event["row"])


def _raise_first(outcomes: Mapping[str, Outcome], tasks: Sequence[Task], study: Study) -> None:
    """Raise the error of the first task that has one; that of a signal if there is none."""
    ended = [outcomes[task.name] for task in tasks if task.name in outcomes]
    for outcome in ended:
        if outcome.error is not None:
            raise outcome.error
    saved = None if study.out is None else str(study.out)
    if given_up := [outcome.name for outcome in ended if outcome.deaths]:
        raise ProcessDied(
            f"{DEATHS} processes died one after the other while they trained {listed(given_up)}, which is what the "
            "system does when memory runs out: lower --jobs.",
            exit_status=137,
            saved=saved,
        )
    if stopped := [outcome for outcome in ended if outcome.signal]:
        raise Interrupted(interrupt.pending() or stopped[0].signal, saved=saved)


@contextmanager
def _channel(out: Path | None) -> Iterator[Channel]:
    """A folder for the messages, in the run folder if there is one: machines of a cluster see that."""
    if out is not None:
        await_earlier(out)
    with tempfile.TemporaryDirectory(prefix="xmodal-") if out is None else nullcontext(out) as parent:
        channel = Channel(Path(parent) / f"{PREFIX}{secrets.token_hex(4)}")
        try:
            yield channel
        finally:
            channel.close()


@contextmanager
def _processes(jobs: int, threads: int) -> Iterator[Any]:
    """What runs the tasks in processes of this machine, which end with the block."""
    from joblib import Parallel, parallel_config
    from joblib.externals.loky import get_reusable_executor

    configured: AbstractContextManager[Any] = parallel_config(
        "loky", n_jobs=jobs, inner_max_num_threads=threads, idle_worker_timeout=IDLE
    )
    with configured:
        try:
            yield Parallel(batch_size=1, return_as="generator_unordered", mmap_mode="c")
        finally:
            # otherwise they would wait for more work for some minutes
            get_reusable_executor(reuse=True).shutdown(wait=False, kill_workers=True)
