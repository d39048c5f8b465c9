"""Tables of text from a result. The numbers are those of the result; averages are not averaged again."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from xmodal.reports.intervals import Row, scores_by_seed
from xmodal.reports.numbers import number, p_text, range_text, unit
from xmodal.reports.repetitions import repetition
from xmodal.reports.summary import corrected_for, summary_of, tests_of

NUMBER = r"[-+<≤≥]? ?\d"  # beginning of a cell with a number


def comparison_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table: one row per name, numbers of ``result["summary"]`` as text.

    Methods are tested; the other rows have no p, since they are the controls that these tests use. The last column,
    where there are shuffled teachers, is the difference of a method from itself with such a teacher.
    """
    summary, metric = summary_of(result), str(result.get("metric", ""))
    corrected = corrected_for(summary) > 1
    shuffled = any(entry["role"] == "shuffled" for entry in summary)
    repeated = f"{repetition(result)}s"
    header = ["name", "role", repeated, unit(metric), "95 % interval", "vs control", "95 % interval", "p"]
    header += ["p (Holm)"] * corrected + ["vs shuffled"] * shuffled
    return header, [_cells(entry, metric, corrected=corrected, shuffled=shuffled) for entry in summary]


def all_tests_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """Header and rows of all tests of the main table: each method against the control and its own controls."""
    metric = str(result.get("metric", ""))
    difference = f"difference, {unit(metric)}"
    header = ["name", "against", f"{repetition(result)}s", difference, "95 % interval", "p", "p (Holm)", "outcome"]
    rows = [
        [
            name,
            str(test["against"]),
            str(test["n"]),
            number(test["difference"], metric, signed=True),
            range_text(test, metric),
            p_text(test["p"]),
            p_text(test["p_holm"]),
            str(test["outcome"]),
        ]
        for name, test in tests_of(summary_of(result))
    ]
    return header, rows


def contrasts_table(expectation: Row, metric: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of an expectation: the expected best compared with each of the others."""
    header = ["better", "than", "seeds", f"by {unit(metric)}", "95 % interval", "p", "p (Holm)"]
    rows = [
        [
            test["first"],
            test["second"],
            str(test["n"]),
            number(test["difference"], metric, signed=True),
            range_text(test, metric),
            p_text(test["p"]),
            p_text(test["p_holm"]),
        ]
        for test in expectation["tests"]
    ]
    return header, rows


def _cells(entry: Row, metric: str, *, corrected: bool, shuffled: bool) -> list[str]:
    against = entry.get("difference") or {}
    tested = against if entry["role"] == "method" else {}
    other: Row = next((test for test in entry.get("controls", ()) if test["role"] == "shuffled"), {})
    cells = [entry["name"], entry["role"], str(entry["n"]), number(entry["mean"], metric), range_text(entry, metric)]
    cells += [number(against.get("difference"), metric, signed=True), range_text(against, metric)]
    cells += [p_text(tested.get("p"))] + [p_text(tested.get("p_holm"))] * corrected
    return cells + [number(other.get("difference"), metric, signed=True)] * shuffled


def metrics_table(named: Iterable[tuple[str, Row]]) -> tuple[list[str], list[list[str]]]:
    """All scalar metrics: one row per name, averaged over the entries of that name."""
    scores: dict[str, dict[str, list[float]]] = {}
    for name, metrics in named:
        for metric, value in metrics.items():
            if isinstance(value, int | float):
                scores.setdefault(name, {}).setdefault(metric, []).append(float(value))
    columns = list(dict.fromkeys(metric for by_metric in scores.values() for metric in by_metric))
    rows = []
    for name, by_metric in scores.items():
        means = {metric: statistics.fmean(values) for metric, values in by_metric.items()}
        rows.append([name, *(number(means.get(metric), metric) for metric in columns)])
    return ["name", *(unit(metric) for metric in columns)], rows


def seeds_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """The metric of every single run: one row per name, one column per seed."""
    metric, rows = str(result["metric"]), result.get("rows", [])
    seeds, scores = sorted({row["seed"] for row in rows}), scores_by_seed(rows, metric)
    body = [[name, *(number(by_seed.get(seed), metric) for seed in seeds)] for name, by_seed in scores.items()]
    return ["name", *(f"{repetition(result)} {seed}" for seed in seeds)], body


def references_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """Measured and published figures: one row per figure, with a column for other implementations if there are any."""
    others = any(row.get("elsewhere") is not None for row in result.get("references") or ())
    header = ["what", "ours", "paper", "authors' code", *["elsewhere"] * others, "tolerance", "ok", "source"]
    keys = ("ours", "paper", "authors", *["elsewhere"] * others)
    rows = [
        [
            str(row.get("what", "")),
            *("–" if row.get(key) is None else f"{row[key]:.4g}" for key in keys),
            _allowed(row),
            {True: "yes", False: "no"}.get(row.get("ok"), "–"),
            str(row.get("source") or ""),
        ]
        for row in result.get("references") or ()
    ]
    return header, rows


def _allowed(row: Row) -> str:
    """Allowed range of a figure: its distance from the reference, or its bounds."""
    signs = {"tolerance": "", "at_least": "≥ ", "at_most": "≤ "}
    bounds = [f"{sign}{row[key]:.4g}" for key, sign in signs.items() if row.get(key) is not None]
    return ", ".join(bounds) or "–"


def page_table(
    title: str, table: tuple[list[str], list[list[str]]], caption: str, *, roles: bool = False
) -> dict[str, Any]:
    """A table for the template; with ``roles`` the second column is shown with the name in the first."""
    header, rows = table
    under = [row[1] for row in rows] if roles else [""] * len(rows)
    if roles:
        header, rows = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows]
    numeric = [any(re.match(NUMBER, row[column]) for row in rows) for column in range(len(header))]
    return {
        "title": title,
        "header": header,
        "rows": list(zip(under, rows, strict=True)),
        "caption": caption,
        "numeric": [False, *numeric[1:]],
    }


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned table for terminals and logs: the first column to the left, numbers to the right.

    Example:
        >>> print(plain_table(["name", "n"], [["kd", "5"], ["no-KD", "12"]]))
        name    n
        -----  --
        kd      5
        no-KD  12
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    left_aligned = [not any(re.match(NUMBER, row[column]) for row in rows) for column in range(len(header))]
    # Names may begin with a digit (`3-dense`), and the first column is always a name.
    left_aligned[:1] = [True]

    def line(cells: Sequence[str]) -> str:
        parts = (
            cell.ljust(w) if to_left else cell.rjust(w)
            for cell, w, to_left in zip(cells, widths, left_aligned, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])
