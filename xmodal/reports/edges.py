"""Who listens to whom in DMD: the edges of its graphs from before training to the last epoch, and their prior.

What is read is what the method records: in the history ``edge homo text>audio`` (mean over the samples), ``… std`` and
``… prior`` of each epoch; in the result, under ``method``, the names of the edges and their values before training.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmodal.reports import plots
from xmodal.reports.read import RunFiles

HEADINGS = ["graph", "edge", "before training", "last epoch", "prior"]
TITLES = {"homo": "homogeneous graph", "hetero": "heterogeneous graph"}


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge of one run.

    Attributes:
        graph: ``homo`` or ``hetero``.
        name: ``teacher>student``.
        epochs: 0 is before training.
        mean: over the samples, one value per epoch.
        std: over the samples of a batch, one value per epoch.
        prior: one value per epoch.
    """

    graph: str
    name: str
    epochs: list[int]
    mean: list[float]
    std: list[float]
    prior: list[float]


def read_edges(known: Any, history: Sequence[Mapping[str, Any]]) -> list[Edge]:
    """The edges of a run, graph by graph; none where it recorded none.

    Args:
        known: ``result["method"]["edges"]``.
        history: one row per epoch.
    """
    if not isinstance(known, Mapping):
        return []
    found = []
    for graph, facts in known.items():
        for place, name in enumerate(facts["names"]):
            key, start = f"edge {graph} {name}", facts.get("start")
            rows = [(row["epoch"] + 1, row["logs"]) for row in history if key in row.get("logs", {})]
            if not rows:
                continue
            first = rows[0][1][f"{key} prior"]
            before = [(0, start["mean"][place], start["std"][place], first)] if start else []
            after = [(epoch, logs[key], logs[f"{key} std"], logs[f"{key} prior"]) for epoch, logs in rows]
            epochs, mean, std, prior = (list(column) for column in zip(*before, *after, strict=True))
            found.append(Edge(graph, name, epochs, mean, std, prior))
    return found


def edges_of(run: RunFiles) -> list[Edge]:
    """The edges of a run folder."""
    return read_edges((run.result.get("method") or {}).get("edges"), run.history)


def edges(
    rows: Sequence[Mapping[str, Any]], folders: Mapping[str, RunFiles], shown: Sequence[str], prefix: str
) -> list[dict[str, Any]]:
    """Drawings and a table for every method with graphs, at most as many as are shown.

    Args:
        rows: of the comparison, one per seed and name.
        folders: folder of a row → its files.
        shown: names of the rows whose runs may be drawn.
        prefix: of the identifiers inside the drawings.
    """
    runs: dict[str, dict[str, list[Edge]]] = {}
    for row in rows:
        folder = row.get("folder", "")
        if row["name"] in shown and folder in folders and (found := edges_of(folders[folder])):
            runs.setdefault(folder.rpartition("/")[2], {})[folder] = found
    return [drawn(name, list(of.values()), f"{prefix}-{place}") for place, (name, of) in enumerate(runs.items())]


def drawn(name: str, runs: Sequence[Sequence[Edge]], prefix: str) -> dict[str, Any]:
    """Both graphs of one method: a drawing each, a line per seed, and a table of where they begin and end."""
    by_graph: dict[str, dict[str, list[Edge]]] = {}
    for run in runs:
        for edge in run:
            by_graph.setdefault(edge.graph, {}).setdefault(edge.name, []).append(edge)
    figures = [
        {
            "title": TITLES.get(graph, graph),
            "svg": plots.edges(
                {edge: [(one.epochs, one.mean, one.prior) for one in seeds] for edge, seeds in of.items()},
                title=TITLES.get(graph, graph),
                prefix=f"{prefix}-{graph}",
            ),
        }
        for graph, of in by_graph.items()
    ]
    table = [_line(graph, edge, seeds) for graph, of in by_graph.items() for edge, seeds in of.items()]
    return {"name": name, "seeds": len(runs), "figures": figures, "table": (HEADINGS, table)}


def _line(graph: str, edge: str, seeds: Sequence[Edge]) -> list[str]:
    starts = [one.mean[0] for one in seeds if one.epochs[0] == 0]
    ends = [one.mean[-1] for one in seeds]
    prior = statistics.fmean(one.prior[-1] for one in seeds)
    return [TITLES.get(graph, graph), edge.replace(">", " → "), _mean(starts), _mean(ends), f"{prior:.3f}"]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    between = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{between}"
