"""Settings classes as flags: argparse reads the command line and draws the help, pydantic checks the values.

A command has one `Section` per settings class. Its fields become flags: booleans ``--flag`` and ``--no-flag``, tuples
comma-separated lists, and ``X | None`` accepts ``none``; a `xmodal.flags.Flag` in its annotation changes how it looks.
All problems of a command line are reported together, one sentence each.
"""

from __future__ import annotations

import argparse
import difflib
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from xmodal.engine.settings import FitSettings, MachineSettings
from xmodal.errors import InputError, did_you_mean
from xmodal.flags import Flag, flag_of

M = TypeVar("M", bound=BaseModel)


class Flags(BaseModel):
    """Flags that every command has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    as_json: Annotated[bool, Flag(name="json")] = Field(
        False, description="print the result as one JSON document on standard output, all else on standard error"
    )


WORDS = "arguments"  # heading of positional fields
GROUPS = {FitSettings: "training", MachineSettings: "machine", Flags: "every command"}  # class → heading in the help


class Help(Exception):
    """The command line contains ``--help``; the argument is the text to print."""


@dataclass(frozen=True)
class Section:
    """One settings class on a command line.

    Attributes:
        model: the settings class.
        title: heading of its flags in the help, but for those of `GROUPS`.
        prefix: of all its flags, such as ``kd.``.
        base: values of fields for which no flag is given, such as those of an earlier run.
        key: under which a recipe keeps these values among its ``options``.
    """

    model: type[BaseModel]
    title: str = "flags"
    prefix: str = ""
    base: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""


class Switch(argparse.Action):
    """A pair of flags for a boolean: ``--labels`` and ``--no-labels``, with a prefix ``--kd.no-labels``."""

    # argparse.BooleanOptionalAction would call the last one --no-kd.labels
    def __init__(self, **arguments: Any) -> None:
        super().__init__(nargs=0, **arguments)

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        """Store whether the positive spelling is used."""
        setattr(namespace, self.dest, option_string == self.option_strings[0])


class Parser(argparse.ArgumentParser):
    """The flags and words of a command.

    Args:
        sections: settings classes; the docstring of the first one introduces the help.
        prog: name of the command, for the help and for error messages.
    """

    def __init__(self, sections: Sequence[Section], *, prog: str) -> None:
        about = (sections[0].model.__doc__ or "").partition("\n    Attributes:")[0]
        super().__init__(
            prog=prog,
            description=about,
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
        )
        # Python 3.14 colours the help if sys.stdout is a terminal; while a command runs, that is standard error
        self.color = False
        # values such as -1e-3 are not flags; before Python 3.14 argparse recognises only -1 and -0.1
        self._negative_number_matcher = re.compile("-[^-]")
        self.sections = sections
        self.flags: dict[str, argparse.Action] = {}
        self.words: list[str] = []
        self._names: dict[str, str] = {}  # argparse's `dest` ("SECTION FIELD") → name in error messages
        titles = dict.fromkeys([WORDS, *(section.title for section in sections), *GROUPS.values()])
        self._groups = {title: self.add_argument_group(title) for title in titles}
        usage = [prog]
        for number, section in enumerate(sections):
            for name, info in section.model.model_fields.items():
                flag = flag_of(info.metadata)
                if flag.positional:
                    metavar = self._add_word(number, name, info)
                    usage.append(metavar if info.is_required() else f"[{metavar}]")
                elif not flag.hidden:
                    self._add_flag(number, name, info)
        self.usage = " ".join([*usage, "[flags]"])

    def _add_word(self, number: int, name: str, info: FieldInfo) -> str:
        """Add a positional field and return how it looks in the usage line."""
        dest, text = f"{number} {name}", _help_of(info, name, self.sections[number].base)
        metavar = flag_of(info.metadata).metavar or name.upper()
        # all words are optional here: pydantic reports a missing one, together with all other problems
        nargs = "*" if _is_list(info) else "?"
        self._groups[WORDS].add_argument(dest, nargs=nargs, metavar=metavar, help=text)
        self._names[dest] = name.upper()
        self.words.append(name.upper())
        return metavar

    def _add_flag(self, number: int, name: str, info: FieldInfo) -> None:
        """Add a field with its ``--flag``, its aliases, and ``--no-flag`` if it is a boolean."""
        section, flag = self.sections[number], flag_of(info.metadata)
        arguments: dict[str, Any] = {"action": Switch}
        if _is_list(info):
            arguments = {"action": "extend", "type": _items, "metavar": flag.metavar or _metavar(info.annotation)}
        elif info.annotation is not bool:
            read = _value_or_none if type(None) in get_args(info.annotation) else str
            arguments = {"type": read, "metavar": flag.metavar or _metavar(info.annotation)}
        shared = [cls for cls in GROUPS if issubclass(section.model, cls) and name in cls.model_fields]
        group = self._groups[GROUPS[shared[0]] if shared else section.title]
        dest, text = f"{number} {name}", _help_of(info, name, section.base)
        for spelling in (flag.name or name, *flag.aliases):
            spelling = spelling.replace("_", "-")
            spellings = [f"--{section.prefix}{spelling}"]
            if info.annotation is bool and name != "as_json":
                spellings.append(f"--{section.prefix}no-{spelling}")
            # argparse raises an error for the same flag in two sections, which would be a bug in a settings class
            action = group.add_argument(*spellings, dest=dest, help=text, **arguments)
            self.flags.update(dict.fromkeys(spellings, action))
            self._names.setdefault(dest, spellings[0])
            # the help lists no aliases: they are for commands that are written down somewhere already
            text = argparse.SUPPRESS

    def error(self, message: str) -> NoReturn:
        """Raise an error, where argparse itself would print the message and end the process."""
        raise InputError(f"{self.prog}: {message}. See {self.prog} --help.")

    def read(self, words: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
        """Values by field, one dictionary per section, and a sentence for each problem of the words."""
        accepted: list[str] = []
        problems: list[str] = []
        unknown: set[str] = set()
        # argparse stops at its first error, so words that it would refuse are reported here and left out
        for word, after in zip(words, [*words, "--"][1:], strict=True):
            flag, equals, value = word.partition("=")
            flag = flag.replace("_", "-")
            if not word.startswith("--"):
                accepted.append(word)
            elif flag not in self.flags:
                problems.append(f"{self.prog} has no option {flag}. {self._closest(flag)}")
                accepted.append(word)
                unknown.add(word.partition("=")[0])
            elif self.flags[flag].nargs == 0 and equals:
                problems.append(f"{flag} takes no value; {value!r} was given. Leave it out.")
            elif self.flags[flag].nargs is None and not equals and after.startswith("--"):
                problems.append(f"{flag} needs a value behind it. See {self.prog} --help.")
            else:
                accepted.append(flag + equals + value)
        # an unknown flag probably has a value, which is no word of the command and must cause no second error
        for flag in unknown:
            self.add_argument(flag, nargs="?", dest=argparse.SUPPRESS, help=argparse.SUPPRESS)
        # plain parse_known_args gives up on an optional DATA as soon as a flag comes first
        namespace, surplus = self.parse_known_intermixed_args(accepted)
        values: list[dict[str, Any]] = [{} for _ in self.sections]
        for dest in self._names:
            if hasattr(namespace, dest):
                number, name = dest.split()
                values[int(number)][name] = getattr(namespace, dest)
        expected = ", ".join(self.words) or "none"
        for word in surplus:
            problems.append(f"{self.prog} does not know what to do with '{word}': expected words are {expected}.")
        return values, problems

    def _closest(self, flag: str) -> str:
        # without dashes, which would make all flags alike
        close = difflib.get_close_matches(flag[2:], [known[2:] for known in self.flags], n=1, cutoff=0.6)
        hint = f"Did you mean --{close[0]}? See" if close else "See"
        return f"{hint} {self.prog} --help{'' if close else ' for all of them'}."

    def check(self, number: int, values: Mapping[str, Any], problems: list[str]) -> Any:
        """The settings object of a section; None with the reasons appended to ``problems``."""
        section = self.sections[number]
        try:
            return section.model.model_validate({**section.base, **values})
        except ValidationError as error:
            problems += [self._sentence(number, dict(problem)) for problem in error.errors()]
            return None

    def _sentence(self, number: int, problem: dict[str, Any]) -> str:
        """The sentence for a problem that pydantic reports, in terms of flags."""
        section, kind = self.sections[number], problem["type"]
        field_name = str(problem["loc"][0]) if problem["loc"] else ""
        name = self._names.get(f"{number} {field_name}")
        # problems without a flag come from rules about several fields, or from hidden fields
        if name is None:
            where = section.title if section.key else self.prog
            return f"{where}: {problem.get('ctx', {}).get('error', problem['msg'])}"
        if kind == "missing":
            meaning = section.model.model_fields[field_name].description
            return f"{self.prog} needs {name}: {meaning}. See {self.prog} --help."
        if kind == "value_error":
            return f"{name}: {problem['ctx']['error']}".rstrip(".") + "."
        text = str(problem["input"])
        text = text if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text, re.IGNORECASE) else repr(text)
        if kind == "literal_error":
            allowed = [word for word in re.findall(r"'([^']*)'", problem["ctx"]["expected"]) if word]
            return f"{name} is {text}. {did_you_mean(str(problem['input']), allowed)}"
        message = problem["msg"].partition(", unable")[0].replace("Input should be", "expected", 1)
        message = re.sub(r"^expected (greater|less)", r"expected a value \1", message)
        return f"{name} is {text}: {message}."


def parse(model: type[M], words: Sequence[str], *, prog: str) -> M:
    """The flags of a command as an object of one settings class."""
    settings: M = parse_sections([Section(model)], words, prog=prog)[0]
    return settings


def parse_sections(sections: Sequence[Section], words: Sequence[str], *, prog: str) -> list[Any]:
    """The flags of a command as one object per section; raises `Help`, or an `InputError` with all problems."""
    parser = Parser(sections, prog=prog)
    if any(word in ("-h", "--help") for word in words):
        raise Help(parser.format_help().rstrip())
    values, problems = parser.read(words)
    settings: dict[int, Any] = {}
    # sections with a key first: a recipe may have rules about its options
    for number in sorted(range(len(sections)), key=lambda number: not sections[number].key):
        if "options" in sections[number].model.model_fields:
            checked = {sections[other].key: part for other, part in settings.items() if part is not None}
            values[number]["options"] = {key: part.model_dump(mode="json") for key, part in checked.items()}
        settings[number] = parser.check(number, values[number], problems)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return [settings[number] for number in range(len(sections))]


def _is_list(info: FieldInfo) -> bool:
    """Whether a value is a comma-separated list."""
    # a field with a BeforeValidator, such as --seeds 42-51, has its own syntax
    reads_text = any(isinstance(part, BeforeValidator) for part in info.metadata)
    return get_origin(info.annotation) is tuple and not reads_text


def _items(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _value_or_none(text: str) -> str | None:
    return None if text.lower() == "none" else text


def _metavar(kind: Any) -> str:
    """Word for a value of a type, such as ``INT`` or ``{mean,sum}``."""
    parts = [part for part in get_args(kind) if part not in (type(None), Ellipsis)]
    if get_origin(kind) is Literal:
        return f"{{{','.join(str(part) for part in parts if part != '')}}}"
    if get_origin(kind) is tuple:
        inner = [_metavar(part) for part in parts]
        return f"{inner[0]}[,{inner[0]}]" if Ellipsis in get_args(kind) else ",".join(inner)
    if get_origin(kind) in (Union, types.UnionType):
        # a comma would read as a list of values
        words = [_metavar(part) for part in parts]
        return words[0] if len(words) == 1 else "|".join(word.strip("{}").replace(",", "|") for word in words)
    if get_origin(kind) is Annotated:
        return _metavar(parts[0])
    return {str: "TEXT", Path: "PATH"}.get(kind, getattr(kind, "__name__", "VALUE").upper())


def _help_of(info: FieldInfo, name: str, base: Mapping[str, Any]) -> str:
    """The description of a field and its default."""
    text = info.description or ""
    if name in base or not info.is_required():
        default = base.get(name, info.get_default(call_default_factory=True))
        # the description of a field with an empty default says what happens then
        if isinstance(default, bool):
            text += f" (default: {'yes' if default else 'no'})"
        elif isinstance(default, int | float) or default:
            shown = ",".join(map(str, default)) if isinstance(default, list | tuple) else default
            text += f" (default: {shown})"
    # argparse formats help texts with the % operator
    return text.replace("%", "%%")
