"""What a command hands back, and how it is printed."""

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
        result: what `--json` prints.
        as_json: whether it was asked for.
        lines: what a person reads instead.
        status: exit status, 0 or 1.
    """

    result: Mapping[str, Any]
    as_json: bool = False
    lines: Sequence[str] = field(default_factory=list)
    status: int = 0

    def show(self) -> None:
        """Print it on standard output."""
        if self.as_json:
            print_json(self.result)
        else:
            for line in self.lines:
                print(line)
        sys.stdout.flush()  # here, where a reader that left is noticed


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of words as lines, each column as wide as its longest word.

    Example:
        >>> columns([["name", "year"], ["kd", "2015"]])
        ['name  year', 'kd    2015']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


class CheckFailed(Exception):
    """A check said no; the sentence goes to standard error, the exit status is 1."""


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON document with our schema version."""
    print(json.dumps(plain({"schema": SCHEMA, **content}), indent=1, allow_nan=False))
    sys.stdout.flush()
