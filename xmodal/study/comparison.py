"""A comparison of methods on one bench: checks, training, and the content of `result.json`.

For every seed: a teacher, the no-KD control (the student's network, trained on labels alone), every method, and for
methods with a frozen teacher two optional controls: the shuffled teacher (its outputs are permuted among samples of the
same class: if that does as well, nothing specific to a sample was transferred) and the untrained teacher (with its
initial weights: if that does as well, it does not matter what a teacher has learned). Methods that deploy a larger
network have a further control of that size, trained on labels alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xmodal.data.base import Data
from xmodal.data.targets import target_facts
from xmodal.errors import InputError, did_you_mean
from xmodal.methods import METHODS
from xmodal.metrics.task import scalar_metrics
from xmodal.study.bench import Bench, Earlier, Rehearsal, unfit
from xmodal.study.controls import CONTROLS
from xmodal.study.few_labels import labels_used, still_improving
from xmodal.study.plan import Comparison, method_settings

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from xmodal.types import DataInfo


FOLDS_NOTE = (
    "Each fold has its own split and its own initial weights. Training rows of different folds overlap, so scores of "
    "folds are not independent, and intervals and p-values over them are approximate and somewhat too narrow."
)


def check(
    comparison: Comparison,
    data: Data,
    fabric: Fabric,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    earlier: Earlier | None = None,
) -> None:
    """Raise an error with all problems of a comparison, before anything is trained or written."""
    plan, info = comparison.plan, data.info
    problems = list(comparison.problems)
    teaching, student = plan.sides(info.modalities)
    for names, role in ((teaching, "teacher"), (student, "student")):
        try:
            info.require(names, role)
        except InputError as error:
            problems += error.problems
    for card in comparison.methods:
        problems += unfit(card, info)
    problems += unused_modules(comparison, modules or {})
    for names, role in ((teaching if comparison.train_teacher else (), "teacher"), (student, "student")):
        if not info.paired and len(names) > 1:
            problems.append(
                f"The {role} reads {', '.join(names)} together, and this data is unpaired: rows of different "
                "modalities do not belong together. Name one modality."
            )
    metrics = scalar_metrics(info)
    metric, _ = compared_by(comparison, info)
    if metric not in metrics:
        problems.append(f"There is no metric called '{metric}' for {info.task}. {did_you_mean(metric, metrics)}")
    # Stop here: building on settings that do not fit the data would add errors that follow from these.
    if problems:
        raise InputError(list(dict.fromkeys(problems)))

    # Networks and methods are built once and discarded: some errors, such as an unknown layer, show only then.
    rehearsal = Rehearsal(data, plan, seed=0, fabric=fabric, modules=modules, earlier=earlier)
    rehearsal.dry_run()
    for entry in comparison.entries:
        # an optional entry that can't be built becomes a note, in `train`
        if entry.optional:
            continue
        card = METHODS[entry.method]
        try:
            rehearsal.rehearse(card, method_settings(card, entry.options))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(list(dict.fromkeys(problems)))


def unused_modules(comparison: Comparison, modules: Mapping[str, nn.Module]) -> list[str]:
    """Sentences about networks of the user that a method of the comparison would not train."""
    problems = []
    if "teacher" in modules and not comparison.train_teacher:
        names = ", ".join(card.name for card in comparison.methods)
        problems.append(f"teacher_network is never used: {names} has no teacher that is trained before. Leave it out.")
    for card in comparison.methods:
        if "student" in modules and card.networks == "own":
            given = ", ".join(other.name for other in METHODS.values() if other.networks == "given")
            problems.append(
                f"The method '{card.name}' builds its own networks, so student_network can't be its student. Leave one "
                f"of the two out. Methods that take yours: {given}."
            )
    return problems


def train(bench: Bench, comparison: Comparison) -> list[str]:
    """Train teacher, control, methods and their controls on a bench; returns notes on what was left out."""
    # Teacher and control come first, so that a run that is interrupted early has what every method needs. The order
    # changes no number: every network and every training is seeded by itself.
    notes: list[str] = []
    if comparison.train_teacher:
        bench.teacher()
    if comparison.train_control:
        bench.train_control()
    for entry in comparison.entries if comparison.train_students else ():
        card = METHODS[entry.method]
        settings = method_settings(card, entry.options)
        try:
            bench.train_card(card, settings, name=entry.name)
        except InputError as error:
            if not entry.optional:
                raise
            notes.append(f"{entry.name} can't run here: {error}")
        for control in comparison.controls_of(entry, few=bool(bench.info.labelled)):
            try:
                bench.train_card(card, settings, name=entry.name, control=control)
            except InputError as error:
                notes.append(f"{entry.name}, no control with {CONTROLS[control].title}: {error}")
    # last: how large the students of the methods are is known only now
    bench.train_matched()
    return notes


def summarised(
    comparison: Comparison, data: Data, rows: Sequence[Mapping[str, Any]], notes: Sequence[str], *, title: str
) -> dict[str, Any]:
    """The content of `result.json` of a comparison; a run that has not read the test split yet has no rows."""
    metric, direction = compared_by(comparison, data.info)
    teaching, student = comparison.plan.sides(data.info.modalities)
    result: dict[str, Any] = {
        "title": title,
        "data": comparison.plan.data,
        "source": data.source,
        "task": data.info.task,
        "target": target_facts(data.info, data.labels_from),
        "class_names": list(data.info.class_names),
        "metric": metric,
        "direction": direction,
        "teacher": list(teaching),
        "student": list(student),
        "rows": [dict(row) for row in rows],
        "verdict": [],
        "notes": [*dict.fromkeys([*data.warnings, *notes])],
    }
    if comparison.plan.folds:
        result["folds"] = comparison.plan.folds
        result["notes"].append(FOLDS_NOTE)
    if not rows:
        return result
    from xmodal.reports.intervals import summarise
    from xmodal.reports.tables import verdict

    result |= {
        "seeds": sorted({row["seed"] for row in rows}),
        "summary": summarise(rows, metric=metric, direction=direction),
        "figures": figures(rows),
        "deploy": chosen(rows, data.info.select, few=bool(data.info.labelled)),
    }
    if data.info.labelled:
        result["labels"] = labels_used(rows)
        result["notes"] += still_improving(rows, data.info.select[0])
    return {**result, "verdict": verdict(result)}


def compared_by(comparison: Comparison, info: DataInfo) -> tuple[str, str]:
    """The metric that the table shows, and whether larger (``max``) or smaller (``min``) values are better."""
    metric = comparison.metric or info.select[0]
    # the data knows the direction of its own metric, which may be none of those below
    if metric == info.select[0]:
        return info.select
    if metric in info.further_metrics:
        return metric, info.further_metrics[metric].direction
    return metric, "min" if metric in ("mse", "mae", "cross_entropy") else "max"


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``name.metric`` → mean over the seeds, shares in per cent: the form of published figures."""
    from xmodal.reports.numbers import in_percent

    values: dict[str, list[float]] = {}
    for row in rows:
        for metric, value in row["test"].items():
            if isinstance(value, float):
                values.setdefault(f"{row['name']}.{metric}", []).append(value)
    return {
        key: (100.0 if in_percent(key.rpartition(".")[2]) else 1.0) * sum(scores) / len(scores)
        for key, scores in values.items()
    }


