"""Copies the figures of run folders into docs/results, from which the table of results in the README is written.

A file of docs/results is a row of that table: its commands, its hardware and time, the figures, and cells of text in
which ``{key}`` stands for a figure. The figures of a run are replaced as a whole, the text is yours. A run of several
published settings is a folder that holds a run folder for each.

    python benchmarks/keep_results.py docs/results/discom.json discom=runs/reproduce/discom
    python tests/test_readme.py        # writes the tables again
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xmodal.files import read_json, write_text
from xmodal.reports.intervals import scores_by_seed
from xmodal.reports.numbers import in_percent
from xmodal.study.references import paired_figures, published_figures


def figures_of(folder: Path) -> dict[str, Any]:
    """What is kept of a run: figures, intervals, standard errors, and the scores of every seed."""
    if (folder / "result.json").is_file():
        return kept(read_json(folder / "result.json"))
    parts = {path.parent.name: kept(read_json(path)) for path in sorted(folder.glob("*/result.json"))}
    if not parts:
        raise SystemExit(f"{folder} holds no result.json. Give the folder of a run.")
    joined: dict[str, Any] = {"figures": {}, "intervals": {}, "standard_errors": {}}
    for name, part in parts.items():
        for what, values in joined.items():
            values |= published_figures(name, part[what])
    return joined


def kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """The same of one result; a sweep has figures alone."""
    if not result.get("summary"):
        return {"figures": rounded(result["figures"]), "intervals": {}, "standard_errors": {}}
    paired, metric = paired_figures(result), result["metric"]
    scale = 100.0 if in_percent(metric) else 1.0
    intervals = {}
    for entry in result["summary"]:
        tested = entry["difference"] or {}
        ranges = {entry["name"]: entry, f"{entry['name']} - {tested.get('against')}": tested}
        intervals |= {
            f"{name}.{metric}": [round(scale * each["low"], 4), round(scale * each["high"], 4)]
            for name, each in ranges.items()
            if each.get("low") is not None
        }
    if saved := result.get("labels_saved"):
        paired["figures"]["labels worth"] = saved["worth"]
        intervals["labels worth"] = [saved["low"], saved["high"]]
    roles = {row["name"]: {"role": row["role"], "needs": row.get("needs")} for row in result["rows"]}
    scores = {
        name: {**roles[name], "scores": {str(seed): round(score, 6) for seed, score in by_seed.items()}}
        for name, by_seed in scores_by_seed(result["rows"], metric).items()
    }
    return {
        "metric": metric,
        "figures": rounded({**result["figures"], **paired["figures"]}),
        "intervals": intervals,
        "standard_errors": rounded(paired["standard_errors"]),
        "rows": scores,
    }


def rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures with four decimals, which is more than any tolerance needs."""
    return {key: round(value, 4) for key, value in figures.items()}


def main() -> None:
    """Replace the figures of one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a file in docs/results")
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER", help="name of the run in the file, and its folder")
    given = parser.parse_args()
    content = read_json(given.file)
    for run in given.runs:
        name, _, folder = run.partition("=")
        content["runs"] = {**content.get("runs", {}), name: figures_of(Path(folder))}
    write_text(given.file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
