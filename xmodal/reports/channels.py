"""Channels of the teachers: how salient they are, and how many each method removed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports.figures import plots
from xmodal.reports.figures.plots import Series
from xmodal.reports.read import RunFiles

HEADINGS = ["method", "layer", "removed", "channels", "share removed"]
FIELDS = {"place", "removed", "saliency", "keep"}


def channels(
    rows: Sequence[Mapping[str, Any]], folders: Mapping[str, RunFiles], ranks: Mapping[str, int]
) -> dict[str, Any] | None:
    """Table and plot of all methods with a channel mask; None without such a method.

    Args:
        rows: rows of the comparison, one per seed and name.
        folders: folder of a row → its files.
        ranks: method → number of its colour.
    """
    masks: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        run = folders.get(row.get("folder", ""))
        mask = (run.result.get("method") or {}).get("channels") if run else None
        if isinstance(mask, dict) and mask.keys() >= FIELDS and row["name"] in ranks:
            masks.setdefault(row["name"], []).append(mask)
    if not masks:
        return None
    # Randomly chosen channels need no saliency: such a method is in the table and not in the plot.
    series = [
        Series(name, "method", [sorted(mask["saliency"], reverse=True) for mask in seeds], ranks[name])
        for name, seeds in masks.items()
        if all(mask["saliency"] for mask in seeds)
    ]
    svg = plots.saliency(series) if series else ""
    return {"svg": svg, "table": (HEADINGS, [_table_row(name, seeds) for name, seeds in masks.items()])}


def _table_row(name: str, seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    shares = [1 - statistics.fmean(mask["keep"]) for mask in seeds]
    removed = f"{min(shares):.0%}" if min(shares) == max(shares) else f"{min(shares):.0%} to {max(shares):.0%}"
    first = seeds[0]
    return [name, first["place"], first["removed"], str(len(first["keep"])), removed]
