"""Tables that the recipe of DMD leaves in its run folder.

edges.csv                  seed, epoch (0: before training), graph, edge, mean, std over the samples, prior
summary.csv                student, metric, seeds, mean, std (of a sample; empty for one seed), in natural units
seed-N/predictions.csv     test split: id, label, and what every head says
result.csv                 on request, as the authors' code: ``(mean, std)`` over the seeds in a cell, ×100, errors too

In predictions.csv the students (``dmd: text``, …, ``dmd: fused``) speak with the weights that they keep, the other
heads (``common``, ``hetero text``, …) with those after the last epoch.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.errors import InputError
from xmodal.files import written_whole
from xmodal.reports.edges import Edge, edges_of
from xmodal.reports.read import read_run
from xmodal.reports.tables import number, unit

if TYPE_CHECKING:
    from xmodal.study.bench import Bench

PUBLISHED_METRICS = {  # a column of the authors' table → our metric
    "Acc_2": "Non0_acc_2",
    "F1_score": "Non0_F1_score",
    "Acc_7": "Mult_acc_7",
    "MAE": "mae",
    "Loss": "mae",
}
SHOWN = ("mae", "Corr", "Mult_acc_7", "Mult_acc_5", "Non0_acc_2", "Non0_F1_score", "Has0_acc_2", "Has0_F1_score")
FAVOURED = ("text>vision", "text>audio")  # by the prior of the homogeneous graph
INTO_TEXT = ("vision>text", "audio>text")


def write_csv(path: Path, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """A table with a head, whole or not at all."""
    with written_whole(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def write_files(bench: Bench, folder: Path) -> None:
    """`predictions.csv` of a seed."""
    if bench.fabric.global_rank:
        return
    heads = {
        f"{run}: {name}" if run else name: said for run, found in bench.outputs.items() for name, said in found.items()
    }
    one = next(iter(heads.values()))
    numbers = next(iter(bench.data.test.numbers.values()))[one["index"].cpu().numpy()]
    ids = [bench.data.ids[row] if bench.data.ids else row for row in numbers]
    columns = [one["target"].flatten().tolist(), *(said["outputs"].flatten().tolist() for said in heads.values())]
    write_csv(folder / "predictions.csv", ["id", "label", *heads], zip(ids, *columns, strict=True))


def edge_runs(out: Path, rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Edge]]:
    """Seed → edges of the method, from the folders of its runs; seeds without any are left out."""
    folders = {row["seed"]: row["folder"] for row in rows if row["role"] == "method"}
    found = {seed: edges_of(read_run(out / folder)) for seed, folder in folders.items()}
    return {seed: edges for seed, edges in found.items() if edges}


def write_edges(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """`edges.csv`."""
    lines = [
        [seed, epoch, edge.graph, edge.name, mean, std, prior]
        for seed, edges in edge_runs(out, rows).items()
        for edge in edges
        for epoch, mean, std, prior in zip(edge.epochs, edge.mean, edge.std, edge.prior, strict=True)
    ]
    write_csv(out / "edges.csv", ["seed", "epoch", "graph", "edge", "mean", "std", "prior"], lines)


def edge_figures(out: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``edge homo text>audio`` → weight over the last epoch, mean over the seeds; and by how much those lead.

    ``edge lead`` is the smaller of the two edges that the homogeneous prior favours over the larger of those into text.
    """
    found: dict[str, list[float]] = {}
    leads = []
    for edges in edge_runs(out, rows).values():
        last = {f"{edge.graph} {edge.name}": edge.mean[-1] for edge in edges}
        for name, value in last.items():
            found.setdefault(f"edge {name}", []).append(value)
        top, into = ([last.get(f"homo {name}") for name in names] for names in (FAVOURED, INTO_TEXT))
        if None not in (*top, *into):
            leads.append(min(top) / max(into))  # type: ignore[type-var, operator]
    means = {name: statistics.fmean(values) for name, values in found.items()}
    return means | ({"edge lead": statistics.fmean(leads)} if leads else {})


def scores_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Student → metric → one value per seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for metric in SHOWN:
            if isinstance(value := row["test"].get(metric), int | float):
                found.setdefault(row["name"], {}).setdefault(metric, []).append(float(value))
    return found


def metric_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A line per student: mean and deviation over the seeds of every metric."""
    lines = [
        [name, *(_mean_and_deviation(metrics.get(metric, []), metric) for metric in SHOWN)]
        for name, metrics in scores_of(rows).items()
    ]
    return {
        "title": "Every student",
        "header": ["student", *(unit(metric) for metric in SHOWN)],
        "rows": lines,
        "caption": "Test split, mean ± standard deviation over the seeds. Mult: classes of rounded values; Non0: sign, "
        "without labels of 0; Has0: with them. The authors' Acc_2, F1_score and Acc_7 are Non0_acc_2, Non0_F1_score "
        "and Mult_acc_7.",
    }


def _mean_and_deviation(values: Sequence[float], metric: str) -> str:
    if not values:
        return "–"
    spread = f" ± {number(statistics.stdev(values), metric)}" if len(values) > 1 else ""
    return f"{number(statistics.fmean(values), metric)}{spread}"


def write_summary(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """`summary.csv`."""
    lines = [
        [name, metric, len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else ""]
        for name, metrics in scores_of(rows).items()
        for metric, values in metrics.items()
    ]
    write_csv(out / "summary.csv", ["student", "metric", "seeds", "mean", "std"], lines)


def write_published_result(out: Path, rows: Sequence[Mapping[str, Any]], method: str) -> None:
    """`result.csv`: one line for the fused model.

    Args:
        out: run folder.
        rows: of the result.
        method: whose fused student it is.
    """
    found = scores_of(rows)
    fused = next((name for name in found if name.startswith(f"{method}: ") and name.endswith("fused")), None)
    if fused is None:
        raise InputError(f"The run in {out} has no fused student, and result.csv holds its scores. Leave it out.")
    cells = [_published_cell(found[fused][ours]) for ours in PUBLISHED_METRICS.values()]
    write_csv(out / "result.csv", ["Model", *PUBLISHED_METRICS], [[method, *cells]])


def _published_cell(values: Sequence[float]) -> str:
    """``(mean, std)``, both ×100 with two decimals; the deviation is that of the seeds themselves."""
    return f"({round(100 * statistics.fmean(values), 2)}, {round(100 * statistics.pstdev(values), 2)})"
