"""A comparison at several values of one setting: does the divergence of two networks predict what distillation gains?

The hypothesis is that a student gains the more, the less it and its teacher disagree about the classes that are not
true. So along the sweep (shared dimensions, noise, share of the training rows, ratio of a mask, …) the non-target
divergence between the teacher and the no-KD control, measured on the validation split, is set beside each method's gain
over that control, measured on the test split. What comes out is a rank correlation with its interval, and a drawing.

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
from xmodal.study.opening import open_study
from xmodal.study.plan import Comparison, open_seed

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.study.bench import Bench

FIXED = {*MachineSettings.model_fields, "workers", "save_every", "save_seconds"}  # change no result


def run(settings: SweepSettings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Compare at every value; write the run folder and its page, return what `result.json` holds."""
    from xmodal.study.comparison import check, train

    # what is swept: one settings object per value, all checked before anything is trained
    field, values = parse_sweep(settings.sweep)
    variants = {value: changed(settings, field, text).comparison() for value, text in values.items()}
    with open_study(settings, "compare", progress=progress) as study:
        for comparison in variants.values():
            data = open_seed(comparison.plan, settings.seeds[0])
            check(comparison, data, study.fabric)
            check_divergence(comparison, data)
        fits = sum(comparison.fits for comparison in variants.values())
        study.start(fits=len(settings.seeds) * fits, name=f"sweep-{Path(settings.data).name}")

        # every value and seed is a comparison of its own
        rows: list[dict[str, Any]] = []
        measured: list[dict[str, Any]] = []
        notes: list[str] = []
        for value, seed in itertools.product(variants, settings.seeds):
            comparison, folder = variants[value], f"{field}={value:g}"
            data = open_seed(comparison.plan, seed)
            bench = study.bench(comparison.plan, data, seed, inside=folder)
            notes += train(bench, comparison)
            rows += [{**row, field: value, "folder": f"{folder}/{row['folder']}"} for row in bench.score()]
            measured.append({field: value, "seed": seed, "folder": f"{folder}/seed-{seed}", **divergences(bench)})

        # report
        return study.finish(summarised(comparison, settings.seeds, data, field, rows, measured, notes))


def parse_sweep(text: str) -> tuple[str, dict[float, str]]:
    """Field and values, as numbers and as they were written.

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
    """The settings with one field changed: of the comparison, of the data set or of a method."""
    owner, _, name = field.rpartition(".")
    own = numbers(type(settings))
    if not owner and name in own:
        number = {name: value, "sweep": ""}
        return validated(type(settings), {**settings.model_dump(), **number}, f"--sweep {field}")
    owners = {key.replace("-", "_"): key for key in _owners(settings)}
    theirs = {key: numbers(_owners(settings)[owners[key]]) for key in owners}
    having = [key for key, names in theirs.items() if name in names and owner in ("", key)]
    if not having:
        known = own + [f"{key}.{each}" for key, names in theirs.items() for each in names]
        raise InputError(f"There is no setting '{field}' to sweep. {did_you_mean(field, known)}")
    if not owner and len(having) > 1:
        raise InputError(f"Several have a setting '{name}'. Say whose: {', '.join(f'{key}.{name}' for key in having)}.")
    key = owners[owner or having[0]]
    options = {**settings.options, key: {**settings.options.get(key, {}), name: value}}
    checked = validated(_owners(settings)[key], options[key], f"--sweep {field}").model_dump(mode="json")
    return settings.model_copy(update={"options": {**options, key: checked}, "sweep": ""})


def numbers(model: type[BaseModel]) -> list[str]:
    """Fields of settings that hold a number and change a result.

    Example:
        >>> from xmodal.methods.settings import KDSettings
        >>> found = numbers(KDSettings)
        >>> "temperature" in found, "loss" in found
        (True, False)
    """
    found = []
    for name, field in model.model_fields.items():
        kinds = {field.annotation, *get_args(field.annotation)}
        if kinds & {int, float} and name not in FIXED:
            found.append(name)
    return found


def _owners(settings: SweepSettings) -> dict[str, type[BaseModel]]:
    """Whose options there are: data set and methods, with their settings classes."""
    paths = {name: METHODS[name].settings for name in settings.methods}
    if settings.data in DATA:
        paths[settings.data] = DATA[settings.data].settings
    return {name: load(path) for name, path in paths.items()}


def check_divergence(comparison: Comparison, data: Data) -> None:
    """Refuse data without a divergence of classes, and methods without a teacher to diverge from."""
    problems = []
    if data.info.task != "multiclass" or not data.info.paired:
        what = data.info.task if data.info.paired else "unpaired data"
        problems.append(f"A sweep measures the divergence of classes on paired samples, and this is {what}.")
    if not any(card.teacher == "frozen" for card in comparison.methods):
        problems.append("A sweep compares a gain with a divergence from a teacher: name a method with one, such as kd.")
    if problems:
        raise InputError(problems)


def divergences(bench: Bench) -> dict[str, float]:
    """Target and non-target divergence between the teacher and the no-KD control on the validation split."""
    from xmodal.diagnostics.divergence import measure_divergence
    from xmodal.study.bench import CONTROL

    (control,) = bench.runs[CONTROL].students.values()
    found = measure_divergence(control.module, bench.teacher(), bench.batches("valid"), samples=1)
    return {"target": found.target_mean, "non_target": found.non_target_mean}


def summarised(
    comparison: Comparison,
    seeds: Sequence[int],
    data: Data,
    field: str,
    rows: Sequence[Mapping[str, Any]],
    measured: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """What `result.json` of a sweep holds."""
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
    said = [*notes]
    if kind == "target":
        said.append("With two classes there is one wrong class and no non-target divergence: the target's is used.")
    sign = 1.0 if direction == "max" else -1.0
    scores = {(row[field], row["seed"], row["name"]): row["test"][metric] for row in rows}
    relations = []
    for name in methods:
        points = [
            {
                "seed": one["seed"],
                "at": one[field],
                "x": one[kind],
                "y": sign * (scores[one[field], one["seed"], name] - scores[one[field], one["seed"], CONTROL]),
            }
            for one in measured
            if (one[field], one["seed"], name) in scores
        ]
        label = f"{kind.replace('_', '-')} divergence"
        found = rank_correlation(points, x="x", y="y")
        relations.append({"name": name, "x": label, "y": metric, **found, "points": points})
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
        "divergences": [dict(one) for one in measured],
        "sweeps": [swept],
        "relations": relations,
        "figures": sweep_figures(swept) | {f"{one['name']}.rho": one["rho"] for one in relations if one["rho"]},
        "verdict": [relation_sentence(one) for one in relations],
        "notes": [*dict.fromkeys([*data.warnings, *said])],
    }
