"""Flags of a recipe: its settings, and the options of the data set and the methods that the command line names.

A single method's settings are flags of their own (``--temperature 4``), those of several carry the method's name
(``--kd.temperature 4``); options of a data set carry its name, those of an own-data folder ``folder``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tyro
from pydantic import BaseModel, ValidationError

from xmodal.cards import load
from xmodal.cli.flags import extended, options_of, with_common
from xmodal.cli.reading import alone_words, parse, value_of
from xmodal.data import DATA
from xmodal.data.options import validated
from xmodal.errors import InputError, did_you_mean
from xmodal.files import read_json
from xmodal.methods import METHODS
from xmodal.models import ENCODERS, NETWORKS
from xmodal.recipes import RECIPES
from xmodal.study.settings import Presets

M = TypeVar("M", bound=BaseModel)
FOLDER = "folder"
FOLDER_SETTINGS = "xmodal.data.own.folder:FolderSettings"


@dataclass
class Owners:
    """Whose options are flags of a command.

    Attributes:
        nested: name of the field → (key among the options, settings class).
        flat: key and settings class of a single method.
    """

    nested: dict[str, tuple[str, type[BaseModel]]] = field(default_factory=dict)
    flat: tuple[str, type[BaseModel]] | None = None

    def add(self, name: str, path: str, *, key: str = "") -> None:
        """One more whose options carry its name; a class without fields has none."""
        settings: type[BaseModel] = load(path)
        if settings.model_fields:
            self.nested[name.replace("-", "_")] = key or name, settings

    def command(self, model: type[BaseModel]) -> type[BaseModel]:
        """A settings class with all of these options as fields."""
        nested = {name: settings for name, (_, settings) in self.nested.items()}
        return extended(model, nested=nested, flat=self.flat and self.flat[1])


def read_settings(name: str, words: Sequence[str], *, prog: str) -> tuple[Any, bool]:
    """Settings of a recipe, and whether its result is wanted as JSON.

    Args:
        name: of the recipe.
        words: the flags; a file named by ``--settings`` comes below them.
        prog: how the command is called.
    """
    model: type[BaseModel] = load(RECIPES[name].settings)
    saved = replayed(model, name, value_of(words, "--settings"))
    if issubclass(model, Presets):
        asked = {key: _source(model, key, words) or saved.get(key) for key in model.SOURCES}
        saved = model.beneath({key: value for key, value in asked.items() if value}) | saved
    defaults = {key: spec.get_default(call_default_factory=True) for key, spec in model.model_fields.items()}
    known = {**defaults, **saved}
    owners = _owners(model, words, known)
    options = known.get("options", {})
    base = {key: value for key, value in saved.items() if key != "options"}
    for place, (key, settings) in owners.nested.items():
        base[place] = validated(settings, options.get(key, {}), f"Options of {key}").model_dump(mode="json")
    if owners.flat:
        key, settings = owners.flat
        base |= validated(settings, options.get(key, {}), f"Options of {key}").model_dump(mode="json")
    flags = parse(with_common(owners.command(model)), words, prog=prog, base=base)
    return _assembled(model, flags, owners), flags.as_json  # type: ignore[attr-defined]


def _source(model: type[BaseModel], key: str, words: Sequence[str]) -> str | bool | None:
    """What a command line says of a field that decides what lies below the others."""
    flag = f"--{key.replace('_', '-')}"
    return flag in words or None if model.model_fields[key].annotation is bool else value_of(words, flag)


def _assembled(model: type[BaseModel], flags: BaseModel, owners: Owners) -> BaseModel:
    """The recipe's own settings, with the options back under the names of their owners."""
    values = {name: getattr(flags, name) for name in model.model_fields}
    if "options" in values:
        options = {key: getattr(flags, place).model_dump(mode="json") for place, (key, _) in owners.nested.items()}
        if owners.flat:
            key, settings = owners.flat
            own = {name: getattr(flags, name) for name in settings.model_fields}
            options[key] = validated(settings, own, f"The method {key}").model_dump(mode="json")
        values["options"] = options
    _check_encoders(values)
    try:
        return model(**values)
    except ValidationError as error:  # what does not go with options of the data, which were not known before
        raise InputError([str(problem["msg"]).removeprefix("Value error, ") for problem in error.errors()]) from None


