"""Tables that the recipe of DMD writes to its run folder.

edges.csv                  seed, epoch (0: before training), graph, edge, mean, std over the samples, prior
summary.csv                student, metric, seeds, mean, std (sample; empty for one seed), in natural units
seed-N/predictions.csv     test split: id, label, and the output of every student with the weights that are deployed
seed-N/heads.csv           test split: id, label, and the output of every head of the method after the last epoch
result.csv                 optional, as in the authors' code: ``(mean, std)`` over the seeds, ×100, also for errors

The two files of a seed are apart because each student is deployed with the weights of its own best epoch, and heads
that are not deployed (``common``, ``hetero text``, …) have no such epoch: a file has weights of one kind.
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
from xmodal.reports.numbers import number, unit
from xmodal.reports.read import read_run

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
    """Write a table with a header row, complete or not at all."""
    with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def write_files(bench: Bench, folder: Path) -> None:
    """Write `predictions.csv` and `heads.csv` of a seed."""
    if bench.fabric.global_rank:
        return
    deployed = {
        f"{run}: {name}": arrays for run, students in bench.outputs.items() for name, arrays in students.items() if run
    }
    _write_outputs(bench, folder / "predictions.csv", deployed)
    _write_outputs(bench, folder / "heads.csv", bench.outputs[""])


def _write_outputs(bench: Bench, path: Path, heads: Mapping[str, Mapping[str, Any]]) -> None:
    """Write outputs on the test split, a column per head."""
    # modalities are paired, so index and target are those of any head
    first = next(iter(heads.values()))
    numbers = next(iter(bench.data.test.numbers.values()))[first["index"].cpu().numpy()]
    ids = [bench.data.ids[row] if bench.data.ids else row for row in numbers]
    columns = [first["target"].flatten().tolist(), *(head["outputs"].flatten().tolist() for head in heads.values())]
    write_csv(path, ["id", "label", *heads], zip(ids, *columns, strict=True))


def edge_runs(out: Path, rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Edge]]:
    """Seed → edges of the method, from the folders of its runs; seeds without edges are left out."""
    folders = {row["seed"]: row["folder"] for row in rows if row["role"] == "method"}
    # from the history in the folder, where a resumed run has the epochs before the interruption as well
    by_seed = {seed: edges_of(read_run(out / folder)) for seed, folder in folders.items()}
    return {seed: edges for seed, edges in by_seed.items() if edges}


def write_edges(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `edges.csv`."""
    lines = [
        [seed, epoch, edge.graph, edge.name, mean, std, prior]
        for seed, edges in edge_runs(out, rows).items()
        for edge in edges
        for epoch, mean, std, prior in zip(edge.epochs, edge.mean, edge.std, edge.prior, strict=True)
    ]
    write_csv(out / "edges.csv", ["seed", "epoch", "graph", "edge", "mean", "std", "prior"], lines)


def edge_figures(out: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``edge homo text>audio`` → weight in the last epoch, mean over the seeds; and ``edge lead``.

    ``edge lead`` is the smaller of the two edges that the homogeneous prior favours, divided by the larger of the edges
    into text: above 1 the edges point where the prior does.
    """
    weights: dict[str, list[float]] = {}
    leads = []
    for edges in edge_runs(out, rows).values():
        last = {f"{edge.graph} {edge.name}": edge.mean[-1] for edge in edges}
        for name, value in last.items():
            weights.setdefault(f"edge {name}", []).append(value)
        favoured, into_text = ([last.get(f"homo {name}") for name in names] for names in (FAVOURED, INTO_TEXT))
        # with two modalities some of these edges do not exist
        if None not in (*favoured, *into_text):
            leads.append(min(favoured) / max(into_text))  # type: ignore[type-var, operator]
    means = {name: statistics.fmean(values) for name, values in weights.items()}
    return means | ({"edge lead": statistics.fmean(leads)} if leads else {})


def scores_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Student → metric → one value per seed."""
    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for metric in SHOWN:
            if isinstance(value := row["test"].get(metric), int | float):
                scores.setdefault(row["name"], {}).setdefault(metric, []).append(float(value))
    return scores


def metric_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A table with a line per student: mean and standard deviation over the seeds of every metric."""
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
    """Write `summary.csv`."""
    lines = [
        [name, metric, len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else ""]
        for name, metrics in scores_of(rows).items()
        for metric, values in metrics.items()
    ]
    write_csv(out / "summary.csv", ["student", "metric", "seeds", "mean", "std"], lines)


def write_published_result(out: Path, rows: Sequence[Mapping[str, Any]], method: str) -> None:
    """Write `result.csv`, a single line for the fused model.

    Args:
        out: run folder.
        rows: of the result.
        method: name of the method in these rows.
    """
    scores = scores_of(rows)
    fused = next((name for name in scores if name.startswith(f"{method}: ") and name.endswith("fused")), None)
    if fused is None:
        raise InputError(
            f"The run in {out} has no fused student, whose scores result.csv holds. Leave --result-csv out."
        )
    cells = [_published_cell(scores[fused][metric]) for metric in PUBLISHED_METRICS.values()]
    write_csv(out / "result.csv", ["Model", *PUBLISHED_METRICS], [[method, *cells]])


def _published_cell(values: Sequence[float]) -> str:
    """``(mean, std)``, both ×100 with two decimals."""
    # NumPy's default in their code: the standard deviation of the population, not of a sample
    return f"({round(100 * statistics.fmean(values), 2)}, {round(100 * statistics.pstdev(values), 2)})"
