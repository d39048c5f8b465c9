"""Verdicts on fixed scores: better, worse or cannot tell, and never more than the tests show."""

from __future__ import annotations

from typing import Any

import pytest

from xmodal.reports.summary import summarise
from xmodal.reports.verdicts import verdict


def result_of(scores: dict[str, list[float]], *, metric: str = "accuracy", **more: Any) -> dict[str, Any]:
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
    return {"metric": metric, "direction": "max", "rows": rows, **more}


CONTROL = [0.90, 0.91, 0.89, 0.90, 0.92]
BETTER = [0.92, 0.92, 0.91, 0.93, 0.94]
NEAR = [0.902, 0.909, 0.891, 0.899, 0.921]  # within 0.2 points of the control in every seed
# kd is 1.4 points above no-KD (p = 0.018), the shuffled teacher 0.3 points below it; between the two p = 0.096
OPEN = {
    "no-KD": [0.600, 0.610, 0.590, 0.600, 0.620],
    "kd": [0.60375, 0.61888, 0.604, 0.61912, 0.64425],
    "kd (shuffled teacher)": [0.58675, 0.62402, 0.57593, 0.61319, 0.60512],
}


def test_a_method_that_is_better_has_size_interval_p_and_seeds() -> None:
    (sentence,) = verdict(result_of({"no-KD": CONTROL, "kd": BETTER}))

    assert sentence.startswith("kd is better than no-KD: +2.0 points (95 % interval 1.1 to 2.9, p = 0.00")
    assert sentence.endswith("5 seeds).")


def test_a_difference_that_is_not_significant_is_open() -> None:
    (sentence,) = verdict(result_of({"no-KD": CONTROL, "kd": [0.91, 0.90, 0.92, 0.88, 0.92]}))

    assert sentence.startswith("These 5 seeds cannot tell kd from no-KD: +0.2 points (95 % interval -2.2 to 2.6, p = ")


def test_a_method_that_is_worse_is_named_harmful() -> None:
    (sentence,) = verdict(result_of({"no-KD": BETTER, "kd": CONTROL}))

    assert sentence.startswith("kd is worse than no-KD: -2.0 points") and sentence.endswith("distillation is harmful.")


def test_a_lower_error_is_better() -> None:
    scores = {"no-KD": BETTER, "kd": CONTROL}
    (sentence,) = verdict(result_of(scores, metric="mse") | {"direction": "min"})

    assert sentence.startswith("kd is better than no-KD: -0.02000 in mse") and "harm" not in sentence


def test_an_open_comparison_with_the_shuffled_teacher_is_not_read_as_no_difference() -> None:
    sentences = verdict(result_of(OPEN))

    assert sentences[0].startswith("kd is better than no-KD: +1.4 points (95 % interval 0.4 to 2.4, p = 0.018, 0.036")
    assert sentences[1].startswith(
        "These 5 seeds cannot tell kd from kd (shuffled teacher): +1.7 points (95 % interval -0.5 to 3.9, p = 0.096"
    )
    assert sentences[1].endswith("whether the teacher's predictions for single samples matter stays open.")
    assert not any(phrase in " ".join(sentences) for phrase in ("no sign", "as well", "not significantly"))


@pytest.mark.parametrize(
    ("role", "conclusion"),
    [
        ("shuffled", "the teacher's predictions for single samples matter."),
        ("untrained", "the teacher's training matters."),
    ],
)
def test_a_method_that_is_better_than_its_control_says_what_mattered(role: str, conclusion: str) -> None:
    sentences = verdict(result_of({"no-KD": CONTROL, "kd": BETTER, f"kd ({role} teacher)": CONTROL}))

    assert sentences[1].startswith(f"kd is better than kd ({role} teacher): +2.0 points")
    assert sentences[1].endswith(f": {conclusion}")


def test_a_control_that_is_better_than_the_method_is_no_doubt_about_it() -> None:
    sentences = verdict(result_of({"no-KD": CONTROL, "kd": CONTROL, "kd (untrained teacher)": BETTER}))

    assert sentences[1].startswith("kd is worse than kd (untrained teacher)")
    assert sentences[1].endswith("the teacher's training does harm here.")


