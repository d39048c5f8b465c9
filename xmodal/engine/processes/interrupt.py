"""Ctrl-C and SIGTERM: finish the step, save, leave.

The handler is installed before anything slow is imported, because a signal that arrives earlier would kill the process
without a word. Outside of `deferred` a signal raises `Interrupted` at once; inside, the loop asks `pending()`.

Under `torchrun` and its like the death of another rank shows in two ways, in any order: a collective fails, and the
launcher, which has seen the death, sends SIGTERM. An `Interrupted` that comes after the death names it as its cause.
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
        self.leaving = False


_watch = _Watch()


def install() -> None:
    """Answer the two signals from now on."""
    _watch.leaving = False
    for number in SIGNALS:
        signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    if _watch.leaving:
        return
    first = not _watch.received
    _watch.received = number
    if not _watch.deferring or not first:  # a second signal doesn't wait for the step
        # asked here and not later: interrupted by their user, other ranks end as well, and have not died
        raise Interrupted(number) from None if spawn.hears() else spawn.gone(seconds=0.0)


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


def leave() -> None:
    """Signals change nothing from now on: the command has ended, and only has to say how."""
    _watch.leaving = True  # not SIG_IGN, for which Python complains of signals that arrive while it is set
    if spawn.has_peers():
        # torch's own handler raises an error for a loading process that the launcher has ended along with us
        signal.signal(signal.SIGCHLD, _nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    return None


def pending() -> int:
    """Number of the signal that arrived, 0 if none did."""
    return _watch.received