def _check_encoders(values: Mapping[str, Any]) -> None:
    """Networks are built when the run folder is there already, so a misspelt name is noticed here."""
    asked = {name: values[name] for name in ("teacher_encoder", "student_encoder", "encoder") if name in values}
    wrong = {name: value for name, value in asked.items() if value != "auto" and value not in {**ENCODERS, **NETWORKS}}
    if wrong:
        raise InputError(
            [
                f"--{name.replace('_', '-')}: there is no encoder called '{value}'. "
                f"{did_you_mean(value, ['auto', *ENCODERS, *NETWORKS])}"
                for name, value in wrong.items()
            ]
        )


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
    settings = validated(model, content.get("settings", {}), path)
    return settings.model_dump(mode="json", include=set(content.get("settings", {})))


def _fits(model: type[BaseModel], name: str, written_by: object) -> bool:
    """A recipe reads its own settings, and those of a recipe that it refines."""
    return written_by == name or (written_by in RECIPES and issubclass(model, load(RECIPES[str(written_by)].settings)))


def _owners(model: type[BaseModel], words: Sequence[str], known: Mapping[str, Any]) -> Owners:
    owners = Owners()
    if "options" not in model.model_fields:
        return owners
    if "method" in model.model_fields:
        method = METHODS[value_of(words, "--method") or known["method"]]
        owners.flat = method.name, load(method.settings)
    elif "methods" in model.model_fields and tyro.conf.Suppress not in model.model_fields["methods"].metadata:
        asked = value_of(words, "--methods")
        names = known["methods"] if asked is None else [name.strip() for name in asked.split(",") if name.strip()]
        for name in names:
            owners.add(name, METHODS[name].settings)
    fixed = getattr(model, "DATA_SET", "")  # of a recipe whose word for the data is not a name of the list
    add_data(owners, fixed or _data_word(model, words, owners) or known["data"], words)
    return owners


def _data_word(model: type[BaseModel], words: Sequence[str], owners: Owners, *, place: int = 0) -> str | None:
    """The data set in a command line; its own flags must be known to tell their values from it."""
    probe = Owners(dict(owners.nested), owners.flat)
    for word in words:
        prefix = word[2:].partition(".")[0]
        if word.startswith("--") and prefix in DATA:
            probe.add(prefix, DATA[prefix].settings)
    options = options_of(with_common(probe.command(model)))
    if not any(option.positional for option in options):  # a word that is too many names no data
        return None
    found = alone_words(words, options)
    return found[place] if len(found) > place else None


def read_with_data(model: type[M], words: Sequence[str], *, prog: str, place: int) -> tuple[M, dict[str, Any]]:
    """Flags of a command whose word number ``place`` names data, and the options of that data."""
    owners = Owners()
    name = _data_word(model, words, owners, place=place)
    if name is not None:
        add_data(owners, name, words)
    command: Any = owners.command(model)
    flags = parse(command, words, prog=prog)
    options = [getattr(flags, field).model_dump(mode="json") for field in owners.nested]
    return flags, options[0] if options else {}


def read_evaluation(
    model: type[M], words: Sequence[str], *, prog: str, data_of: Callable[[Path], str]
) -> tuple[M, dict[str, Any], Any]:
    """Flags of a command that scores a run: its own, the options of the data, and those of the data's way of scoring.

    Args:
        model: class of the flags; the first two words are a run folder and data, which may be missing.
        words: the command line.
        prog: how the command is called.
        data_of: name of the data set of a run, where the second word is missing.
    """
    owners = Owners()
    for card in RECIPES.values():
        if card.evaluation:  # its flags must be known to tell their values from the words
            probe = Owners(flat=(card.scores, load(card.evaluation)))
            run, name = (_data_word(model, words, probe, place=place) for place in (0, 1))
            scored = name if name is not None else data_of(Path(run)) if run is not None else ""
            owners.flat = probe.flat if scored == card.scores else owners.flat
    name = _data_word(model, words, owners, place=1)
    if name is not None:
        add_data(owners, name, words)
    flags: Any = parse(owners.command(model), words, prog=prog)
    options = [getattr(flags, field).model_dump(mode="json") for field in owners.nested]
    own = None
    if owners.flat:
        scored, settings = owners.flat
        values = {key: getattr(flags, key) for key in settings.model_fields}
        own = validated(settings, values, f"Scoring {scored}")
    return flags, options[0] if options else {}, own


def add_data(owners: Owners, name: str, words: Sequence[str]) -> None:
    """Options of the data set that a command line names."""
    if name in DATA:
        owners.add(name, DATA[name].settings)
    elif any(word.startswith(f"--{FOLDER}.") for word in words) or Path(name).is_dir():
        owners.add(FOLDER, FOLDER_SETTINGS, key=name)