def chosen(rows: Sequence[Mapping[str, Any]], select: tuple[str, str], *, few: bool = False) -> str:
    """The student to deploy: of the methods, or else of the controls, the best one on the *validation* split.

    Args:
        rows: of the comparison.
        select: metric and direction.
        few: where some rows have no label, a weak teacher may harm: the methods are left out if none of them is above
            the control, in the mean over the seeds.
    """
    metric, direction = select
    sign = 1.0 if direction == "max" else -1.0
    by_role: dict[str, list[Mapping[str, Any]]] = {"method": [], "control": []}
    for row in rows:
        by_role.setdefault(row["role"], []).append(row)
    methods, controls = by_role["method"], by_role["control"]

    def best(candidates: Sequence[Mapping[str, Any]]) -> float:
        names: dict[str, list[float]] = {}
        for row in candidates:
            names.setdefault(row["name"], []).append(sign * row["valid"][metric])
        return max(sum(scores) / len(scores) for scores in names.values())

    if few and methods and controls and best(methods) <= best(controls):
        methods = []
    candidates = methods or controls
    # not on the test split: its score would then be the best of several draws, and no estimate of new data any more
    scores = [sign * row["valid"][metric] for row in candidates]
    row = candidates[scores.index(max(scores))]
    return f"{row['folder']}/students/{row['student']}/student.safetensors"
