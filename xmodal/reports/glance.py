"""A result in the output of a notebook cell: its sentences, its table and a figure, without a page around them."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from xmodal.reports.figures import plots
from xmodal.reports.figures.plots import Series
from xmodal.reports.summary import summary_of
from xmodal.reports.tables import comparison_table

CELL = "padding:.15em .7em;border:0;text-align:{side}"


def glance(result: Mapping[str, Any], verdict: str) -> str:
    """The HTML of a result: it needs no style sheet, no script and no network.

    Args:
        result: of a comparison.
        verdict: sentences that interpret it, one per line.
    """
    header, rows = comparison_table(result)
    sentences = "".join(f"<p style='margin:.2em 0'>{escape(line)}</p>" for line in verdict.splitlines())
    head = "".join(_cell("th", text, number) for number, text in enumerate(header))
    body = "".join("<tr>" + "".join(_cell("td", text, i) for i, text in enumerate(row)) + "</tr>" for row in rows)
    table = f"<table style='border-collapse:collapse'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    figure = f"<div style='max-width:{plots.WIDTH}px;color-scheme:light;background:#fff'>{_figure(result)}</div>"
    return f"<div>{sentences}{table}{figure}</div>"


def _cell(tag: str, text: str, number: int) -> str:
    # the first two columns are words
    style = CELL.format(side="left" if number < 2 else "right")
    return f"<{tag} style='{style}'>{escape(text)}</{tag}>"


def _figure(result: Mapping[str, Any]) -> str:
    summary, metric = summary_of(result), str(result["metric"])
    methods = [entry["name"] for entry in summary if entry["role"] == "method"]
    series = []
    for entry in summary:
        values = [float(row["test"][metric]) for row in result["rows"] if row["name"] == entry["name"]]
        rank = methods.index(entry["name"]) if entry["name"] in methods else -1
        series.append(Series(entry["name"], entry["role"], [values], rank))
    return plots.comparison(summary, series, metric=metric, direction=str(result["direction"]))
