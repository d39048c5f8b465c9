"""Callbacks: objects of the user that are told what a training does, for trackers such as MLflow.

    class Print:
        def on_epoch(self, row):  # after each epoch, with its validation scores
            print(row["name"], row["seed"], row["epoch"], row["loss"])

        def on_end(self, result):  # once, after everything
            print(result)

Both methods are optional. Only the first process calls them, and an exception in one of them ends the training.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmodal.errors import InputError

NAMES = ("on_epoch", "on_end")


def check_callbacks(callbacks: Sequence[object]) -> None:
    """Raise an error about objects that would never be called."""
    if not isinstance(callbacks, list | tuple):
        raise InputError(f"callbacks is a {type(callbacks).__name__}: a list of objects was expected.")
    for callback in callbacks:
        if not any(callable(getattr(callback, name, None)) for name in NAMES):
            raise InputError(
                f"The callback {type(callback).__name__} has neither on_epoch(row) nor on_end(result), so it would "
                "never be called. Give an object with one of these methods."
            )


def tell_epoch(callbacks: Sequence[object], row: Mapping[str, Any]) -> None:
    """Call ``on_epoch`` of every callback that has it, with a row of its own: one may change what it is given."""
    for callback in callbacks:
        _tell([callback], "on_epoch", copy.deepcopy(dict(row)))


def tell_end(callbacks: Sequence[object], result: Any) -> None:
    """Call ``on_end`` with the result, of every callback that has it."""
    _tell(callbacks, "on_end", result)


def _tell(callbacks: Sequence[object], name: str, argument: Any) -> None:
    for callback in callbacks:
        if callable(method := getattr(callback, name, None)):
            method(argument)


@dataclass(frozen=True)
class _Epochs:
    """One training of several: its rows have a name, and its end is not that of the whole."""

    callbacks: Sequence[object]
    name: str

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        tell_epoch(self.callbacks, {**row, "name": self.name})


def epochs_of(callbacks: Sequence[object], name: str) -> Sequence[object]:
    """Callbacks for one training of several: they are told its epochs under this name, and nothing of its end."""
    return (_Epochs(callbacks, name),) if callbacks else ()
