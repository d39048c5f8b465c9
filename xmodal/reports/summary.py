"""One summary per name from the rows of runs, and the tests of a table with one correction for all of them.

The tests are what a comparison may claim: each method against the no-KD control, and against its own controls (with a
shuffled teacher, with an untrained one, of its size, …). They share one correction after Holm, since each is one more
chance to call a difference of chance a result. An outcome is ``better``, ``worse`` or ``cannot tell``; ``equivalent``
needs a margin that the user states and two one-sided tests, which are corrected in the same way.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.errors import InputError
from xmodal.reports.intervals import Row, equivalence, holm, interval, paired_by_seed, scores_by_seed

SIGNIFICANT = 0.05  # a corrected p-value below this counts as a difference
# roles of a table that are no control of a method
NO_CONTROLS = ("teacher", "control", "method", "matched")
Test = dict[str, Any]


def summarise(rows: Sequence[Row], *, metric: str, direction: str, margin: float | None = None) -> list[dict[str, Any]]:
    """One entry per name, in order of first appearance: mean, deviation, interval, and tests.

    Args:
        rows: one per name and seed: ``seed``, ``name``, ``role``, ``test`` (metric → value), optionally ``needs`` and
            ``matched``.
        metric: entry of ``test`` to compare by.
        direction: ``max`` if a larger value is better, ``min`` otherwise.
        margin: the largest difference that counts as none, in the unit of the metric; None: nothing is called
            equivalent.

    Returns:
        Dictionaries with ``name``, ``role``, ``n``, ``mean``, ``std``, ``low``, ``high``, and ``difference``: the
        result of `paired` against the control with the same needs (or the first control), plus ``against`` (its name),
        ``better`` (whether the sign is an improvement), ``p_holm`` and ``outcome``; None for controls and without a
        shared seed. Methods also have ``controls``: the same for each control of their own, plus its ``role``. Only
        tests of methods are corrected and have an outcome: differences of other rows are shown without a test.
    """
    if direction not in ("max", "min"):
        raise InputError(f"direction is {direction!r}: expected 'max' or 'min'.")
    scores = scores_by_seed(rows, metric)
    first_rows: dict[str, Row] = {}
    for row in rows:
        first_rows.setdefault(row["name"], row)

    def compared(name: str, against: str | None) -> Test | None:
        test = paired_by_seed(scores, name, against)
        if test is None:
            return None
        gain = (test["difference"] or 0.0) * (1 if direction == "max" else -1)
        return {"against": against, **test, "better": gain > 0, "p_holm": None, "outcome": None}

    summary = []
    for name, by_seed in scores.items():
        entry = _entry(name, first_rows[name]["role"], list(by_seed.values()))
        entry["difference"] = compared(name, _control_of(first_rows[name], first_rows))
        if entry["role"] == "method":
            others = [(role, compared(name, other)) for other, role in _own_controls(name, rows, first_rows).items()]
            entry["controls"] = [{"role": role, **test} for role, test in others if test is not None]
        summary.append(entry)
    tests = tests_of(summary)
    for name, test in tests if margin is not None else ():
        against = scores[test["against"]]
        both = [(score, against[seed]) for seed, score in scores[name].items() if seed in against]
        test["p_equivalent"] = equivalence([mine for mine, _ in both], [other for _, other in both], margin or 0.0)
    _judge([test for _, test in tests])
    return summary


def tests_of(summary: Sequence[Row]) -> list[tuple[str, Test]]:
    """All tests of a table: the name of a method, and its test against another name."""
    methods = [entry for entry in summary if entry["role"] == "method"]
    return [
        (str(entry["name"]), test)
        for entry in methods
        for test in (entry.get("difference"), *entry.get("controls", ()))
        if test
    ]


def corrected_for(summary: Sequence[Row]) -> int:
    """How many tests the correction of a table is for."""
    return sum(test["p"] is not None for _, test in tests_of(summary))


def _judge(tests: Sequence[Test]) -> None:
    """Correct p-values for each other, and add the outcomes."""
    for key, corrected in (("p", "p_holm"), ("p_equivalent", "p_equivalent_holm")):
        for test, p in zip(tests, holm([test.get(key) for test in tests]), strict=True):
            test |= {corrected: p} if key in test else {}
    for test in tests:
        test["outcome"] = outcome_of(test)


def outcome_of(test: Row) -> str:
    """``better``, ``worse``, ``equivalent`` or ``cannot tell``, by corrected p-values.

    The same difference in every seed is no evidence either: then the seed decided nothing that varies, and the seeds
    are one observation.
    """
    p, equivalent = test.get("p_holm"), test.get("p_equivalent_holm")
    if p is not None and p < SIGNIFICANT and test["difference"]:
        return "better" if test["better"] else "worse"
    return "equivalent" if equivalent is not None and equivalent < SIGNIFICANT else "cannot tell"


def summary_of(result: Row) -> list[dict[str, Any]]:
    """The summary of a result, computed from its rows if it has none, or one without outcomes of an earlier version."""
    summary = list(result.get("summary") or ())
    complete = all("controls" in entry for entry in summary if entry["role"] == "method")
    if (summary and complete) or not result.get("rows"):
        return summary
    return summarise(
        result["rows"], metric=result["metric"], direction=result["direction"], margin=result.get("margin")
    )


def _entry(name: str, role: str, values: Sequence[float]) -> dict[str, Any]:
    mean, low, high = interval(values)
    finite = math.isfinite(mean)
    return {
        "name": name,
        "role": role,
        "n": len(values),
        "mean": mean if finite else None,
        "std": statistics.stdev(values) if finite and len(values) > 1 else None,
        "low": low,
        "high": high,
    }


def _control_of(row: Row, first_rows: Mapping[str, Row]) -> str | None:
    if row["role"] == "control":
        return None
    controls = [other for other in first_rows.values() if other["role"] == "control"]
    # With several students, each is compared with the control that reads the same modalities.
    same = [other for other in controls if other.get("needs") == row.get("needs")]
    return next((str(other["name"]) for other in (*same, *controls)), None)


def _own_controls(name: str, rows: Sequence[Row], first_rows: Mapping[str, Row]) -> dict[str, str]:
    """Name → role of the controls that belong to one method."""
    roles = {other: str(row["role"]) for other, row in first_rows.items()}
    # A single method may have a control of any name; with several, the control's name starts with the method's.
    single = sum(role == "method" for role in roles.values()) == 1
    own = {
        other: role
        for other, role in roles.items()
        if role not in NO_CONTROLS and (single or other.startswith(f"{name} ("))
    }
    matched = next((str(row["matched"]) for row in rows if row["name"] == name and row.get("matched")), "")
    return own | ({matched: "matched"} if roles.get(matched) == "matched" else {})
