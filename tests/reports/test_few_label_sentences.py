"""Labels saved, by hand and by the bootstrap, and sentences with three outcomes."""

from __future__ import annotations

from typing import Any

import pytest

from xmodal.reports.few_labels import few_label_sentences, headline_method, labels_saved, saved_sentence

SEEDS = range(5)


def flat(value: float) -> dict[int, float]:
    return dict.fromkeys(SEEDS, value)


def test_between_two_numbers_of_labels_the_curve_is_linear_in_their_logarithm() -> None:
    control = {10: flat(0.4), 1000: flat(0.8)}

    saved = labels_saved(flat(0.5), control, 10, direction="max")

    # a quarter of the way from 10 to 1000: 10^1.5
    assert saved is not None and saved["worth"] == saved["low"] == saved["high"] == round(10**1.5)


def test_a_smaller_error_is_better_where_the_metric_says_so() -> None:
    control = {10: flat(0.8), 1000: flat(0.4)}

    saved = labels_saved(flat(0.6), control, 10, direction="min")

    assert saved is not None and saved["worth"] == 100


@pytest.mark.parametrize(("score", "worth"), [(0.3, 10), (0.9, None)])
def test_beyond_the_curve_the_ends_are_what_is_known(score: float, worth: int | None) -> None:
    saved = labels_saved(flat(score), {10: flat(0.4), 1000: flat(0.8)}, 10, direction="max")

    assert saved is not None and saved["worth"] == worth and saved["most"] == 1000


def test_the_interval_comes_from_whole_seeds() -> None:
    # in every seed method and control move together, so the number of labels is the same in each of them
    shift = {seed: 0.02 * seed for seed in SEEDS}
    control = {count: {seed: base + shift[seed] for seed in SEEDS} for count, base in ((10, 0.4), (1000, 0.8))}
    together = {seed: 0.6 + shift[seed] for seed in SEEDS}
    apart = {seed: 0.6 - 3 * shift[seed] + 0.12 for seed in SEEDS}

    narrow, wide = (labels_saved(method, control, 10, direction="max") for method in (together, apart))

    assert narrow is not None and narrow["low"] == narrow["worth"] == narrow["high"] == 100
    assert wide is not None and wide["low"] < wide["worth"] < wide["high"]
    assert labels_saved(apart, control, 10, direction="max") == wide  # the same draws again


def test_without_a_curve_or_a_common_seed_there_is_no_number() -> None:
    assert labels_saved(flat(0.5), {10: flat(0.4)}, 10, direction="max") is None
    assert labels_saved({9: 0.5}, {10: flat(0.4), 20: flat(0.6)}, 10, direction="max") is None


def test_one_seed_has_no_interval() -> None:
    saved = labels_saved({0: 0.5}, {10: {0: 0.4}, 1000: {0: 0.8}}, 10, direction="max")

    assert saved is not None and saved["low"] is saved["high"] is None
    assert saved_sentence(saved, "kd").endswith("are worth 32 labels alone (1 seed).")


NAMES = {
    "teacher": "teacher",
    "no-KD": "control",
    "kd": "method",
    "kd (same-modality teacher)": "same-modality",
}


def result(scores: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    rows = [
        {"seed": seed, "name": name, "role": NAMES[name], "test": {"accuracy": value}}
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]
    used = {"train": 30, "valid": 30, "rows": 1258}
    return {"metric": "accuracy", "direction": "max", "rows": rows, "labels": used, "curve_rows": [], **more}


LOW, HIGH = [0.60, 0.62, 0.61, 0.63], [0.70, 0.73, 0.72, 0.74]
SPREAD = [0.5, 0.8, 0.55, 0.75]


@pytest.mark.parametrize(
    ("same", "conclusion"),
    [
        (LOW, "So the second modality did it, not self-training."),
        ([value + 0.001 * (-1) ** seed for seed, value in enumerate(HIGH)], "So self-training may explain the gain."),
        ([0.80, 0.82, 0.81, 0.83], "So self-training alone does better."),
    ],
)
def test_the_verdict_says_whether_the_second_modality_did_it(same: list[float], conclusion: str) -> None:
    sentences = few_label_sentences(result({"no-KD": LOW, "kd": HIGH, "kd (same-modality teacher)": same}))

    assert sentences[0].startswith("kd is better than no-KD")
    assert sentences[0].endswith("Labels used: 30 + 30 (training + validation); 1,228 training rows have none.")
    assert sentences[1].endswith(conclusion)


def test_the_second_modality_did_nothing_that_is_not_shown() -> None:
    # clearly better than self-training, and not than the labelled rows alone
    worse = [value - 0.3 for value in SPREAD]
    sentences = few_label_sentences(
        result({"no-KD": LOW, "kd": SPREAD, "kd (same-modality teacher)": [v + 0.001 * s for s, v in enumerate(worse)]})
    )

    assert sentences[0].startswith("These 4 seeds cannot tell kd from no-KD")
    assert sentences[1].startswith("kd is better than its same-modality teacher") and sentences[1].endswith(").")


@pytest.mark.parametrize(
    ("kd", "outcome"),
    [
        (HIGH, "kd is better than no-KD"),
        ([v - 0.1 for v in LOW], "kd is worse than no-KD"),
        (SPREAD, "These 4 seeds cannot tell kd from no-KD"),
    ],
)
def test_a_difference_has_three_outcomes(kd: list[float], outcome: str) -> None:
    kd = [value + 0.001 * seed for seed, value in enumerate(kd)]
    sentences = few_label_sentences(result({"no-KD": LOW, "kd": kd}))

    assert sentences[0].startswith(outcome)


def test_a_weak_teacher_is_a_warning() -> None:
    weak = [0.40, 0.41, 0.44, 0.42]
    sentences = few_label_sentences(result({"teacher": weak, "no-KD": LOW, "kd": HIGH}))
    strong = few_label_sentences(result({"teacher": HIGH, "no-KD": LOW, "kd": HIGH}))

    assert sentences[-1].startswith("In the mean the teacher is weaker than no-KD: -19.8 points (95 % interval")
    assert not any("weaker" in sentence for sentence in strong)


def test_all_labels_are_the_upper_bound() -> None:
    scores = (("100", 0.7), ("all", 0.9), ("all", 0.92))
    rows = [{"count": count, "test": {"accuracy": value}} for count, value in scores]
    sentences = few_label_sentences(result({"no-KD": LOW, "kd": HIGH}, curve_rows=rows))

    assert "With all 1,258 labels no-KD reaches 91.0 % accuracy." in sentences


def test_what_is_worth_nothing_is_said_so() -> None:
    saved = {"labels": 30, "worth": 30, "low": 30, "high": 40, "seeds": 5, "most": 300}

    assert "are worth no labels here" in saved_sentence(saved, "kd")


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([("discom", "method"), ("kd", "method"), ("kd (same-modality teacher)", "same-modality")], "kd"),
        ([("discom", "method"), ("mfh", "method"), ("mfh (permuted pairs)", "permuted")], "mfh"),
        ([("no-KD", "control"), ("discom", "method"), ("dmd", "method")], "discom"),
        ([("no-KD", "control")], None),
    ],
)
def test_the_headline_is_about_the_method_with_controls(rows: list[tuple[str, str]], name: str | None) -> None:
    assert headline_method([{"name": each, "role": role} for each, role in rows]) == name
