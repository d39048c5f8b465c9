"""Does one measurement go with another? Rank correlation over runs, with an interval that knows of seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xmodal.reports.intervals import LEVEL

SAMPLES = 2000


def rank_correlation(
    points: Sequence[Mapping[str, Any]],
    *,
    x: str,
    y: str,
    within: bool = False,
    level: float = LEVEL,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Spearman's ρ of two measurements, with a bootstrap interval.

    Runs of one seed share splits and initial weights, so whole seeds are drawn with replacement, not single runs.
    Some seeds have larger values than others all along a sweep; with ``within`` that counts for nothing.

    Args:
        points: ``seed``, and a number under the keys ``x`` and ``y``.
        x: one of the keys.
        y: the other.
        within: rank the runs of each seed among themselves.
        level: share of the drawn correlations inside the interval.
        samples: how often seeds are drawn.
        seed: of the draws.

    Returns:
        ``rho``, ``low``, ``high``, ``n`` (runs) and ``note``, which says why a number is None.

    Example:
        >>> points = [{"seed": s, "d": d, "gain": -d} for s in range(4) for d in (0.1, 0.2, 0.4)]
        >>> found = rank_correlation(points, x="d", y="gain")
        >>> round(found["rho"], 6), round(found["low"], 6), round(found["high"], 6), found["n"]
        (-1.0, -1.0, -1.0, 12)
    """
    groups: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        if math.isfinite(point[x]) and math.isfinite(point[y]):
            groups.setdefault(point["seed"], []).append((point[x], point[y]))
    pairs = [np.array(group) for group in groups.values()]
    pairs = [_ranks(group) for group in pairs] if within else pairs
    answer: dict[str, Any] = {"rho": None, "low": None, "high": None, "n": sum(map(len, pairs)), "note": ""}
    if answer["n"] < 3:
        return answer | {"note": "fewer than three runs: no correlation"}
    correlation = _pearson if within else _spearman
    rho = correlation(np.concatenate(pairs))
    if rho is None:
        return answer | {"note": f"{x} or {y} is the same in all runs: no correlation"}
    answer["rho"] = rho
    if len(pairs) < 2:
        return answer | {"note": "one seed: no interval"}
    random = np.random.default_rng(seed)
    drawn = [
        correlation(np.concatenate([pairs[at] for at in chosen]))
        for chosen in random.integers(len(pairs), size=(samples, len(pairs)))
    ]
    known = [value for value in drawn if value is not None]
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return answer | {"low": float(low), "high": float(high)}


Pairs = np.ndarray[Any, np.dtype[np.float64]]


def _ranks(pairs: Pairs) -> Pairs:
    """Ranks in each column, with mean 0."""
    from scipy.stats import rankdata

    ranks: Pairs = rankdata(pairs, axis=0) - (len(pairs) + 1) / 2
    return ranks


def _spearman(pairs: Pairs) -> float | None:
    return _pearson(_ranks(pairs))


def _pearson(pairs: Pairs) -> float | None:
    """Correlation of two columns with mean 0."""
    first, second = pairs.T
    spread = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / spread if spread else None


def relation_sentence(relation: Mapping[str, Any]) -> str:
    """What a relation says, for people."""
    name, x = relation["name"], f"{relation['x']}{' within each seed' * bool(relation.get('within'))}"
    if relation["rho"] is None:
        return f"{name}: {relation['note']}."
    between = "" if relation["low"] is None else f", 95 % interval {relation['low']:.2f} to {relation['high']:.2f}"
    said = f"{name}: rank correlation of {x} and gain over the control {relation['rho']:.2f}{between}"
    if relation["low"] is None:
        return f"{said} ({relation['note']})."
    verdict = "they go together" if relation["low"] > 0 else "the one falls as the other rises"
    if relation["low"] <= 0 <= relation["high"]:
        verdict = "no relation that so many runs can show"
    return f"{said}, {relation['n']} runs: {verdict}."


def relation_problems(relations: object, where: str) -> list[str]:
    """What is wrong with the relations of a result, in sentences."""
    texts, numbers = ("name", "x", "y", "note"), ("rho", "low", "high")
    if not isinstance(relations, Sequence) or isinstance(relations, str):
        return [f"{where}: 'relations' should be a list. Run it again."]
    return [
        f"{where}, relation {number} is damaged. Run it again."
        for number, one in enumerate(relations)
        if not isinstance(one, Mapping)
        or not all(isinstance(one.get(key), str) for key in texts)
        or not all(isinstance(one.get(key), int | float | None) for key in numbers)
        or not isinstance(one.get("points"), Sequence)
        or not all(isinstance(point, Mapping) and {"seed", "at", "x", "y"} <= set(point) for point in one["points"])
    ]
