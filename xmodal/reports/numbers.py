"""Values of metrics, p-values and intervals as text."""

from __future__ import annotations

import math

from xmodal.reports.intervals import Row

SHARES = ("acc", "f1", "iou", "recall", "precision", "auc")  # parts of the names of metrics between 0 and 1


def in_percent(metric: str) -> bool:
    """Whether a metric is a share between 0 and 1, shown in per cent."""
    return any(word in metric.lower() for word in SHARES)


def number(value: float | None, metric: str, *, signed: bool = False) -> str:
    """A value of a metric as text: per cent with one decimal, or four significant digits; ``–`` for none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{100 * value:+.1f}" if in_percent(metric) else f"{value:+#.4g}".removesuffix(".")
    # A small negative value rounds to -0.0; the minus sign would suggest a loss.
    if float(text) == 0:
        text = text.replace("-", "+")
    return text if signed else text.removeprefix("+")


def phrase(value: float | None, metric: str) -> str:
    """A value as part of a sentence: ``93.4 % accuracy``, ``mse 0.1200``."""
    name = metric.replace("_", " ")
    return f"{number(value, metric)} % {name}" if in_percent(metric) else f"{name} {number(value, metric)}"


def p_text(p: float | None) -> str:
    """A p-value as text: two significant digits, never ``0``."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def unit(metric: str) -> str:
    """Name of a metric with its unit, for the header of a table."""
    return f"{metric.replace('_', ' ')} (%)" if in_percent(metric) else metric.replace("_", " ")


def range_text(entry: Row, metric: str) -> str:
    """The interval of an entry or a test as text: ``0.9 to 6.6``."""
    low, high = entry.get("low"), entry.get("high")
    return "–" if low is None or high is None else f"{number(low, metric)} to {number(high, metric)}"
