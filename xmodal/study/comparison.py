"""Methods side by side: the same data, networks, seeds and budget for each, and the controls that make it evidence.

For every seed: a teacher, the no-KD control (the student's network, labels alone), every method, and for methods with
a frozen teacher the shuffled-teacher control (its answers exchanged among samples of one class: if that does as well,
nothing specific to a sample was transferred) and, with ``--untrained``, one whose teacher has its initial weights (if
that does as well, it does not matter what a teacher has learned). Methods that deploy a larger network have a control
of that size, which learns from labels alone as well. A seed sets the initial weights and the order of the batches, and
for data without a fixed split the split itself. The epoch of each network is chosen on the validation split; the test
split is read when everything of a seed is trained, once. On the built-in digits 5 seeds take about a minute.

    xmodal compare digits --teacher rows --student fourier --methods supervised,kd --seeds 5
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from pydantic import Field

from xmodal.cards import load
from xmodal.engine.processes import interrupt
from xmodal.engine.progress import Progress
from xmodal.engine.run.folder import choose_folder, open_folder, restore_threads
from xmodal.errors import InputError, did_you_mean
from xmodal.methods import METHODS
from xmodal.study.references import against_references, finish, read_references
from xmodal.study.settings import Names, PairSettings, Seeds

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from xmodal.data.base import Data
    from xmodal.study.bench import Bench, Earlier
    from xmodal.types import DataInfo


class Settings(PairSettings):
    """Compare methods over seeds, with a no-KD and a shuffled-teacher control."""

    methods: Names = Field(("supervised", "kd"), min_length=1, description="methods of `xmodal list methods`")
    seeds: Seeds = Field((0, 1, 2, 3, 4), min_length=1, description="5 means 0 to 4; ranges 42-51; lists 1,3")
    losses: Names = Field((), description="run kd once per loss of `xmodal list losses`; all: every one that can")
    vary: Names = Field((), description="more rows, METHOD.FIELD=VALUE[+FIELD=VALUE] each: ablations, other settings")
    metric: str = Field("", description="what to compare; default: what chooses the epoch")
    sweep: str = Field("", description="FIELD=A,B,…: compare at each value and set gain beside divergence")
    shuffled: bool = Field(True, description="run the shuffled-teacher control")
    untrained: bool = Field(False, description="run the untrained-teacher control")

    def entries(self) -> list[tuple[str, str, dict[str, Any]]]:
        """What is trained besides teacher and control: name in the table, method, options."""
        from xmodal.losses import LOSSES

        wanted = tuple(LOSSES) if self.losses == ("all",) else self.losses
        found: list[tuple[str, str, dict[str, Any]]] = []
        for name in self.methods:
            own = dict(self.options.get(name, {}))
            if name == "kd" and wanted:
                found += [(f"kd {loss}", name, {**own, "loss": (loss,)}) for loss in wanted]
            elif name != "supervised":  # that is the control
                found.append((name, name, own))
        return found + [(text, *varied(text, self.options)) for text in self.vary]

    def stages(self) -> tuple[str, ...]:
        """What is trained, of ``teacher``, ``control`` and ``student``; recipes that stop early leave some out."""
        return (*(("teacher",) if self.asks_teacher() else ()), "control", "student")

    def asks_teacher(self) -> bool:
        """Whether an ordinary teacher is trained: any of the methods needs a frozen one."""
        names = (*self.methods, *(text.partition(".")[0] for text in self.vary))
        return any(METHODS[name].teacher == "frozen" for name in names if name in METHODS)


Look = Callable[["Bench", list[dict[str, Any]], Path], None]


def run(
    settings: Settings,
    *,
    progress: Progress | None = None,
    recipe: str = "compare",
    references: str = "",
    look: Look | None = None,
    beside: Callable[[Bench], None] | None = None,
    adapt: Callable[[Data], Data] = lambda data: data,
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    earlier: Callable[[int], Earlier | None] = lambda seed: None,
) -> dict[str, Any]:
    """Train everything, write the run folder and its page, return what `result.json` holds.

    Args:
        settings: what to compare.
        progress: where to tell how it goes.
        recipe: under whose name the run is kept, for recipes that are a comparison with other defaults.
        references: their file of published figures.
        look: is shown the bench of each seed when everything is trained and scored, the rows of that seed, to which it
            may add, and the run folder, into which it may write.
        beside: trains more on the bench of each seed, before everything is scored.
        adapt: what becomes of the data that was opened.
        complete: makes of the result what is written.
        earlier: tells what another run did already for a seed.
    """
    from xmodal.data import open_data
    from xmodal.engine.processes.launch import launch

    # machine: processes start here, before data and folder
    fabric = launch(settings.machine(), precision=settings.precision)
    progress = progress or Progress(quiet=True)
    progress.quiet |= fabric.global_rank > 0

    # data: one object per seed, the split drawn from it where the data fixes none
    def open_seed(seed: int) -> Data:
        opened = open_data(
            settings.data,
            options=settings.options.get(settings.data, {}),
            task=settings.task,
            train_fraction=settings.train_fraction,
            augment=settings.augment,
            seed=seed,
        )
        return adapt(opened)

    datasets = {seed: open_seed(seed) for seed in settings.seeds[:1]}
    check(settings, datasets[settings.seeds[0]], fabric, earlier=earlier(settings.seeds[0]))

    # run folder
    name = Path(settings.data).name
    label = recipe if recipe.endswith(name) else f"{recipe}-{name}"
    out = choose_folder(settings.out, label, fabric, resume=settings.resume)
    if fabric.global_rank == 0:
        open_folder(out, {"recipe": recipe, "settings": settings.described()}, resume=settings.resume)
    fabric.barrier()
    if settings.resume:
        restore_threads(out)

    # everything is trained and scored, seed by seed
    progress.fits = len(settings.seeds) * count_fits(settings)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for seed in settings.seeds:
        data = datasets.pop(seed, None) or open_seed(seed)
        with interrupt.saved_in(out):
            bench, found, said = contest(
                settings,
                data,
                seed=seed,
                fabric=fabric,
                out=out,
                progress=progress,
                earlier=earlier(seed),
                beside=beside,
            )
            if look is not None:
                look(bench, found, out)
        rows += found
        notes += [note for note in said if note not in notes]

    # report
    title = f"{settings.data}: methods compared"
    # a run that stops before its students has not read the test split
    result = (
        summarised(settings, data, rows, notes, title=title) if rows else unscored(settings, data, notes, title=title)
    )
    result["recipe"] = recipe
    if references and rows:
        result["references"] = against_references(result["figures"], read_references(references))
    if complete is not None:
        result = complete(result)
    finish(out, result, fabric)
    progress.close()
    return {**result, "folder": str(out)}


def check(
    settings: Settings,
    data: Data,
    fabric: Fabric,
    modules: Mapping[str, Any] | None = None,
    earlier: Earlier | None = None,
) -> None:
    """Refuse what can't work before anything is trained or written: all problems together."""
    from xmodal.losses import LOSSES
    from xmodal.metrics.task import scalar_metrics
    from xmodal.study.bench import Rehearsal, method_settings, unfit

    problems: list[str] = []
    teaching, student = settings.sides(data.info.modalities)
    for names, role in ((teaching, "teacher"), (student, "student")):
        try:
            data.info.require(names, role)
        except InputError as error:
            problems += error.problems
    for name in settings.methods:
        try:
            card = METHODS[name]
            problems += unfit(card, data.info)
            method_settings(card, settings.options)
        except InputError as error:
            problems += error.problems
    for text in settings.vary:
        try:
            name, own = varied(text, settings.options)
            problems += unfit(METHODS[name], data.info)
            method_settings(METHODS[name], {name: own})
        except InputError as error:
            problems += [f"--vary {text}: {problem}" for problem in error.problems]
    taught = settings.asks_teacher()
    for names, role in ((teaching if taught else (), "teacher"), (student, "student")):
        if not data.info.paired and len(names) > 1:
            problems.append(
                f"The {role} is to read {', '.join(names)} together, and this data is unpaired: no row of one belongs "
                "to a row of the other. Name one modality."
            )
    measured = scalar_metrics(data.info)
    metric, _ = compared_by(settings, data.info)
    if metric not in measured:
        problems.append(f"There is no metric called '{metric}' for {data.info.task}. {did_you_mean(metric, measured)}")
    for name in () if settings.losses == ("all",) else settings.losses:
        try:
            LOSSES[name.partition(":")[0]]
        except InputError as error:
            problems += error.problems
    unknown = set(settings.options) - set(METHODS) - {settings.data, *settings.methods}
    problems += [f"There are options for '{name}', which is no method and not the data set." for name in unknown]
    if problems:
        raise InputError(problems)
    rehearsal = Rehearsal(data, settings, seed=0, fabric=fabric, modules=modules, earlier=earlier)
    rehearsal.dry_run()
    for _, name, own in () if settings.losses else settings.entries():  # a loss that can't run becomes a note
        try:
            rehearsal.rehearse(METHODS[name], method_settings(METHODS[name], {name: own}))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError([*dict.fromkeys(problems)])


