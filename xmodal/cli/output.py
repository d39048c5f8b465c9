"""The result of a command, and how it is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xmodal.files import SCHEMA, plain


@dataclass
class Answer:
    """The result of a command.

    Attributes:
        result: printed by ``--json``.
        as_json: whether ``--json`` is among the flags.
        lines: printed otherwise.
        status: exit status.
    """

    result: Mapping[str, Any]
    as_json: bool = False
    lines: Sequence[str] = field(default_factory=list)
    status: int = 0

    def show(self) -> None:
        """Print the result on standard output."""
        if self.as_json:
            print_json(self.result)
        else:
            for line in self.lines:
                print(line)
        # a reader that has closed the pipe is noticed here, where `BrokenPipeError` is caught, and not at exit
        sys.stdout.flush()


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, each column as wide as its longest cell.

    Example:
        >>> columns([["name", "year"], ["kd", "2015"]])
        ['name  year', 'kd    2015']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


class CheckFailed(Exception):
    """A check failed; the message goes to standard error, the exit status is 1."""


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON document with the version of its schema."""
    print(json.dumps(plain({"schema": SCHEMA, **content}), indent=1, allow_nan=False))
    sys.stdout.flush()
