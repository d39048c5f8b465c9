"""Settings ⇄ flags: one pydantic class per command is its help text and its checks.

The flags follow from the fields: `options_of` lists them, `reading.read` finds their values in a command line, pydantic
checks these, tyro draws the help.
"""

from __future__ import annotations

import contextlib
import io
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import tyro
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

NAMES = {"as_json": "json", "settings_file": "settings"}  # fields whose flag is called otherwise
M = TypeVar("M", bound=BaseModel)
AsJson = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(name="json")]
JSON_HELP = "print the result as one JSON document on standard output, all else on standard error"


class Flags(BaseModel):
    """Flags that every command has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    as_json: AsJson = Field(False, description=JSON_HELP)


class Help(Exception):
    """The command line asks for help; the text is the argument."""


@dataclass(frozen=True)
class Option:
    """One flag or word of a command.

    Attributes:
        flag: without dashes; the name of a field of a nested class carries a prefix and a dot.
        place: names of the fields that lead to it.
        kind: ``switch`` (no value), ``list`` (comma separated) or ``value``.
        positional: whether it stands alone, without its flag.
        optional: whether ``none`` is a value.
    """

    flag: str
    place: tuple[str, ...]
    kind: str
    positional: bool = False
    optional: bool = False


def options_of(model: type[BaseModel], prefix: str = "", place: tuple[str, ...] = ()) -> list[Option]:
    """All flags of a class, those of nested classes with their prefix."""
    found: list[Option] = []
    for name, field in model.model_fields.items():
        flag, here = prefix + NAMES.get(name, name).replace("_", "-"), (*place, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += options_of(field.annotation, f"{flag}.", here)
        elif tyro.conf.Suppress not in field.metadata:
            positional = tyro.conf.Positional in field.metadata
            found.append(Option(flag, here, _kind(field), positional, type(None) in get_args(field.annotation)))
    return found


def _kind(field: FieldInfo) -> str:
    if field.annotation is bool:
        return "switch"
    own = any(isinstance(part, BeforeValidator) for part in field.metadata)  # reads text by itself
    return "list" if get_origin(field.annotation) is tuple and not own else "value"


def extended(model: type[M], *, nested: Mapping[str, type[BaseModel]], flat: type[BaseModel] | None = None) -> type[M]:
    """A settings class with the options of data set and methods added, under their names or flat."""
    fields: dict[str, Any] = {name: (part, part()) for name, part in nested.items()}
    for name, field in flat.model_fields.items() if flat else ():
        if name in model.model_fields:
            raise TypeError(f"option '{name}' of {flat.__name__ if flat else ''} is taken by {model.__name__}")
        fields[name] = (field.annotation, field)
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)


def meaning(model: type[BaseModel], name: str) -> str:
    """What a field is, from its description or from the docstring of its class."""
    said = model.model_fields[name].description
    found = re.search(rf"^ *{name}: (.*(?:\n {{12,}}.*)*)", model.__doc__ or "", re.MULTILINE)
    return said or (" ".join(found.group(1).split()) if found else "")


def help_text(model: type[BaseModel], *, prog: str, default: BaseModel | None = None) -> str:
    """The help of a command, as wide as the terminal."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_list_rule)
    registry.primitive_rule(_optional_rule)
    given = tyro.MISSING_NONPROP if default is None else default
    drawn = io.StringIO()
    # tyro prints its help and ends the process; we want the text, and one place that ends it
    with contextlib.redirect_stdout(drawn), contextlib.suppress(SystemExit):
        tyro.cli(model, args=["--help"], prog=prog, default=given, registry=registry)
    return drawn.getvalue().rstrip()


def _list_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Lists are separated by commas."""
    inner = get_args(info.type)
    if get_origin(info.type) is not tuple or inner[1:] != (Ellipsis,):
        return None
    kind = _metavar(inner[0])
    return _shown(f"{kind}[,{kind}]", lambda value: ",".join(map(str, value)))


def _optional_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A value that may be missing is shown by its kind."""
    inner = [part for part in get_args(info.type) if part is not type(None)]
    if get_origin(info.type) not in (Union, types.UnionType) or len(inner) != 1 or get_origin(inner[0]) is not None:
        return None
    return _shown(_metavar(inner[0]), lambda value: "none" if value is None else str(value))


def _metavar(kind: Any) -> str:
    return getattr(kind, "__name__", "VALUE").upper().replace("STR", "NAME")


def _shown(metavar: str, text: Any) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: True,
        str_from_instance=lambda value: [text(value)],
    )


def with_common(model: type[M]) -> type[M]:
    """A settings class as a command: with ``--settings`` and ``--json``."""
    fields: dict[str, Any] = {
        "settings_file": (
            Annotated[str | None, tyro.conf.arg(name="settings", metavar="FILE")],
            Field(None, description="settings.json of an earlier run to repeat; flags go on top"),
        ),
        "as_json": (AsJson, Field(False, description=JSON_HELP)),
    }
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)


def asks_help(words: Sequence[str]) -> bool:
    """Whether a command line wants the help text."""
    return any(word in ("-h", "--help") for word in words)
