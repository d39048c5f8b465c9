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
    if words and words[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name:<12}  {card.title}" for name, card in RECIPES.items())
        raise Help(f"usage: xmodal run RECIPE [flags]\n\n{listed}\n\nxmodal run RECIPE --help lists its flags.")
    if not words or words[0].startswith("-"):
        raise InputError(f"xmodal run needs the name of a recipe as its first word. Known: {', '.join(RECIPES)}.")
    return experiment(words[0], words[1:], prog=f"xmodal run {words[0]}")


def distill(words: Sequence[str]) -> Answer:
    """The command ``xmodal distill DATA [flags]``."""
    return experiment("distill", words, prog="xmodal distill")


def compare(words: Sequence[str]) -> Answer:
    """The command ``xmodal compare DATA [flags]``."""
    return experiment("compare", words, prog="xmodal compare")


def experiment(name: str, words: Sequence[str], *, prog: str) -> Answer:
    """Read the flags, run the recipe, and return its result with the tables to print."""
    from xmodal.engine.progress import Progress

    card = RECIPES[name]
    settings, as_json = read_settings(name, words, prog=prog)
    devices = getattr(settings, "devices", 1)
    if spawn.leads(devices):
        # this process trains nothing: it starts the same command once per device, and watches these processes
        return Answer({}, status=spawn.lead(_command([*prog.split()[1:], *words]), devices))
    result = card.load()(settings, progress=Progress())
    return Answer(result, as_json, lines=_lines(result))


def _command(words: Sequence[str]) -> list[str]:
    """The command line of the processes that train."""
    # a test or a program that calls `answer` with words of its own has other words in sys.argv
    return spawn.same_command() if sys.argv[1:] == words else [sys.executable, "-m", "xmodal.cli.main", *words]


def _lines(result: Mapping[str, Any]) -> list[str]:
    """The tables of a result, as text."""
    from xmodal.reports.ranking import ranking_of, ranking_table
    from xmodal.reports.ship import ship_lines
    from xmodal.reports.sweep import sweep_table
    from xmodal.reports.tables import comparison_table, contrasts_table, plain_table, references_table
    from xmodal.reports.verdicts import verdict

    lines: list[str] = []
    if result.get("sweeps"):
        for sweep in result["sweeps"]:
            lines += [f"{sweep['title']}:", plain_table(*sweep_table(sweep)), ""]
        lines += [*result.get("verdict", []), *verdict({**result, "rows": []}), *result.get("notes", [])]
    elif result.get("rows"):
        lines += [*ship_lines(result), plain_table(*comparison_table(result)), ""]
        if curve := result.get("curve"):
            lines += [f"{curve['title']}:", plain_table(*sweep_table(curve)), ""]
        lines += [*verdict(result), *result.get("notes", [])]
    else:
        # a run that stopped before anything was scored says so in its notes
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
    """Run recipes at their published settings and compare the results with the published figures.

    The exit status is 1 if a figure is outside its tolerance.
    """

    recipes: Annotated[tuple[str, ...], Flag(metavar="RECIPE ...", positional=True)] = Field(
        (), description="names of recipes; default: all that have reference figures"
    )
    out: Path = Field(
        Path("runs/reproduce"),
        description="folder for the run folders, which are named after their recipes: RECIPE, RECIPE-2, …",
    )
    resume: bool = Field(False, description="continue the last run of each recipe in this folder")
    references: Path | None = Field(None, description="another file of reference figures, for one recipe")


def reproduce(words: Sequence[str]) -> Answer:
    """The command ``xmodal reproduce [RECIPE …]``."""
    from xmodal.study.references import read_references

    flags = parse(ReproduceFlags, words, prog="xmodal reproduce")
    names = _with_references(flags)
    expected = {name: read_references(RECIPES[name].references, flags.references) for name in names}
    results = {name: _reproduced(name, expected[name], flags) for name in names}
    lines = [line for name, result in results.items() for line in _references(name, result)]
    wrong = [row["what"] for result in results.values() for row in result["references"] if not row["ok"]]
    outside = f"{len(wrong)} figure(s) outside of their tolerance: {'; '.join(wrong)}."
    lines.append(outside if wrong else "Every figure is within its tolerance.")
    return Answer({"recipes": results, "ok": not wrong}, flags.as_json, lines, status=1 if wrong else 0)


def _with_references(flags: ReproduceFlags) -> tuple[str, ...]:
    """The recipes to reproduce; raises an error with one sentence per unknown or unsuitable name."""
    suitable = tuple(name for name, card in RECIPES.items() if card.references)
    names, problems = tuple(dict.fromkeys(flags.recipes)) or suitable, []
    for name in names:
        try:
            if not RECIPES[name].references and not flags.references:
                problems.append(f"The recipe '{name}' has no reference figures. With figures: {', '.join(suitable)}.")
        except InputError as error:
            problems += error.problems
    if flags.references and len(names) != 1:
        problems.append("--references goes with one recipe: name that recipe.")
    if problems:
        raise InputError(problems)
    return names


def _reproduced(name: str, expected: Sequence[Any], flags: ReproduceFlags) -> dict[str, Any]:
    """Run a recipe at its published settings; if it has several, each has its own folder."""
    from xmodal.engine.progress import Progress
    from xmodal.study.references import against_references, published_figures, published_settings

    figures: dict[str, float] = {}
    errors: dict[str, float] = {}
    folders = []
    out = _folder(flags.out, name, resume=flags.resume)
    for which, settings in published_settings(RECIPES[name]).items():
        changes = {"out": out / which, "resume": flags.resume}
        result = RECIPES[name].load()(settings.model_copy(update=changes), progress=Progress())
        figures |= published_figures(which, result.get("figures", {}))
        errors |= published_figures(which, result.get("standard_errors", {}))
        folders.append(result["folder"])
    return {"references": against_references(figures, expected, errors), "folders": folders}


def _folder(parent: Path, name: str, *, resume: bool) -> Path:
    """The first of ``name``, ``name-2``, … that does not exist; to resume, the last one that does."""
    folder, following, number = parent / name, parent / name, 1
    while following.exists():
        folder, number = following, number + 1
        following = parent / f"{name}-{number}"
    return folder if resume else following


def _references(name: str, result: Mapping[str, Any]) -> list[str]:
    """Our figures, those of the paper and their tolerance, as text."""
    from xmodal.reports.tables import plain_table, references_table

    folders = [f"Run folder: {folder}" for folder in result["folders"]]
    return [f"{name}:", plain_table(*references_table(result)), *folders, ""]
