"""Errors and warnings of a check of data, collected so that the user sees all of them together."""

from __future__ import annotations

from dataclasses import dataclass, field

from xmodal.errors import InputError


@dataclass
class Report:
    """Problems of some data, one sentence each.

    Attributes:
        errors: problems that have to be repaired before the data can be opened.
        warnings: problems that the user should know, and that stop nothing.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def stop_on_errors(self) -> None:
        """Raise one `InputError` with all errors, if there are any."""
        if self.errors:
            raise InputError(self.errors)
