"""A result → tables of text and the sentences that say what it means.

The numbers are those of the result; nothing is averaged again that was averaged before. `verdict` claims a difference
only where the corrected test shows one, and asks the shuffled and the untrained teacher what was transferred.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from xmodal.reports.contrasts import SHOWN, expectation_sentence
from xmodal.reports.intervals import Row, holm, interval, paired, scores_by_seed, summarise

__all__ = [
    "comparison_table",
    "contrasts_table",
    "holm",
    "interval",
    "metrics_table",
    "number",
    "paired",
    "plain_table",
    "references_table",
    "seeds_table",
    "summarise",
    "verdict",
]

SHARES = ("acc", "f1", "iou", "recall", "precision", "auc")  # metrics between 0 and 1, shown in per cent
NUMBER = r"[-+<≤≥]? ?\d"  # how a cell with a number begins
TEACHERS = {  # control of the teacher → what it means if it does worse, and if it does as well
    "shuffled": ("what the teacher says of each single sample matters", "no sign of anything specific to the samples"),
    "untrained": ("what the teacher has learned matters", "no sign that it matters what a teacher has learned"),
}


def in_percent(metric: str) -> bool:
    """Whether a metric is a share between 0 and 1 that reads best in per cent."""
    return any(word in metric.lower() for word in SHARES)


def number(value: float | None, metric: str, *, signed: bool = False) -> str:
    """A value of a metric as text: per cent with one decimal, or four significant digits; ``–`` for none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{100 * value:+.1f}" if in_percent(metric) else f"{value:+#.4g}".removesuffix(".")
    if float(text) == 0:
        text = text.replace("-", "+")  # minus nothing is nothing
    return text if signed else text.removeprefix("+")


def phrase(value: float | None, metric: str) -> str:
    """A value in a sentence: ``93.4 % accuracy``, ``mse 0.1200``."""
    name = metric.replace("_", " ")
    return f"{number(value, metric)} % {name}" if in_percent(metric) else f"{name} {number(value, metric)}"


def p_text(p: float | None) -> str:
    """A p-value as text: two significant digits, never ``0``."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def unit(metric: str) -> str:
    """Name of a metric with its unit, as in the head of a table."""
    return f"{metric.replace('_', ' ')} (%)" if in_percent(metric) else metric.replace("_", " ")


def summary_of(result: Row) -> list[dict[str, Any]]:
    """The summary that a result carries, or one made from its rows."""
    if result.get("summary") or not result.get("rows"):
        return list(result.get("summary") or ())
    return summarise(result["rows"], metric=result["metric"], direction=result["direction"])


def comparison_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table: one row per name, numbers of ``result["summary"]`` as text."""
    summary, metric = summary_of(result), str(result.get("metric", ""))
    corrected = sum(entry["role"] == "method" for entry in summary) > 1
    header = ["name", "role", "seeds", unit(metric), "95 % interval", "vs control", "95 % interval", "p"]
    return header + ["p (Holm)"] * corrected, [_cells(entry, metric, corrected=corrected) for entry in summary]


def contrasts_table(expectation: Row, metric: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of an expectation: the one that should be best beside each of the others."""
    header = ["better", "than", "seeds", f"by {unit(metric)}", "95 % interval", "p", "p (Holm)"]
    rows = [
        [
            test["first"],
            test["second"],
            str(test["n"]),
            number(test["difference"], metric, signed=True),
            _range(test, metric),
            p_text(test["p"]),
            p_text(test["p_holm"]),
        ]
        for test in expectation["tests"]
    ]
    return header, rows


def _cells(entry: Row, metric: str, *, corrected: bool) -> list[str]:
    against = entry.get("difference") or {}
    cells = [entry["name"], entry["role"], str(entry["n"]), number(entry["mean"], metric), _range(entry, metric)]
    cells += [number(against.get("difference"), metric, signed=True), _range(against, metric), p_text(against.get("p"))]
    return cells + [p_text(against.get("p_holm"))] * corrected


def _range(entry: Row, metric: str) -> str:
    low, high = entry.get("low"), entry.get("high")
    return "–" if low is None or high is None else f"{number(low, metric)} to {number(high, metric)}"


def metrics_table(named: Iterable[tuple[str, Row]]) -> tuple[list[str], list[list[str]]]:
    """All scalar metrics: one row per name, the mean where a name comes more than once."""
    scores: dict[str, dict[str, list[float]]] = {}
    for name, metrics in named:
        for metric, value in metrics.items():
            if isinstance(value, int | float):
                scores.setdefault(name, {}).setdefault(metric, []).append(float(value))
    columns = list(dict.fromkeys(metric for of in scores.values() for metric in of))
    means = {name: {metric: statistics.fmean(values) for metric, values in of.items()} for name, of in scores.items()}
    rows = [[name, *(number(of.get(metric), metric) for metric in columns)] for name, of in means.items()]
    return ["name", *(unit(metric) for metric in columns)], rows


def seeds_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """The metric of every single run: one row per name, one column per seed."""
    metric, rows = str(result["metric"]), result.get("rows", [])
    seeds, scores = sorted({row["seed"] for row in rows}), scores_by_seed(rows, metric)
    body = [[name, *(number(of.get(seed), metric) for seed in seeds)] for name, of in scores.items()]
    return ["name", *(f"seed {seed}" for seed in seeds)], body


def references_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """Ours beside what was published: one row per figure; other implementations get a column where there are some."""
    others = any(row.get("elsewhere") is not None for row in result.get("references") or ())
    header = ["what", "ours", "paper", "authors' code", *["elsewhere"] * others, "tolerance", "ok", "source"]
    keys = ("ours", "paper", "authors", *["elsewhere"] * others)
    rows = [
        [
            str(row.get("what", "")),
            *("–" if row.get(key) is None else f"{row[key]:.4g}" for key in keys),
            _allowed(row),
            {True: "yes", False: "no"}.get(row.get("ok"), "–"),
            str(row.get("source") or ""),
        ]
        for row in result.get("references") or ()
    ]
    return header, rows


def _allowed(row: Row) -> str:
    """What a figure may be: its distance from the reference, or its bounds."""
    bounds = {"tolerance": "", "at_least": "≥ ", "at_most": "≤ "}
    found = [f"{sign}{row[key]:.4g}" for key, sign in bounds.items() if row.get(key) is not None]
    return ", ".join(found) or "–"


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned table for terminals and logs: first column left, numbers right.

    Example:
        >>> print(plain_table(["name", "n"], [["kd", "5"], ["no-KD", "12"]]))
        name    n
        -----  --
        kd      5
        no-KD  12
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    words = [not any(re.match(NUMBER, row[place]) for row in rows) for place in range(len(header))]
    words[:1] = [True]

    def line(cells: Sequence[str]) -> str:
        parts = (c.ljust(w) if word else c.rjust(w) for c, w, word in zip(cells, widths, words, strict=True))
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def verdict(result: Row) -> list[str]:
    """What a comparison shows, a sentence or two per method, best first, and no more than its seeds can carry."""
    summary, said = summary_of(result), _references_verdict(result)
    methods = [entry for entry in summary if entry["role"] == "method"]
    if methods and not any(entry["role"] == "control" for entry in summary):
        said.append("There is no no-KD control here, so nothing can be said about what distillation adds.")
    sign = 1 if result.get("direction") == "max" else -1
    judged = [entry for entry in methods if entry.get("difference")]
    tests = sum(entry["difference"]["p"] is not None for entry in judged)
    for entry in sorted(judged, key=lambda entry: -sign * (entry["difference"]["difference"] or 0.0)):
        said.append(_against_control(entry, result, tests))
        said.extend(_against_matched(entry, result))
        said += [word for role in TEACHERS for word in _against_teacher(role, entry, summary, result)]
    if tests > 1:
        said.append(
            f"Differences are judged by p after Holm's correction for {tests} tests; intervals are uncorrected."
        )
    return [expectation_sentence(each, each["tests"]) for each in result.get("expectations", ())] + said


def _against_control(entry: Row, result: Row, tests: int) -> str:
    name, metric, against = entry["name"], str(result["metric"]), entry["difference"]
    difference, p, seeds = against["difference"], against["p"], _seeds(against["n"])
    if difference is None:
        return f"{name}: not comparable with the no-KD control, because {against['note']}."
    if against["n"] < 2 and difference == 0:
        return f"{name} equals the no-KD control in one seed, which cannot show a difference."
    if against["n"] < 2:
        return f"{name} is {_gap(difference, metric)} the no-KD control in one seed, which cannot show a difference."
    if p is None:
        return f"{name} is {_gap(difference, metric)} the no-KD control in each of {seeds}, always by the same amount."
    if against["note"]:
        return f"{name} equals the no-KD control in each of {seeds}."
    corrected = p if against.get("p_holm") is None else against["p_holm"]
    evidence = f"95 % interval {_range(against, metric)}, {_p_phrase(p, corrected, tests)}"
    if corrected < SHOWN:
        harm = "" if against["better"] else " Distillation did harm here."
        return f"{name} is {_gap(difference, metric)} the no-KD control ({evidence}, {seeds}).{harm}"
    size = f"{number(difference, metric, signed=True)}{' points' if in_percent(metric) else f' in {unit(metric)}'}"
    return f"{name}: no difference from the no-KD control that {seeds} can show ({size}, {evidence})."


def _against_matched(entry: Row, result: Row) -> list[str]:
    """Beside a control of the same size: what is gained by the method and not by its larger network."""
    rows = result.get("rows", [])
    matched = next((row["matched"] for row in rows if row["name"] == entry["name"] and row.get("matched")), "")
    scores = scores_by_seed(rows, result["metric"]) if matched else {}
    seeds = [seed for seed in scores.get(entry["name"], {}) if seed in scores.get(matched, {})]
    if not matched or not seeds:
        return []
    test = paired([scores[entry["name"]][seed] for seed in seeds], [scores[matched][seed] for seed in seeds])
    if test["difference"] is None:
        return []
    metric, sign = str(result["metric"]), 1 if result["direction"] == "max" else -1
    gap = f"{number(test['difference'], metric, signed=True)} against {matched}"
    if test["p"] is None:
        return [f"Its network is larger than the control's; beside one of its own size: {gap}."]
    certain = test["p"] < SHOWN
    how = "does worse" if test["difference"] * sign > 0 and certain else "does better" if certain else "does as well"
    return [f"Its network is larger than the control's; one of its own size {how} ({gap}, {_p_phrase(test['p'])})."]


def _against_teacher(role: str, entry: Row, summary: Sequence[Row], result: Row) -> list[str]:
    """Beside the same method with a teacher that can't have taught what is claimed."""
    other = _taught_by(role, entry["name"], summary)
    scores = scores_by_seed(result.get("rows", []), result["metric"]) if other and result.get("rows") else {}
    seeds = [seed for seed in scores.get(entry["name"], {}) if seed in scores[other]] if other else []
    if not other or len(seeds) < 2:
        return []
    test = paired([scores[entry["name"]][seed] for seed in seeds], [scores[other][seed] for seed in seeds])
    if test["difference"] is None:
        return []
    metric, sign = str(result["metric"]), 1 if result["direction"] == "max" else -1
    numbers = f"paired t-test {_p_phrase(test['p'])}" if test["p"] is not None else test["note"]
    gap = f"{number(test['difference'], metric, signed=True)} for {entry['name']}, {numbers}"
    certain = test["p"] is None or test["p"] < SHOWN
    if test["difference"] * sign > 0 and certain:
        return [f"Its {role} teacher does worse ({gap}): {TEACHERS[role][0]}."]
    return [f"Its {role} teacher does as well ({gap}): {TEACHERS[role][1]}."]


def _taught_by(role: str, name: str, summary: Sequence[Row]) -> str | None:
    found = [entry["name"] for entry in summary if entry["role"] == role]
    only = len(found) == 1 and sum(entry["role"] == "method" for entry in summary) == 1
    return next((other for other in found if only or other.startswith(f"{name} (")), None)


def _references_verdict(result: Row) -> list[str]:
    judged = [row["ok"] for row in result.get("references") or () if row.get("ok") is not None]
    if not judged:
        return []
    if all(judged):
        return [f"Published figures met within their tolerance: all {len(judged)}."]
    return [f"Published figures missed by more than their tolerance: {judged.count(False)} of {len(judged)}."]


def _gap(difference: float, metric: str) -> str:
    size = number(abs(difference), metric)
    where = "above" if difference > 0 else "below"
    return f"{size} points {where}" if in_percent(metric) else f"{size} {where} ({unit(metric)})"


def _p_phrase(p: float, corrected: float | None = None, tests: int = 1) -> str:
    text = p_text(p)
    phrase = f"p {text}" if text.startswith("<") else f"p = {text}"
    if corrected is None or tests < 2:
        return phrase if corrected is None else f"paired t-test {phrase}"
    return f"paired t-test {phrase}, {p_text(corrected).replace('< ', 'below ')} after Holm"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