def test_controls_take_part_in_the_correction() -> None:
    # p = 0.039: significant alone, and not beside a test of its own control
    barely = [value + change for value, change in zip(CONTROL, (0.002, 0.012, 0.005, 0.009, 0.001), strict=True)]
    alone = verdict(result_of({"no-KD": CONTROL, "kd": barely}))
    among = verdict(result_of({"no-KD": CONTROL, "kd": barely, "kd (shuffled teacher)": CONTROL[::-1]}))

    assert len(alone) == 1 and alone[0].startswith("kd is better than no-KD")
    assert among[0].startswith("These 5 seeds cannot tell kd from no-KD")
    assert "Holm's correction for the 2 tests of this table, controls included" in among[-1]


def test_equal_scores_are_not_called_equal() -> None:
    (equal,) = verdict(result_of({"no-KD": [0.9, 0.8], "kd": [0.9, 0.8]}))

    assert equal == "These 2 seeds cannot tell kd from no-KD: +0.0 points (equal in every seed)."


def test_the_same_difference_in_every_seed_is_no_evidence() -> None:
    (constant,) = verdict(result_of({"no-KD": [0.5, 0.25], "kd": [0.75, 0.5]}))

    assert constant.startswith("These 2 seeds cannot tell kd from no-KD: +25.0 points (the same difference in every")


def test_one_seed_cannot_tell() -> None:
    scores = {"no-KD": [0.9], "kd": [0.95], "kd (shuffled teacher)": [0.9]}

    assert verdict(result_of(scores)) == ["One seed cannot tell kd from no-KD: +5.0 points (no interval, no test)."]


def test_nothing_is_equivalent_without_a_margin() -> None:
    (sentence,) = verdict(result_of({"no-KD": CONTROL, "kd": NEAR}))

    assert sentence.startswith("These 5 seeds cannot tell kd from no-KD: +0.0 points")


def test_with_a_margin_a_difference_within_it_is_equivalent() -> None:
    (near,) = verdict(result_of({"no-KD": CONTROL, "kd": NEAR}, margin=0.01))
    (wide,) = verdict(result_of({"no-KD": CONTROL, "kd": [0.91, 0.90, 0.92, 0.88, 0.92]}, margin=0.01))

    assert near.startswith("kd and no-KD are equivalent within 1.0 points: +0.0 points (95 % interval -0.1 to 0.2, two")
    assert wide.startswith("These 5 seeds cannot tell")


def test_a_small_difference_that_is_there_stays_one() -> None:
    (sentence,) = verdict(result_of({"no-KD": CONTROL, "kd": BETTER}, margin=0.04))

    assert sentence.startswith("kd is better than no-KD") and "within the stated margin (two one-sided" in sentence


def test_tests_for_equivalence_are_corrected_for_each_other() -> None:
    scores = {"no-KD": CONTROL, "kd": NEAR, "dkd": [0.91, 0.90, 0.92, 0.88, 0.92]}
    rows = result_of(scores)["rows"]

    kd, dkd = (entry["difference"] for entry in summarise(rows, metric="accuracy", direction="max", margin=0.01)[1:])

    assert kd["p_equivalent_holm"] == pytest.approx(2 * kd["p_equivalent"])
    assert dkd["p_equivalent_holm"] == pytest.approx(dkd["p_equivalent"]) and dkd["outcome"] == "cannot tell"


def test_a_larger_network_is_one_explanation_until_a_control_of_its_size_is_worse() -> None:
    scores = {"no-KD": CONTROL, "kd": BETTER, "no-KD, width 64": [0.91, 0.925, 0.90, 0.925, 0.935]}
    open_result, clear = result_of(scores), result_of({**scores, "no-KD, width 64": CONTROL})
    for row in (*open_result["rows"], *clear["rows"]):
        row["role"] = "matched" if "width" in row["name"] else row["role"]
        row["matched"] = "no-KD, width 64" * (row["name"] == "kd")

    assert verdict(open_result)[1].endswith("the size of its network may explain a gain.")
    assert verdict(clear)[1].startswith("kd is better than no-KD, width 64 (a control of the same size): +2.0 points")


def test_the_best_method_comes_first() -> None:
    sentences = verdict(result_of({"no-KD": CONTROL, "worse": [value - 0.02 for value in BETTER], "kd": BETTER}))

    assert sentences[0].startswith("kd is better") and "tell worse from" in sentences[1]


def test_without_a_control_nothing_is_claimed() -> None:
    sentences = verdict(result_of({"kd": BETTER}))

    assert sentences == ["There is no no-KD control, so the effect of distillation cannot be judged."]
