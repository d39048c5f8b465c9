"""Progress of a command: a bar with the remaining time on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO


class Progress:
    """Progress of a command, which may consist of many trainings, one after the other or several at a time.

    Args:
        stream: where to write; None: standard error.
        quiet: write nothing (other ranks, use from Python).
        fits: how many trainings are expected, for the remaining time.
    """

    def __init__(self, *, stream: TextIO | None = None, quiet: bool = False, fits: int = 1) -> None:
        self.stream = stream or sys.stderr
        self.quiet, self.fits, self.done = quiet, fits, 0
        self.live = not quiet and self.stream.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._last_line = 0.0  # when it was written

    def expect(self, fits: int = 1) -> None:
        """Announce more trainings."""
        self.fits += fits
        if self._bar is not None:
            self._bar.update(self._task, total=self.epochs * self.fits)

    def start(self, title: str, epochs: int, at: int = 0, *, metric: str = "") -> None:
        """A training begins, at epoch ``at`` if it is resumed; ``metric`` is shown, or the first one if it is empty."""
        self.title, self.epochs, self.metric = title, epochs, metric
        # more trainings than were announced must not lead to "4/3"
        self.fits = max(self.fits, self.done + 1)
        if self.live:
            self._open_bar(title)
            total, completed = epochs * self.fits, self.done * epochs + at
            self._bar.update(self._task, description=title, total=total, completed=completed)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over; plain lines are written at most once per second, and always for the last epoch."""
        if self.quiet:
            return
        self._show(self.title, row["epoch"], self.epochs, summary(row, self.metric), self.done + 1)

    def end(self) -> None:
        """The training is over."""
        self.done += 1

    def say(self, sentence: str) -> None:
        """Write a line."""
        if self.quiet:
            return
        if self._bar is not None:
            # through the bar, which would otherwise overwrite the line
            self._bar.console.print(sentence, highlight=False, markup=False)
        else:
            print(sentence, file=self.stream, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _open_bar(self, title: str) -> None:
        if self._bar is not None:
            return
        # imported here: not needed where the output is no terminal
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[last]}"),
            console=Console(file=self.stream),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(title, total=1, last="")

    def _show(self, title: str, epoch: int, epochs: int, text: str, number: int) -> None:
        """Show that an epoch is over; ``number`` is that of the training."""
        if self.live:
            self._bar.update(self._task, advance=1, last=text)
        elif not self.quiet and (time.monotonic() - self._last_line >= 1.0 or epoch + 1 == epochs):
            self._last_line = time.monotonic()
            title = f"{title} ({number}/{self.fits})" if self.fits > 1 else title
            self.say(f"{title}: epoch {epoch + 1}/{epochs}  {text}")


class JobProgress:
    """Progress of one of several trainings that run at the same time, on the display of the command.

    Args:
        whole: the display.
    """

    def __init__(self, whole: Progress) -> None:
        self.whole = whole
        self._task: Any = None
        self._at = 0  # epochs of the training that the display has counted
        self._ended = self._expected = 0

    def begin(self) -> None:
        """A process begins here; what one before it has told, which was killed, is told again."""
        self.whole.done -= self._ended
        self.whole.fits -= self._expected
        self._ended = self._expected = 0

    def expect(self, fits: int) -> None:
        """Announce more trainings."""
        self._expected += fits
        self.whole.fits += fits

    def start(self, title: str, epochs: int, at: int = 0) -> None:
        """A training begins."""
        self.title, self.epochs = title, epochs
        whole = self.whole
        if not whole.live:
            return
        whole._open_bar("all trainings")
        # each has a bar of its own below that of all, which counts its epochs too
        whole._bar.update(whole._task, total=epochs * whole.fits)
        if self._task is None:
            self._task = whole._bar.add_task(title, total=epochs, last="")
        whole._bar.update(self._task, description=title, total=epochs, completed=at)
        whole._bar.update(whole._task, advance=at)
        self._at = at

    def epoch(self, epoch: int, text: str) -> None:
        """The epoch of this number is over; some epochs before it may not have been told."""
        whole = self.whole
        if whole.live:
            whole._bar.update(self._task, completed=epoch + 1, last=text)
            whole._bar.update(whole._task, advance=epoch + 1 - self._at)
            self._at = epoch + 1
            return
        whole._show(self.title, epoch, self.epochs, text, min(whole.done + 1, whole.fits))

    def end(self) -> None:
        """The training is over."""
        self._ended += 1
        self.whole.done += 1

    def close(self) -> None:
        """Nothing is left to train here: the bar of this place disappears."""
        if self._task is not None and self.whole._bar is not None:
            self.whole._bar.remove_task(self._task)
            self._task = None


def summary(row: Mapping[str, Any], metric: str) -> str:
    """The loss and the score of every student after an epoch, as text."""
    parts = [f"loss {row['loss']:.4f}"]
    for student, scores in row["valid"].items():
        numbers = {name: value for name, value in scores.items() if isinstance(value, float)}
        name = metric if metric in numbers else next(iter(numbers), "")
        parts.append(f"{student}: {name} {numbers[name]:.4f}" if name else f"{student}:")
    return "  ".join(parts)
