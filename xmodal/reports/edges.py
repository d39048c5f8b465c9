"""Edge weights of DMD's graphs, from before training to the last epoch, and their priors.

The method records them in the history, ``edge homo text>audio`` (mean over the samples), ``… std`` and ``… prior`` of
each epoch, and in the result, under ``method``, the names of the edges and their values before training.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmodal.reports.figures import plots
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
        mean: mean weight over the samples, one value per epoch.
        std: standard deviation over the samples of a batch, one value per epoch.
        prior: prior weight, one value per epoch.
    """

    graph: str
    name: str
    epochs: list[int]
    mean: list[float]
    std: list[float]
    prior: list[float]


def read_edges(recorded: Any, history: Sequence[Mapping[str, Any]]) -> list[Edge]:
    """The edges of a run, graph by graph; empty if the run recorded none.

    Args:
        recorded: ``result["method"]["edges"]``.
        history: one row per epoch.
    """
    if not isinstance(recorded, Mapping):
        return []
    edges = []
    for graph, facts in recorded.items():
        for index, name in enumerate(facts["names"]):
            key, start = f"edge {graph} {name}", facts.get("start")
            rows = [(row["epoch"] + 1, row["logs"]) for row in history if key in row.get("logs", {})]
            if not rows:
                continue
            # The prior before training is not recorded; priors that change (``auto``) start at that of epoch 1.
            first = rows[0][1][f"{key} prior"]
            before = [(0, start["mean"][index], start["std"][index], first)] if start else []
            after = [(epoch, logs[key], logs[f"{key} std"], logs[f"{key} prior"]) for epoch, logs in rows]
            epochs, mean, std, prior = (list(column) for column in zip(*before, *after, strict=True))
            edges.append(Edge(graph, name, epochs, mean, std, prior))
    return edges


def edges_of(run: RunFiles) -> list[Edge]:
    """The edges of a run folder."""
    return read_edges((run.result.get("method") or {}).get("edges"), run.history)


def edges(
    rows: Sequence[Mapping[str, Any]], folders: Mapping[str, RunFiles], shown: Sequence[str]
) -> list[dict[str, Any]]:
    """Plots and a table for every shown method with graphs.

    Args:
        rows: rows of the comparison, one per seed and name.
        folders: folder of a row → its files.
        shown: names of the rows to draw.
    """
    # Several rows (one per student) may share a folder, so runs are collected by folder and each is drawn once.
    runs: dict[str, dict[str, list[Edge]]] = {}
    for row in rows:
        folder = row.get("folder", "")
        if row["name"] in shown and folder in folders and (run_edges := edges_of(folders[folder])):
            runs.setdefault(folder.rpartition("/")[2], {})[folder] = run_edges
    return [edge_figures(name, list(by_folder.values())) for name, by_folder in runs.items()]


def edge_figures(name: str, runs: Sequence[Sequence[Edge]]) -> dict[str, Any]:
    """Both graphs of one method: a plot each with one line per seed, and a table of their first and last weights."""
    by_graph: dict[str, dict[str, list[Edge]]] = {}
    for run in runs:
        for edge in run:
            by_graph.setdefault(edge.graph, {}).setdefault(edge.name, []).append(edge)
    figures = [
        {
            "title": TITLES.get(graph, graph),
            "svg": plots.edges(
                {name: [(edge.epochs, edge.mean, edge.prior) for edge in seeds] for name, seeds in by_name.items()},
                title=TITLES.get(graph, graph),
            ),
        }
        for graph, by_name in by_graph.items()
    ]
    table = [_table_row(graph, edge, seeds) for graph, by_name in by_graph.items() for edge, seeds in by_name.items()]
    return {"name": name, "seeds": len(runs), "figures": figures, "table": (HEADINGS, table)}


def _table_row(graph: str, name: str, seeds: Sequence[Edge]) -> list[str]:
    starts = [edge.mean[0] for edge in seeds if edge.epochs[0] == 0]
    ends = [edge.mean[-1] for edge in seeds]
    prior = statistics.fmean(edge.prior[-1] for edge in seeds)
    return [TITLES.get(graph, graph), name.replace(">", " → "), _mean(starts), _mean(ends), f"{prior:.3f}"]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    extremes = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{extremes}"
