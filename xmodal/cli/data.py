"""The command `data`: write a small synthetic copy of a data set, prepare raw files, check a folder."""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

from pydantic import BaseModel, Field, create_model

from xmodal.cards import DataCard, load
from xmodal.cli.output import Answer
from xmodal.cli.parser import Flags, Help, Section, parse, parse_sections
from xmodal.data import DATA, open_data
from xmodal.errors import InputError, did_you_mean
from xmodal.flags import Flag

if TYPE_CHECKING:
    from xmodal.data.own.facts import Facts
    from xmodal.data.report import Report

ROOT = (Annotated[Path, Flag(metavar="ROOT", positional=True)], Field(description="folder to write"))
RAW = (Annotated[Path, Flag(metavar="RAW", positional=True)], Field(description="folder of raw files, or the file"))
LISTED = 20  # skipped items that are printed; a data set may skip thousands, and skipped.json has all of them
USAGE = """usage: xmodal data COMMAND [...]

  make NAME ROOT          write a small synthetic copy of a data set in its real format, raw or prepared
  prepare NAME RAW ROOT   convert raw files to what the loader reads; started again, it continues
  check ROOT              list all problems of a data folder or a built-in data set, and what is in it

xmodal data COMMAND [NAME] --help lists the flags."""


def data(words: Sequence[str]) -> Answer:
    """The command ``xmodal data make|prepare|check``."""
    commands: dict[str, Callable[[Sequence[str]], Answer]] = {"make": make, "prepare": prepare, "check": check}
    if not words:
        raise InputError(f"xmodal data needs a command: {', '.join(commands)}.")
    if words[0] in ("-h", "--help"):
        raise Help(USAGE)
    if words[0] not in commands:
        raise InputError(f"There is no command 'data {words[0]}'. {did_you_mean(words[0], commands)}")
    return commands[words[0]](words[1:])


def make(words: Sequence[str]) -> Answer:
    """The command ``xmodal data make NAME ROOT``; options of the data set are flags."""
    name, function = _function(words, "make")
    model = _flags(function, f"Write a small synthetic copy of {name} in its real format.", {"root": ROOT})
    flags, arguments = _read(function, model, words[1:], prog=f"xmodal data make {name}")
    written = function(flags.root, **arguments)
    return Answer({"folder": str(written)}, flags.as_json, [f"Written: {written}"])


def prepare(words: Sequence[str]) -> Answer:
    """The command ``xmodal data prepare NAME RAW ROOT``; unreadable files are listed, and the others prepared."""
    name, function = _function(words, "prepare")
    about = f"Convert the raw files of {name} to what its loader reads. Unreadable files are listed and skipped."
    model = _flags(function, about, {"raw": RAW, "root": ROOT})
    flags, arguments = _read(function, model, words[1:], prog=f"xmodal data prepare {name}")
    prepared = function(flags.raw, flags.root, **arguments, progress=_progress())
    result = {
        "folder": str(flags.root),
        "done": len(prepared.done),
        "reused": len(prepared.reused),
        "skipped": [{"name": item, "reason": reason} for item, reason in prepared.skipped],
        "warnings": prepared.warnings,
    }
    lines = [f"{result['done']} made, {result['reused']} reused, {len(prepared.skipped)} skipped"]
    lines += [f"  skipped {item}: {reason}" for item, reason in prepared.skipped[:LISTED]]
    if prepared.skipped[LISTED:]:
        lines.append(f"  … and {len(prepared.skipped) - LISTED} more; all of them: {flags.root / 'skipped.json'}")
    lines += [f"warning: {problem}" for problem in prepared.warnings]
    return Answer(result, flags.as_json, [*lines, f"Folder: {flags.root}"])


class CheckFlags(Flags):
    """List all problems of some data, and what is in it; the exit status is 2 if any problem is an error."""

    root: Annotated[Path, Flag(metavar="ROOT", positional=True)] = Field(
        description="data folder, data file, or the name of a built-in data set"
    )


def check(words: Sequence[str]) -> Answer:
    """The command ``xmodal data check ROOT``: own data, files in the format of a data set, or a built-in data set."""
    flags = parse(CheckFlags, words, prog="xmodal data check")
    report, facts = _checked(flags.root)
    lines = [f"error: {problem}" for problem in report.errors]
    lines += [f"warning: {problem}" for problem in report.warnings]
    if facts is not None:
        lines += facts.lines()
    elif not report.errors:
        lines.append("These files can't be opened as they are, so what is in them is not listed.")
    lines.append(f"{flags.root}: {_count(report.errors, 'error')}, {_count(report.warnings, 'warning')}")
    result: dict[str, Any] = {"folder": str(flags.root), "errors": report.errors, "warnings": report.warnings}
    result |= facts.described() if facts else {}
    return Answer(result, flags.as_json, lines, status=2 if report.errors else 0)


