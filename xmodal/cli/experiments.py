"""The commands that train: `run`, `distill`, `compare`, `reproduce`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from xmodal.cli.output import Answer
from xmodal.cli.parser import Flags, Help, parse
from xmodal.cli.recipe_flags import read_settings
from xmodal.engine.processes import spawn
from xmodal.errors import InputError
from xmodal.flags import Flag
from xmodal.recipes import RECIPES


def run(words: Sequence[str]) -> Answer:
    """The command ``xmodal run RECIPE [flags]``."""
    known = ", ".join(RECIPES)
    if words and words[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name:<12}  {card.title}" for name, card in RECIPES.items())
        raise Help(f"usage: xmodal run RECIPE [flags]\n\n{listed}\n\nxmodal run RECIPE --help lists its flags.")
    if not words or words[0].startswith("-"):
        raise InputError(f"xmodal run needs the name of a recipe as its first word. Known: {known}.")
    return experiment(words[0], words[1:], prog=f"xmodal run {words[0]}")


def distill(words: Sequence[str]) -> Answer:
    """The command ``xmodal distill DATA [flags]``."""
    return experiment("distill", words, prog="xmodal distill")


def compare(words: Sequence[str]) -> Answer:
    """The command ``xmodal compare DATA [flags]``."""
    return experiment("compare", words, prog="xmodal compare")


def experiment(name: str, words: Sequence[str], *, prog: str) -> Answer:
    """Read flags, run the recipe, say what came out."""
    from xmodal.engine.progress import Progress

    card = RECIPES[name]
    settings, as_json = read_settings(name, words, prog=prog)
    devices = getattr(settings, "devices", 1)
    if spawn.leads(devices):
        return Answer({}, status=spawn.lead(_again([*prog.split()[1:], *words]), devices))
    result = card.load()(settings, progress=Progress())
    return Answer(result, as_json, lines=_told(result))


def _again(words: Sequence[str]) -> list[str]:
    """The command that starts this one again."""
    return spawn.same_command() if sys.argv[1:] == words else [sys.executable, "-m", "xmodal.cli.main", *words]


def _told(result: Mapping[str, Any]) -> list[str]:
    """What a person reads at the end."""
    from xmodal.reports.ranking import ranking_of, ranking_table
    from xmodal.reports.sweep import sweep_table
    from xmodal.reports.tables import comparison_table, contrasts_table, plain_table, references_table, verdict

    lines: list[str] = []
    if result.get("sweeps"):
        for sweep in result["sweeps"]:
            lines += [f"{sweep['title']}:", plain_table(*sweep_table(sweep)), ""]
        lines += [*result.get("verdict", []), *verdict({**result, "rows": []}), *result.get("notes", [])]
    elif result.get("rows"):
        lines += [plain_table(*comparison_table(result)), "", *verdict(result), *result.get("notes", [])]
    else:  # it stopped before anything was scored
        lines += result.get("notes", [])
    for each in result.get("expectations", ()):
        lines += ["", f"{each['title']}:", plain_table(*contrasts_table(each, result["metric"]))]
    if ranking := ranking_of(result):
        lines += ["", "Saliency of the channels:", plain_table(*ranking_table(ranking))]
    for table in result.get("tables", ()):
        lines += ["", f"{table['title']}:", plain_table(table["header"], table["rows"])]
    if result.get("references"):
        lines += ["", plain_table(*references_table(result))]
    return [*lines, "", f"Report: {Path(result['folder']) / 'report.html'}", f"Run folder: {result['folder']}"]


class ReproduceFlags(Flags):
    """Run recipes at their published settings and compare with the published figures; exit 1 if one is off."""

    recipes: Annotated[tuple[str, ...], Flag(metavar="RECIPE ...", positional=True)] = Field(
        (), description="default: every recipe that has reference figures"
    )
    out: Path = Field(Path("runs/reproduce"), description="run folders go below this one, named after their recipes")
    resume: bool = Field(False, description="go on with what is there")
    references: Path | None = Field(None, description="another file of reference figures (for one recipe)")


def reproduce(words: Sequence[str]) -> Answer:
    """The command ``xmodal reproduce [RECIPE …]``."""
    from xmodal.study.references import read_references

    flags = parse(ReproduceFlags, words, prog="xmodal reproduce")
    names = _with_references(flags)
    expected = {name: read_references(RECIPES[name].references, flags.references) for name in names}
    results = {name: _reproduced(name, expected[name], flags) for name in names}
    lines = [line for name, result in results.items() for line in _beside(name, result)]
    off = [row["what"] for result in results.values() for row in result["references"] if not row["ok"]]
    lines.append(f"{len(off)} figure(s) are off: {'; '.join(off)}." if off else "Every figure is within its tolerance.")
    return Answer({"recipes": results, "ok": not off}, flags.as_json, lines, status=1 if off else 0)


def _with_references(flags: ReproduceFlags) -> tuple[str, ...]:
    """The recipes to reproduce; all that is wrong with their names at once."""
    known = tuple(name for name, card in RECIPES.items() if card.references)
    names, problems = tuple(dict.fromkeys(flags.recipes)) or known, []
    for name in names:
        try:
            if not RECIPES[name].references and not flags.references:
                problems.append(f"The recipe '{name}' has no reference figures. With figures: {', '.join(known)}.")
        except InputError as error:
            problems += error.problems
    if flags.references and len(names) != 1:
        problems.append("--references goes with one recipe: name it.")
    if problems:
        raise InputError(problems)
    return names


def _reproduced(name: str, expected: Sequence[Any], flags: ReproduceFlags) -> dict[str, Any]:
    """A recipe at its published settings, all of them where there are several, each in a folder of its own."""
    from xmodal.engine.progress import Progress
    from xmodal.study.references import against_references, published_figures, published_settings

    figures: dict[str, float] = {}
    folders = []
    for which, settings in published_settings(RECIPES[name]).items():
        place = {"out": flags.out / name / which, "resume": flags.resume}
        result = RECIPES[name].load()(settings.model_copy(update=place), progress=Progress())
        figures |= published_figures(which, result.get("figures", {}))
        folders.append(result["folder"])
    return {"references": against_references(figures, expected), "folders": folders}


def _beside(name: str, result: Mapping[str, Any]) -> list[str]:
    from xmodal.reports.tables import plain_table, references_table

    folders = [f"Run folder: {folder}" for folder in result["folders"]]
    return [f"{name}:", plain_table(*references_table(result)), *folders, ""]
