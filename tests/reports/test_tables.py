"""Tables as text, and sentences that claim significant differences only."""

from __future__ import annotations

from typing import Any

import pytest

from xmodal.reports import numbers, tables
from xmodal.reports.tables import comparison_table, plain_table, verdict


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
    entry = {"name": "x", "role": "method", "n": 9, "mean": 0.5, "low": 0.4, "high": 0.6, "difference": None}

    _, rows = comparison_table(result | {"summary": [entry]})

    assert rows == [["x", "method", "9", "50.0", "40.0 to 60.0", "–", "–", "–"]]


def test_several_methods_get_a_corrected_column() -> None:
    header, _ = comparison_table(result_of({"no-KD": CONTROL, "kd": BETTER, "dkd": CONTROL}))

    assert header[-1] == "p (Holm)"


def test_plain_table_aligns_words_left_and_numbers_right() -> None:
    text = plain_table(["name", "n"], [["kd", "5"], ["no-KD", "12"]])

    assert text.split("\n") == ["name    n", "-----  --", "kd      5", "no-KD  12"]


def test_verdict_names_size_interval_p_and_seeds() -> None:
    sentences = verdict(result_of({"no-KD": CONTROL, "kd": BETTER}))

    assert len(sentences) == 1
    assert sentences[0].startswith(
        "kd is 2.0 points above the no-KD control (95 % interval 1.1 to 2.9, paired t-test p = 0.00"
    )
    assert sentences[0].endswith("5 seeds).")


def test_verdict_claims_no_insignificant_difference() -> None:
    sentences = verdict(result_of({"no-KD": CONTROL, "kd": [0.91, 0.90, 0.92, 0.88, 0.92]}))

    assert sentences[0].startswith("kd: no significant difference from the no-KD control in 5 seeds")


def test_verdict_names_harmful_distillation() -> None:
    sentences = verdict(result_of({"no-KD": BETTER, "kd": CONTROL}))

    assert "below the no-KD control" in sentences[0] and sentences[0].endswith("Here distillation is harmful.")


def test_a_lower_error_is_no_harm() -> None:
    sentences = verdict(result_of({"no-KD": BETTER, "kd": CONTROL}, metric="mse", direction="min"))

    assert sentences[0].startswith("kd is 0.02000 below (mse) the no-KD control") and "harm" not in sentences[0]


def test_one_seed_shows_nothing() -> None:
    assert "in one seed, which cannot show a difference" in verdict(result_of({"no-KD": [0.9], "kd": [0.95]}))[0]


def test_equal_and_constant_differences_have_sentences() -> None:
    equal = verdict(result_of({"no-KD": [0.9, 0.8], "kd": [0.9, 0.8]}))
    constant = verdict(result_of({"no-KD": [0.5, 0.25], "kd": [0.75, 0.5]}))

    assert equal == ["kd equals the no-KD control in each of 2 seeds."]
    assert "in each of 2 seeds, always by the same amount" in constant[0]


def test_a_shuffled_teacher_that_is_not_worse_is_named() -> None:
    shuffled = [0.92, 0.93, 0.905, 0.925, 0.94]

    sentences = verdict(result_of({"no-KD": CONTROL, "kd": BETTER, "kd (shuffled teacher)": shuffled}))

    assert sentences[1].startswith("With its shuffled teacher it is not significantly worse")
    assert sentences[1].endswith("no sign that the teacher's predictions for single samples matter.")


def test_a_shuffled_teacher_that_is_worse_is_named() -> None:
    sentences = verdict(result_of({"no-KD": CONTROL, "kd": BETTER, "kd (shuffled teacher)": CONTROL}))

    assert sentences[1].startswith("With its shuffled teacher it is worse")


def test_an_untrained_teacher_has_its_own_sentence() -> None:
    as_well = verdict(result_of({"no-KD": CONTROL, "kd": BETTER, "kd (untrained teacher)": BETTER}))
    both = {"kd (shuffled teacher)": CONTROL, "kd (untrained teacher)": CONTROL}
    worse = verdict(result_of({"no-KD": CONTROL, "kd": BETTER, **both}))

    assert "With its untrained teacher it is not significantly worse" in as_well[1]
    assert "no sign that the teacher's training matters" in as_well[1]
    assert "With its shuffled teacher it is worse" in worse[1]
    assert "With its untrained teacher it is worse" in worse[2]
    assert worse[2].endswith(": the teacher's training matters.")


def test_significance_is_judged_after_correction() -> None:
    barely = [value + change for value, change in zip(CONTROL, (0.002, 0.012, 0.005, 0.009, 0.002), strict=True)]
    alone, among = ({"no-KD": CONTROL, "kd": barely}, {"no-KD": CONTROL, "kd": barely, "dkd": CONTROL, "at": CONTROL})

    assert "points above" in verdict(result_of(alone))[0]
    assert verdict(result_of(among))[0].startswith("kd: no significant difference")
    assert "after Holm's correction for 3 tests" in verdict(result_of(among))[-1]


def test_the_best_method_comes_first() -> None:
    sentences = verdict(result_of({"no-KD": CONTROL, "worse": [value - 0.02 for value in BETTER], "kd": BETTER}))

    assert [sentence.split()[0].strip(":") for sentence in sentences[:2]] == ["kd", "worse"]


def test_without_a_control_nothing_is_claimed() -> None:
    sentences = verdict(result_of({"kd": BETTER}))

    assert sentences == ["There is no no-KD control, so the effect of distillation cannot be judged."]


def test_references_are_a_table_and_a_sentence() -> None:
    row = {"what": "fourier, kd", "ours": 0.93, "paper": 0.94, "authors": None, "tolerance": 0.01, "source": "Table 5"}
    result = {"references": [row | {"ok": True}, row | {"ok": False}]}

    header, rows = tables.references_table(result)

    assert header == ["what", "ours", "paper", "authors' code", "tolerance", "ok", "source"]
    assert rows[0] == ["fourier, kd", "0.93", "0.94", "–", "0.01", "yes", "Table 5"]
    assert verdict(result) == ["Published figures missed by more than their tolerance: 1 of 2."]
    assert verdict({"references": [row | {"ok": True}]}) == ["Published figures met within their tolerance: all 1."]
