"""Settings ⇄ flags ⇄ JSON: one pydantic class per command is its help text, its checks and its replay file."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import BaseModel, ConfigDict, Field, create_model

from xmodal.errors import InputError, did_you_mean

M = TypeVar("M", bound=BaseModel)


class Flags(BaseModel):
    """Flags that every command has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    as_json: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(name="json")] = Field(
        False, description="print the result as one JSON document on standard output, all else on standard error"
    )


def parse(model: type[M], words: Sequence[str], *, prog: str, default: M | None = None) -> M:
    """Flags of a command as an object; anything wrong is one sentence per problem."""
    if any(word in ("-h", "--help") for word in words):
        return tyro.cli(model, args=list(words), prog=prog, default=_or_missing(default))
    heard, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"  # tyro draws a box; unwrapped lines can be read again
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(heard):
            return tyro.cli(model, args=list(words), prog=prog, default=_or_missing(default))
    except SystemExit:
        raise InputError(_sentences(heard.getvalue(), model, prog)) from None
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def _or_missing(default: M | None) -> Any:
    return tyro.MISSING_NONPROP if default is None else default


def _sentences(text: str, model: type[BaseModel], prog: str) -> list[str]:
    """tyro's box as sentences."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip(" │") for line in plain.splitlines() if line.startswith("│")]
    end = next((number for number, line in enumerate(lines) if line.startswith("─")), len(lines))
    head = " ".join(lines[:end])
    unknown = re.search(r"Unrecognized options: (.*)", head)
    if unknown:
        first = unknown.group(1).split(",")[0].split()[0]
        return [f"{prog} has no option {first}. {_known(first, model)}"]
    problems = re.findall(r"(\S+) ((?:Input|Value|String|List|Tuple).*?) \[type=(\w+), input_value=(.*?), input_type", head)
    if problems:
        return [_problem(*problem) for problem in problems]
    wrong = re.search(r"Error parsing (--\S+): (.*)", head)
    if wrong:
        return [f"{wrong.group(1)}: {wrong.group(2)}. See {prog} --help."]
    return [f"{head} See {prog} --help."]


def _problem(key: str, message: str, kind: str, value: str) -> str:
    flag = "--" + key.replace("_", "-")
    message = re.sub(r"^(Input should be|Value error,)", "expected" if kind != "value_error" else "", message).strip()
    return f"{flag} is {value}: {message}."


def _known(first: str, model: type[BaseModel]) -> str:
    if not first.startswith("-"):
        return "It stands where no further word was expected."
    name = first.split("=")[0].lstrip("-").replace("_", "-")
    return did_you_mean(name, flag_names(model)).replace("'", "").replace("Did you mean ", "Did you mean --")


def flag_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All flags of a class without their dashes, nested ones with their prefix."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        flag = prefix + name.replace("_", "-")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += flag_names(field.annotation, f"{flag}.")
        elif flag != "options":
            found.append({"as-json": "json", "settings-file": "settings"}.get(flag, flag))
    return found


def extended(
    model: type[M], *, nested: Mapping[str, type[BaseModel]], flat: type[BaseModel] | None = None
) -> type[M]:
    """A settings class with the options of methods and data sets added, under their names or flat."""
    fields: dict[str, Any] = {name.replace("-", "_"): (part, part()) for name, part in nested.items()}
    if flat is not None:
        for name, field in flat.model_fields.items():
            if name in model.model_fields:
                raise TypeError(f"option '{name}' of {flat.__name__} is taken by {model.__name__}")
            kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation  # type: ignore
            fields[name] = (kind, Field(field.get_default(call_default_factory=True), description=field.description))
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)


def value_of(words: Sequence[str], flag: str) -> str | None:
    """The value of a flag before anything is parsed: it may decide which further flags there are."""
    for place, word in enumerate(words):
        if word == flag and place + 1 < len(words):
            return words[place + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()
