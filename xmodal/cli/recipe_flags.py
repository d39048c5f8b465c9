"""Flags of a recipe: its settings, and the options of the data set and the methods that the command line names.

With a single method its settings are flags without prefix (``--temperature 4``), with several they carry the method's
name (``--kd.temperature 4``). Options of a data set carry its name, those of an own-data folder ``folder``.
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
SCANS = "semantic-kitti"  # the data set of LiDAR scans
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
        prog: name of the command.
    """
    model: type[BaseModel] = load(RECIPES[name].settings)
    # which flags there are depends on values of other flags (--settings, --method, DATA), which are read first
    first = first_values([Section(model), Section(RecipeFlags)], words)
    saved = replayed(model, name, first.get("settings_file"))
    if issubclass(model, Presets):
        # a preset changes the defaults, which the help shows and which may name the methods and their options
        sources = {key: first.get(key, saved.get(key)) for key in model.SOURCES}
        saved = model.base_values({key: value for key, value in sources.items() if value}) | saved
    defaults = {key: info.get_default(call_default_factory=True) for key, info in model.model_fields.items()}
    options = _option_sections(model, words, {**defaults, **saved, **first})

    recipe = Section(model, base={key: value for key, value in saved.items() if key != "options"})
    unknown = _unknown_methods(model, {**defaults, **saved, **first})
    try:
        settings, *_, common = parse_sections([recipe, *options, Section(RecipeFlags)], words, prog=prog)
    except InputError as error:
        raise InputError([*unknown, *error.problems]) from error
    # a comparison reports them itself, together with what does not fit its data
    if unknown and not hasattr(settings, "comparison"):
        raise InputError(unknown)
    _check_encoders(settings)
    return settings, common.as_json


def first_values(sections: Sequence[Section], words: Sequence[str]) -> dict[str, Any]:
    """Values of these sections, read before all flags are known; problems are ignored until the final reading."""
    # flags of data sets are included: only then are their values not taken for words of the command
    prefixes = {word[2:].partition(".")[0] for word in words if word.startswith("--") and "." in word}
    data = [_options_of(name, DATA[name].settings, {}, name) for name in DATA if name in prefixes]
    values, _ = Parser([*sections, *data], prog="xmodal").read(words)
    return {name: value for part in values[: len(sections)] for name, value in part.items()}


def _options_of(key: str, path: str, options: Mapping[str, Any], prefix: str = "") -> Section:
    """The flags of a method or data set; values without a flag are those under its key in ``options``."""
    model: type[BaseModel] = load(path)
    base = validated(model, options.get(key, {}), f"Options of {key}").model_dump(mode="json")
    return Section(model, f"options of {key}", f"{prefix.replace('_', '-')}." if prefix else "", base, key)


def _option_sections(model: type[BaseModel], words: Sequence[str], values: Mapping[str, Any]) -> list[Section]:
    """The flags of the data set and the methods that a command line, a file or the defaults name."""
    if "options" not in model.model_fields:
        return []
    options, sections = values.get("options", {}), []
    if "method" in model.model_fields:
        card = METHODS[values["method"]]
        sections.append(_options_of(card.name, card.settings, options))
    for name in _named_methods(model, values):
        if name in METHODS:
            sections.append(_options_of(name, METHODS[name].settings, options, name))
    first = first_values([Section(model), Section(RecipeFlags), *sections], words)
    # DATA of some recipes is a path: they name their data set in DATA_SET
    data = getattr(model, "DATA_SET", "") or first.get("data", values["data"])
    sections += _data_sections(data, words, options)
    # a class without fields has no flags: the data set discom leaves the prefix and key to the method of this name
    return [section for section in sections if section.model.model_fields or not section.prefix]


