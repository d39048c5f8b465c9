"""A comparison at several values of one setting: does the divergence of two networks predict what distillation gains?

The hypothesis is that a student gains more if it and its teacher disagree less about the wrong classes. So along the
sweep (shared dimensions, noise, share of the training rows, ratio of a mask, …) the non-target divergence between the
teacher and the no-KD control, measured on the validation split, is compared with the gain of each method over that
control, measured on the test split. The result is a rank correlation with a confidence interval, and a plot.

    xmodal compare gaussian --methods kd --sweep gaussian.shared=0,4,8 --seeds 10
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from xmodal.cards import load
from xmodal.data import DATA
from xmodal.data.options import validated
from xmodal.engine.progress import Progress
from xmodal.engine.settings import MachineSettings
from xmodal.errors import InputError, did_you_mean
from xmodal.methods import METHODS
from xmodal.study.comparison_settings import SweepSettings
from xmodal.study.opening import Study, open_study
from xmodal.study.parallel.task import Task
from xmodal.study.plan import Comparison, open_seed
from xmodal.study.seeds import each_task

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.study.bench import Bench

# Settings that change no result, so a sweep over them would compare equal numbers.
FIXED = {*MachineSettings.model_fields, "workers", "save_every", "save_seconds"}


def run(settings: SweepSettings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Compare at every value, write the run folder and its page, and return the content of `result.json`."""
    from xmodal.study.comparison import check

    # one settings object per value, all checked before anything is trained: the last value must not fail after hours
    field, values = parse_sweep(settings.sweep)
    variants = {value: changed(settings, field, text).comparison() for value, text in values.items()}
    with open_study(settings, "compare", progress=progress) as study:
        for value, comparison in variants.items():
            data = open_seed(comparison.plan, settings.seeds[0])
            variants[value] = check(comparison, data, study.fabric)
            check_divergence(variants[value], data)
        fits = sum(comparison.fits(few=bool(data.info.labelled)) for comparison in variants.values())
        study.start(fits=len(settings.seeds) * fits, name=f"sweep-{Path(settings.data).name}")

        # a separate comparison for every value and seed, in a folder named after both
        rows: list[dict[str, Any]] = []
        measured: list[dict[str, Any]] = []
        notes: list[str] = []
        tasks = [
            Task(f"{field}={value:g}-seed-{seed}", seed, comparison.plan, (comparison, field, value))
            for (value, comparison), seed in itertools.product(variants.items(), settings.seeds)
        ]
        for found in each_task(study, train_value, tasks):
            rows += found["rows"]
            notes += found["notes"]
            measured.append(found["measured"])

        # report
        return study.finish(summarised(comparison, settings.seeds, data, field, rows, measured, notes))


def train_value(
    study: Study, seed: int, data: Data, comparison: Comparison, field: str, value: float
) -> dict[str, Any]:
    """A comparison with one seed at one value, and the divergence of its networks."""
    from xmodal.study.comparison import train

    folder = f"{field}={value:g}"
    bench = study.bench(comparison.plan, data, seed, inside=folder)
    notes = train(bench, comparison)
    rows = [{**row, field: value, "folder": f"{folder}/{row['folder']}"} for row in bench.score()]
    measured = {field: value, "seed": seed, "folder": f"{folder}/seed-{seed}", **divergences(bench)}
    return {"rows": rows, "notes": notes, "measured": measured}


def parse_sweep(text: str) -> tuple[str, dict[float, str]]:
    """Field and values, as numbers and as text.

    Example:
        >>> parse_sweep("kd.temperature=1,2.5")
        ('kd.temperature', {1.0: '1', 2.5: '2.5'})
    """
    field, _, listed = text.partition("=")
    words = [word.strip() for word in listed.split(",") if word.strip()]
    try:
        values = {float(word): word for word in words}
    except ValueError:
        values = {}
    if not field.strip() or len(values) < 2 or len(values) < len(words):
        raise InputError(
            f"--sweep {text}: expected FIELD=A,B[,…] with two or more different numbers, for example "
            "train_fraction=0.1,0.3,1 or kd.temperature=1,2,4."
        )
    return field.strip().replace("-", "_"), values


def changed(settings: SweepSettings, field: str, value: str) -> SweepSettings:
    """The settings with another value of one field: of the comparison, of the data set or of a method."""
    owner, _, name = field.rpartition(".")
    of_comparison = numbers(type(settings))
    if not owner and name in of_comparison:
        changes = {name: value, "sweep": ""}
        return validated(type(settings), {**settings.model_dump(), **changes}, f"--sweep {field}")
    # names are written with - or _, as those of flags are
    owners = {key.replace("-", "_"): key for key in _owners(settings)}
    fields = {key: numbers(_owners(settings)[owners[key]]) for key in owners}
    matching = [key for key, names in fields.items() if name in names and owner in ("", key)]
    if not matching:
        choices = of_comparison + [f"{key}.{each}" for key, names in fields.items() for each in names]
        raise InputError(f"There is no setting '{field}' to sweep. {did_you_mean(field, choices)}")
    if not owner and len(matching) > 1:
        names = [f"{key}.{name}" for key in matching]
        raise InputError(f"Several have a setting '{name}'. Name one of {', '.join(names)}.")
    key = owners[owner or matching[0]]
    options = {**settings.options, key: {**settings.options.get(key, {}), name: value}}
    checked = validated(_owners(settings)[key], options[key], f"--sweep {field}").model_dump(mode="json")
    return settings.model_copy(update={"options": {**options, key: checked}, "sweep": ""})


