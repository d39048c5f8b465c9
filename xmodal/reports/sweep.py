"""A sweep: the same networks at several values of one quantity, as lines with bands beside published points.

A result with ``sweeps`` is a sweep. Each of its entries holds

    title, x (what is swept), metric, split (optional: test or training, where it was measured)
    series       name, role, points: x, mean, std (population) and n over the seeds
    differences  the same, of two series seed by seed
    published    name (of a series), source, points: x, mean

with means in the unit of the metric (shares between 0 and 1). `summarise_sweep` makes the first three from rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xmodal.reports.intervals import Row
from xmodal.reports.tables import in_percent

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
        rows: seed, name, role, test metrics and, under the key ``x``, the value that is swept.
        x: that key.
        metric: what to average.
        title: of the drawing and the table.
        label: of the axis; default: the key.
        differences: pairs of names whose difference is averaged too, seed by seed.
        split: on which rows it was measured, ``test`` or ``training``, for the caption.

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
    found = []
    for first, second in differences:
        both = {at: _differences(of, values.get(second, {}).get(at, {})) for at, of in values.get(first, {}).items()}
        found.append({"name": f"{first} - {second}", "points": _points(both)})
    return {
        "title": title,
        "x": label or x,
        "metric": metric,
        "split": split,
        "series": [{"name": name, "role": role, "points": _points(values[name])} for name, role in roles.items()],
        "differences": found,
        "published": [],
    }


def _differences(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    return {seed: first[seed] - second[seed] for seed in first if seed in second}


def _points(values: Mapping[float, Mapping[int, float]]) -> Points:
    return [
        {"x": at, "mean": statistics.fmean(of.values()), "std": statistics.pstdev(of.values()), "n": len(of)}
        for at, of in sorted(values.items())
        if of
    ]


def sweep_figures(sweep: Row, prefix: str = "") -> dict[str, float]:
    """``name.x`` → mean, x with two decimals, shares in per cent: what published figures are compared with."""
    scale = 100.0 if in_percent(sweep["metric"]) else 1.0
    return {
        f"{prefix}{one['name']}.{point['x']:.2f}": scale * point["mean"]
        for one in [*sweep["series"], *sweep["differences"]]
        for point in one["points"]
    }


def sweep_table(sweep: Row) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row per value of x, mean ± deviation of every series and difference."""
    columns = [*sweep["series"], *sweep["differences"]]
    cells = {one["name"]: {point["x"]: _cell(point, sweep["metric"]) for point in one["points"]} for one in columns}
    signed = {one["name"] for one in sweep["differences"]}
    xs = sorted({at for of in cells.values() for at in of})
    body = [[f"{at:.3g}", *(_signed(of.get(at, "–"), name in signed) for name, of in cells.items())] for at in xs]
    return [str(sweep["x"]).partition(",")[0], *cells], body


def _cell(point: Row, metric: str) -> str:
    if in_percent(metric):
        return f"{100 * point['mean']:.2f} ± {100 * point['std']:.2f}"
    return f"{point['mean']:.3g} ± {point['std']:.2g}"


def _signed(cell: str, signed: bool) -> str:
    return f"+{cell}" if signed and cell[0].isdigit() else cell


def sweep_caption(sweep: Row) -> str:
    """What the drawing and its table show, in words."""
    seeds = sorted({point["n"] for one in sweep["series"] for point in one["points"]})
    count = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else "".join(map(str, seeds))
    where = str(sweep.get("split", "test")).capitalize()
    said = f"{where} split, mean of {count} seed{'s' * (count != '1')}; the band is one standard deviation."
    sources = dict.fromkeys(str(one.get("source")) for one in sweep["published"])
    return f"{said} Crosses are published ({'; '.join(sources)})." if sources else said


def sweep_problems(sweeps: object, where: str) -> list[str]:
    """What is wrong with the sweeps of a result, in sentences."""
    if not isinstance(sweeps, Sequence) or isinstance(sweeps, str) or not sweeps:
        return [f"{where}: 'sweeps' should be a list of at least one sweep. Run it again."]
    return [
        f"{where}, sweep {number} is damaged: '{key}' is missing or of a wrong type. Run it again."
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
        isinstance(one, Mapping)
        and isinstance(one.get("name"), str)
        and isinstance(one.get("points"), Sequence)
        and all(isinstance(point, Mapping) and needed <= set(point) for point in one["points"])
        for one in series
    )
