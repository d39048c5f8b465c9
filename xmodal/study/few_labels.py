"""Comparisons in which some training rows have no label: the curve of scores against labels.

The comparison itself is that of `study.comparison`. Where labels were hidden, the no-KD control is also trained with
more of them, up to all: how many labels are the unlabelled pairs worth?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xmodal.data.labels import ALL, hide_labels
from xmodal.errors import InputError
from xmodal.methods import METHODS
from xmodal.reports.numbers import in_percent
from xmodal.study.plan import Comparison, method_settings

if TYPE_CHECKING:
    from torch import nn

    from xmodal.data.base import Data
    from xmodal.devices import Devices
    from xmodal.study.opening import Study

LATE = 0.01  # a rise of the validation score by more than a point in the last fifth of the epochs is noted
TRIED = 10  # updates from which the duration is estimated
SAME_MODALITY = "same-modality"


def train_curve(
    study: Study, comparison: Comparison, data: Data, seed: int, counts: Sequence[str], *, control_alone: bool
) -> list[dict[str, Any]]:
    """Train with other numbers of labels, in folders of their own; returns the rows, each with its ``count``.

    Args:
        study: the command.
        comparison: of the headline.
        data: of the seed, with hidden labels.
        seed: of the bench.
        counts: numbers of labels as flags say them.
        control_alone: train the no-KD control alone; False: also the teacher, the first method and its same-modality
            control.
    """
    from xmodal.study.bench import folder_name

    rows: list[dict[str, Any]] = []
    for count in counts:
        if data.revealed is None:
            continue
        plan = replace(comparison.plan, labelled=count)
        point = hide_labels(data.revealed, labelled=count, valid_labels=plan.valid_labels, seed=seed)
        folder = folder_name(f"labelled-{count}")  # a count may be the path of a file
        bench = study.bench(plan, point, seed, inside=folder)
        bench.train_control()
        entry = comparison.headline
        if entry is not None and not control_alone:
            card = METHODS[entry.method]
            settings = method_settings(card, entry.options)
            bench.train_card(card, settings, name=entry.name)
            # with all labels there is nothing left that the control could label
            if card.teacher == "frozen" and point.info.labelled:
                bench.train_card(card, settings, name=entry.name, control=SAME_MODALITY)
        rows += [{**row, "count": count, "folder": f"{folder}/{row['folder']}"} for row in bench.score()]
    return rows


def further_trainings(comparison: Comparison, counts: Sequence[str], *, control_alone: bool) -> int:
    """How many trainings `train_curve` does for a seed."""
    entry = comparison.headline
    frozen = entry is not None and METHODS[entry.method].teacher == "frozen"
    students = 0 if control_alone or entry is None else 1 + 2 * frozen
    return len(counts) * (1 + students) - (students > 1 and ALL in counts)


def labels_used(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many labels training and validation used, and how many training rows there are: means over the seeds."""
    keys = {"train": "labels", "valid": "valid_labels", "rows": "training_rows"}
    return {name: round(sum(row[key] for row in rows) / len(rows)) for name, key in keys.items()}


