"""Rank correlation over runs, with an interval over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from xmodal.reports.relation import rank_correlation, relation_problems, relation_sentence


def points(xs: np.ndarray, ys: np.ndarray, seeds: np.ndarray) -> list[dict[str, float]]:
    return [{"seed": int(seed), "x": x, "y": y} for x, y, seed in zip(xs, ys, seeds, strict=True)]


def noisy(slope: float, count: int = 60) -> list[dict[str, float]]:
    random = np.random.default_rng(0)
    x = random.normal(size=count)
    return points(x, slope * x + random.normal(size=count), np.arange(count) // 6)


@pytest.mark.parametrize("slope", [-2.0, 0.3, 1.0])
def test_it_is_the_correlation_of_ranks_of_another_library(slope: float) -> None:
    results = noisy(slope)

    rho = rank_correlation(results, x="x", y="y")["rho"]

    expected = spearmanr([point["x"] for point in results], [point["y"] for point in results]).statistic
    assert rho == pytest.approx(expected, abs=1e-12)


def test_ties_share_their_rank() -> None:
    results = points(np.array([1.0, 1.0, 2.0, 3.0]), np.array([4.0, 5.0, 5.0, 6.0]), np.arange(4))

    assert rank_correlation(results, x="x", y="y")["rho"] == pytest.approx(
        spearmanr([1, 1, 2, 3], [4, 5, 5, 6]).statistic
    )


def test_the_order_of_the_runs_and_a_monotone_change_do_not_matter() -> None:
    results = noisy(1.0)
    bent = [{**point, "y": math.exp(point["y"])} for point in results]

    first, second, third = (rank_correlation(runs, x="x", y="y") for runs in (results, results[::-1], bent))

    assert first["rho"] == pytest.approx(second["rho"]) == pytest.approx(third["rho"])


def test_the_interval_holds_the_value_and_narrows_with_more_seeds() -> None:
    few, many = (rank_correlation(noisy(1.0, count), x="x", y="y") for count in (30, 600))

    for results in (few, many):
        assert results["low"] < results["rho"] < results["high"]
    assert many["high"] - many["low"] < 0.5 * (few["high"] - few["low"])


def test_seeds_are_drawn_whole() -> None:
    """Within a seed all runs are equal: ten copies contain no more information than one."""
    random = np.random.default_rng(1)
    xs, ys, seeds = random.normal(size=12), random.normal(size=12), np.arange(12)
    once = rank_correlation(points(xs, ys, seeds), x="x", y="y")
    copied = rank_correlation(points(*(np.repeat(part, 10) for part in (xs, ys, seeds))), x="x", y="y")

    assert copied["n"] == 120
    assert (copied["low"], copied["high"]) == pytest.approx((once["low"], once["high"]), abs=0.03)


def test_the_same_numbers_give_the_same_interval() -> None:
    assert rank_correlation(noisy(0.5), x="x", y="y") == rank_correlation(noisy(0.5), x="x", y="y")


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (points(np.arange(2.0), np.arange(2.0), np.arange(2)), "fewer than three runs"),
        (points(np.ones(5), np.arange(5.0), np.arange(5)), "the same in all runs"),
        (points(np.array([1.0, 2.0, math.nan]), np.arange(3.0), np.arange(3)), "fewer than three runs"),
    ],
)
def test_an_undefined_correlation_has_a_note(results: list[dict[str, float]], words: str) -> None:
    relation = rank_correlation(results, x="x", y="y")

    assert relation["rho"] is None and words in relation["note"]
    assert words in relation_sentence({"name": "kd", "x": "divergence", **relation})


def test_one_seed_has_no_interval() -> None:
    relation = rank_correlation(points(np.arange(4.0), -np.arange(4.0), np.zeros(4)), x="x", y="y")

    assert (
        relation["rho"] == pytest.approx(-1.0)
        and relation["low"] is None
        and relation["note"] == "one seed: no interval"
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.9, -0.2, "falls as the other rises"),
        (-0.2, 0.4, "cannot tell whether they are related"),
        (0.1, 0.6, "rise together"),
    ],
)
def test_the_sentence_follows_the_interval(low: float, high: float, words: str) -> None:
    relation = {"name": "kd", "x": "divergence", "rho": (low + high) / 2, "low": low, "high": high, "n": 30, "note": ""}

    assert words in relation_sentence(relation)


def test_damaged_relations_are_reported() -> None:
    sound = {"name": "kd", "x": "d", "y": "accuracy", "note": "", "rho": 0.1, "low": None, "high": None}
    point = {"seed": 0, "at": 1.0, "x": 0.1, "y": 0.2}

    assert relation_problems([{**sound, "points": [point]}], "result.json") == []
    text = "result.json: expected a list as 'relations', got str. Run it again."
    assert relation_problems("text", "result.json") == [text]
    for damaged in ({**sound, "points": [{"x": 1}]}, {**sound, "points": 3}, {**sound, "rho": "high", "points": []}, 5):
        assert relation_problems([damaged], "result.json") == ["result.json, relation 0 is damaged. Run it again."]


def test_within_seeds_the_level_of_a_seed_has_no_effect() -> None:
    random = np.random.default_rng(3)
    seeds = np.repeat(np.arange(8), 5)
    xs = np.tile(np.arange(5.0), 8) + 100 * random.permutation(8)[seeds]
    results = points(xs, -np.tile(np.arange(5.0), 8), seeds)

    pooled, within = (rank_correlation(results, x="x", y="y", within=option) for option in (False, True))

    assert abs(pooled["rho"]) < 0.4
    assert within["rho"] == pytest.approx(-1) and within["high"] == pytest.approx(-1) and within["n"] == 40


def test_within_a_single_seed_it_is_spearmans() -> None:
    random = np.random.default_rng(0)
    xs, ys = random.standard_normal((2, 12))

    results = rank_correlation(points(xs, ys, np.zeros(12, int)), x="x", y="y", within=True)

    assert results["rho"] == pytest.approx(spearmanr(xs, ys).statistic)


def test_the_sentence_says_within() -> None:
    relation = {"name": "kd", "x": "divergence", "rho": -0.5, "low": -0.7, "high": -0.3, "n": 30, "note": ""}

    assert "of divergence within each seed and gain" in relation_sentence({**relation, "within": True})
    assert "within" not in relation_sentence(relation)
