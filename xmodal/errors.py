"""The exceptions that leave the library on purpose, each with a clear message.

exception       cause                                         exit status of the command line
InputError      the user's input is wrong                     2
NonFinite       a loss became infinite or NaN                 3
Interrupted     Ctrl-C or SIGTERM                             130, 143
ProcessDied     one of several processes died                 128 + the signal that killed it

Any other exception is a bug in xmodal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """The user's input is wrong: one sentence per problem (what was expected, what was given, what to do)."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[str]]]:
        # between processes; without this, several problems would arrive as one
        return InputError, (self.problems,)


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
    """One of several processes that train together has ended, so the others can't continue; saved files remain.

    Args:
        sentence: which process, and how it ended.
        exit_status: of that process; 128 plus the signal number if a signal killed it, as shells report it.
        saved: folder of the run; None: no folder was opened.
    """

    def __init__(self, sentence: str, *, exit_status: int, saved: str | None = None) -> None:
        self.exit_status, self.saved = exit_status, saved
        super().__init__(sentence)


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; a `BaseException`, like KeyboardInterrupt, so that `except Exception` lets it pass."""

    def __init__(self, signal_number: int, saved: str | None = None) -> None:
        self.signal_number = signal_number
        self.saved = saved
        super().__init__(f"interrupted by signal {signal_number}")

    @property
    def exit_status(self) -> int:
        """128 plus the number of the signal, as shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal_number


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End of a sentence about an unknown name: the closest known one, then all of them.

    Example:
        >>> did_you_mean("superviced", ["kd", "supervised"])
        "Did you mean 'supervised'? Known: kd, supervised."
    """
    known = sorted(known)
    # 0.6 is difflib's default: one or two wrong letters in a short name still match
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(known) if known else 'none'}."


def listed(names: Iterable[str]) -> str:
    """Names of modalities as text for an error message.

    Example:
        >>> listed(["audio"]), listed(["audio", "image", "depth"])
        ('audio', 'audio, image and depth')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