def with_curve(result: Mapping[str, Any], data: Data, curve_rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The result of a comparison with the curve against labels, and the labels that were saved."""
    from xmodal.reports.few_labels import headline_method, labels_saved
    from xmodal.reports.sweep import summarise_sweep
    from xmodal.reports.verdicts import verdict

    if not curve_rows:
        return dict(result)
    rows, used, metric = result["rows"], result["labels"], result["metric"]
    curve_rows = [dict(row) for row in curve_rows]
    complete = {**result, "curve_rows": curve_rows}
    complete["notes"] = [*result["notes"], *still_improving(curve_rows, data.info.select[0])]
    complete["figures"] = {**result["figures"], **gains([*rows, *curve_rows], metric)}
    names = {row["role"]: row["name"] for row in reversed(rows)}
    control, method = names.get("control"), headline_method(rows)
    if control:
        drawn = [name for name in (control, method, names.get(SAME_MODALITY)) if name]
        # seeds whose splits differ have other numbers of rows: a point of the curve is at their mean
        at = {count: labels_used(each)["train"] for count, each in by_count([*rows, *curve_rows]).items()}
        points = [{**row, "labels": at[row.get("count", "")]} for row in [*rows, *curve_rows] if row["name"] in drawn]
        title = f"{metric} against labels"
        complete["curve"] = summarise_sweep(points, x="labels", metric=metric, title=title, label="labels")
        if method:
            by_labels: dict[int, dict[int, float]] = {}
            for row in points:
                if row["name"] == control:
                    by_labels.setdefault(row["labels"], {})[row["seed"]] = row["test"][metric]
            scores = {row["seed"]: row["test"][metric] for row in rows if row["name"] == method}
            saved = labels_saved(scores, by_labels, used["train"], direction=result["direction"])
            complete["labels_saved"] = saved
    return {**complete, "verdict": verdict(complete)}


def by_count(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each number of labels, as flags say it; empty: those of the headline."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row.get("count", ""), []).append(row)
    return groups


def still_improving(rows: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """A note on the trainings that ended while their validation score still rose, in the mean over the seeds."""
    gains: dict[tuple[str, Any], list[float]] = {}
    for row in rows:
        gains.setdefault((row["name"], row.get("count")), []).append(row["late_gain"])
    late = {key: sum(values) / len(values) for key, values in gains.items()}
    listed = [
        f"{name}{f' with {labels} labels' if labels else ''} (+{100 * gain:.1f})"
        for (name, labels), gain in late.items()
        if gain > LATE
    ]
    if not listed or not in_percent(metric):
        return []
    return [
        f"Still improving when their training ended, in points of validation {metric.replace('_', ' ')} over the last "
        f"fifth of the epochs: {', '.join(listed)}. Raise --epochs or --updates before you compare."
    ]


def announced(
    comparison: Comparison,
    data: Data,
    fabric: Devices,
    *,
    seeds: int,
    fits: int,
    jobs: int = 1,
    modules: Mapping[str, nn.Module] | None = None,
) -> str:
    """How many trainings there will be and how long they will take, from a few updates of the no-KD network."""
    from xmodal.engine.fit import fit
    from xmodal.methods.supervised import Supervised
    from xmodal.study.rehearsal import Rehearsal

    plan = comparison.plan
    bench = Rehearsal(data, plan, seed=0, fabric=fabric, modules=modules)
    settings = plan.training.model_copy(update={"updates": TRIED, "patience": 0, "tracking": False})
    tried = fit(Supervised(bench.network(bench.student), data.info), data, settings, fabric=fabric)
    rows = max(data.info.rows["train"].values())
    updates = plan.training.updates or plan.training.epochs * math.ceil(rows / plan.training.batch_size)
    minutes = math.ceil(seeds / jobs) * fits * updates * tried.seconds / TRIED / 60
    length = "about a minute" if minutes < 1.5 else f"about {minutes:.0f} minutes"
    return f"{seeds * fits} trainings of {updates:,} updates ({fits} for each seed): {length} here."


def gains(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """``name - control.metric`` → mean difference over the seeds, shares in per cent; ``all labels`` is one more name.

    Differences within a seed vary less than scores, so they are what reference figures are compared with.
    """
    from xmodal.reports.intervals import paired_by_seed

    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        everything = row.get("count") == ALL and row["role"] == "control"
        if everything or "count" not in row:
            scores.setdefault("all labels" if everything else row["name"], {})[row["seed"]] = row["test"][metric]
    control = next((row["name"] for row in rows if row["role"] == "control"), None)
    scale = 100.0 if in_percent(metric) else 1.0
    tests = {name: paired_by_seed(scores, name, control) for name in scores if name != control}
    return {
        f"{name} - {control}.{metric}": scale * test["difference"]
        for name, test in tests.items()
        if test is not None and test["difference"] is not None
    }


def count_problems(data: Data, counts: Sequence[str], seed: int) -> list[str]:
    """Problems with numbers of labels that the data does not allow."""
    if counts and data.revealed is None:
        return [
            "Some training rows come without a label, so there is no curve over other numbers of labels: nobody knows "
            "the labels that are missing. Give one number, or leave --curve out."
        ]
    problems: list[str] = []
    for count in counts:
        try:
            if data.revealed is not None:
                hide_labels(data.revealed, labelled=count, seed=seed)
        except InputError as error:
            problems += error.problems
    return problems
