"""Tables as text."""

from __future__ import annotations

from typing import Any

import pytest

from xmodal.reports import numbers, tables
from xmodal.reports.tables import all_tests_table, comparison_table, plain_table
from xmodal.reports.verdicts import verdict


def result_of(scores: dict[str, list[float]], *, metric: str = "accuracy", direction: str = "max") -> dict[str, Any]:
    roles = {"no-KD": "control", "teacher": "teacher"}
    rows = [
        {
            "seed": seed,
            "name": name,
            "role": next((role for role in ("shuffled", "untrained") if role in name), roles.get(name, "method")),
            "test": {metric: value},
        }
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]
    return {"metric": metric, "direction": direction, "rows": rows}


CONTROL = [0.90, 0.91, 0.89, 0.90, 0.92]
BETTER = [0.92, 0.92, 0.91, 0.93, 0.94]


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.93449, "accuracy", "93.4"),
        (0.5, "macro_f1", "50.0"),
        (0.123456, "mse", "0.1235"),
        (1234.0, "mse", "1234"),
        (0.25, "cross_entropy", "0.2500"),
        (None, "accuracy", "–"),
        (float("nan"), "mse", "–"),
    ],
)
def test_numbers_are_per_cent_or_four_digits(value: float | None, metric: str, text: str) -> None:
    assert numbers.number(value, metric) == text


def test_a_signed_number_is_never_minus_zero() -> None:
    assert numbers.number(-0.0001, "accuracy", signed=True) == "+0.0"
    assert numbers.number(-0.02, "accuracy", signed=True) == "-2.0"


def test_a_small_p_is_never_shown_as_zero() -> None:
    assert [numbers.p_text(p) for p in (1e-9, 0.0123, 0.5, None)] == ["< 0.001", "0.012", "0.50", "–"]


def test_comparison_table_has_one_row_per_name_and_the_numbers_of_the_summary() -> None:
    header, rows = comparison_table(result_of({"no-KD": CONTROL, "kd": BETTER}))

    assert header[:4] == ["name", "role", "seeds", "accuracy (%)"]
    assert [row[0] for row in rows] == ["no-KD", "kd"]
    assert rows[1][3] == "92.4" and rows[1][5] == "+2.0"
    assert all(len(row) == len(header) for row in rows)


def test_a_given_summary_is_shown_unchanged() -> None:
    result = result_of({"no-KD": CONTROL})
    entry = {"name": "x", "role": "method", "n": 9, "mean": 0.5, "low": 0.4, "high": 0.6}
    entry |= {"difference": None, "controls": []}

    _, rows = comparison_table(result | {"summary": [entry]})

    assert rows == [["x", "method", "9", "50.0", "40.0 to 60.0", "–", "–", "–"]]


def test_a_summary_of_an_earlier_version_is_computed_again_from_the_rows() -> None:
    result = result_of({"no-KD": CONTROL, "kd": BETTER, "kd (shuffled teacher)": CONTROL})
    old = {"name": "kd", "role": "method", "n": 5, "mean": 0.5, "low": 0.4, "high": 0.6, "difference": None}

    assert comparison_table(result | {"summary": [old]}) == comparison_table(result)


@pytest.mark.parametrize("other", ["dkd", "kd (shuffled teacher)", "kd (untrained teacher)"])
def test_several_tests_get_a_corrected_column(other: str) -> None:
    header, _ = comparison_table(result_of({"no-KD": CONTROL, "kd": BETTER, other: CONTROL}))
    alone, _ = comparison_table(result_of({"no-KD": CONTROL, "kd": BETTER, "teacher": BETTER}))

    assert "p (Holm)" in header and "p (Holm)" not in alone


def test_the_difference_from_the_shuffled_teacher_is_a_column_where_there_is_one() -> None:
    shuffled = [value - 0.003 for value in CONTROL]
    header, rows = comparison_table(result_of({"no-KD": CONTROL, "kd": BETTER, "kd (shuffled teacher)": shuffled}))
    without, _ = comparison_table(result_of({"no-KD": CONTROL, "kd": BETTER}))

    # 2.0 points above the control, and the control 0.3 above the shuffled teacher
    assert header[-1] == "vs shuffled" and [row[-1] for row in rows] == ["–", "+2.3", "–"]
    assert "vs shuffled" not in without


def test_only_methods_have_a_p_and_all_of_them_are_listed_with_their_outcomes() -> None:
    scores = {"teacher": BETTER, "no-KD": CONTROL, "kd": BETTER, "kd (shuffled teacher)": CONTROL}
    header, rows = comparison_table(result_of(scores))
    _, tests = all_tests_table(result_of(scores))

    at = header.index("p")
    assert [row[at] != "–" for row in rows] == [False, False, True, False]
    assert [test[:2] for test in tests] == [["kd", "no-KD"], ["kd", "kd (shuffled teacher)"]]
    assert [test[-1] for test in tests] == ["better", "better"]


def test_plain_table_aligns_words_left_and_numbers_right() -> None:
    text = plain_table(["name", "n"], [["kd", "5"], ["no-KD", "12"]])

    assert text.split("\n") == ["name    n", "-----  --", "kd      5", "no-KD  12"]


def test_references_are_a_table_and_a_sentence() -> None:
    row = {"what": "fourier, kd", "ours": 0.93, "paper": 0.94, "authors": None, "tolerance": 0.01, "source": "Table 5"}
    result = {"references": [row | {"ok": True}, row | {"ok": False}]}

    header, rows = tables.references_table(result)

    assert header == ["what", "ours", "paper", "authors' code", "tolerance", "ok", "source"]
    assert rows[0] == ["fourier, kd", "0.93", "0.94", "–", "0.01", "yes", "Table 5"]
    assert verdict(result) == ["Published figures missed by more than their tolerance: 1 of 2."]
    assert verdict({"references": [row | {"ok": True}]}) == ["Published figures met within their tolerance: all 1."]
