"""Tests of an expected order: is the student that a paper expects to be best better than the others, seed by seed?

A result names the expectation, ``{"best": name, "over": [names], "who": "…", "what": "…"}``; the pairs, their tests and
the sentence that follows from them are computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports.intervals import Row, holm, paired_by_seed, scores_by_seed
from xmodal.reports.summary import SIGNIFICANT


def contrasts(rows: Sequence[Row], expected: Mapping[str, Any], *, metric: str, direction: str) -> list[dict[str, Any]]:
    """The expected best against each of the others: results of `paired` with Holm's correction and the sign.

    Args:
        rows: one per name and seed.
        expected: names in ``best`` and ``over``; pairs without a shared seed are omitted.
        metric: metric to compare by.
        direction: ``max`` or ``min``.
    """
    scores, best, sign = scores_by_seed(rows, metric), expected["best"], 1 if direction == "max" else -1
    tests = []
    for other in expected["over"]:
        test = paired_by_seed(scores, best, other)
        if test is not None:
            tests.append({"first": best, "second": other, **test, "better": sign * (test["difference"] or 0.0) > 0})
    for test, corrected in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = corrected
    return tests


def outcome(test: Mapping[str, Any]) -> str:
    """``above``, ``below`` or ``open``: the result of a pair with respect to the expected order."""
    # one seed, or the same difference in every seed, has no p-value: see `summary.outcome_of`
    if test["p_holm"] is None or test["p_holm"] >= SIGNIFICANT:
        return "open"
    return "above" if test["better"] else "below"


def expectation_sentence(expected: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> str:
    """The expectation, and how far these seeds confirm it."""
    others: dict[str, list[str]] = {"above": [], "below": [], "open": []}
    for test in tests:
        others[outcome(test)].append(str(test["second"]))
    seeds = max((test["n"] for test in tests), default=0)
    parts = []
    if others["above"]:
        parts.append(f"it is better than {_joined(others['above'])}")
    if others["below"]:
        parts.append(f"it is worse than {_joined(others['below'])}")
    if others["open"]:
        parts.append(f"it cannot be told from {_joined(others['open'])}")
    verdict = (
        "holds" if len(others["above"]) == len(tests) else "is contradicted" if others["below"] else "is not shown"
    )
    if others["above"] and verdict == "is not shown":
        verdict = "holds in part"
    count = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return f"{expected['who']}: {expected['what']}. That {verdict} here: in {count} {', '.join(parts)}."


def _joined(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
