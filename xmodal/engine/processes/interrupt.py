"""Ctrl-C and SIGTERM: finish the step, save, leave.

The handler is installed before anything slow is imported, because a signal that arrives earlier would kill the process
without a word. Outside of `deferred` a signal raises `Interrupted` at once; inside, the loop asks `pending()`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from xmodal.engine.processes import spawn
from xmodal.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Watch:
    """State of the handler; there is one per process because signals are."""

    def __init__(self) -> None:
        self.received = 0
        self.deferring = 0


_watch = _Watch()


def install() -> None:
    """Answer the two signals from now on."""
    for number in SIGNALS:
        signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    first = not _watch.received
    _watch.received = number
    if not _watch.deferring or not first:  # a second signal doesn't wait for the step
        raise Interrupted(number)


@contextmanager
def deferred() -> Iterator[None]:
    """Within this block a first signal only sets what `pending` returns."""
    _watch.deferring += 1
    try:
        yield
    finally:
        _watch.deferring -= 1


@contextmanager
def saved_in(folder: Path) -> Iterator[None]:
    """Within this block whatever is interrupted can be resumed from ``folder``, that of the whole command."""
    spawn.tell(folder)
    try:
        yield
    except Interrupted as error:
        error.saved = str(folder)
        raise


def ignore() -> None:
    """Signals change nothing any more: the command is about to end for another reason."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def pending() -> int:
    """Number of the signal that arrived, 0 if none did."""
    return _watch.received
