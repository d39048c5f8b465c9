"""Confidence intervals and paired tests of the scores of runs. Pure functions without files.

Every comparison pairs two names by seed: the same seed means the same splits and the same initial weights, so the
difference within a seed is the effect of distillation. Several tests in one table are corrected after Holm (1979).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xmodal.errors import InputError

LEVEL = 0.95
# Relative range below which differences are equal up to rounding: the t statistic of rounding noise would be arbitrary.
CONSTANT = 1e-6

Row = Mapping[str, Any]


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float | None, float | None]:
    """Mean and Student's t confidence interval; None as bounds for a single value or non-finite values.

    Example:
        >>> mean, low, high = interval([1, 2, 3, 4, 5])
        >>> round(mean, 3), round(low, 3), round(high, 3)
        (3.0, 1.037, 4.963)
    """
    if not values:
        raise InputError("An interval needs at least one value, got none.")
    if not all(math.isfinite(value) for value in values):
        return math.nan, None, None
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None, None
    # Student's t from scipy.special: importing scipy.stats, which returns the same bits, takes another second.
    from scipy import special

    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(special.stdtrit(len(values) - 1, (1 + level) / 2)) * error
    return mean, mean - half, mean + half


def paired(values: Sequence[float], control: Sequence[float]) -> dict[str, Any]:
    """Paired t-test: ``values`` minus ``control``, entry by entry.

    Returns:
        ``difference`` (mean), ``low`` and ``high`` (95 % interval), ``p`` (two-sided), ``n`` and ``note``, the reason
        if an interval or a p-value is None.
    """
    if len(values) != len(control) or not values:
        raise InputError(
            f"A paired test needs the same number of values on both sides, one or more: got {len(values)} and "
            f"{len(control)}."
        )
    differences = [value - other for value, other in zip(values, control, strict=True)]
    mean, low, high = interval(differences)
    test = {"difference": mean, "low": low, "high": high, "p": None, "n": len(differences), "note": ""}
    if not math.isfinite(mean):
        return test | {"difference": None, "note": "a value is not finite"}
    if len(differences) == 1:
        return test | {"note": "one seed: no interval, no test"}
    scale = max(abs(value) for value in (*values, *control))
    if max(differences) - min(differences) <= CONSTANT * scale:
        if max(map(abs, differences)) <= CONSTANT * scale:
            return test | {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "note": "equal in every seed"}
        return test | {"low": None, "high": None, "note": "the same difference in every seed: no variance to test"}
    from scipy import special

    count = len(differences)
    t = statistics.fmean(differences) / (statistics.stdev(differences) / math.sqrt(count))
    return test | {"p": float(2 * special.stdtr(count - 1, -abs(t)))}


def equivalence(values: Sequence[float], control: Sequence[float], margin: float) -> float | None:
    """Two one-sided paired t-tests (Schuirmann 1987): p that the difference is not within ``±margin``.

    Args:
        values: entry by entry, as in `paired`.
        control: the values to subtract.
        margin: the largest difference that counts as none, in the unit of the values.

    Returns:
        The larger p of the two tests; None where `paired` has no test, and where the differences do not vary.

    Example:
        >>> round(equivalence([0.51, 0.50, 0.49], [0.50, 0.50, 0.50], 0.03), 4)
        0.0175
    """
    if not margin > 0:
        raise InputError(f"The margin of an equivalence test is {margin}: expected a number above 0.")
    test = paired(values, control)
    # p is 1 without a test where all values are equal
    if test["p"] is None or test["note"]:
        return None
    from scipy import special

    differences = [value - other for value, other in zip(values, control, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    mean, free = float(test["difference"]), len(differences) - 1
    return float(max(special.stdtr(free, -(margin + mean) / error), special.stdtr(free, -(margin - mean) / error)))


def paired_by_seed(
    scores: Mapping[str, Mapping[int, float]], first: str | None, second: str | None
) -> dict[str, Any] | None:
    """`paired` of two names over the seeds that both have; None without a shared seed.

    Args:
        scores: result of `scores_by_seed`.
        first: name whose values come first.
        second: name whose values are subtracted; None: there is none.
    """
    ours, others = scores.get(first or "", {}), scores.get(second or "", {})
    seeds = [seed for seed in ours if seed in others]
    return paired([ours[seed] for seed in seeds], [others[seed] for seed in seeds]) if seeds else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; None stays None and is no test.

    Example:
        >>> holm([0.01, 0.04, None, 0.03])
        [0.03, 0.06, None, 0.06]
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    # The running maximum keeps the order of the p-values: a larger one never gets a smaller correction.
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[index] = highest
    return corrected


def scores_by_seed(rows: Iterable[Row], metric: str) -> dict[str, dict[int, float]]:
    """Name → seed → value of a metric on the test split, each in order of first appearance."""
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        seeds = scores.setdefault(row["name"], {})
        if metric not in row["test"]:
            raise InputError(
                f"'{row['name']}' with seed {row['seed']} has no test metric '{metric}': expected the same metric in "
                "every row. Run the comparison again."
            )
        if row["seed"] in seeds:
            raise InputError(
                f"'{row['name']}' has two results for seed {row['seed']}: expected one. Use different names for them."
            )
        value = row["test"][metric]
        # JSON has no nan: non-finite values are stored as null.
        seeds[row["seed"]] = math.nan if value is None else float(value)
    return scores
