"""A sweep: the same networks at several values of one quantity, as lines with bands, and published points.

A result with ``sweeps`` is a sweep. Each of its entries contains

    title, x (the swept quantity), metric, split (optional: the split of the measurement, test or training)
    series       name, role, points: x, mean, std (population) and n over the seeds
    differences  the same for the differences of two series, seed by seed
    published    name (of a series), source, points: x, mean

with means in the unit of the metric (shares between 0 and 1). `summarise_sweep` computes the first three from rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xmodal.reports.intervals import Row
from xmodal.reports.numbers import in_percent

Points = list[dict[str, Any]]


def summarise_sweep(
    rows: Sequence[Row],
    *,
    x: str,
    metric: str,
    title: str = "",
    label: str = "",
    differences: Sequence[tuple[str, str]] = (),
    split: str = "test",
) -> dict[str, Any]:
    """Means and deviations over the seeds for each name and each value of x, names in the order of their rows.

    Args:
        rows: seed, name, role, test metrics and, under the key ``x``, the swept value.
        x: key of the swept value.
        metric: metric to average.
        title: title of the plot and the table.
        label: label of the axis; default: the key.
        differences: pairs of names whose difference is averaged too, seed by seed.
        split: split of the measurement, ``test`` or ``training``, for the caption.

    Example:
        >>> rows = [{"seed": s, "name": "kd", "role": "method", "g": 0.5, "test": {"accuracy": a}}
        ...         for s, a in enumerate((0.5, 0.75))]
        >>> summarise_sweep(rows, x="g", metric="accuracy")["series"][0]["points"]
        [{'x': 0.5, 'mean': 0.625, 'std': 0.125, 'n': 2}]
    """
    roles = {row["name"]: row["role"] for row in rows}
    values: dict[str, dict[float, dict[int, float]]] = {name: {} for name in roles}
    for row in rows:
        values[row["name"]].setdefault(row[x], {})[row["seed"]] = row["test"][metric]
    gaps = []
    for first, second in differences:
        by_x: dict[float, dict[int, float]] = {}
        for at, by_seed in values.get(first, {}).items():
            others = values.get(second, {}).get(at, {})
            by_x[at] = {seed: value - others[seed] for seed, value in by_seed.items() if seed in others}
        gaps.append({"name": f"{first} - {second}", "points": _points(by_x)})
    return {
        "title": title,
        "x": label or x,
        "metric": metric,
        "split": split,
        "series": [{"name": name, "role": role, "points": _points(values[name])} for name, role in roles.items()],
        "differences": gaps,
        "published": [],
    }


def _points(values: Mapping[float, Mapping[int, float]]) -> Points:
    # The population deviation (pstdev), because the papers report np.std.
    return [
        {
            "x": at,
            "mean": statistics.fmean(by_seed.values()),
            "std": statistics.pstdev(by_seed.values()),
            "n": len(by_seed),
        }
        for at, by_seed in sorted(values.items())
        if by_seed
    ]


def sweep_figures(sweep: Row, prefix: str = "") -> dict[str, float]:
    """``name.x`` → mean, x with two decimals, shares in per cent: the figures to compare with published ones."""
    scale = 100.0 if in_percent(sweep["metric"]) else 1.0
    return {
        f"{prefix}{line['name']}.{point['x']:.2f}": scale * point["mean"]
        for line in [*sweep["series"], *sweep["differences"]]
        for point in line["points"]
    }


def sweep_table(sweep: Row) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row per value of x, mean ± deviation of every series and difference."""
    columns = {line["name"]: line["points"] for line in [*sweep["series"], *sweep["differences"]]}
    cells = {name: {point["x"]: _cell(point, sweep["metric"]) for point in points} for name, points in columns.items()}
    signed = {line["name"] for line in sweep["differences"]}
    xs = sorted({at for column in cells.values() for at in column})
    body = [
        [
            f"{at:g}" if at == int(at) else f"{at:.3g}",
            *(_signed(column.get(at, "–"), name in signed) for name, column in cells.items()),
        ]
        for at in xs
    ]
    return [str(sweep["x"]).partition(",")[0], *cells], body


def _cell(point: Row, metric: str) -> str:
    if in_percent(metric):
        return f"{100 * point['mean']:.2f} ± {100 * point['std']:.2f}"
    return f"{point['mean']:.3g} ± {point['std']:.2g}"


def _signed(cell: str, signed: bool) -> str:
    return f"+{cell}" if signed and cell[0].isdigit() else cell


def sweep_caption(sweep: Row) -> str:
    """Caption of the plot and its table."""
    seeds = sorted({point["n"] for line in sweep["series"] for point in line["points"]})
    count = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else "".join(map(str, seeds))
    split = str(sweep.get("split", "test")).capitalize()
    caption = f"{split} split, mean of {count} seed{'s' * (count != '1')}; the band is one standard deviation."
    sources = dict.fromkeys(str(line.get("source")) for line in sweep["published"])
    return f"{caption} Crosses are published values ({'; '.join(sources)})." if sources else caption


def sweep_problems(sweeps: object, where: str) -> list[str]:
    """Problems of the sweeps of a result, as sentences."""
    if not isinstance(sweeps, Sequence) or isinstance(sweeps, str) or not sweeps:
        return [f"{where}: expected a list of one or more entries as 'sweeps'. Run it again."]
    return [
        f"{where}, sweep {number} is damaged: '{key}' is missing or has a wrong type. Run it again."
        for number, sweep in enumerate(sweeps)
        for key in _damaged(sweep)
    ]


def _damaged(sweep: Any) -> Iterable[str]:
    if not isinstance(sweep, Mapping):
        return ["series"]
    texts = [key for key in ("title", "x", "metric") if not isinstance(sweep.get(key), str)]
    needed = {"series": {"x", "mean", "std", "n"}, "differences": {"x", "mean", "std", "n"}, "published": {"x", "mean"}}
    return texts + [key for key, inner in needed.items() if not _has_points(sweep.get(key), inner)]


def _has_points(series: Any, needed: set[str]) -> bool:
    if not isinstance(series, Sequence) or isinstance(series, str):
        return False
    return all(
        isinstance(line, Mapping)
        and isinstance(line.get("name"), str)
        and isinstance(line.get("points"), Sequence)
        and all(isinstance(point, Mapping) and needed <= set(point) for point in line["points"])
        for line in series
    )
