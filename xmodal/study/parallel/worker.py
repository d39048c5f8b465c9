"""The process of a task: it trains one seed, tells what happens, and stops when it is asked to."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from xmodal.engine.processes import interrupt
from xmodal.engine.processes.spawn import runs
from xmodal.engine.progress import Progress, summary
from xmodal.errors import InputError, Interrupted, NonFinite
from xmodal.study.opening import Study
from xmodal.study.parallel.channel import Voice
from xmodal.study.parallel.task import Outcome, Shared, Task
from xmodal.study.parallel.trained import SentSeed, sent

LOOK = 0.1  # seconds between two looks at whether to stop
EVERY = 0.2  # seconds between two epochs that are told; the last one always is
DEATHS = 3  # of one task, after which it is given up


def train_seed(shared: Shared, task: Task) -> Outcome:
    """Train a task in this process; errors are returned, so that the other processes can save before they end."""
    voice = Voice(shared.channel, task.name)
    if shared.here:
        _guard(voice.parent)
    if number := voice.stopped():
        return Outcome(task.name, signal=number)
    if (deaths := voice.begin()) >= DEATHS:
        return Outcome(task.name, deaths=deaths)
    try:
        with _busy, _listening(voice):
            return _trained(shared, task, voice)
    except Interrupted as interruption:
        return Outcome(task.name, signal=interruption.signal_number)
    except (InputError, NonFinite, OSError) as error:
        return Outcome(task.name, error=error)
    except Exception:
        # as text: the exception of a bug may hold anything, also what can't be sent
        return Outcome(task.name, error=RuntimeError(f"in the process of {task.name}:\n{traceback.format_exc()}"))


def _trained(shared: Shared, task: Task, voice: Voice) -> Outcome:
    import torch

    from xmodal.engine.processes.launch import launch

    fabric = launch(shared.settings.machine(), precision=shared.settings.precision)
    torch.set_num_threads(shared.threads)
    study = Study(shared.settings, shared.recipe, fabric, _Telling(voice))
    study.out, study.modules = shared.out, shared.modules
    study.callbacks = (_Epochs(voice),) if shared.tells_epochs else ()
    # the parent decides what is sent back; this study keeps the bench for that
    study.keeps_networks = shared.sends_networks
    data = shared.opened(task.plan, task.seed)
    found = shared.train(study, task.seed, data, *task.arguments)
    return Outcome(task.name, found, _networks(study, task.seed) if shared.sends_networks else None)


def _networks(study: Study, seed: int) -> SentSeed | None:
    from xmodal.study.bench import folder_name

    if seed not in study.trained:
        return None
    bench = study.trained[seed]
    return sent(bench, {f"seed-{seed}/{folder_name(name)}": name for name in bench.runs})


_busy = threading.Lock()  # held while a task is trained


@functools.cache
def _guard(parent: int) -> None:
    """End this process when its parent has ended: it would wait for more work, and none comes."""

    def look() -> None:
        while runs(parent):
            time.sleep(1.0)
        # a training that is under way saves first
        with _busy:
            os._exit(0)

    threading.Thread(target=look, daemon=True, name="guard").start()


@contextmanager
def _listening(voice: Voice) -> Iterator[None]:
    """In this block a request to stop has the effect of a signal: the training saves after its step and ends."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK):
            if number := voice.stopped():
                interrupt.request(number)

    # The keyboard reaches all processes of a terminal, and the parent tells us. A cluster runs tasks in threads, where
    # signals can't be handled.
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda number, frame: interrupt.request(number))
    listener = threading.Thread(target=look, daemon=True, name="listener")
    listener.start()
    try:
        yield
    finally:
        done.set()
        listener.join()
        for number, handler in before.items():
            signal.signal(number, handler)
        # this process may be used for another task
        interrupt.request(0)


class _Telling(Progress):
    """Sends the progress of this process to the display of the parent."""

    def __init__(self, voice: Voice) -> None:
        super().__init__(quiet=True)
        self.voice, self._told = voice, 0.0

    def expect(self, fits: int = 1) -> None:
        self.voice.tell("expect", fits=fits)

    def start(self, title: str, epochs: int, at: int = 0, *, metric: str = "") -> None:
        self.epochs, self.metric = epochs, metric
        self.voice.tell("start", title=title, epochs=epochs, at=at)

    def epoch(self, row: Mapping[str, Any]) -> None:
        number = row["epoch"]
        if number + 1 == self.epochs or time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            self.voice.tell("epoch", epoch=number, text=summary(row, self.metric))

    def end(self) -> None:
        self.voice.tell("end")

    def say(self, sentence: str) -> None:
        self.voice.tell("say", sentence=sentence)


class _Epochs:
    """A callback that sends every epoch to the callbacks of the parent."""

    def __init__(self, voice: Voice) -> None:
        self.voice = voice

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        self.voice.tell("row", row=dict(row))
