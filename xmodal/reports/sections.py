"""The content of the page for one run folder: a plain dictionary of sentences, tables and plots.

The template `page.html.j2` lays the dictionary out and contains no other logic, so all kinds of run have the same keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xmodal.reports import numbers, tables
from xmodal.reports.branches import branches
from xmodal.reports.channels import channels
from xmodal.reports.classes import class_table, confusions, draw_classes
from xmodal.reports.edges import edge_figures, edges, edges_of
from xmodal.reports.figures import plots
from xmodal.reports.figures.pictures import class_map_strips, heat_map_strips
from xmodal.reports.figures.plots import Series
from xmodal.reports.figures.voxels import scene_strips
from xmodal.reports.intervals import Row
from xmodal.reports.ranking import ranking_of, ranking_plots, ranking_table
from xmodal.reports.read import RunFiles, read_rows
from xmodal.reports.relation import relation_sentence
from xmodal.reports.repetitions import repetition
from xmodal.reports.ship import ship_content
from xmodal.reports.summary import summary_of
from xmodal.reports.sweep import sweep_caption, sweep_table
from xmodal.reports.tables import page_table
from xmodal.reports.verdicts import verdict

FOCUS = 4  # methods in a plot with lines: the number of method colours
DENSE = 2  # methods in the plot of classes
# In this order: a single fit does not name a metric to compare by.
PREFERRED = ("accuracy", "macro_f1", "miou", "mse")

LABEL_CURVE = (
    "Test split, mean over the seeds; the band is one standard deviation. The arrow leads from the method to the "
    "number of labels at which the no-KD control is as good: what the unlabelled pairs are worth."
)
SEED_DOTS = (
    "Test split. Small dots are seeds, the large marker is their mean, the bar its 95 % interval; the dotted line is "
    "the no-KD control."
)
EDGES_CAPTION = "Mean over the samples; in brackets the lowest and the highest seed. The edges of a graph sum to 1."
EMPTY: dict[str, Any] = {  # keys of the template that a kind of run may not have
    "ship": None,
    "hero": "",
    "hero_caption": "",
    "plots": [],
    "tables": [],
    "curves": "",
    "losses": {},
    "classes": "",
    "class_table": {},
    "confusions": [],
    "channels": None,
    "pictures": None,
    "branches": None,
    "edges": [],
    "left_out": 0,
    "details": [],
    "notes": [],
}


def section(run: RunFiles, anchor: str) -> dict[str, Any]:
    """Values of the template's keys for one run; ``anchor`` is the identifier of its section on the page."""
    shared = {
        "anchor": anchor,
        "folder": run.path.resolve().name,
        "settings": list(_flat(run.settings)),
        "environment": list(_flat(run.environment)),
    }
    build = {"fit": _fit, "comparison": _comparison, "sweep": _sweep}[run.kind]
    return EMPTY | shared | build(run)


# ---- a comparison


def _comparison(run: RunFiles) -> dict[str, Any]:
    result, folders = run.result, read_rows(run)
    rows, summary = result.get("rows", []), summary_of(result)
    metric, names = str(result.get("metric", "")), [str(name) for name in result.get("class_names") or ()]
    focus = _focus(summary, result)
    ranks = {entry["name"]: rank for rank, entry in enumerate(e for e in focus if e["role"] == "method")}
    shown = [entry["name"] for entry in focus]
    # Teachers and controls have rank 0 here, so they are always among the classes' markers.
    dense = [entry for entry in focus if ranks.get(entry["name"], 0) < DENSE]
    detailed = [_detailed(row, folders) for row in rows]
    recalls = [_series(entry, _per_class(detailed, entry["name"]), ranks) for entry in dense]
    seeds = [_series(entry, [_values(rows, entry["name"], metric)], ranks) for entry in summary]
    histories = {entry["name"]: _histories(rows, folders, entry["name"]) for entry in focus}
    curves = [_series(entry, _curves(histories[entry["name"]], metric), ranks) for entry in focus]
    best = next((name for name in ranks), None)
    ranking = ranking_of(result)
    scores = plots.comparison(summary, seeds, metric=metric, direction=str(result.get("direction")))
    curve = result.get("curve")
    return {
        "title": result.get("title") or "Comparison",
        "facts": _facts(result, rows),
        "route": [", ".join(result.get(role) or ()) for role in ("teacher", "student")],
        "ship": ship_content(result),
        "verdict": verdict(result) or ["This result contains no method to judge."][: not ranking],
        "seeded": True,
        "hero": plots.label_curve(curve, result.get("labels_saved")) if curve else scores * bool(summary),
        "hero_caption": LABEL_CURVE if curve else SEED_DOTS,
        "tables": _comparison_tables(result),
        "curves": _draw_curves(curves, metric),
        "losses": _draw_losses(histories.get(best, []) if best else [], best),
        "classes": draw_classes(recalls, names),
        "class_table": class_table(recalls, names),
        "confusions": confusions(detailed, shown, names, opened=_opened(focus)),
        "plots": [{"title": "Every training", "svg": scores, "caption": SEED_DOTS}] * bool(curve)
        + (ranking_plots(ranking) if ranking else []),
        "channels": None if ranking else _draw_channels(channels(rows, folders, ranks)),
        "pictures": heat_map_strips(run) or class_map_strips(run) or scene_strips(run),
        "branches": _draw_branches(branches(result)),
        "edges": _draw_edges(edges(rows, folders, shown)),
        "left_out": len(summary) - len(focus),
        "details": _comparison_details(result),
        "notes": [*result.get("notes", ()), *_missing(rows, folders)],
    }


