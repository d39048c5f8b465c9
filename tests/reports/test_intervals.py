"""Intervals, paired tests and Holm's correction against hand-computed values."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from scipy import stats

from xmodal.errors import InputError
from xmodal.reports.intervals import equivalence, holm, interval, paired
from xmodal.reports.summary import summarise


def rows_of(scores: dict[str, list[float]], *, metric: str = "accuracy") -> list[dict[str, Any]]:
    roles = {"no-KD": "control", "teacher": "teacher", "kd (shuffled teacher)": "shuffled"}
    return [
        {"seed": seed, "name": name, "role": roles.get(name, "method"), "test": {metric: values[seed]}}
        for seed in range(max(map(len, scores.values())))
        for name, values in scores.items()
        if seed < len(values)
    ]


def test_interval_of_one_to_five_is_three_plus_minus_1_963() -> None:
    mean, low, high = interval([1, 2, 3, 4, 5])

    # t(0.975, 4) = 2.776445, standard error = sqrt(2.5 / 5)
    assert mean == 3
    assert low == pytest.approx(3 - 1.963243, abs=1e-6)
    assert high == pytest.approx(3 + 1.963243, abs=1e-6)


def test_a_higher_level_makes_a_wider_interval() -> None:
    _, low, _ = interval([1, 2, 3], level=0.9)
    _, lower, _ = interval([1, 2, 3], level=0.99)

    assert low is not None and lower is not None and lower < low


def test_one_value_has_no_interval() -> None:
    assert interval([0.5]) == (0.5, None, None)


def test_a_value_that_is_not_finite_gives_no_interval() -> None:
    mean, low, high = interval([0.5, math.nan])

    assert math.isnan(mean) and low is None and high is None


def test_no_value_is_refused() -> None:
    with pytest.raises(InputError, match="at least one value"):
        interval([])


def test_paired_test_follows_the_formula() -> None:
    values, control = [0.93, 0.95, 0.92, 0.96], [0.91, 0.92, 0.93, 0.93]
    differences = [0.02, 0.03, -0.01, 0.03]
    error = statistics.stdev(differences) / 2
    t = statistics.fmean(differences) / error
    p = 2 * (1 - stats.t.cdf(t, 3))

    answer = paired(values, control)

    assert answer["difference"] == pytest.approx(0.0175)
    assert answer["p"] == pytest.approx(p, abs=1e-9)
    assert answer["high"] - answer["low"] == pytest.approx(2 * 3.182446 * error, abs=1e-6)
    assert answer["n"] == 4


def test_paired_test_agrees_with_scipy() -> None:
    values, control = [0.3, 0.5, 0.2, 0.9, 0.4], [0.2, 0.6, 0.1, 0.5, 0.3]

    assert paired(values, control)["p"] == pytest.approx(stats.ttest_rel(values, control).pvalue)


def test_exchanging_the_sides_turns_the_sign_and_keeps_p() -> None:
    there, back = paired([1, 3, 2], [0, 1, 2]), paired([0, 1, 2], [1, 3, 2])

    assert there["difference"] == -back["difference"]
    assert there["p"] == pytest.approx(back["p"])


def test_equal_scores_have_p_one() -> None:
    answer = paired([0.9, 0.8], [0.9, 0.8])

    assert answer["p"] == 1.0 and answer["difference"] == 0.0


def test_a_constant_difference_has_a_note_and_no_p() -> None:
    # 0.1 is not representable: the differences are equal only up to rounding
    answer = paired([0.3, 0.7, 1.1], [0.2, 0.6, 1.0])

    assert answer["p"] is None and answer["low"] is None
    assert "no variance" in answer["note"]
    assert answer["difference"] == pytest.approx(0.1)


def test_one_seed_has_a_difference_and_no_test() -> None:
    answer = paired([0.9], [0.8])

    assert answer["difference"] == pytest.approx(0.1)
    assert answer["low"] is None and answer["p"] is None


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="the same number of values on both sides"):
        paired([1, 2], [1])


def test_holm_of_a_small_case() -> None:
    # sorted 0.01, 0.03, 0.04 times 3, 2, 1 is 0.03, 0.06, 0.04; the last may not fall below the one before
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, None, 0.8]) == [1.0, None, 1.0]
    assert holm([0.2]) == [0.2]


def test_summary_keeps_the_order_of_first_appearance() -> None:
    rows = rows_of({"teacher": [0.9, 0.9], "kd": [0.8, 0.7], "no-KD": [0.7, 0.7]})

    summary = summarise(rows, metric="accuracy", direction="max")

    assert [entry["name"] for entry in summary] == ["teacher", "kd", "no-KD"]
    assert summary[1]["mean"] == pytest.approx(0.75)
    assert summary[1]["std"] == pytest.approx(math.sqrt(0.005))
    assert summary[2]["difference"] is None


def test_summary_does_not_depend_on_the_order_of_seeds() -> None:
    rows = rows_of({"no-KD": [0.7, 0.6, 0.8], "kd": [0.8, 0.75, 0.81]})
    turned = [row for seed in (2, 0, 1) for row in rows if row["seed"] == seed]

    first, second = (summarise(these, metric="accuracy", direction="max") for these in (rows, turned))

    assert first[1]["difference"]["p"] == pytest.approx(second[1]["difference"]["p"])
    assert first[1]["mean"] == pytest.approx(second[1]["mean"])


def test_seeds_are_matched_and_an_unmatched_seed_is_excluded() -> None:
    rows = rows_of({"no-KD": [0.5, 0.6], "kd": [0.6, 0.8, 0.1]})

    difference = summarise(rows, metric="accuracy", direction="max")[1]["difference"]

    assert difference["n"] == 2
    assert difference["difference"] == pytest.approx(0.15)


def test_better_follows_the_direction() -> None:
    rows = rows_of({"no-KD": [0.5, 0.6], "kd": [0.4, 0.45]}, metric="mse")

    assert summarise(rows, metric="mse", direction="min")[1]["difference"]["better"]
    assert not summarise(rows, metric="mse", direction="max")[1]["difference"]["better"]


def test_all_tests_of_methods_share_one_correction() -> None:
    scores = {"teacher": [0.9, 0.95, 0.9], "no-KD": [0.5, 0.6, 0.5], "kd": [0.6, 0.65, 0.7], "dkd": [0.5, 0.65, 0.6]}
    scores["kd (shuffled teacher)"] = [0.55, 0.6, 0.67]

    summary = {entry["name"]: entry for entry in summarise(rows_of(scores), metric="accuracy", direction="max")}

    (shuffled,) = summary["kd"]["controls"]
    tests = [summary["kd"]["difference"], shuffled, summary["dkd"]["difference"]]
    assert [test["p_holm"] for test in tests] == holm([test["p"] for test in tests])
    assert shuffled["against"] == "kd (shuffled teacher)" and summary["dkd"]["controls"] == []
    # what no sentence claims takes no part, and has no outcome
    assert summary["teacher"]["difference"]["p_holm"] is summary["teacher"]["difference"]["outcome"] is None


def test_a_control_of_the_same_size_belongs_to_the_method_that_names_it() -> None:
    rows = rows_of({"no-KD": [0.5, 0.6, 0.5], "big": [0.6, 0.65, 0.7], "no-KD, width 64": [0.55, 0.64, 0.6]})
    for row in rows:
        row["role"] = "matched" if "width" in row["name"] else row["role"]
        row["matched"] = "no-KD, width 64" * (row["name"] == "big")

    (test,) = summarise(rows, metric="accuracy", direction="max")[1]["controls"]

    assert (test["role"], test["against"], test["n"]) == ("matched", "no-KD, width 64", 3)


def test_equivalence_follows_the_formula() -> None:
    # differences 0.02, 0, -0.02 and 0.01: mean 0.0025, deviation 0.0170783, standard error 0.0085391
    values, control = [0.52, 0.50, 0.48, 0.51], [0.50, 0.50, 0.50, 0.50]
    error = math.sqrt(((0.0175**2) + (0.0025**2) + (0.0225**2) + (0.0075**2)) / 3) / 2

    p = equivalence(values, control, 0.03)

    # the upper bound is closer to the mean, so its test has the larger p: t = (0.03 - 0.0025) / error; with three
    # degrees of freedom the distribution has a closed form, in x = t / sqrt(3)
    x = 0.0275 / error / math.sqrt(3)
    assert error == pytest.approx(0.0085391, abs=1e-7)
    assert p == pytest.approx(0.5 - (x / (1 + x * x) + math.atan(x)) / math.pi) == pytest.approx(0.024283, abs=1e-6)
    # the same with the sides exchanged, and with all values in another unit
    assert equivalence(control, values, 0.03) == pytest.approx(p)
    assert equivalence([100 * v for v in values], [100 * v for v in control], 3) == pytest.approx(p)


def test_equivalent_at_level_alpha_is_an_interval_of_1_minus_2_alpha_inside_the_margin() -> None:
    values, control = [0.52, 0.50, 0.48, 0.51], [0.50, 0.50, 0.50, 0.50]
    _, low, high = interval([value - other for value, other in zip(values, control, strict=True)], level=0.9)

    assert low is not None and high is not None
    assert (equivalence(values, control, high + 1e-6) or 1) < 0.05 < (equivalence(values, control, high - 1e-6) or 0)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.6], [0.6, 0.7]])
def test_differences_that_do_not_vary_are_not_called_equivalent(values: list[float]) -> None:
    assert equivalence(values, [0.5, 0.6][: len(values)], 0.2) is None


def test_a_margin_is_above_zero() -> None:
    with pytest.raises(InputError, match="above 0"):
        equivalence([0.5, 0.6], [0.5, 0.7], 0.0)


def test_a_student_is_compared_with_the_control_of_the_same_modalities() -> None:
    rows = [
        {"seed": 0, "name": "no-KD a", "role": "control", "needs": ["a"], "test": {"accuracy": 0.1}},
        {"seed": 0, "name": "no-KD b", "role": "control", "needs": ["b"], "test": {"accuracy": 0.6}},
        {"seed": 0, "name": "kd b", "role": "method", "needs": ["b"], "test": {"accuracy": 0.7}},
    ]

    summary = summarise(rows, metric="accuracy", direction="max")

    assert summary[2]["difference"]["difference"] == pytest.approx(0.1)


def test_a_missing_value_is_nan_and_no_error() -> None:
    rows = rows_of({"no-KD": [0.5, 0.6], "kd": [0.4, 0.5]})
    rows[-1]["test"]["accuracy"] = None

    entry = summarise(rows, metric="accuracy", direction="max")[1]

    assert entry["mean"] is None and entry["difference"]["difference"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [({"test": {}}, "no test metric 'accuracy'"), ({"seed": 0}, "two results for seed 0")],
)
def test_rows_that_cannot_be_compared_are_refused(change: dict[str, Any], message: str) -> None:
    rows = rows_of({"no-KD": [0.5, 0.6]})
    rows[1] |= change

    with pytest.raises(InputError, match=message):
        summarise(rows, metric="accuracy", direction="max")


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(InputError, match="'max' or 'min'"):
        summarise([], metric="accuracy", direction="up")


def test_a_gain_of_equally_many_rows_in_every_seed_is_no_evidence_whatever_float32_makes_of_it():
    """One more of 120 rows in both seeds: the shares are float32, so their differences differ in the last digits."""
    import numpy as np

    share = [float(np.float32(count / 120)) for count in (101, 97, 98, 96)]

    test = paired([share[0] + 0.0, float(np.float32(98 / 120))], [float(np.float32(100 / 120)), share[1]])

    assert test["p"] is None and "the same difference in every seed" in test["note"]
