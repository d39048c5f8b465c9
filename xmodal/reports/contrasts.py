"""Is the one that a paper expects to be best really best? Pairs of students, compared seed by seed.

A result names what was expected, ``{"best": name, "over": [names], "who": "…", "what": "…"}``; the pairs, their tests
and the sentence that follows from them are computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports.intervals import Row, holm, paired, scores_by_seed

SHOWN = 0.05  # a corrected p-value below this counts as a difference


def contrasts(rows: Sequence[Row], expected: Mapping[str, Any], *, metric: str, direction: str) -> list[dict[str, Any]]:
    """The expected best against each of the others: what `paired` answers, with Holm's correction and the good sign.

    Args:
        rows: one per name and seed.
        expected: names in ``best`` and ``over``; pairs without a shared seed are left out.
        metric: to compare by.
        direction: ``max`` or ``min``.
    """
    scores, best, found = scores_by_seed(rows, metric), expected["best"], []
    for other in expected["over"]:
        seeds = [seed for seed in scores.get(best, {}) if seed in scores.get(other, {})]
        if seeds:
            test = paired([scores[best][seed] for seed in seeds], [scores[other][seed] for seed in seeds])
            sign = 1 if direction == "max" else -1
            found.append({"first": best, "second": other, **test, "better": sign * (test["difference"] or 0.0) > 0})
    for test, corrected in zip(found, holm([test["p"] for test in found]), strict=True):
        test["p_holm"] = corrected
    return found


def outcome(test: Mapping[str, Any]) -> str:
    """``above``, ``below`` or ``open``: what a pair shows of the expected order."""
    if test["difference"] is None or test["n"] < 2:
        return "open"
    certain = test["p_holm"] is not None and test["p_holm"] < SHOWN
    always = test["p"] is None and test["difference"] != 0  # the same difference in every seed
    return ("above" if test["better"] else "below") if certain or always else "open"


def expectation_sentence(expected: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> str:
    """What was expected, and what these seeds show of it."""
    said = {
        kind: [str(test["second"]) for test in tests if outcome(test) == kind] for kind in ("above", "below", "open")
    }
    seeds = max((test["n"] for test in tests), default=0)
    parts = []
    if said["above"]:
        parts.append(f"it is better than {_and(said['above'])}")
    if said["below"]:
        parts.append(f"it is worse than {_and(said['below'])}")
    if said["open"]:
        parts.append(f"no difference from {_and(said['open'])} is shown")
    verdict = "holds" if len(said["above"]) == len(tests) else "is contradicted" if said["below"] else "is not shown"
    if said["above"] and verdict == "is not shown":
        verdict = "holds in part"
    count = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return f"{expected['who']}: {expected['what']}. That {verdict} here: in {count} {', '.join(parts)}."


def _and(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