def _facts(result: Row, rows: Sequence[Row]) -> list[str]:
    seeds = len({row["seed"] for row in rows})
    facts = [result.get("recipe", ""), result.get("data", ""), result.get("task", "")]
    return [str(fact) for fact in facts if fact] + [f"{seeds} {repetition(result)}{'s' * (seeds != 1)}"] * bool(seeds)


def _focus(summary: Sequence[Row], result: Row) -> list[Row]:
    """Entries for plots with many markers: teacher, controls, the teacher controls of the best method, best methods."""
    sign = -1 if result.get("direction") == "max" else 1
    methods = [entry for entry in summary if entry["role"] == "method" and entry["mean"] is not None]
    best = sorted(methods, key=lambda entry: sign * entry["mean"])[:FOCUS]
    focus = [entry for entry in summary if entry["role"] in ("teacher", "control", "matched")]
    for role in ("shuffled", "untrained"):
        entries = [entry for entry in summary if entry["role"] == role]
        of_best = [entry for entry in entries if best and entry["name"].startswith(f"{best[0]['name']} (")]
        focus += of_best or entries[:1]
    return [*focus, *best]


def _opened(focus: Sequence[Row]) -> list[str]:
    """Names whose confusion matrices are open on the page: the control and the best method."""
    roles = {entry["role"]: entry["name"] for entry in reversed(focus)}
    return [roles[role] for role in ("control", "method") if role in roles] or [focus[0]["name"] for _ in focus[:1]]


def _series(entry: Row, runs: Sequence[Sequence[float]], ranks: Mapping[str, int]) -> Series:
    return Series(entry["name"], entry["role"], runs, ranks.get(entry["name"], -1))


def _values(rows: Iterable[Row], name: str, metric: str) -> list[float]:
    return [float(row["test"][metric]) for row in rows if row["name"] == name and row["test"].get(metric) is not None]


def _histories(rows: Iterable[Row], folders: Mapping[str, RunFiles], name: str) -> list[tuple[RunFiles, str]]:
    """Run and student of each seed of a name, for sub-folders that exist."""
    runs = [(folders[row["folder"]], row) for row in rows if row["name"] == name and row.get("folder") in folders]
    return [(run, _student(run, row)) for run, row in runs]


def _student(run: RunFiles, row: Row) -> str:
    students = run.result.get("students", {})
    same = [name for name, student in students.items() if student.get("needs") == row.get("needs")]
    return str(next(iter((*same, *students)), ""))


def _detailed(row: Row, folders: Mapping[str, RunFiles]) -> dict[str, Any]:
    """A row with the values of its classes, which are in the folder of its training if there are many classes."""
    run = folders.get(row.get("folder", ""))
    scored = run.result.get("students", {}).get(row.get("student"), {}).get("test") if run else None
    return {**row, "test": {**(scored or {}), **row["test"]}}


def _curves(histories: Iterable[tuple[RunFiles, str]], metric: str) -> list[list[float]]:
    curves = [[row.get("valid", {}).get(student, {}).get(metric) for row in run.history] for run, student in histories]
    return [[value for value in curve if value is not None] for curve in curves if any(v is not None for v in curve)]


def _missing(rows: Iterable[Row], folders: Mapping[str, RunFiles]) -> list[str]:
    missing = [row["folder"] for row in rows if row.get("folder") and row["folder"] not in folders]
    truncated = [name for name, run in folders.items() if run.truncated]
    notes = []
    if missing:
        notes.append(f"Sub-folders are missing, so their learning curves are not shown: {_several(missing)}.")
    if truncated:
        notes.append(f"The last line of the history is incomplete and ignored in: {_several(truncated)}.")
    return notes


