"""Tests of an expected order of students."""

import pytest

from xmodal.reports.contrasts import contrasts, expectation_sentence, outcome
from xmodal.reports.tables import contrasts_table
from xmodal.reports.verdicts import verdict

EXPECTED = {"title": "A first", "who": "They expect", "what": "a is best", "best": "a", "over": ["b", "c", "d"]}


def rows(**scores):
    """One row per name and seed."""
    return [
        {"seed": seed, "name": name, "role": "method", "test": {"accuracy": value}}
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]


def test_pairs_are_compared_seed_by_seed_and_corrected():
    tests = contrasts(rows(a=[0.5, 0.6, 0.7], b=[0.2, 0.35, 0.4]), EXPECTED, metric="accuracy", direction="max")

    (test,) = tests
    assert test["difference"] == pytest.approx(0.85 / 3) and test["better"]
    assert test["low"] < test["difference"] < test["high"] and test["p_holm"] == test["p"] < 0.05
    assert (test["first"], test["second"], outcome(test)) == ("a", "b", "above")


def test_with_losses_less_is_better():
    (test,) = contrasts(rows(a=[0.1, 0.12, 0.1], b=[0.5, 0.6, 0.55]), EXPECTED, metric="accuracy", direction="min")

    assert test["better"] and test["difference"] < 0 and outcome(test) == "above"


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"b": [0.1, 0.2, 0.15]}, "That holds here: in 3 seeds it is better than 'b'."),
        ({"b": [0.9, 0.95, 0.97]}, "That is contradicted here: in 3 seeds it is worse than 'b'."),
        ({"b": [0.52, 0.58, 0.61]}, "That is not shown here: in 3 seeds it cannot be told from 'b'."),
        (
            {"b": [0.1, 0.2, 0.15], "c": [0.52, 0.58, 0.61]},
            "That holds in part here: in 3 seeds it is better than 'b', it cannot",
        ),
        (
            {"b": [0.1, 0.2, 0.15], "c": [0.91, 0.97, 0.99]},
            "is contradicted here: in 3 seeds it is better than 'b', it is",
        ),
    ],
)
def test_the_sentence_claims_significant_differences_only(scores, words):
    tests = contrasts(rows(a=[0.5, 0.6, 0.6], **scores), EXPECTED, metric="accuracy", direction="max")

    assert words in expectation_sentence(EXPECTED, tests)


def test_one_seed_shows_nothing():
    (test,) = contrasts(rows(a=[0.9], b=[0.1]), EXPECTED, metric="accuracy", direction="max")

    assert outcome(test) == "open" and "in 1 seed it cannot be told" in expectation_sentence(EXPECTED, [test])


def test_the_same_difference_in_every_seed_is_one_observation():
    (test,) = contrasts(rows(a=[0.75, 0.5], b=[0.5, 0.25]), EXPECTED, metric="accuracy", direction="max")

    assert test["p"] is None and outcome(test) == "open"


def test_table_and_verdict_have_the_same_numbers():
    results = rows(a=[0.5, 0.6, 0.7], b=[0.2, 0.35, 0.4])
    expectation = {**EXPECTED, "tests": contrasts(results, EXPECTED, metric="accuracy", direction="max")}

    header, lines = contrasts_table(expectation, "accuracy")
    sentences = verdict({"rows": results, "metric": "accuracy", "direction": "max", "expectations": [expectation]})

    assert header[:3] == ["better", "than", "seeds"] and lines[0][:4] == ["a", "b", "3", "+28.3"]
    assert sentences[0].startswith("They expect: a is best. That holds here")
