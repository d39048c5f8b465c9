"""Flags of a recipe: its settings, and the options of the data set and the methods that the command line names.

A single method's settings are flags of their own (``--temperature 4``), those of several carry the method's name
(``--kd.temperature 4``); options of a data set carry its name, those of an own-data folder ``folder``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from xmodal.cards import load
from xmodal.cli.parser import Flags, Parser, Section, parse_sections
from xmodal.data import DATA
from xmodal.data.options import current_names, validated
from xmodal.errors import InputError, did_you_mean
from xmodal.files import read_json
from xmodal.flags import Flag, flag_of
from xmodal.methods import METHODS
from xmodal.models import ENCODERS, NETWORKS
from xmodal.recipes import RECIPES
from xmodal.study.settings import Presets, parse_names

M = TypeVar("M", bound=BaseModel)
FOLDER = "folder"
FOLDER_SETTINGS = "xmodal.data.own.folder:FolderSettings"


class RecipeFlags(Flags):
    """Flags of every recipe."""

    settings_file: Annotated[str | None, Flag(name="settings", metavar="FILE")] = Field(
        None, description="settings.json of an earlier run to repeat; flags replace values of the file"
    )


def read_settings(name: str, words: Sequence[str], *, prog: str) -> tuple[Any, bool]:
    """Settings of a recipe, and whether its result is printed as JSON.

    Args:
        name: of the recipe.
        words: the flags; they replace values of the file named by ``--settings``.
        prog: how the command is called.
    """
    model: type[BaseModel] = load(RECIPES[name].settings)
    first = first_values([Section(model), Section(RecipeFlags)], words)
    saved = replayed(model, name, first.get("settings_file"))
    if issubclass(model, Presets):
        sources = {key: first.get(key, saved.get(key)) for key in model.SOURCES}
        saved = model.beneath({key: value for key, value in sources.items() if value}) | saved
    defaults = {key: info.get_default(call_default_factory=True) for key, info in model.model_fields.items()}
    options = _option_sections(model, words, {**defaults, **saved, **first})

    own = Section(model, base={key: value for key, value in saved.items() if key != "options"})
    settings, *_, common = parse_sections([own, *options, Section(RecipeFlags)], words, prog=prog)
    _check_encoders(settings)
    return settings, common.as_json


def first_values(sections: Sequence[Section], words: Sequence[str]) -> dict[str, Any]:
    """Values of flags without prefix by a first reading, which decide what further flags there are.

    Flags of data sets that the words mention are known here: their values are no words of the command.
    """
    prefixes = {word[2:].partition(".")[0] for word in words if word.startswith("--") and "." in word}
    data = [_options_of(name, DATA[name].settings, {}, name) for name in DATA if name in prefixes]
    values, _ = Parser([*sections, *data], prog="xmodal").read(words)
    return {name: value for part in values[: len(sections)] for name, value in part.items()}


def _options_of(key: str, path: str, options: Mapping[str, Any], prefix: str = "") -> Section:
    """The flags of a method or data set, with the options under its key as values beneath them."""
    model: type[BaseModel] = load(path)
    base = validated(model, options.get(key, {}), f"Options of {key}").model_dump(mode="json")
    return Section(model, f"options of {key}", f"{prefix.replace('_', '-')}." if prefix else "", base, key)


def _option_sections(model: type[BaseModel], words: Sequence[str], known: Mapping[str, Any]) -> list[Section]:
    """The flags of the data set and the methods that a command line, a file or the defaults name."""
    if "options" not in model.model_fields:
        return []
    options, sections = known.get("options", {}), []
    if "method" in model.model_fields:
        card = METHODS[known["method"]]
        sections.append(_options_of(card.name, card.settings, options))
    elif "methods" in model.model_fields and not flag_of(model.model_fields["methods"].metadata).hidden:
        names = known["methods"]
        for name in parse_names(names) if isinstance(names, str) else names:
            sections.append(_options_of(name, METHODS[name].settings, options, name))
    first = first_values([Section(model), Section(RecipeFlags), *sections], words)
    # a recipe whose word for the data is a path names its data set itself
    data = getattr(model, "DATA_SET", "") or first.get("data", known["data"])
    sections += _data_sections(data, words, options)
    # a method and a data set of the same name share a prefix and a key; the data set keeps them
    unique = {section.prefix: section for section in sections}
    return [section for section in unique.values() if section.model.model_fields or not section.prefix]


def _data_sections(name: str | None, words: Sequence[str], options: Mapping[str, Any] | None = None) -> list[Section]:
    """The flags of the data set or folder that a command line names."""
    if name in DATA:
        return [_options_of(str(name), DATA[str(name)].settings, options or {}, str(name))]
    if name is not None and (any(word.startswith(f"--{FOLDER}.") for word in words) or Path(name).is_dir()):
        return [_options_of(name, FOLDER_SETTINGS, options or {}, FOLDER)]
    return []


def _check_encoders(settings: BaseModel) -> None:
    """Refuse encoders that do not exist: networks are built only when the run folder is there already."""
    known = ["auto", *ENCODERS, *NETWORKS]
    names = [name for name in ("teacher_encoder", "student_encoder", "encoder") if name in type(settings).model_fields]
    values = {name: getattr(settings, name) for name in names}
    problems = [
        f"--{name.replace('_', '-')}: there is no encoder called '{value}'. {did_you_mean(value, known)}"
        for name, value in values.items()
        if value not in known
    ]
    if problems:
        raise InputError(problems)


def replayed(model: type[BaseModel], name: str, path: str | None) -> dict[str, Any]:
    """The settings that an earlier run saved, as JSON values; nothing without a path."""
    if path is None:
        return {}
    if not Path(path).is_file():
        raise InputError(f"--settings {path} is no file: the settings.json of an earlier run was expected.")
    content = read_json(Path(path))
    if not isinstance(content.get("settings", content.get("fit")), dict) or not isinstance(
        content.get("recipe", ""), str
    ):
        raise InputError(f"{path} holds no settings: the settings.json of an earlier run was expected. Give that one.")
    written_by = content.get("recipe")
    if not _fits(model, name, written_by):
        raise InputError(
            f"{path} holds settings of {f'the recipe {written_by!r}' if written_by else 'a single fit'}, expected "
            f"those of '{name}'. Give the settings.json of a run folder that {name} wrote."
        )
    saved = current_names(model, content.get("settings", {}))
    return validated(model, saved, path).model_dump(mode="json", include=set(saved))


def _fits(model: type[BaseModel], name: str, written_by: object) -> bool:
    """A recipe reads its own settings, and those of a recipe that it refines."""
    return written_by == name or (written_by in RECIPES and issubclass(model, load(RECIPES[str(written_by)].settings)))


def read_with_data(model: type[M], words: Sequence[str], *, prog: str) -> tuple[M, dict[str, Any]]:
    """Flags of a command one of whose words names data, and the options of that data."""
    data = _data_sections(first_values([Section(model)], words).get("data"), words)
    flags, *options = parse_sections([Section(model), *data], words, prog=prog)
    return flags, options[0].model_dump(mode="json") if options else {}


def read_evaluation(
    model: type[M], words: Sequence[str], *, prog: str, data_of: Callable[[Path], str]
) -> tuple[M, dict[str, Any], Any]:
    """Flags of a command that scores a run: its own, the options of the data, and those of the data's way of scoring.

    Args:
        model: class of the flags; its words are ``run`` and ``data``, which may be missing.
        words: the command line.
        prog: how the command is called.
        data_of: name of the data set of a run, where the second word is missing.
    """
    scoring = None
    for card in RECIPES.values():
        if card.evaluation:
            section = Section(load(card.evaluation), f"scoring of {card.scores}")
            # with its flags, because their values are no words of the command
            first = first_values([Section(model), section], words)
            data = first.get("data") or (data_of(Path(first["run"])) if "run" in first else "")
            scoring = section if data == card.scores else scoring
    ways = [] if scoring is None else [scoring]
    data_sections = _data_sections(first_values([Section(model), *ways], words).get("data"), words)
    flags, *rest = parse_sections([Section(model), *ways, *data_sections], words, prog=prog)
    own = rest.pop(0) if ways else None
    return flags, rest[0].model_dump(mode="json") if rest else {}, own