def _several(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _comparison_tables(result: Row) -> list[dict[str, Any]]:
    drawn = []
    if result.get("rows"):
        caption = (
            "Test split. Differences are paired over the seeds; p is that of a method against the no-KD control. "
            "Holm's correction is for all tests of methods, those against their own controls included."
        )
        drawn.append(page_table("Comparison", tables.comparison_table(result), caption, roles=True))
    if curve := result.get("curve"):
        drawn.append(page_table(curve["title"], sweep_table(curve), "Test split, mean ± one standard deviation."))
    for expected in result.get("expectations", ()):
        caption = "Test split, paired t-test over the seeds; Holm's correction over the rows of this table."
        drawn.append(page_table(expected["title"], tables.contrasts_table(expected, result["metric"]), caption))
    if ranking := ranking_of(result):
        drawn.append(
            page_table("Saliency of the channels", ranking_table(ranking), ranking["seeds"][0].get("note", ""))
        )
    drawn += [
        page_table(table["title"], (table["header"], table["rows"]), table["caption"])
        for table in result.get("tables", ())
    ]
    return drawn + _references(result)


def _references(result: Row) -> list[dict[str, Any]]:
    if not result.get("references"):
        return []
    return [page_table("Compared with published figures", tables.references_table(result), "", roles=False)]


def _comparison_details(result: Row) -> list[dict[str, Any]]:
    if not result.get("rows"):
        return []
    metrics = tables.metrics_table((row["name"], row["test"]) for row in result["rows"])
    unit = numbers.unit(result["metric"])
    tested = tables.all_tests_table(result)
    tests = page_table("Every test", tested, "Paired t-tests over the seeds; Holm's correction over all rows.")
    return [tests] * bool(tested[1]) + [
        page_table(
            f"Every {repetition(result)}", tables.seeds_table(result), f"{unit} on the test split, one run per cell."
        ),
        page_table("All metrics", metrics, "Test split, mean over the seeds."),
    ]


# ---- a sweep


def _sweep(run: RunFiles) -> dict[str, Any]:
    result, figures = run.result, []
    for sweep in result["sweeps"]:
        figures.append({"title": sweep["title"], "svg": plots.sweep(sweep), "caption": sweep_caption(sweep)})
    for sweep in result["sweeps"]:
        if sweep["differences"] and sweep["differences"][0]["points"]:
            svg = plots.sweep_difference(sweep)
            title = f"{sweep['title']}: {sweep['differences'][0]['name']}"
            figures.append({"title": title, "svg": svg, "caption": "Seed by seed; the band is one standard deviation."})
    for number, relation in enumerate(result.get("relations", [])):
        svg = plots.relation(relation, rank=number)
        caption = f"One dot per run, darker for larger values of the swept quantity. {relation_sentence(relation)}"
        figures.append({"title": f"{relation['name']}: gain by {relation['x']}", "svg": svg, "caption": caption})
    means = "Mean ± one standard deviation over the seeds; differences are computed seed by seed."
    return {
        "title": result.get("title") or "Sweep",
        "facts": _facts(result, result.get("rows", [])),
        "route": [", ".join(result.get(role) or ()) for role in ("teacher", "student")],
        "verdict": list(result.get("verdict") or ()) + verdict({**result, "rows": []}),
        "seeded": True,
        "hero": figures[0]["svg"],
        "hero_caption": figures[0]["caption"],
        "plots": figures[1:],
        "tables": [page_table(sweep["title"], sweep_table(sweep), means) for sweep in result["sweeps"]]
        + _references(result),
        "notes": result.get("notes", []),
    }


# ---- one fit


def _fit(run: RunFiles) -> dict[str, Any]:
    students: Mapping[str, Any] = run.result.get("students", {})
    names = list(students) or sorted({name for row in run.history for name in row.get("valid", {})})
    metric = _main_metric(students, run.history)
    tested = {name: student["test"] for name, student in students.items() if student.get("test")}
    curves = [Series(name, "method", _curves([(run, name)], metric), rank % FOCUS) for rank, name in enumerate(names)]
    recalls = [
        Series(name, "method", [test["per_class"]], rank % FOCUS)
        for rank, (name, test) in enumerate(tested.items())
        if test.get("per_class")
    ]
    scored = [{"name": name, "test": test} for name, test in tested.items()]
    run_edges = edges_of(run)
    return {
        "title": f"Run {'/'.join(run.path.resolve().parts[-2:])}",
        "facts": ["one fit", f"{len(run.history)} epochs"]
        + [f"seed {seed}" for seed in [run.result.get("seed")] if seed is not None],
        "route": [
            "",
            ", ".join(dict.fromkeys(need for student in students.values() for need in student.get("needs", ()))),
        ],
        "verdict": _fit_verdict(run, students, metric),
        "seeded": False,
        "hero": _draw_curves(curves, metric),
        "hero_caption": "Validation split, after each epoch.",
        "tables": _fit_tables(students),
        "losses": _draw_losses([(run, "")] if run.history else [], "this run"),
        "classes": draw_classes(recalls, []),
        "class_table": class_table(recalls, []),
        "confusions": confusions(scored, list(tested), [], opened=list(tested)[:2]),
        "edges": _draw_edges([edge_figures("this run", [run_edges])] if run_edges else []),
        "notes": ["The last line of the history is incomplete and ignored."] * run.truncated,
    }


def _main_metric(students: Mapping[str, Any], history: Sequence[Row]) -> str:
    measured = [student.get("test") or student.get("valid") or {} for student in students.values()]
    measured += [valid for row in history[:1] for valid in row.get("valid", {}).values()]
    scalars = [name for metrics in measured for name, value in metrics.items() if isinstance(value, int | float)]
    return next((name for name in (*PREFERRED, *scalars) if name in scalars), "loss")


def _fit_verdict(run: RunFiles, students: Mapping[str, Any], metric: str) -> list[str]:
    if not run.finished:
        return [f"This run has not finished: {len(run.history)} epochs are recorded, and there is no result yet."]
    return [_student_verdict(name, student, metric) for name, student in students.items()]


def _student_verdict(name: str, student: Row, metric: str) -> str:
    chosen = f"epoch {student['best_epoch'] + 1}" if "best_epoch" in student else "the last epoch"
    split = "test" if student.get("test") else "valid"
    value = numbers.phrase((student.get(split) or {}).get(metric), metric)
    where = "on the test split" if split == "test" else "on the validation split; the test split was not read"
    return f"The student {name} reaches {value} {where} ({chosen}, chosen on validation)."


def _fit_tables(students: Mapping[str, Any]) -> list[dict[str, Any]]:
    splits = {"test": "test", "valid": "validation"}
    named = [
        (f"{name}, {word}", student[split])
        for name, student in students.items()
        for split, word in splits.items()
        if student.get(split)
    ]
    return [page_table("Metrics", tables.metrics_table(named), "At the epoch that validation chose.")] if named else []


# ---- plots and tables of several kinds of run


def _draw_channels(content: dict[str, Any] | None) -> dict[str, Any] | None:
    return content and content | {"table": page_table("Channels of the teacher", content["table"], "")}


def _draw_branches(content: dict[str, Any] | None) -> dict[str, Any] | None:
    if not content:
        return None
    averaged = "" if content["seeds"] == 1 else f", mean of {content['seeds']} trainings"
    caption = (
        f"Accuracy in per cent on the validation split after the last epoch{averaged}; chance level of the modality: "
        f"{content['chance']}. Cosine: mean absolute value with the informative part."
    )
    return content | {"table": page_table("Parts of the embeddings", content["table"], caption)}


def _draw_edges(methods: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [method | {"table": page_table("Edges in numbers", method["table"], EDGES_CAPTION)} for method in methods]


def _draw_curves(series: Sequence[Series], metric: str) -> str:
    with_runs = [entry for entry in series if entry.runs]
    return plots.learning_curves(with_runs, metric=metric) if with_runs else ""


def _draw_losses(runs: Sequence[tuple[RunFiles, str]], name: str | None) -> dict[str, str]:
    histories = [run.history for run, _ in runs if run.history]
    terms = dict.fromkeys(term for history in histories for row in history for term in row.get("losses", {}))
    values = {term: [_term(history, term) for history in histories] for term in terms}
    return {"name": str(name), "svg": plots.loss_terms(values)} if values else {}


def _term(history: Iterable[Row], term: str) -> list[float]:
    values = [row.get("losses", {}).get(term) for row in history]
    return [value for value in values if value is not None]


def _per_class(rows: Iterable[Row], name: str) -> list[list[float]]:
    return [list(row["test"]["per_class"]) for row in rows if row["name"] == name and row["test"].get("per_class")]


def _flat(value: Mapping[str, Any], name: str = "") -> Iterable[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{name}{key}.")
        elif (name, key) != ("", "schema"):
            yield f"{name}{key}", inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
