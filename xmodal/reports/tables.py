"""Tables of text from a result, and sentences that interpret it.

The numbers are those of the result; averages are not averaged again. `verdict` claims a difference only if the
corrected test is significant, and uses the shuffled and the untrained teacher to judge what was transferred.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from xmodal.reports.contrasts import SIGNIFICANT, expectation_sentence
from xmodal.reports.few_labels import few_label_sentences, headline_method
from xmodal.reports.intervals import Row, holm, interval, paired, paired_by_seed, scores_by_seed, summarise
from xmodal.reports.numbers import in_percent, number, p_text, range_text, unit
from xmodal.reports.repetitions import repetition, worded

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

NUMBER = r"[-+<≤≥]? ?\d"  # beginning of a cell with a number
TEACHERS = {  # control of the teacher → conclusion if the method is worse with it, and if it is not
    "shuffled": (
        "the teacher's predictions for single samples matter",
        "no sign that the teacher's predictions for single samples matter",
    ),
    "untrained": ("the teacher's training matters", "no sign that the teacher's training matters"),
}


def summary_of(result: Row) -> list[dict[str, Any]]:
    """The summary of a result, computed from its rows if it has none."""
    if result.get("summary") or not result.get("rows"):
        return list(result.get("summary") or ())
    return summarise(result["rows"], metric=result["metric"], direction=result["direction"])


def comparison_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table: one row per name, numbers of ``result["summary"]`` as text."""
    summary, metric = summary_of(result), str(result.get("metric", ""))
    corrected = sum(entry["role"] == "method" for entry in summary) > 1
    header = [
        "name",
        "role",
        f"{repetition(result)}s",
        unit(metric),
        "95 % interval",
        "vs control",
        "95 % interval",
        "p",
    ]
    return header + ["p (Holm)"] * corrected, [_cells(entry, metric, corrected=corrected) for entry in summary]