def _checked(root: Path) -> tuple[Report, Facts | None]:
    """The problems of some data, and what is in it; None if it can't be opened."""
    from xmodal.data.own.facts import data_facts, folder_facts
    from xmodal.data.report import Report

    if not root.exists() and str(root) in DATA and DATA[str(root)].built_in:
        data = open_data(str(root))
        facts = data_facts(data)
        return Report(warnings=[*data.warnings, *facts.warnings()]), facts
    for card in DATA.values():
        # the check of a data set returns None for a folder that is not in its format
        report = load(card.check)(root) if card.check and _readable(card, root) else None
        if report is not None:
            return report, None if report.errors else _facts_of(card, root, report)
    contents, found = folder_facts(root)
    return contents.report, found


def _facts_of(card: DataCard, root: Path, report: Report) -> Facts | None:
    """What is in the files of a data set; None of raw files, which are without fault and still to be prepared."""
    from xmodal.data.own.facts import data_facts

    try:
        data = open_data(card.name, options={"root": root})
    except InputError:
        return None
    facts = data_facts(data)
    report.warnings += facts.warnings()
    return facts


def _readable(card: DataCard, root: Path) -> bool:
    """Whether a data set can be read from this path: a folder, or the single file that some data sets consist of."""
    return root.is_dir() or (bool(card.single) and root.is_file() and root.suffix == card.single)


def _count(problems: Sequence[str], what: str) -> str:
    return f"{len(problems)} {what}{'' if len(problems) == 1 else 's'}"


def _function(words: Sequence[str], what: str) -> tuple[str, Callable[..., Any]]:
    """The data set that the first word names, and the function that makes or prepares it."""
    # a data set may be prepared under another name, such as kitti-fov
    cards = {(card.prepared_as if what == "prepare" else "") or name: card for name, card in DATA.items()}
    possible = ", ".join(name for name, card in cards.items() if getattr(card, what))
    if not words or words[0] in ("-h", "--help"):
        usage = f"usage: xmodal data {what} NAME {'RAW ' if what == 'prepare' else ''}ROOT [flags]"
        if words:
            raise Help(f"{usage}\n\nKnown names: {possible}. xmodal data {what} NAME --help lists the flags.")
        raise InputError(f"xmodal data {what} needs the name of a data set. {usage}. Known: {possible}.")
    # DATA raises an error with the closest name for one that does not exist
    card = cards.get(words[0]) or DATA[words[0]]
    path = getattr(card, what) if words[0] in cards else ""
    if not path:
        raise InputError(f"There is nothing to {what} for the data set '{words[0]}'. Possible: {possible}.")
    return words[0], load(path)


def _flags(function: Callable[..., Any], about: str, words: dict[str, Any]) -> type[Flags]:
    """Flags from the keyword arguments of a function, with the help of its docstring."""
    fields = dict(words)
    # a function for Python users documents its arguments in its docstring; the help repeats that text
    for name, (hint, parameter) in _keywords(function).items():
        text = re.search(rf"^ +{name}: (.*(?:\n {{12,}}.*)*)", function.__doc__ or "", re.MULTILINE)
        meaning = " ".join(text.group(1).split()).rstrip(".") if text else ""
        least = 0 if hint in (int, float) else None
        fields[name] = hint, Field(parameter.default, description=meaning, ge=least)
    return create_model("DataFlags", __base__=Flags, __doc__=about, **fields)


def _keywords(function: Callable[..., Any]) -> dict[str, tuple[Any, inspect.Parameter]]:
    """Type and default of the keyword arguments that are flags."""
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    optional = {name: parameter for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    return {name: (hints[name], optional[name]) for name in optional if name not in ("progress", "settings")}


def _settings(function: Callable[..., Any]) -> list[type[BaseModel]]:
    """The class of a function's argument ``settings``, whose fields are flags; none without this argument."""
    kinds = get_args(get_type_hints(function).get("settings"))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _read(function: Callable[..., Any], model: type[Flags], words: Sequence[str], *, prog: str) -> tuple[Any, Any]:
    """The flags of a command, and the keyword arguments for its function."""
    options = _settings(function)
    flags, *settings = parse_sections([Section(model), *map(Section, options)], words, prog=prog)
    arguments = {name: getattr(flags, name) for name in _keywords(function)}
    return flags, arguments | ({"settings": settings[0]} if settings else {})


def _progress() -> Callable[[int, int], None]:
    """A function that prints a line per second, and one at the end."""
    printed = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal printed
        if done == total or time.monotonic() - printed >= 1:
            printed = time.monotonic()
            print(f"{done}/{total} prepared", file=sys.stderr, flush=True)

    return show
