"""The command `data`: write a small synthetic copy of a data set, prepare raw files, check a folder."""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import BaseModel, Field, create_model

from xmodal.cards import DataCard, load
from xmodal.cli.output import Answer
from xmodal.cli.parser import Flags, Help, Section, parse, parse_sections
from xmodal.data import DATA
from xmodal.errors import InputError, did_you_mean
from xmodal.flags import Flag

ROOT = (Annotated[Path, Flag(metavar="ROOT", positional=True)], Field(description="folder to write"))
RAW = (Annotated[Path, Flag(metavar="RAW", positional=True)], Field(description="folder of raw files, or the file"))
LISTED = 20  # skipped items that are printed; a data set may skip thousands, and skipped.json has all of them
USAGE = """usage: xmodal data COMMAND [...]

  make NAME ROOT          write a small synthetic copy of a data set in its real format, raw or prepared
  prepare NAME RAW ROOT   convert raw files to what the loader reads; started again, it continues
  check ROOT              list all problems of a data folder

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
    """List all problems of a data folder; the exit status is 2 if any of them is an error."""

    root: Annotated[Path, Flag(metavar="ROOT", positional=True)] = Field(description="data folder, or data file")


def check(words: Sequence[str]) -> Answer:
    """The command ``xmodal data check ROOT``: a folder in the format of a data set, or an own-data folder."""
    from xmodal.data.own.check import inspect as inspect_folder
    from xmodal.data.own.check import label_counts, present_counts

    flags = parse(CheckFlags, words, prog="xmodal data check")
    # the check of a data set returns None for a folder that is not in its format
    checks = (load(card.check)(flags.root) for card in DATA.values() if card.check and _readable(card, flags.root))
    report = next((report for report in checks if report is not None), None)
    counts, present = [], []
    if report is None:
        contents = inspect_folder(flags.root)
        report, counts, present = contents.report, label_counts(contents), present_counts(contents)
    lines = [f"error: {problem}" for problem in report.errors]
    lines += [f"warning: {problem}" for problem in report.warnings]
    lines += map(str, [*counts, *present])
    lines.append(f"{flags.root}: {_count(report.errors, 'error')}, {_count(report.warnings, 'warning')}")
    result: dict[str, Any] = {"folder": str(flags.root), "errors": report.errors, "warnings": report.warnings}
    if counts:
        result["labels"] = [asdict(part) for part in counts]
    if present:
        result["modalities"] = [asdict(part) for part in present]
    return Answer(result, flags.as_json, lines, status=2 if report.errors else 0)


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
