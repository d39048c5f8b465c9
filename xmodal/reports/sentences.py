"""The sentence about one test: better, worse or *cannot tell*, always with the difference and its evidence."""

from __future__ import annotations

from xmodal.reports.intervals import Row
from xmodal.reports.numbers import in_percent, number, p_text, range_text, unit


def compared(name: str, against: str, test: Row, metric: str, *, tests: int = 1, margin: float | None = None) -> str:
    """What a test says about two names, without a full stop, so that a conclusion can follow.

    Args:
        name: whose scores come first.
        against: the other name, in the words of the sentence.
        test: one of `summary.tests_of`.
        metric: of the scores.
        tests: how many tests its p-value is corrected for.
        margin: of an equivalence test, in the unit of the metric.

    Example:
        >>> test = {"difference": 0.004, "low": -0.001, "high": 0.009, "p": 0.11, "p_holm": 0.22, "n": 5, "note": "",
        ...         "outcome": "cannot tell"}
        >>> compared("kd", "no-KD", test, "accuracy", tests=2)
        'These 5 seeds cannot tell kd from no-KD: +0.4 points (95 % interval -0.1 to 0.9, p = 0.11, 0.22 after Holm)'
    """
    size, outcome = size_of(test["difference"], metric), test["outcome"]
    facts = evidence(test, metric, tests=tests)
    if outcome in ("better", "worse"):
        return f"{name} is {outcome} than {against}: {size} ({facts}, {seeds(test['n'])})"
    if outcome == "equivalent":
        within = size_of(margin, metric).removeprefix("+")
        return (
            f"{name} and {against} are equivalent within {within}: {size} (95 % interval {range_text(test, metric)}, "
            f"two one-sided tests {p_phrase(test['p_equivalent'], test['p_equivalent_holm'], tests)}, "
            f"{seeds(test['n'])})"
        )
    who = "One seed cannot" if test["n"] == 1 else f"These {test['n']} seeds cannot"
    return f"{who} tell {name} from {against}: {size} ({facts})"


def evidence(test: Row, metric: str, *, tests: int = 1) -> str:
    """Interval and p-value, or the reason why there are none."""
    if test["p"] is None or test["note"]:
        return "no interval, no test" if test["n"] == 1 else str(test["note"])
    return f"95 % interval {range_text(test, metric)}, {p_phrase(test['p'], test['p_holm'], tests)}"


def size_of(difference: float | None, metric: str) -> str:
    """A difference with its unit.

    Example:
        >>> size_of(0.014, "accuracy"), size_of(-0.02, "mse")
        ('+1.4 points', '-0.02000 in mse')
    """
    return f"{number(difference, metric, signed=True)}{' points' if in_percent(metric) else f' in {unit(metric)}'}"


def p_phrase(p: float, corrected: float | None = None, tests: int = 1) -> str:
    """A p-value, and what it is after the correction for several tests.

    Example:
        >>> p_phrase(0.018, 0.036, 2), p_phrase(0.0001)
        ('p = 0.018, 0.036 after Holm', 'p < 0.001')
    """
    text = p_text(p)
    phrase = f"p {text}" if text.startswith("<") else f"p = {text}"
    if corrected is None or tests < 2:
        return phrase
    return f"{phrase}, {p_text(corrected).replace('< ', 'below ')} after Holm"


def seeds(count: int) -> str:
    """A number of seeds in words."""
    return "1 seed" if count == 1 else f"{count} seeds"
