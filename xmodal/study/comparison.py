"""A comparison of methods on one bench: checks, training, and the content of `result.json`.

For every seed: a teacher, the no-KD control (the student's network, trained on labels alone), every method, and for
methods with a frozen teacher two optional controls: the shuffled teacher (its outputs are permuted among samples of the
same class: is anything transferred that is specific to a sample?) and the untrained teacher (with its initial weights:
does it matter what a teacher has learned?). Methods that deploy a larger network have a further control of that size,
trained on labels alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xmodal.data.base import Data
from xmodal.data.targets import target_facts
from xmodal.errors import InputError, did_you_mean
from xmodal.methods import METHODS
from xmodal.metrics.task import scalar_metrics
from xmodal.study.bench import Bench, Earlier
from xmodal.study.controls import CONTROLS
from xmodal.study.few_labels import labels_used, still_improving
from xmodal.study.fitness import unfit
from xmodal.study.plan import TEACHER, Comparison, Opener, method_settings, open_seed
from xmodal.study.rehearsal import Rehearsal

if TYPE_CHECKING:
    from torch import nn

    from xmodal.devices import Devices
    from xmodal.types import DataInfo


FOLDS_NOTE = (
    "Each fold has its own split and its own initial weights. Training rows of different folds overlap, so scores of "
    "folds are not independent, and intervals and p-values over them are approximate and somewhat too narrow."
)


def first_data(comparison: Comparison, seed: int, opened: Opener = open_seed) -> Data:
    """The data of the first seed; an error about it comes together with the problems of the settings."""
    try:
        return opened(comparison.plan, seed)
    except InputError as error:
        raise InputError([*comparison.problems, *error.problems]) from error


def fitting(comparison: Comparison, data: Data, *, problems: Sequence[str] = ()) -> Comparison:
    """Raise an error with all problems of names, modalities and settings; no network is built for this.

    Args:
        comparison: to check.
        data: of the first seed.
        problems: those that the caller knows already, to be reported together with the others.

    Returns:
        The comparison without the methods that do not fit the data; its ``skipped`` says which, and why. If no method
        is left, the reasons are an error.
    """
    plan, info = comparison.plan, data.info
    problems = [*comparison.problems, *problems]
    reasons = {card.name: unfit(card, info) for card in comparison.methods}
    entered = dict.fromkeys(entry.method for entry in comparison.entries)
    # a method without a row is the control, or misspelt in its options: nothing can be skipped there
    problems += [reason for name, found in reasons.items() if name not in entered for reason in found]
    left = without(comparison, {entry.name: reasons.get(entry.method, []) for entry in comparison.entries})
    if not left.entries:
        problems += [reason for name in entered for reason in reasons.get(name, [])]
    teaching, student = plan.sides(info.modalities)
    for names, role in ((teaching, "teacher"), (student, "student")):
        try:
            info.require(names, role)
        except InputError as error:
            problems += error.problems
    for names, role in ((teaching if left.train_teacher else (), "teacher"), (student, "student")):
        if not info.paired and len(names) > 1:
            problems.append(
                f"The {role} reads {', '.join(names)} together, and this data is unpaired: rows of different "
                "modalities do not belong together. Name one modality."
            )
    metric, _ = compared_by(comparison, info)
    # the metric that selects the epoch exists; the names of the others take a second to import
    if metric != info.select[0] and metric not in (metrics := scalar_metrics(info)):
        problems.append(f"There is no metric called '{metric}' for {info.task}. {did_you_mean(metric, metrics)}")
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return left


def check(
    comparison: Comparison,
    data: Data,
    fabric: Devices,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    earlier: Earlier | None = None,
) -> Comparison:
    """Raise an error with all problems of a comparison, before anything is trained or written.

    Returns:
        The comparison without the methods that do not fit the data, as `fitting` returns it. Here methods are built
        too: what can't be built with any options does not fit, and what can't be built with these is an error.
    """
    known = [*given_problems(comparison, modules or {}), *unused_modules(comparison, modules or {})]
    # building on settings that do not fit the data would add errors that follow from these
    left, problems = fitting(comparison, data, problems=known), []

    # Networks and methods are built once and discarded: some errors, such as an unknown layer, show only then.
    rehearsal = Rehearsal(data, comparison.plan, seed=0, fabric=fabric, modules=modules, earlier=earlier)
    rehearsal.dry_run()
    failed: dict[str, list[str]] = {}
    for entry in left.entries:
        # an optional entry that can't be built becomes a note, in `train`
        if entry.optional:
            continue
        failed[entry.name] = _hindrances(rehearsal, entry.method, entry.options)
        # what works without the options is not hindered by the data: the options are wrong
        if failed[entry.name] and entry.options and not _hindrances(rehearsal, entry.method, {}):
            problems += failed[entry.name]
    built = without(left, failed)
    if left.entries and not built.entries:
        problems += [problem for found in failed.values() for problem in found]
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return built


def _hindrances(rehearsal: Rehearsal, method: str, options: Mapping[str, Any]) -> list[str]:
    """Why a method cannot be built with these options; empty if it can."""
    card = METHODS[method]
    try:
        rehearsal.rehearse(card, method_settings(card, options))
    except InputError as error:
        return list(error.problems)
    return []


def without(comparison: Comparison, reasons: Mapping[str, Sequence[str]]) -> Comparison:
    """The comparison without the entries that there are reasons against; they become notes."""
    left = tuple(entry for entry in comparison.entries if not reasons.get(entry.name))
    dropped = {entry.method for entry in comparison.entries} - {entry.method for entry in left}
    if len(left) == len(comparison.entries):
        return comparison
    notes = [f"{name} is left out: {' '.join(found)}" for name, found in reasons.items() if found]
    # an ordinary teacher is for methods with a frozen one
    frozen = any(METHODS[entry.method].teacher == "frozen" for entry in left)
    return replace(
        comparison,
        entries=left,
        methods=tuple(card for card in comparison.methods if card.name not in dropped),
        train_teacher=comparison.train_teacher and frozen,
        skipped=(*comparison.skipped, *notes),
    )


def given_problems(comparison: Comparison, modules: Mapping[str, nn.Module]) -> list[str]:
    """What does not go together with a teacher that exists already."""
    if comparison.plan.teacher_from is None:
        return []
    problems = []
    if TEACHER in modules:
        problems.append("teacher_network= is trained here, and teacher_from= is used as it is. Give one of the two.")
    if comparison.untrained:
        problems.append("A given teacher has no untrained version to compare with. Leave --untrained out.")
    if not any(card.teacher == "frozen" for card in comparison.methods):
        names = ", ".join(card.name for card in METHODS.values() if card.teacher == "frozen")
        problems.append(f"No method here learns from a given teacher. Add one that does: {names}.")
    return problems


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
    notes = [*comparison.skipped, *([] if bench.given is None else bench.given.notes)]
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
    from xmodal.reports.numbers import in_percent
    from xmodal.reports.summary import summarise
    from xmodal.reports.verdicts import verdict
    from xmodal.study.ship import ship_card

    # in points where the metric is a share, as the table shows it
    margin = comparison.margin and comparison.margin / (100.0 if in_percent(metric) else 1.0)
    result |= {
        "seeds": sorted({row["seed"] for row in rows}),
        "margin": margin,
        "summary": summarise(rows, metric=metric, direction=direction, margin=margin),
        "figures": figures(rows),
    }
    if card := ship_card(result, data.info.select):
        result |= {"ship": card, "deploy": card["file"]}
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
