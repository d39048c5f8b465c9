"""What methods found out about the channels of their teachers: how salient they are, and which were removed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports import plots
from xmodal.reports.plots import Series
from xmodal.reports.read import RunFiles

HEADINGS = ["method", "place", "removed", "channels", "share removed"]
FIELDS = {"place", "removed", "saliency", "keep"}


def channels(
    rows: Sequence[Mapping[str, Any]], folders: Mapping[str, RunFiles], ranks: Mapping[str, int], prefix: str
) -> dict[str, Any] | None:
    """Table and drawing of all methods with a channel mask; None where there is none.

    Args:
        rows: of the comparison, one per seed and name.
        folders: folder of a row → its files.
        ranks: method → number of its colour.
        prefix: of the identifiers inside the drawing.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        run = folders.get(row.get("folder", ""))
        content = (run.result.get("method") or {}).get("channels") if run else None
        if isinstance(content, dict) and content.keys() >= FIELDS and row["name"] in ranks:
            found.setdefault(row["name"], []).append(content)
    if not found:
        return None
    series = [
        Series(name, "method", [sorted(each["saliency"], reverse=True) for each in seeds], ranks[name])
        for name, seeds in found.items()
        if all(each["saliency"] for each in seeds)  # random channels need none
    ]
    rows_of_table = [_line(name, seeds) for name, seeds in found.items()]
    svg = plots.saliency(series, prefix=prefix) if series else ""
    return {"svg": svg, "table": (HEADINGS, rows_of_table)}


def _line(name: str, seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    shares = [1 - statistics.fmean(each["keep"]) for each in seeds]
    between = f"{min(shares):.0%}" if min(shares) == max(shares) else f"{min(shares):.0%} to {max(shares):.0%}"
    first = seeds[0]
    return [name, first["place"], first["removed"], str(len(first["keep"])), between]
