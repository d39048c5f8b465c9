"""The stored results in docs/results, and the tables and lines that are written from them.

A file is a row of the README's table: commands, hardware, time, the figures of its runs, and cells of text in which
``{key}`` stands for a figure, ``{key|3}`` for one with three decimals, ``{key|interval}`` for its interval and
``{run//key}`` for that of a certain run. `benchmarks/keep_results.py` copies figures from run folders.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/results"
HEAD = ["Experiment", "Command", "Teacher", "No-KD", "Ours", "Paper", "Other code", "Hardware, time"]
CELLS = ("teacher", "no-KD", "ours", "paper", "other code")


def stored(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


NAMES = sorted((path.stem for path in FOLDER.glob("*.json")), key=lambda name: stored(name)["order"])


def signed(value: float, decimals: int, *, plus: bool) -> str:
    """A number with a real minus sign, and a plus sign where asked for."""
    text = f"{value:+.{decimals}f}" if plus else f"{value:.{decimals}f}"
    return text.replace("-", "−")


def filled(text: str, runs: dict[str, Any]) -> str:
    """The text with figures in place of their keys; an unknown key is an error."""

    def shown(match: re.Match[str]) -> str:
        key, _, how = match[1].partition("|")
        name, _, key = key.rpartition("//")
        run = runs[name or next(iter(runs))]
        if how == "interval":
            low, high = run["intervals"][key]
            return f"{signed(low, 1, plus=False)} to {signed(high, 1, plus=False)}"
        return signed(run["figures"][key], int(how or 1), plus=" - " in key)

    return re.sub(r"{([^}]+)}", shown, text)


def intervals(result: dict[str, Any]) -> list[str]:
    """The intervals that the cells show."""
    found = re.findall(r"{[^}]+\|interval}", " ".join(result["cells"].values()))
    return [filled(text, result["runs"]) for text in found]


def cells(result: dict[str, Any]) -> list[str]:
    return [filled(result["cells"][name], result["runs"]) for name in CELLS]


def results_rows() -> list[list[str]]:
    """The rows of the README: the commands of each, without those that make its data."""
    return [
        [
            f"[{result['experiment']}]({result['page']})",
            ", ".join(f"`{line}`" for line in result["commands"] if not line.startswith("xmodal data ")),
            *cells(result),
            f"{result['hardware']}, {result['time']}",
        ]
        for result in map(stored, NAMES)
    ]


def pages() -> list[str]:
    """The pages that have results of their own."""
    return sorted({stored(name)["page"] for name in NAMES})


def page_lines(page: str) -> str:
    """What a page says about its experiments: the cells of the README's table, and every command."""
    lines = []
    for result in map(stored, NAMES):
        if result["page"] == page:
            said = dict(zip(("teacher", "no-KD", "ours", "paper", "other code"), cells(result), strict=True))
            known = [f"{what} {text}" for what, text in said.items() if text not in ("–", "none") and "](" not in text]
            commands = ", ".join(f"`{command}`" for command in result["commands"])
            cost = f"{result['hardware']}, {result['time']}"
            lines.append(f"- {result['experiment']}: {'; '.join(known)}. {cost}: {commands}\n")
    # a list needs empty lines around it
    return f"\n{''.join(lines)}\n"
