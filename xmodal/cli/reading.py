"""Command lines → settings objects; all that is wrong with one is said at once, a sentence each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from xmodal.cli.flags import Help, Option, asks_help, help_text, meaning, options_of
from xmodal.errors import InputError, did_you_mean

M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], words: Sequence[str], *, prog: str, base: Mapping[str, Any] | None = None) -> M:
    """Flags of a command as an object.

    Args:
        model: class of the flags.
        words: the command line after ``prog``.
        prog: how the command is called, for the sentences.
        base: values that hold where no flag is given, such as those of an earlier run.
    """
    if asks_help(words):
        raise Help(help_text(model, prog=prog, default=model.model_validate(dict(base)) if base else None))
    options = options_of(model)
    given, problems = read(words, options, prog=prog)
    try:
        found = model.model_validate(_merged(base or {}, given))
    except ValidationError as error:
        problems += [_sentence(dict(problem), model, options, prog) for problem in error.errors()]
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return found


def read(words: Sequence[str], options: Sequence[Option], *, prog: str) -> tuple[dict[str, Any], list[str]]:
    """Values by the names of their fields, and what is wrong with the words."""
    flags, problems, alone = _by_flag(options), [], []
    values: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            alone.append(word)
            continue
        flag, equals, value = word[2:].partition("=")
        option, switched = flags.get(flag.replace("_", "-"), (None, True))
        if option is None:
            problems.append(f"{prog} has no option --{flag}. {_known(flag, flags, prog)}")
            if not equals and rest and not rest[0].startswith("--"):
                rest.pop(0)  # its value
        elif option.kind == "switch":
            problems += [f"--{flag} takes no value; {value!r} was given. Leave it out."] if equals else []
            _put(values, option.place, switched)
        elif not equals and (not rest or rest[0].startswith("--")):
            problems.append(f"--{flag} needs a value behind it. See {prog} --help.")
        else:
            _add(values, option, _typed(value if equals else rest.pop(0), option))
    problems += _place_words(alone, options, values, prog)
    return values, problems


def alone_words(words: Sequence[str], options: Sequence[Option]) -> list[str]:
    """The words that are neither flags nor values of flags."""
    flags, found, place = _by_flag(options), [], 0
    while place < len(words):
        word = words[place]
        flag, equals, _ = word[2:].partition("=")
        option, _ = flags.get(flag.replace("_", "-"), (None, True))
        if not word.startswith("-"):
            found.append(word)
        takes = word.startswith("--") and not equals and not (option and option.kind == "switch")
        place += 2 if takes else 1
    return found


def value_of(words: Sequence[str], flag: str) -> str | None:
    """The last value of a flag before anything else is read: it may decide which further flags there are."""
    found = None
    for place, word in enumerate(words):
        if word == flag and place + 1 < len(words):
            found = words[place + 1]
        if word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


def _by_flag(options: Sequence[Option]) -> dict[str, tuple[Option | None, bool]]:
    """Flag → its option, and what a switch of that spelling means."""
    found: dict[str, tuple[Option | None, bool]] = {}
    for option in options:
        if not option.positional:
            found[option.flag] = option, True
        if option.kind == "switch" and option.flag != "json":
            owner, dot, name = option.flag.rpartition(".")
            found[f"{owner}{dot}no-{name}"] = option, False
    return found


def _known(flag: str, flags: Mapping[str, Any], prog: str) -> str:
    close = difflib.get_close_matches(flag, flags, n=1, cutoff=0.6)
    return f"Did you mean --{close[0]}? See {prog} --help." if close else f"See {prog} --help for all of them."


def _put(values: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for name in place[:-1]:
        values = values.setdefault(name, {})
    values[place[-1]] = value


def _add(values: dict[str, Any], option: Option, value: Any) -> None:
    """A flag given again replaces its value; a list goes on."""
    if option.kind == "list":
        before: Any = values
        for name in option.place:
            before = before.get(name, {}) if isinstance(before, Mapping) else before
        value = [*(before or []), *value]
    _put(values, option.place, value)


def _typed(text: str, option: Option) -> Any:
    if option.optional and text.lower() == "none":
        return None
    return [part.strip() for part in text.split(",") if part.strip()] if option.kind == "list" else text


def _place_words(alone: list[str], options: Sequence[Option], values: dict[str, Any], prog: str) -> list[str]:
    """Words without flag go to the fields that stand alone, in their order; a list takes all that are left."""
    for option in options:
        if option.positional and alone:
            taken = len(alone) if option.kind == "list" else 1
            _put(values, option.place, alone[:taken] if option.kind == "list" else alone[0])
            del alone[:taken]
    expected = ", ".join(option.flag.upper() for option in options if option.positional) or "none"
    return [f"{prog} does not know what to do with '{word}': expected words are {expected}." for word in alone]


def _merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in given.items():
        before = merged.get(name)
        merged[name] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, dict) else value
    return merged


def _sentence(problem: dict[str, Any], model: type[BaseModel], options: Sequence[Option], prog: str) -> str:
    """What pydantic found wrong, in terms of flags."""
    place, kind = tuple(problem["loc"]), problem["type"]
    option = next((option for option in options if place[: len(option.place)] == option.place), None)
    if option is None:
        where = f"Options of {place[0]}" if place else prog
        return f"{where}: {problem.get('ctx', {}).get('error', problem['msg'])}"
    name = option.flag.upper() if option.positional else f"--{option.flag}"
    if kind == "missing":
        return f"{prog} needs {name}: {meaning(model, option.place[-1])}. See {prog} --help."
    if kind == "value_error":
        return f"{name}: {problem['ctx']['error']}".rstrip(".") + "."
    text = _value(problem["input"])
    if kind == "literal_error":
        allowed = [word for word in re.findall(r"'([^']*)'", problem["ctx"]["expected"]) if word]
        return f"{name} is {text}. {did_you_mean(str(problem['input']), allowed)}"
    message = problem["msg"].partition(", unable")[0].replace("Input should be", "expected", 1)
    message = re.sub(r"^expected (greater|less)", r"expected a value \1", message)
    return f"{name} is {text}: {message}."


def _value(value: Any) -> str:
    text = str(value)
    return text if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text, re.IGNORECASE) else repr(text)