def contrasts_table(expectation: Row, metric: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of an expectation: the expected best compared with each of the others."""
    header = ["better", "than", "seeds", f"by {unit(metric)}", "95 % interval", "p", "p (Holm)"]
    rows = [
        [
            test["first"],
            test["second"],
            str(test["n"]),
            number(test["difference"], metric, signed=True),
            range_text(test, metric),
            p_text(test["p"]),
            p_text(test["p_holm"]),
        ]
        for test in expectation["tests"]
    ]
    return header, rows


def _cells(entry: Row, metric: str, *, corrected: bool) -> list[str]:
    against = entry.get("difference") or {}
    cells = [entry["name"], entry["role"], str(entry["n"]), number(entry["mean"], metric), range_text(entry, metric)]
    cells += [
        number(against.get("difference"), metric, signed=True),
        range_text(against, metric),
        p_text(against.get("p")),
    ]
    return cells + [p_text(against.get("p_holm"))] * corrected


def metrics_table(named: Iterable[tuple[str, Row]]) -> tuple[list[str], list[list[str]]]:
    """All scalar metrics: one row per name, averaged over the entries of that name."""
    scores: dict[str, dict[str, list[float]]] = {}
    for name, metrics in named:
        for metric, value in metrics.items():
            if isinstance(value, int | float):
                scores.setdefault(name, {}).setdefault(metric, []).append(float(value))
    columns = list(dict.fromkeys(metric for by_metric in scores.values() for metric in by_metric))
    rows = []
    for name, by_metric in scores.items():
        means = {metric: statistics.fmean(values) for metric, values in by_metric.items()}
        rows.append([name, *(number(means.get(metric), metric) for metric in columns)])
    return ["name", *(unit(metric) for metric in columns)], rows


def seeds_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """The metric of every single run: one row per name, one column per seed."""
    metric, rows = str(result["metric"]), result.get("rows", [])
    seeds, scores = sorted({row["seed"] for row in rows}), scores_by_seed(rows, metric)
    body = [[name, *(number(by_seed.get(seed), metric) for seed in seeds)] for name, by_seed in scores.items()]
    return ["name", *(f"{repetition(result)} {seed}" for seed in seeds)], body


def references_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """Measured and published figures: one row per figure, with a column for other implementations if there are any."""
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
    """Allowed range of a figure: its distance from the reference, or its bounds."""
    signs = {"tolerance": "", "at_least": "≥ ", "at_most": "≤ "}
    bounds = [f"{sign}{row[key]:.4g}" for key, sign in signs.items() if row.get(key) is not None]
    return ", ".join(bounds) or "–"


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned table for terminals and logs: the first column to the left, numbers to the right.

    Example:
        >>> print(plain_table(["name", "n"], [["kd", "5"], ["no-KD", "12"]]))
        name    n
        -----  --
        kd      5
        no-KD  12
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    left_aligned = [not any(re.match(NUMBER, row[column]) for row in rows) for column in range(len(header))]
    # Names may begin with a digit (`3-dense`), and the first column is always a name.
    left_aligned[:1] = [True]

    def line(cells: Sequence[str]) -> str:
        parts = (
            cell.ljust(w) if to_left else cell.rjust(w)
            for cell, w, to_left in zip(cells, widths, left_aligned, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def verdict(result: Row) -> list[str]:
    """The conclusions of a comparison: expectations, published figures, and a few sentences per method, best first."""
    summary, sentences = summary_of(result), _references_verdict(result)
    methods = [entry for entry in summary if entry["role"] == "method"]
    if methods and not any(entry["role"] == "control" for entry in summary):
        sentences.append("There is no no-KD control, so the effect of distillation cannot be judged.")
    sign = 1 if result.get("direction") == "max" else -1
    judged = [entry for entry in methods if entry.get("difference")]
    tests = sum(entry["difference"]["p"] is not None for entry in judged)
    if result.get("labels"):
        # the method with controls has sentences of its own, which say what the unlabelled rows brought
        sentences += few_label_sentences(result)
        judged = [entry for entry in judged if entry["name"] != headline_method(result["rows"])]
    for entry in sorted(judged, key=lambda entry: -sign * (entry["difference"]["difference"] or 0.0)):
        sentences.append(_against_control(entry, result, tests))
        sentences += _against_matched(entry, result)
        # where labels are missing, outputs are exchanged within the predicted class: that is no null control
        for role in TEACHERS if not result.get("labels") else ():
            sentences += _against_teacher(role, entry, summary, result)
    if tests > 1:
        sentences.append(
            f"Differences are judged by p after Holm's correction for {tests} tests; intervals are uncorrected."
        )
    expectations = result.get("expectations", ())
    sentences = [expectation_sentence(expected, expected["tests"]) for expected in expectations] + sentences
    return worded(result, sentences)


def _against_control(entry: Row, result: Row, tests: int) -> str:
    name, metric, test = entry["name"], str(result["metric"]), entry["difference"]
    difference, p, seeds = test["difference"], test["p"], _seeds(test["n"])
    if difference is None:
        return f"{name}: not comparable with the no-KD control, because {test['note']}."
    if test["n"] < 2 and difference == 0:
        return f"{name} equals the no-KD control in one seed, which cannot show a difference."
    if test["n"] < 2:
        return f"{name} is {_gap(difference, metric)} the no-KD control in one seed, which cannot show a difference."
    if p is None:
        return f"{name} is {_gap(difference, metric)} the no-KD control in each of {seeds}, always by the same amount."
    if test["note"]:
        return f"{name} equals the no-KD control in each of {seeds}."
    corrected = p if test.get("p_holm") is None else test["p_holm"]
    evidence = f"95 % interval {range_text(test, metric)}, {_p_phrase(p, corrected, tests)}"
    if corrected < SIGNIFICANT:
        harm = "" if test["better"] else " Here distillation is harmful."
        return f"{name} is {_gap(difference, metric)} the no-KD control ({evidence}, {seeds}).{harm}"
    size = f"{number(difference, metric, signed=True)}{' points' if in_percent(metric) else f' in {unit(metric)}'}"
    return f"{name}: no significant difference from the no-KD control in {seeds} ({size}, {evidence})."


def _against_matched(entry: Row, result: Row) -> list[str]:
    """Comparison with a control of the same size, which separates the method's effect from that of a larger network."""
    rows = result.get("rows", [])
    matched = next((row["matched"] for row in rows if row["name"] == entry["name"] and row.get("matched")), None)
    scores = scores_by_seed(rows, result["metric"]) if matched else {}
    test = paired_by_seed(scores, entry["name"], matched)
    if test is None or test["difference"] is None:
        return []
    metric, sign = str(result["metric"]), 1 if result["direction"] == "max" else -1
    gap = f"{number(test['difference'], metric, signed=True)} against {matched}"
    if test["p"] is None:
        return [f"Its network is larger than the control's; compared with a control of the same size: {gap}."]
    significant = test["p"] < SIGNIFICANT
    relation = "not significantly different"
    if significant:
        relation = "worse" if test["difference"] * sign > 0 else "better"
    return [
        f"Its network is larger than the control's; a control of the same size is {relation} "
        f"({gap}, {_p_phrase(test['p'])})."
    ]


def _against_teacher(role: str, entry: Row, summary: Sequence[Row], result: Row) -> list[str]:
    """Comparison with the same method and a teacher without what is claimed to matter."""
    other = _with_teacher(role, entry["name"], summary)
    scores = scores_by_seed(result.get("rows", []), result["metric"]) if other and result.get("rows") else {}
    test = paired_by_seed(scores, entry["name"], other)
    if test is None or test["n"] < 2 or test["difference"] is None:
        return []
    metric, sign = str(result["metric"]), 1 if result["direction"] == "max" else -1
    numbers = f"paired t-test {_p_phrase(test['p'])}" if test["p"] is not None else test["note"]
    gap = f"{number(test['difference'], metric, signed=True)} for {entry['name']}, {numbers}"
    significant = test["p"] is None or test["p"] < SIGNIFICANT
    matters, no_sign = TEACHERS[role]
    if test["difference"] * sign > 0 and significant:
        return [f"With its {role} teacher it is worse ({gap}): {matters}."]
    return [f"With its {role} teacher it is not significantly worse ({gap}): {no_sign}."]


def _with_teacher(role: str, name: str, summary: Sequence[Row]) -> str | None:
    names = [entry["name"] for entry in summary if entry["role"] == role]
    # A single method may have a control of any name; with several, the control's name starts with the method's.
    single = len(names) == 1 and sum(entry["role"] == "method" for entry in summary) == 1
    return next((other for other in names if single or other.startswith(f"{name} (")), None)


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
