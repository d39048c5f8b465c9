"""Relation of two measurements: rank correlation over runs, with a bootstrap interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xmodal.reports.intervals import LEVEL

SAMPLES = 2000  # bootstrap samples: the 2.5 % quantile then rests on 50 of them


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

    Runs of one seed share splits and initial weights, so whole seeds are drawn with replacement, not single runs. Some
    seeds have larger values than others throughout a sweep; ``within`` removes that effect.

    Args:
        points: ``seed``, and a number under each of the keys ``x`` and ``y``.
        x: first key.
        y: second key.
        within: rank the runs of each seed separately.
        level: confidence level of the interval.
        samples: number of bootstrap samples.
        seed: seed of the bootstrap.

    Returns:
        ``rho``, ``low``, ``high``, ``n`` (runs) and ``note``, the reason if a number is None.

    Example:
        >>> points = [{"seed": s, "d": d, "gain": -d} for s in range(4) for d in (0.1, 0.2, 0.4)]
        >>> result = rank_correlation(points, x="d", y="gain")
        >>> round(result["rho"], 6), round(result["low"], 6), round(result["high"], 6), result["n"]
        (-1.0, -1.0, -1.0, 12)
    """
    groups: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        if math.isfinite(point[x]) and math.isfinite(point[y]):
            groups.setdefault(point["seed"], []).append((point[x], point[y]))
    pairs = [np.array(group) for group in groups.values()]
    pairs = [_ranks(group) for group in pairs] if within else pairs
    result: dict[str, Any] = {"rho": None, "low": None, "high": None, "n": sum(map(len, pairs)), "note": ""}
    if result["n"] < 3:
        return result | {"note": "fewer than three runs: no correlation"}
    # Spearman's ρ is Pearson's correlation of ranks. With `within` the pairs already are ranks, centred in each seed.
    correlation = _pearson if within else _spearman
    rho = correlation(np.concatenate(pairs))
    if rho is None:
        return result | {"note": f"{x} or {y} is the same in all runs: no correlation"}
    result["rho"] = rho
    if len(pairs) < 2:
        return result | {"note": "one seed: no interval"}
    random = np.random.default_rng(seed)
    bootstrap = [
        correlation(np.concatenate([pairs[number] for number in sample]))
        for sample in random.integers(len(pairs), size=(samples, len(pairs)))
    ]
    # A sample may consist of seeds with constant values, whose correlation is undefined.
    defined = [value for value in bootstrap if value is not None]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return result | {"low": float(low), "high": float(high)}


Pairs = np.ndarray[Any, np.dtype[np.float64]]


def _ranks(pairs: Pairs) -> Pairs:
    """Ranks in each column, with mean 0; equal values share the mean of their ranks."""
    ranks = []
    for column in pairs.T:
        _, places, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranks.append((counts.cumsum() - (counts - 1) / 2)[places])
    return np.stack(ranks, axis=1) - (len(pairs) + 1) / 2


def _spearman(pairs: Pairs) -> float | None:
    return _pearson(_ranks(pairs))


def _pearson(pairs: Pairs) -> float | None:
    """Correlation of two columns with mean 0; None for a constant column."""
    first, second = pairs.T
    norms = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / norms if norms else None


def relation_sentence(relation: Mapping[str, Any]) -> str:
    """The correlation, its interval and what follows from them, as a sentence."""
    name, x = relation["name"], f"{relation['x']}{' within each seed' * bool(relation.get('within'))}"
    if relation["rho"] is None:
        return f"{name}: {relation['note']}."
    interval = "" if relation["low"] is None else f", 95 % interval {relation['low']:.2f} to {relation['high']:.2f}"
    text = f"{name}: rank correlation of {x} and gain over the control {relation['rho']:.2f}{interval}"
    if relation["low"] is None:
        return f"{text} ({relation['note']})."
    verdict = "both rise together" if relation["low"] > 0 else "one falls as the other rises"
    if relation["low"] <= 0 <= relation["high"]:
        verdict = "these runs cannot tell whether they are related"
    return f"{text}, {relation['n']} runs: {verdict}."


def relation_problems(relations: object, where: str) -> list[str]:
    """Problems of the relations of a result, as sentences."""
    texts, numbers = ("name", "x", "y", "note"), ("rho", "low", "high")
    if not isinstance(relations, Sequence) or isinstance(relations, str):
        return [f"{where}: expected a list as 'relations', got {type(relations).__name__}. Run it again."]
    return [
        f"{where}, relation {number} is damaged. Run it again."
        for number, entry in enumerate(relations)
        if not isinstance(entry, Mapping)
        or not all(isinstance(entry.get(key), str) for key in texts)
        or not all(isinstance(entry.get(key), int | float | None) for key in numbers)
        or not isinstance(entry.get("points"), Sequence)
        or not all(isinstance(point, Mapping) and {"seed", "at", "x", "y"} <= set(point) for point in entry["points"])
    ]