def numbers(model: type[BaseModel]) -> list[str]:
    """Names of the settings that are numbers and change a result.

    Example:
        >>> from xmodal.methods.settings import KDSettings
        >>> names = numbers(KDSettings)
        >>> "temperature" in names, "loss" in names
        (True, False)
    """
    return [
        name
        for name, field in model.model_fields.items()
        if {field.annotation, *get_args(field.annotation)} & {int, float} and name not in FIXED
    ]


def _owners(settings: SweepSettings) -> dict[str, type[BaseModel]]:
    """Name → settings class of the data set and the methods, whose options can be swept."""
    paths = {name: METHODS[name].settings for name in settings.methods}
    if settings.data in DATA:
        paths[settings.data] = DATA[settings.data].settings
    return {name: load(path) for name, path in paths.items()}


def check_divergence(comparison: Comparison, data: Data) -> None:
    """Raise an error about data without classes, and about a comparison without a frozen teacher."""
    problems = []
    if data.info.task != "multiclass" or not data.info.paired:
        what = data.info.task if data.info.paired else "unpaired data"
        problems.append(f"A sweep measures the divergence of classes on paired samples, and this is {what}.")
    if not any(card.teacher == "frozen" for card in comparison.methods):
        problems.append(
            "A sweep compares gains with the divergence from a teacher: name a method with a frozen one, such as kd."
        )
    if problems:
        raise InputError(problems)


def divergences(bench: Bench) -> dict[str, float]:
    """Target and non-target divergence between the teacher and the no-KD control on the validation split."""
    from xmodal.diagnostics.divergence import measure_divergence
    from xmodal.study.bench import CONTROL

    # the control, not a distilled student: distillation itself brings a student closer to its teacher
    (control,) = bench.runs[CONTROL].students.values()
    gap = measure_divergence(control.module, bench.teacher(), bench.batches("valid"), samples=1)
    return {"target": gap.target_mean, "non_target": gap.non_target_mean}


def summarised(
    comparison: Comparison,
    seeds: Sequence[int],
    data: Data,
    field: str,
    rows: Sequence[Mapping[str, Any]],
    measured: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The content of `result.json` of a sweep."""
    from xmodal.reports.relation import rank_correlation, relation_sentence
    from xmodal.reports.sweep import summarise_sweep, sweep_figures
    from xmodal.study.bench import CONTROL
    from xmodal.study.comparison import compared_by

    metric, direction = compared_by(comparison, data.info)
    methods = list(dict.fromkeys(row["name"] for row in rows if row["role"] == "method"))
    swept = summarise_sweep(
        rows, x=field, metric=metric, title=f"{metric} by {field}", differences=[(name, CONTROL) for name in methods]
    )
    kind = "target" if data.info.classes == 2 else "non_target"
    all_notes = [*data.warnings, *notes]
    if kind == "target":
        all_notes.append(
            "With two classes there is one wrong class and no non-target divergence: the target's is used."
        )
    # so that a gain is positive where the method is better
    sign = 1.0 if direction == "max" else -1.0
    scores = {(row[field], row["seed"], row["name"]): row["test"][metric] for row in rows}
    relations = []
    for name in methods:
        points = [
            {
                "seed": gap["seed"],
                "at": gap[field],
                "x": gap[kind],
                "y": sign * (scores[gap[field], gap["seed"], name] - scores[gap[field], gap["seed"], CONTROL]),
            }
            for gap in measured
            if (gap[field], gap["seed"], name) in scores
        ]
        label = f"{kind.replace('_', '-')} divergence"
        correlation = rank_correlation(points, x="x", y="y")
        relations.append({"name": name, "x": label, "y": metric, **correlation, "points": points})
    return {
        "title": f"{comparison.plan.data}: {field} swept",
        "data": comparison.plan.data,
        "task": data.info.task,
        "teacher": list(comparison.plan.sides(data.info.modalities)[0]),
        "student": list(comparison.plan.sides(data.info.modalities)[1]),
        "metric": metric,
        "direction": direction,
        "seeds": list(seeds),
        "rows": [dict(row) for row in rows],
        "divergences": [dict(gap) for gap in measured],
        "sweeps": [swept],
        "relations": relations,
        "figures": sweep_figures(swept) | {f"{each['name']}.rho": each["rho"] for each in relations if each["rho"]},
        "verdict": [relation_sentence(relation) for relation in relations],
        "notes": [*dict.fromkeys(all_notes)],
    }
