"""The ship card of a comparison: which student to deploy, and why.

A method is shipped only if it is better than the no-KD control beyond noise: by the paired test of the table, corrected
for all its tests. Validation decides what is left to choose: which of these methods (by its mean over the seeds, since
the best single seed of several is partly luck), and which seed. The test scores decide nothing else, so they stay
estimates for new data.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports.numbers import phrase
from xmodal.reports.repetitions import worded
from xmodal.reports.sentences import evidence, seeds, size_of
from xmodal.reports.summary import corrected_for

Row = Mapping[str, Any]
OWN_SPLITS = "Each seed has validation rows of its own, so this also depends on which rows are easy."


def ship_card(result: Row, select: tuple[str, str]) -> dict[str, Any] | None:
    """The student to deploy; None where there is neither a method nor a control.

    Args:
        result: of a comparison, with ``rows``, ``summary``, ``metric`` and ``student``.
        select: metric and direction on the validation split.

    Returns:
        ``name``, ``role``, ``seed``, ``student``, ``folder``, ``file`` (within the run folder), ``why``, ``seeds`` (how
        many the choice was among), ``instead`` (the method that is not shipped, if there is one) and ``parameters``.
        `Study.finish` adds what only the finished run knows: size, speed and the command.
    """
    rows = _deployable(result)
    methods = list(dict.fromkeys(str(row["name"]) for row in rows if row["role"] == "method"))
    controls = list(dict.fromkeys(str(row["name"]) for row in rows if row["role"] == "control"))
    if not methods and not controls:
        return None
    means = {name: _mean(rows, name, select) for name in (*methods, *controls)}
    tests = {entry["name"]: entry["difference"] for entry in result["summary"] if entry["name"] in methods}
    better = [name for name in methods if tests.get(name) and tests[name]["outcome"] == "better"]
    name = max(better or controls or methods, key=lambda each: means[each])
    row = max(_of(rows, name), key=lambda row: _valid(row, select))

    # the method that the reason is about: the one that is shipped, or the one that would be
    leading = name if name in methods else max(methods, key=lambda each: means[each], default="")
    why = [_reason(result, leading, tests.get(leading), several=len(methods) > 1, controlled=bool(controls))]
    if len(better) > 1:
        why.append(f"Of {len(better)} such methods it has the best mean on validation ({_shown(means, name, select)}).")
    elif name == leading and controls and tests.get(name):
        other = tests[name]["against"]
        why.append(f"Mean on validation: {_shown(means, name, select)}, {other} {_shown(means, other, select)}.")
    count = len(_of(rows, name))
    if count > 1:
        why.append(f"Of its {seeds(count)}, seed {row['seed']} is the best on validation.")
        if len({each.get("split") for each in _of(rows, name)}) > 1:
            why.append(OWN_SPLITS)
    return {
        **{key: row[key] for key in ("name", "role", "seed", "student", "folder")},
        "file": f"{row['folder']}/students/{row['student']}/student.safetensors",
        "why": " ".join(worded(result, why)),
        "seeds": count,
        "instead": leading if name != leading else "",
        "parameters": row.get("parameters"),
    }


def _reason(result: Row, leading: str, test: Row | None, *, several: bool, controlled: bool) -> str:
    """What the test of the leading method shows."""
    if not leading:
        return "No method was compared with it."
    if not controlled or test is None or test["difference"] is None:
        return f"There is no no-KD control to compare {leading} with, so whether distillation helps is not known."
    metric, against = str(result["metric"]), test["against"]
    size = f"{size_of(test['difference'], metric)} on the test split"
    if test["n"] < 2:
        return (
            f"One seed cannot show whether {leading} is better than {against} ({size}): `xmodal compare` repeats both "
            "with several seeds."
        )
    facts = f"{size}, {evidence(test, metric, tests=corrected_for(result['summary']))}, {seeds(test['n'])}"
    if test["outcome"] == "better":
        return f"{leading} is better than {against} beyond noise ({facts})."
    if several:
        return f"No method is shown to be better than {against} (best on validation is {leading}: {facts})."
    return f"{leading} is not shown to be better than {against} ({facts})."


def _deployable(result: Row) -> list[Row]:
    """The rows of methods and controls, those that read exactly the deployed modalities if there are any."""
    rows = [row for row in result["rows"] if row["role"] in ("method", "control")]
    deployed = {*result.get("student", ())}
    same = [row for row in rows if {need.partition(".")[0] for need in row.get("needs", ())} == deployed]
    return same or rows


def _of(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row["name"] == name]


def _valid(row: Row, select: tuple[str, str]) -> float:
    """The validation score, larger for better; one that is not finite is the worst."""
    value = row["valid"][select[0]]
    if value is None or not math.isfinite(value):
        return -math.inf
    return float(value if select[1] == "max" else -value)


def _mean(rows: Sequence[Row], name: str, select: tuple[str, str]) -> float:
    return statistics.fmean(_valid(row, select) for row in _of(rows, name))


def _shown(means: Mapping[str, float], name: str, select: tuple[str, str]) -> str:
    return phrase(means[name] if select[1] == "max" else -means[name], select[0])
