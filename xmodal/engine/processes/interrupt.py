"""Ctrl-C and SIGTERM: finish the step, save, exit.

The handler is installed before anything slow is imported, because an earlier signal would kill the process without a
message. Outside of `deferred` a signal raises `Interrupted` immediately; inside, the loop checks `pending()`.

Under `torchrun` and similar launchers the death of another rank shows in two ways, in any order: a collective fails,
and the launcher, which has seen the death, sends SIGTERM. An `Interrupted` raised after the death has it as its cause.
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
    """State of the handler; there is one per process, as there is one handler per process."""

    def __init__(self) -> None:
        self.received = 0
        self.deferring = 0
        self.leaving = False


_watch = _Watch()


def install() -> None:
    """Handle both signals from now on."""
    _watch.leaving = False
    for number in SIGNALS:
        signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    if _watch.leaving:
        return
    first = not _watch.received
    _watch.received = number
    # a second signal doesn't wait for the step, which may hang
    if not _watch.deferring or not first:
        # Checked here and not later: if the user has interrupted all ranks, the others end soon, too, without a death.
        raise Interrupted(number) from None if spawn.hears() else spawn.gone(seconds=0.0)


@contextmanager
def deferred() -> Iterator[None]:
    """In this block a first signal does not raise; it sets what `pending` returns."""
    _watch.deferring += 1
    try:
        yield
    finally:
        _watch.deferring -= 1


@contextmanager
def saved_in(folder: Path) -> Iterator[None]:
    """In this block an `Interrupted` gets ``folder``, the run folder of the command, from which it can be resumed."""
    spawn.tell(folder)
    try:
        yield
    except Interrupted as error:
        error.saved = str(folder)
        raise


def leave() -> None:
    """Ignore signals from now on: the command has ended, and only its message is left to be written."""
    # A flag and not SIG_IGN: Python complains about a signal that arrives while the handler is being replaced.
    _watch.leaving = True
    if spawn.has_peers():
        # torch's own handler raises an error for a loading process that the launcher has ended together with this rank
        signal.signal(signal.SIGCHLD, _nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    return None


def pending() -> int:
    """Number of the signal that arrived; 0: none."""
    return _watch.received


def request(number: int) -> None:
    """Set what `pending` returns, as a first signal inside `deferred` does; 0: nothing has arrived."""
    _watch.received = number
