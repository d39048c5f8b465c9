"""What can go wrong, said in sentences.

Four kinds of trouble leave the library on purpose: the user's input (`InputError`), the numbers (`NonFinite`), a signal
(`Interrupted`) and the death of one of several processes (`ProcessDied`). The command line turns them into exit status
2, 3, 130/143 and 128 plus the signal that killed; anything else is a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """The user's input is wrong: one sentence per problem (what was expected, what arrived, what to do)."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class MissingExtra(InputError):
    """An optional dependency is not installed; the error names the pip command.

    Args:
        purpose: what needs the package, as the subject of a sentence.
        package: its name.
        extra: the extra of xmodal that brings it.
        instead: what to do without it, where something can be done; it follows "Or ".
    """

    def __init__(self, purpose: str, package: str, extra: str, *, instead: str = "") -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f'Install it with: pip install -c constraints.txt "xmodal[{extra}]"'
            + (f". Or {instead}." if instead else "")
        )


class NonFinite(ArithmeticError):
    """A loss term became infinite or not a number."""


class ProcessDied(RuntimeError):
    """One of several processes that train together is gone; the others can't go on, what was saved is there.

    Args:
        sentence: which one, and how.
        exit_status: its own, or 128 plus the number of the signal that killed it, as shells count it.
        saved: folder of the run, None if none was opened.
    """

    def __init__(self, sentence: str, *, exit_status: int, saved: str | None = None) -> None:
        self.exit_status, self.saved = exit_status, saved
        super().__init__(sentence)


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; like KeyboardInterrupt, no `except Exception` may hold it."""

    def __init__(self, signal_number: int, saved: str | None = None) -> None:
        self.signal_number = signal_number
        self.saved = saved
        super().__init__(f"interrupted by signal {signal_number}")

    @property
    def exit_status(self) -> int:
        """128 plus the number of the signal, as shells count it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal_number


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End of a sentence about an unknown name: the closest known one, then all of them.

    Example:
        >>> did_you_mean("superviced", ["kd", "supervised"])
        "Did you mean 'supervised'? Known: kd, supervised."
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(known) if known else 'none'}."
