"""What a person sees while it runs: a bar with the time left on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO


class Progress:
    """Progress of a whole command, which may be many fits.

    Args:
        stream: where to; None: standard error.
        quiet: say nothing (other ranks, library use).
        fits: how many fits are to come, for the time left.
    """

    def __init__(self, *, stream: TextIO | None = None, quiet: bool = False, fits: int = 1) -> None:
        self.stream = stream or sys.stderr
        self.quiet, self.fits, self.done = quiet, fits, 0
        self.live = not quiet and self.stream.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._said = 0.0

    def expect(self, fits: int = 1) -> None:
        """More fits are to come than was known at the start."""
        self.fits += fits
        if self._bar is not None:
            self._bar.update(self._task, total=self.epochs * self.fits)

    def start(self, title: str, epochs: int, at: int = 0, *, metric: str = "") -> None:
        """A fit begins, at epoch ``at`` when it is resumed; told is the metric that chooses epochs, or the first."""
        self.title, self.epochs, self.metric = title, epochs, metric
        self.fits = max(self.fits, self.done + 1)  # more came than were announced
        if self.live:
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
        """An epoch is over; plain lines come at most once a second, and always for the last one."""
        text = _summary(row, self.metric)
        if self.live:
            self._bar.update(self._task, advance=1, last=text)
        elif not self.quiet and (time.monotonic() - self._said >= 1.0 or row["epoch"] + 1 == self.epochs):
            self._said = time.monotonic()
            left = f"{self.title} ({self.done + 1}/{self.fits})" if self.fits > 1 else self.title
            self.say(f"{left}: epoch {row['epoch'] + 1}/{self.epochs}  {text}")

    def end(self) -> None:
        """The fit is over."""
        self.done += 1

    def say(self, sentence: str) -> None:
        """One line to the reader."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(sentence, highlight=False, markup=False)
        else:
            print(sentence, file=self.stream, flush=True)

    def close(self) -> None:
        """Take the bar away."""
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
