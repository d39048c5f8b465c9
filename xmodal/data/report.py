"""What is wrong with data: errors and warnings, collected so that all of them are reported together."""

from __future__ import annotations

from dataclasses import dataclass, field

from xmodal.errors import InputError


@dataclass
class Report:
    """What is wrong with data, one sentence per problem.

    Attributes:
        errors: have to be repaired before anything else.
        warnings: are worth knowing, and don't stop anything.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def stop_on_errors(self) -> None:
        """Raise one `InputError` that holds all errors, if there are any."""
        if self.errors:
            raise InputError(self.errors)