def has_frozen_teacher(settings: Settings) -> list[str]:
    """Rows of the table for which controls of the teacher make sense: methods as they are, not their variants."""
    found = [
        row
        for row, method, _ in settings.entries()
        if METHODS[method].teacher == "frozen" and not (method == "kd" and settings.losses)
    ]
    return [row for row in found if row not in settings.vary]


def count_fits(settings: Settings) -> int:
    """Trainings per seed, for the time left."""
    controls = (settings.shuffled + settings.untrained) * len(has_frozen_teacher(settings))
    students = (len(settings.entries()) + controls) * ("student" in settings.stages())
    return ("teacher" in settings.stages()) + ("control" in settings.stages()) + students


def varied(text: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A method and its options from ``METHOD.FIELD=VALUE[+FIELD=VALUE]``, on top of those that all of its rows have.

    Example:
        >>> varied("kd.task-weight=0+loss=dkd", {"kd": {"temperature": 2.0}})
        ('kd', {'temperature': 2.0, 'task_weight': '0', 'loss': ('dkd',)})
    """
    name, _, changes = text.partition(".")
    fields = load(METHODS[name].settings).model_fields
    own = dict(options.get(name, {}))
    for change in changes.split("+"):
        field, equals, value = change.partition("=")
        field = field.strip().replace("-", "_")
        if not equals:
            raise InputError(f"'{change}' was given; expected FIELD=VALUE, as in kd.temperature=2.")
        if field not in fields:
            raise InputError(f"The method {name} has no setting '{field}'. {did_you_mean(field, fields)}")
        several = get_origin(fields[field].annotation) is tuple
        own[field] = tuple(value.split("|")) if several else value.strip()
    return name, own


def contest(
    settings: Settings,
    data: Data,
    *,
    seed: int,
    fabric: Fabric,
    out: Path | None,
    progress: Progress,
    modules: Mapping[str, Any] | None = None,
    earlier: Earlier | None = None,
    beside: Callable[[Bench], None] | None = None,
) -> tuple[Bench, list[dict[str, Any]], list[str]]:
    """Train teacher, control, methods and their controls for one seed; score all on the test split at once.

    ``beside`` may train more before that.
    """
    from xmodal.study.bench import Bench, method_settings

    folder = None if out is None else out / f"seed-{seed}"
    bench = Bench(
        data, settings, seed=seed, fabric=fabric, folder=folder, progress=progress, modules=modules, earlier=earlier
    )
    notes: list[str] = []
    controls = [control for control in ("shuffled", "untrained") if getattr(settings, control)]
    stages = settings.stages()
    if "teacher" in stages:
        bench.teacher()
    if "control" in stages:
        bench.train_control()
    for name, method, own in settings.entries() if "student" in stages else ():
        options = method_settings(METHODS[method], {method: own})
        try:
            bench.train_card(METHODS[method], options, name=name)
        except InputError as error:
            if not settings.losses:
                raise
            notes.append(f"{name} can't run here: {error}")
        for control in controls if name in has_frozen_teacher(settings) else ():
            try:
                bench.train_card(
                    METHODS[method],
                    options,
                    name=name,
                    shuffle=control == "shuffled",
                    untrained=control == "untrained",
                )
            except InputError as error:
                notes.append(f"{name}, no {control}-teacher control: {error}")
    bench.train_matched()
    if beside is not None:
        beside(bench)
    return bench, bench.score() if "student" in stages else [], notes


def summarised(
    settings: PairSettings, data: Data, rows: Sequence[Mapping[str, Any]], notes: Sequence[str], *, title: str
) -> dict[str, Any]:
    """What `result.json` of a comparison holds."""
    from xmodal.reports.intervals import summarise
    from xmodal.reports.tables import verdict

    result = unscored(settings, data, notes, title=title)
    metric, direction = result["metric"], result["direction"]
    result |= {
        "seeds": sorted({row["seed"] for row in rows}),
        "rows": [dict(row) for row in rows],
        "summary": summarise(rows, metric=metric, direction=direction),
        "figures": figures(rows),
        "deploy": chosen(rows, data.info.select),
    }
    return {**result, "verdict": verdict(result)}


def unscored(settings: PairSettings, data: Data, notes: Sequence[str], *, title: str) -> dict[str, Any]:
    """What `result.json` holds of a run that has not read the test split, or not yet."""
    metric, direction = compared_by(settings, data.info)
    teaching, student = settings.sides(data.info.modalities)
    return {
        "recipe": "compare",
        "title": title,
        "data": settings.data,
        "source": data.source,
        "task": data.info.task,
        "class_names": list(data.info.class_names),
        "metric": metric,
        "direction": direction,
        "teacher": list(teaching),
        "student": list(student),
        "rows": [],
        "verdict": [],
        "notes": [*dict.fromkeys([*data.warnings, *notes])],
    }


def compared_by(settings: PairSettings, info: DataInfo) -> tuple[str, str]:
    """The metric that the table shows, and its good direction."""
    asked = getattr(settings, "metric", "") or info.select[0]
    if asked == info.select[0]:
        return info.select
    return asked, "min" if asked in ("mse", "mae", "cross_entropy") else "max"


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``name.metric`` → mean over the seeds, shares in per cent: what published figures are compared with."""
    from xmodal.reports.tables import in_percent

    values: dict[str, list[float]] = {}
    for row in rows:
        for metric, value in row["test"].items():
            if isinstance(value, float):
                values.setdefault(f"{row['name']}.{metric}", []).append(value)
    return {
        key: (100.0 if in_percent(key.rpartition(".")[2]) else 1.0) * sum(found) / len(found)
        for key, found in values.items()
    }


def chosen(rows: Sequence[Mapping[str, Any]], select: tuple[str, str]) -> str:
    """The student to deploy: of the methods (or else the control) the best one on the *validation* split."""
    metric, direction = select
    sign = 1.0 if direction == "max" else -1.0
    candidates = [row for row in rows if row["role"] == "method"] or [row for row in rows if row["role"] == "control"]
    best = max(candidates, key=lambda row: sign * row["valid"][metric])
    return f"{best['folder']}/students/{best['student']}/student.safetensors"
