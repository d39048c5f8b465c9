"""What unlabelled pairs brought: the curve of accuracy against labels, labels saved, and sentences. Pure functions.

The no-KD control is trained with several numbers of labels. The curve through its scores tells how many labels the
control would need to reach the method: the labels that the teacher and the unlabelled pairs are worth.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports.intervals import Row, paired_by_seed, scores_by_seed
from xmodal.reports.numbers import phrase, range_text
from xmodal.reports.sentences import compared, seeds, size_of
from xmodal.reports.summary import SIGNIFICANT, corrected_for, summary_of

DRAWS = 2000  # of the bootstrap over seeds
Scores = Mapping[int, Mapping[int, float]]  # number of labels → seed → score


def labels_saved(method: Mapping[int, float], control: Scores, labels: int, *, direction: str) -> dict[str, Any] | None:
    """How many labels the control needs to reach the method, with an interval from a bootstrap over seeds.

    Between two numbers of labels the control's mean score is interpolated linearly in the logarithm of the labels.

    Args:
        method: seed → score of the method with ``labels`` labels and all unlabelled rows.
        control: number of labels → seed → score of the no-KD control.
        labels: how many the method used.
        direction: ``max`` or ``min``, see `summarise`.

    Returns:
        ``labels``, ``worth``, ``low``, ``high`` and ``most``, the largest number of labels that was tried; a value of
        None means more than ``most``. None where there is no curve.

    Example:
        >>> control = {30: {0: 0.5, 1: 0.5}, 120: {0: 0.7, 1: 0.7}}
        >>> labels_saved({0: 0.6, 1: 0.6}, control, 30, direction="max")["worth"]
        60
    """
    seeds = sorted(set(method).intersection(*map(set, control.values()))) if control else []
    counts = sorted(control)
    if not seeds or len(counts) < 2:
        return None
    sign = 1.0 if direction == "max" else -1.0

    def worth(drawn: Sequence[int]) -> float:
        target = sign * sum(method[seed] for seed in drawn) / len(drawn)
        curve = [sign * sum(control[count][seed] for seed in drawn) / len(drawn) for count in counts]
        return _crossing(counts, curve, target)

    # the same draws for the same seeds: a report that is drawn again has the same numbers
    generator = random.Random(0)
    draws = sorted(worth(generator.choices(seeds, k=len(seeds))) for _ in range(DRAWS))
    low, high = draws[round(0.025 * (DRAWS - 1))], draws[round(0.975 * (DRAWS - 1))]
    several = len(seeds) > 1
    return {
        "labels": labels,
        "worth": _whole(worth(seeds)),
        "low": _whole(low) if several else None,
        "high": _whole(high) if several else None,
        "seeds": len(seeds),
        "most": counts[-1],
    }


def _crossing(counts: Sequence[int], curve: Sequence[float], target: float) -> float:
    """The number of labels at which the curve first reaches a score; infinity: it does not."""
    if curve[0] >= target:
        return float(counts[0])
    for left, right, low, high in zip(counts, counts[1:], curve, curve[1:], strict=False):
        if high >= target:
            share = (target - low) / (high - low)
            return math.exp(math.log(left) + share * (math.log(right) - math.log(left)))
    return math.inf


def _whole(value: float) -> int | None:
    return None if math.isinf(value) else round(value)


def saved_sentence(saved: Row, name: str) -> str:
    """What the pairs are worth, in labels.

    Example:
        >>> saved_sentence({"labels": 30, "worth": 93, "low": 70, "high": None, "seeds": 5, "most": 300}, "kd")
        '30 labels and the unlabelled pairs are worth 93 labels alone (95 % interval 70 to more than 300, 5 seeds).'
    """
    labels, most = saved["labels"], saved["most"]
    if saved["worth"] is not None and saved["worth"] <= labels:
        return f"The unlabelled pairs are worth no labels here: {name} is not above the control with {labels} labels."
    worth = f"more than {most:,}" if saved["worth"] is None else f"{saved['worth']:,}"
    evidence = seeds(saved["seeds"])
    if saved["seeds"] > 1:
        ends = [f"more than {most:,}" if saved[end] is None else f"{saved[end]:,}" for end in ("low", "high")]
        evidence = f"95 % interval {ends[0]} to {ends[1]}, {evidence}"
    return f"{labels:,} labels and the unlabelled pairs are worth {worth} labels alone ({evidence})."


def headline_method(rows: Sequence[Row]) -> str | None:
    """The method that a comparison with few labels is about: the one with controls, or else the first."""
    methods = list(dict.fromkeys(str(row["name"]) for row in rows if row["role"] == "method"))
    same = next((str(row["name"]) for row in rows if row["role"] in ("same-modality", "permuted")), "")
    controlled = [name for name in methods if same.startswith(f"{name} (")]
    return next(iter(controlled or methods), None)


def few_label_sentences(result: Row) -> list[str]:
    """The verdict of a comparison in which some rows have no label, the headline first.

    Differences have three outcomes: better, worse, or cannot tell; `summary.summarise` decides them.
    """
    used, rows, summary = result["labels"], result["rows"], summary_of(result)
    metric, method = str(result["metric"]), headline_method(rows)
    labels = (
        f"Labels used: {used['train']:,} + {used['valid']:,} (training + validation); {used['rows'] - used['train']:,} "
        "training rows have none."
    )
    entry = next((entry for entry in summary if entry["name"] == method), None)
    against_control = entry and entry["difference"]
    if method is None or entry is None or against_control is None or against_control["difference"] is None:
        return [labels]
    control = against_control["against"]
    about = functools.partial(compared, metric=metric, tests=corrected_for(summary), margin=result.get("margin"))
    alone = f"{control}, the labelled rows alone"
    sentences = [f"{about(method, alone, against_control)}. {labels}"]
    for test in entry["controls"]:
        if test["role"] == "same-modality" and test["difference"] is not None:
            gained = against_control["outcome"] == "better"
            conclusion = {
                "better": " So the second modality did it, not self-training." if gained else "",
                "worse": " So self-training alone does better.",
                "equivalent": " So self-training brings about as much.",
                "cannot tell": " So self-training may explain the gain." if gained else "",
            }[test["outcome"]]
            against = f"its same-modality teacher ({control} labels the rest: self-training)"
            sentences.append(f"{about(method, against, test)}.{conclusion}")
    if result.get("labels_saved"):
        sentences.append(saved_sentence(result["labels_saved"], method))
    if everything := [row["test"][metric] for row in result.get("curve_rows", ()) if row["count"] == "all"]:
        mean = sum(everything) / len(everything)
        sentences.append(f"With all {used['rows']:,} labels {control} reaches {phrase(mean, metric)}.")
    return sentences + _weak_teacher(result, control)


def _weak_teacher(result: Row, control: str) -> list[str]:
    """A warning if the teacher is below the control; it is no test of the table, so it claims the interval alone."""
    metric, direction = str(result["metric"]), str(result["direction"])
    teacher = next((row["name"] for row in result["rows"] if row["role"] == "teacher"), None)
    weak = paired_by_seed(scores_by_seed(result["rows"], metric), teacher, control)
    if weak is None or weak["p"] is None or weak["p"] >= SIGNIFICANT:
        return []
    if (weak["difference"] > 0) == (direction == "max"):
        return []
    return [
        f"In the mean the teacher is weaker than {control}: {size_of(weak['difference'], metric)} (95 % interval "
        f"{range_text(weak, metric)}, {seeds(weak['n'])}). Such teachers can still help, but need not."
    ]