def _named_methods(model: type[BaseModel], values: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods that a comparison names, whose settings are flags with their name."""
    if "methods" not in model.model_fields or flag_of(model.model_fields["methods"].metadata).hidden:
        return ()
    names = values["methods"]
    return parse_names(names) if isinstance(names, str) else tuple(names)


def _unknown_methods(model: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    """A sentence for each method of a comparison that does not exist."""
    problems: list[str] = []
    for name in _named_methods(model, values):
        try:
            METHODS[name]
        except InputError as error:
            problems += error.problems
    return problems


def _data_sections(name: str | None, words: Sequence[str], options: Mapping[str, Any] | None = None) -> list[Section]:
    """The flags of the data set or folder that a command line names."""
    if name in DATA:
        return [_options_of(str(name), DATA[str(name)].settings, options or {}, str(name))]
    if name is not None and (any(word.startswith(f"--{FOLDER}.") for word in words) or Path(name).is_dir()):
        return [_options_of(name, FOLDER_SETTINGS, options or {}, FOLDER)]
    return []


def _check_encoders(settings: BaseModel) -> None:
    """Raise an error for encoders that do not exist."""
    # the network is built after the run folder is created, and wrong input must leave no folder behind
    encoders = ["auto", *ENCODERS, *NETWORKS]
    names = [name for name in ("teacher_encoder", "student_encoder") if name in type(settings).model_fields]
    values = {name: getattr(settings, name) for name in names}
    problems = [
        f"--{name.replace('_', '-')}: there is no encoder called '{value}'. {did_you_mean(value, encoders)}"
        for name, value in values.items()
        if value not in encoders
    ]
    if problems:
        raise InputError(problems)


def replayed(model: type[BaseModel], name: str, path: str | None) -> dict[str, Any]:
    """The settings that an earlier run saved, as JSON values; empty without a path."""
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
    # only what the file contains: the default of a setting that it lacks may depend on a preset
    saved = current_names(model, content.get("settings", {}))
    return validated(model, saved, path).model_dump(mode="json", include=set(saved))


def _fits(model: type[BaseModel], name: str, written_by: object) -> bool:
    """Whether a recipe can read settings of another: its own, or those of a recipe whose settings it extends."""
    return written_by == name or (written_by in RECIPES and issubclass(model, load(RECIPES[str(written_by)].settings)))


def read_with_data(model: type[M], words: Sequence[str], *, prog: str) -> tuple[M, dict[str, Any]]:
    """Flags of a command with a word DATA, and the options of that data set."""
    name = first_values([Section(model)], words).get("data")
    # a LiDAR scan has the options of its data set, if any is given: without, those of the student's own data apply
    if name is not None and Path(name).suffix == ".bin" and any(word.startswith(f"--{SCANS}.") for word in words):
        name = SCANS
    data = _data_sections(name, words)
    flags, *options = parse_sections([Section(model), *data], words, prog=prog)
    return flags, options[0].model_dump(mode="json") if options else {}


def read_evaluation(
    model: type[M], words: Sequence[str], *, prog: str, data_of: Callable[[Path], str]
) -> tuple[M, dict[str, Any], Any]:
    """Flags of a command that scores a run, the options of the data, and settings of its scoring by a recipe.

    Args:
        model: class of the flags, with the words ``run`` and ``data``, which may be missing.
        words: the command line.
        prog: name of the command.
        data_of: returns the name of a run's data set, for a command line without data.
    """
    scoring = None
    for card in RECIPES.values():
        if card.evaluation:
            section = Section(load(card.evaluation), f"scoring of {card.scores}")
            # its flags are included: only then are their values not taken for words of the command
            first = first_values([Section(model), section], words)
            data = first.get("data") or (data_of(Path(first["run"])) if "run" in first else "")
            scoring = section if data == card.scores else scoring
    sections = [Section(model), *([scoring] if scoring else [])]
    data_sections = _data_sections(first_values(sections, words).get("data"), words)
    flags, *rest = parse_sections([*sections, *data_sections], words, prog=prog)
    scoring_settings = rest.pop(0) if scoring else None
    return flags, rest[0].model_dump(mode="json") if rest else {}, scoring_settings
