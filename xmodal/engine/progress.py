"""Progress of a command: a bar with the remaining time on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO


class Progress:
    """Progress of a command, which may consist of many trainings.

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
            # imported here: not needed where the output is no terminal
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            if self._bar is None:
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
                self._task = self._bar.add_task(title, total=epochs * max(self.fits, 1), last="")
            total, completed = epochs * self.fits, self.done * epochs + at
            self._bar.update(self._task, description=title, total=total, completed=completed)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is over; plain lines are written at most once per second, and always for the last epoch."""
        if self.quiet:
            return
        text = _summary(row, self.metric)
        if self.live:
            self._bar.update(self._task, advance=1, last=text)
        elif time.monotonic() - self._last_line >= 1.0 or row["epoch"] + 1 == self.epochs:
            self._last_line = time.monotonic()
            title = f"{self.title} ({self.done + 1}/{self.fits})" if self.fits > 1 else self.title
            self.say(f"{title}: epoch {row['epoch'] + 1}/{self.epochs}  {text}")

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


def _summary(row: Mapping[str, Any], metric: str) -> str:
    parts = [f"loss {row['loss']:.4f}"]
    for student, scores in row["valid"].items():
        numbers = {name: value for name, value in scores.items() if isinstance(value, float)}
        name = metric if metric in numbers else next(iter(numbers), "")
        parts.append(f"{student}: {name} {numbers[name]:.4f}" if name else f"{student}:")
    return "  ".join(parts)
