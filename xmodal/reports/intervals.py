"""Rows of runs → intervals, paired tests and one summary per name. Pure functions, nothing is read or written.

Every comparison pairs two names by seed: the same seed means the same splits and the same initial weights, so the
difference within a seed is what distillation did. Several methods against one control are several tests, and their
p-values are corrected after Holm (1979).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xmodal.errors import InputError

LEVEL = 0.95
CONSTANT = 1e-12  # relative spread below which differences are equal up to rounding

Row = Mapping[str, Any]


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float | None, float | None]:
    """Mean and Student's t confidence interval; one value, or one that is not finite, has no interval.

    Example:
        >>> mean, low, high = interval([1, 2, 3, 4, 5])
        >>> round(mean, 3), round(low, 3), round(high, 3)
        (3.0, 1.037, 4.963)
    """
    if not values:
        raise InputError("An interval needs at least one value; none arrived.")
    if not all(math.isfinite(value) for value in values):
        return math.nan, None, None
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None, None
    from scipy import stats

    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return mean, mean - half, mean + half


def paired(values: Sequence[float], control: Sequence[float]) -> dict[str, Any]:
    """Paired t-test: ``values`` minus ``control``, entry by entry.

    Returns:
        ``difference`` (mean), ``low`` and ``high`` (95 % interval), ``p`` (two-sided), ``n`` and ``note``, which says
        in words why an interval or a p-value is None.
    """
    if len(values) != len(control) or not values:
        raise InputError(f"A paired test needs equally many values, at least one: got {len(values)}, {len(control)}.")
    differences = [value - other for value, other in zip(values, control, strict=True)]
    mean, low, high = interval(differences)
    answer = {"difference": mean, "low": low, "high": high, "p": None, "n": len(differences), "note": ""}
    if not math.isfinite(mean):
        return answer | {"difference": None, "note": "a value is not finite"}
    if len(differences) == 1:
        return answer | {"note": "one seed: no interval, no test"}
    scale = max(abs(value) for value in (*values, *control))
    if max(differences) - min(differences) <= CONSTANT * scale:
        if max(map(abs, differences)) <= CONSTANT * scale:
            return answer | {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "note": "equal in every seed"}
        return answer | {"low": None, "high": None, "note": "the same difference in every seed: no variance to test"}
    return answer | {"p": _p_value(differences)}


def _p_value(differences: Sequence[float]) -> float:
    from scipy import stats

    count = len(differences)
    t = statistics.fmean(differences) / (statistics.stdev(differences) / math.sqrt(count))
    return float(2 * stats.t.sf(abs(t), count - 1))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; None stays None and does not count as a test.

    Example:
        >>> holm([0.01, 0.04, None, 0.03])
        [0.03, 0.06, None, 0.06]
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[place] = highest
    return corrected


def summarise(rows: Sequence[Row], *, metric: str, direction: str) -> list[dict[str, Any]]:
    """One entry per name, in order of first appearance: mean, spread, interval, difference from the control.

    Args:
        rows: one per name and seed: ``seed``, ``name``, ``role``, ``test`` (metric → value), optionally ``needs``.
        metric: which entry of ``test`` to compare.
        direction: ``max`` if a larger value is better, ``min`` otherwise.

    Returns:
        Dictionaries with ``name``, ``role``, ``n``, ``mean``, ``std``, ``low``, ``high`` and ``difference``: what
        `paired` answers against the control with the same needs (or the first control), plus ``better`` (is the sign
        the good one?) and ``p_holm`` (methods only); None for controls and where no seed is shared.
    """
    if direction not in ("max", "min"):
        raise InputError(f"The direction of a metric is 'max' or 'min', not {direction!r}.")
    scores = scores_by_seed(rows, metric)
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row["name"], row)
    summary = [_entry(name, first[name]["role"], list(of.values())) for name, of in scores.items()]
    for entry in summary:
        control = _control_of(first[entry["name"]], first)
        entry["difference"] = _against(scores, entry["name"], control, direction=direction)
    tested = [entry["difference"] for entry in summary if entry["role"] == "method" and entry["difference"]]
    for difference, p in zip(tested, holm([difference["p"] for difference in tested]), strict=True):
        difference["p_holm"] = p
    return summary


def scores_by_seed(rows: Iterable[Row], metric: str) -> dict[str, dict[int, float]]:
    """Name → seed → value of a metric on the test split, each in order of first appearance."""
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        seeds = scores.setdefault(row["name"], {})
        if metric not in row["test"]:
            raise InputError(f"'{row['name']}' with seed {row['seed']} has no test metric '{metric}' to compare by.")
        if row["seed"] in seeds:
            raise InputError(f"'{row['name']}' has two results for seed {row['seed']}; give each its own name.")
        value = row["test"][metric]
        seeds[row["seed"]] = math.nan if value is None else float(value)
    return scores


def _entry(name: str, role: str, values: Sequence[float]) -> dict[str, Any]:
    mean, low, high = interval(values)
    finite = math.isfinite(mean)
    return {
        "name": name,
        "role": role,
        "n": len(values),
        "mean": mean if finite else None,
        "std": statistics.stdev(values) if finite and len(values) > 1 else None,
        "low": low,
        "high": high,
    }


def _control_of(row: Row, first: Mapping[str, Row]) -> str | None:
    if row["role"] == "control":
        return None
    controls = [other for other in first.values() if other["role"] == "control"]
    same = [other for other in controls if other.get("needs") == row.get("needs")]
    return next((str(other["name"]) for other in (*same, *controls)), None)


def _against(
    scores: Mapping[str, Mapping[int, float]], name: str, other: str | None, *, direction: str
) -> dict[str, Any] | None:
    shared = [seed for seed in scores[name] if other is not None and seed in scores[other]]
    if other is None or not shared:
        return None
    answer = paired([scores[name][seed] for seed in shared], [scores[other][seed] for seed in shared])
    sign = 1 if direction == "max" else -1
    return answer | {"better": (answer["difference"] or 0.0) * sign > 0, "p_holm": None}
