"""The commands that train: `run`, `distill`, `compare`, `reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import BaseModel, Field

from xmodal.cards import load
from xmodal.cli.flags import Flags, extended, parse, value_of
from xmodal.cli.output import Answer
from xmodal.data import DATA
from xmodal.data.options import validated
from xmodal.errors import InputError, did_you_mean
from xmodal.methods import METHODS
from xmodal.recipes import RECIPES


def run(words: Sequence[str]) -> Answer:
    """xmodal run RECIPE [flags]."""
    if not words or words[0].startswith("-"):
        raise InputError(f"xmodal run needs the name of a recipe. {did_you_mean('', RECIPES)}")
    return experiment(words[0], words[1:], prog=f"xmodal run {words[0]}")


def distill(words: Sequence[str]) -> Answer:
    """xmodal distill DATA [flags]."""
    return experiment("distill", words, prog="xmodal distill")


def compare(words: Sequence[str]) -> Answer:
    """xmodal compare DATA [flags]."""
    return experiment("compare", words, prog="xmodal compare")


def experiment(name: str, words: Sequence[str], *, prog: str) -> Answer:
    """Read flags, run the recipe, say what came out."""
    from xmodal.engine.progress import Progress

    card = RECIPES[name]
    settings, as_json = read_settings(name, words, prog=prog)
    result = card.load()(settings, progress=Progress())
    return Answer(result, as_json, lines=_told(result))


def read_settings(name: str, words: Sequence[str], *, prog: str) -> tuple[Any, bool]:
    """Settings of a recipe from flags, on top of a replayed file."""
    model: type[BaseModel] = load(RECIPES[name].settings)
    saved = _replayed(model, name, value_of(words, "--settings"))
    nested, flat = _owners(model, words, saved)
    full = extended(model, nested={owner: load(path) for owner, path in nested.items()}, flat=flat and load(flat[1]))
    command = _with_common(full)
    default = None
    options: dict[str, Any] = dict(saved.options if saved else model.model_fields["options"].default or {}) if (
        "options" in model.model_fields
    ) else {}
    if saved is not None or options:
        base = saved or model()
        given = {owner.replace("-", "_"): validated(load(path), options.get(owner, {}), owner)
                 for owner, path in nested.items()}
        if flat:
            given.update(validated(load(flat[1]), options.get(flat[0], {}), flat[0]).model_dump())
        default = command(**{**base.model_dump(), **given})
    flags = parse(command, words, prog=prog, default=default)
    values = {field: getattr(flags, field) for field in model.model_fields}
    for owner in nested:
        options[owner] = getattr(flags, owner.replace("-", "_")).model_dump(mode="json")
    if flat:
        options[flat[0]] = {field: getattr(flags, field) for field in load(flat[1]).model_fields}
    if "options" in values:
        values["options"] = options
    return model(**values), flags.as_json  # type: ignore[attr-defined]


def _with_common(model: type[BaseModel]) -> type[BaseModel]:
    from pydantic import create_model

    return create_model(
        model.__name__,
        __base__=model,
        __doc__=model.__doc__,
        settings_file=(
            Annotated[Path | None, tyro.conf.arg(name="settings")],
            Field(None, description="a settings.json to replay; flags go on top"),
        ),
        as_json=(Flags.model_fields["as_json"].rebuild_annotation(), Flags.model_fields["as_json"]),
    )


def _replayed(model: type[BaseModel], name: str, path: str | None) -> Any:
    """The settings of an earlier run."""
    from xmodal.files import read_json

    if path is None:
        return None
    content = read_json(Path(path))
    if content.get("recipe") != name:
        raise InputError(f"{path} holds settings of '{content.get('recipe')}', expected '{name}'.")
    return validated(model, content["settings"], path)


def _owners(model: type[BaseModel], words: Sequence[str], saved: Any) -> tuple[dict[str, str], tuple[str, str] | None]:
    """Whose options are flags of this command: data set and methods by name, a single method flat."""
    if "options" not in model.model_fields:
        return {}, None
    defaults = saved or model()
    named = next((word for word in words if word in DATA), defaults.data)
    nested = {named: DATA[named].settings} if named in DATA else {}
    if "method" in model.model_fields:
        method = METHODS[value_of(words, "--method") or defaults.method]
        return nested, (method.name, method.settings)
    for method_name in filter(None, (value_of(words, "--methods") or ",".join(defaults.methods)).split(",")):
        method = METHODS[method_name.strip()]
        if load(method.settings).model_fields:
            nested[method.name] = method.settings
    return nested, None


def _told(result: dict[str, Any]) -> list[str]:
    """What a person reads at the end."""
    from xmodal.reports.tables import comparison_table, plain_table, references_table, verdict

    lines: list[str] = []
    if result.get("rows"):
        lines += [plain_table(*comparison_table(result)), "", *verdict(result), *result.get("notes", [])]
    if result.get("references"):
        lines += ["", plain_table(*references_table(result))]
    lines += ["", f"Report: {Path(result['folder']) / 'report.html'}", f"Run folder: {result['folder']}"]
    return lines


class ReproduceFlags(Flags):
    """Run recipes at their published settings and compare with the published figures; exit 1 if one is off."""

    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = Field(
        (), description="default: every recipe that has reference figures"
    )
    out: Path = Field(Path("runs/reproduce"), description="run folders go below this one")
    resume: bool = Field(False, description="go on with what is there")
    references: Path | None = Field(None, description="another file of reference figures (one recipe)")


def reproduce(words: Sequence[str]) -> Answer:
    """xmodal reproduce [RECIPE …]."""
    from xmodal.engine.progress import Progress
    from xmodal.recipes.finish import against_references, read_references
    from xmodal.reports.tables import plain_table, references_table

    flags = parse(ReproduceFlags, words, prog="xmodal reproduce")
    names = flags.recipes or tuple(name for name, card in RECIPES.items() if card.references)
    for name in names:
        if not RECIPES[name].references:
            known = [other for other, card in RECIPES.items() if card.references]
            raise InputError(f"The recipe '{name}' has no reference figures. With figures: {', '.join(known)}.")
    if flags.references and len(names) != 1:
        raise InputError("--references goes with one recipe: name it.")
    checks = {name: read_references(RECIPES[name].references, flags.references) for name in names}
    results: dict[str, Any] = {}
    lines: list[str] = []
    for name, expected in checks.items():
        settings = load(RECIPES[name].settings)(out=flags.out / name, resume=flags.resume)
        result = RECIPES[name].load()(settings, progress=Progress())
        rows = against_references(result["figures"], expected)
        results[name] = {"references": rows, "folder": result["folder"]}
        lines += [f"{name}:", plain_table(*references_table({"references": rows})), f"Run folder: {result['folder']}"]
    off = [row["what"] for result in results.values() for row in result["references"] if not row["ok"]]
    lines.append(f"{len(off)} figure(s) are off: {'; '.join(off)}." if off else "Every figure is within its tolerance.")
    return Answer({"recipes": results, "ok": not off}, flags.as_json, lines, status=1 if off else 0)
