"""Does a video network learn more from a network that hears when it hears what both of them know? MFH on VGGSound.

Teacher: sound; student: video. In stages, each of which is kept in the run folder and not repeated there:

    teacher    the audio network, from labels
    video      the video network, from labels: the no-KD control
    saliency   Algorithm 1 on these two, which were not trained jointly: how much each of the teacher's pooled channels
               matters to their agreement (absolute differences, the exact mean over all exchanges)
    students   fresh video networks, from the teacher's answers alone, without its least salient channels, without its
               most salient ones, without random ones, and from the whole teacher; a shuffled-teacher control

The epoch of each network is chosen on a part of the training clips; the test clips are read when all students of a seed
are trained. The authors expect the student to be best whose teacher lost its least salient channels; the page tests
that. The paper's figures for VGGSound are known from a secondary source alone: a video student of depth 18 gains 1.3
points over ordinary distillation.

On made clips (`--preset small`) two minutes for each seed on a CPU; the published networks need a GPU or several.

    xmodal data make vggsound RAW --classes 8 --clips 60 --test-clips 25 --seconds 1
    xmodal data prepare vggsound RAW DIR --seconds 1 --frames 8 --size 32
    xmodal run vggsound --vggsound.root DIR --preset small --seeds 3
    xmodal run vggsound --vggsound.root DIR --until saliency --out RUN
    xmodal run vggsound --vggsound.root DIR --out RUN --remove least,none --ratio 0.25,0.5,0.75

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; read from the authors' code.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.engine.processes import interrupt
from xmodal.engine.progress import Progress
from xmodal.engine.run.folder import choose_folder, open_folder, restore_threads
from xmodal.errors import InputError
from xmodal.files import read_json, written_whole
from xmodal.recipes.vggsound.settings import FREE, PLACE, STAGES, VggsoundSettings, student_name
from xmodal.study import comparison
from xmodal.study.channels import EXPECTED, expected_best, heard_table, measure_heard
from xmodal.study.references import finish

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from xmodal.data.base import Data
    from xmodal.diagnostics.saliency import Saliency
    from xmodal.methods.mfh import MFH
    from xmodal.study.bench import Bench, Earlier

Settings = VggsoundSettings
NETWORKS = "teacher and control"
AUTHORS_FILE = "audio_permute.npy"


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train what is not there yet, rank, teach, score; write the run folder and its page."""
    from xmodal.data import open_data
    from xmodal.engine.processes.launch import launch
    from xmodal.study.bench import Bench

    # machine: processes start here, before data and folder
    fabric = launch(settings.machine(), precision=settings.precision)
    progress = progress or Progress(quiet=True)
    progress.quiet |= fabric.global_rank > 0

    # data, and everything that can be refused before anything is written
    def open_seed(seed: int) -> Data:
        return open_data(
            "vggsound",
            options=settings.read(),
            train_fraction=settings.train_fraction,
            augment=settings.augment,
            seed=seed,
        )

    data = open_seed(settings.seeds[0])
    check(settings, data, fabric)

    # run folder: one that earlier stages are in is gone on with
    resume = settings.resume or goes_on(settings.out)
    out = choose_folder(settings.out, "vggsound", fabric, resume=resume)
    there = {seed: earlier(out / f"seed-{seed}") for seed in settings.seeds}
    fabric.barrier()  # all have looked before anyone writes
    if fabric.global_rank == 0:
        open_folder(out, {"recipe": "vggsound", "settings": settings.described()}, resume=resume, free=FREE)
    fabric.barrier()
    if resume:
        restore_threads(out)

    # the stages, seed by seed; the test split of each is read when all of it is trained
    progress.fits = len(settings.seeds) * count_fits(settings)
    rows: list[dict[str, Any]] = []
    stages: list[dict[str, Any]] = []
    rankings: list[dict[str, Any]] = []
    notes: list[str] = []
    for seed in settings.seeds:
        own = data if seed == settings.seeds[0] else open_seed(seed)
        folder = out / f"seed-{seed}"
        bench = Bench(own, settings, seed=seed, fabric=fabric, folder=folder, progress=progress, earlier=there[seed])
        with interrupt.saved_in(out):
            bench.teacher()
            if settings.reaches("video"):
                bench.control()
            if settings.reaches("saliency"):
                found = rank(bench, settings)
                keep_ranking(bench, found, settings)
                rankings.append({"seed": seed, "value": found.value.tolist(), "note": found.note})
            if settings.reaches("students"):
                notes += teach(bench, found, settings)
            stages.append(described_stages(bench))
            if settings.reaches("students"):
                rows += scored(bench, settings)

    # report
    result = summarised(settings, data, rows, stages, rankings, notes)
    finish(out, result, fabric)
    progress.close()
    return {**result, "folder": str(out)}


# ---- before anything is trained


def check(settings: Settings, data: Data, fabric: Fabric) -> None:
    """Refuse what can't work: networks, ranking and students are built once, and nothing is trained."""
    from xmodal.study.bench import Rehearsal

    bench = Rehearsal(data, settings, seed=0, fabric=fabric)
    bench.dry_run()
    if not settings.reaches("saliency"):
        return
    found = rank(bench, settings)
    problems: list[str] = []
    for remove, ratio in settings.students().values():
        try:
            masked(bench, found, settings, remove, ratio)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError([*dict.fromkeys(problems)])


def goes_on(out: Path | None) -> bool:
    """Whether there is a run of this recipe in a folder: its stages are used, whatever the command said."""
    known = out is not None and (out / "settings.json").is_file()
    return known and read_json(out / "settings.json").get("recipe") == "vggsound"  # type: ignore[operator]


def earlier(folder: Path) -> Earlier:
    """The ranking that a folder of a seed holds already."""
    from xmodal.recipes.ravdess.ranking_file import SALIENCY, read_ranking
    from xmodal.study.bench import Earlier

    if not (folder / SALIENCY).exists():
        return Earlier()
    return Earlier(found=dict([read_ranking(folder / SALIENCY)]))


def count_fits(settings: Settings) -> int:
    """Trainings per seed, for the time left."""
    return 1 + settings.reaches("video") + settings.reaches("students") * (len(settings.students()) + settings.shuffled)


# ---- the stages


def rank(bench: Bench, settings: Settings) -> Saliency:
    """Algorithm 1 on the training clips: the teacher's pooled channels by what they mean to the control."""
    from xmodal.methods.ranking import rank_channels

    return rank_channels(
        bench,
        bench.teacher(),
        bench.control(),
        PLACE,
        networks=NETWORKS,
        **exchanges(settings),
    )


def exchanges(settings: Settings) -> dict[str, Any]:
    """How channels are exchanged, and what that costs is measured."""
    return {"distance": settings.distance, "permutations": settings.permutations, "within": settings.within}


def keep_ranking(bench: Bench, found: Saliency, settings: Settings) -> None:
    """Write a ranking that is new, for later commands in the same folder, and on request as the authors' code does."""
    import numpy as np

    from xmodal.methods.ranking import name_of_ranking
    from xmodal.recipes.ravdess.ranking_file import write_ranking

    if bench.folder is None or bench.fabric.global_rank:
        return
    name = name_of_ranking(NETWORKS, PLACE, disturb="permute", **exchanges(settings))
    if name not in bench.earlier.found:
        write_ranking(bench.folder, found, name)
    if settings.published_files:
        batches = 1 if settings.within is None else math.ceil(found.rows / settings.within)
        with written_whole(bench.folder / AUTHORS_FILE) as beside:
            np.save(beside, batches * found.raw)


def masked(bench: Bench, found: Saliency, settings: Settings, remove: str, ratio: float) -> MFH:
    """The method of one student: the teacher without some of its channels, and a fresh network that hears it."""
    from xmodal.methods.mfh import build_masked
    from xmodal.methods.settings import MFHSettings
    from xmodal.seeding import seeded

    own = MFHSettings(
        layer=PLACE,
        remove=remove,
        ratio=ratio,
        fill=settings.fill,
        loss=settings.loss,
        temperature=settings.temperature,
        kd_weight=settings.kd_weight,
        task_weight=settings.task_weight,
    )
    with seeded(bench.seed, "method", "mfh"):  # whatever was trained, or read back, before
        return build_masked(bench, own, bench.teacher(), found, networks=NETWORKS)


def teach(bench: Bench, found: Saliency, settings: Settings) -> list[str]:
    """Train a student for each choice of channels, and the control of the first; what was left out, in sentences."""
    notes: list[str] = []
    for place, (name, removed) in enumerate(settings.students().items()):
        bench.train(name, masked(bench, found, settings, *removed), role="method")
        if place == 0 and settings.shuffled:
            try:
                control = masked(bench, found, settings, *removed)
                bench.train(f"{name} (shuffled teacher)", control, role="shuffled", shuffle=True)
            except InputError as error:
                notes.append(f"{name}, no shuffled-teacher control: {error}")
    return notes


def scored(bench: Bench, settings: Settings) -> list[dict[str, Any]]:
    """A row for teacher, control and students on the test clips, with what each student heard on validation."""
    from xmodal.metrics.batch_accuracy import batch_accuracy

    rows = bench.score()
    measure_heard(bench, rows)
    for row in rows if settings.batch_accuracy else ():
        said = bench.outputs[row["name"]][row["student"]]
        divide = "batches" if row["needs"] == ["audio"] else "rows"
        row["printed"] = batch_accuracy(said["outputs"], said["target"], batch_size=settings.batch_size, divide=divide)
    return rows


def described_stages(bench: Bench) -> dict[str, Any]:
    """What the stages of a seed ended with."""
    from xmodal.models.capacity import count_parameters
    from xmodal.study.bench import encoders_of

    metric, _ = bench.info.select
    stages = []
    for name, run in bench.runs.items():
        for key, student in run.students.items():
            stages.append(
                {
                    "name": name,
                    "network": ", ".join(encoders_of(student).values()),
                    "parameters": count_parameters(student.module),
                    "epoch": run.best[key]["epoch"],
                    "valid": run.best[key]["valid"][metric],
                }
            )
    return {"seed": bench.seed, "stages": stages}


# ---- the report


def summarised(
    settings: Settings,
    data: Data,
    rows: Sequence[dict[str, Any]],
    stages: Sequence[dict[str, Any]],
    rankings: Sequence[dict[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """What `result.json` holds: of stages alone, or of students too."""
    title = "Channels of a teacher on VGGSound"
    said = [*dict.fromkeys([*notes, *(one["note"] for one in rankings if one["note"])])]
    if settings.until != STAGES[-1]:
        said.append(
            f"This run ends behind the stage {settings.until}; the same command without --until goes on in its folder. "
            "The test clips are not read."
        )
        result = comparison.unscored(settings, data, said, title=title)
    else:
        result = comparison.summarised(settings, data, rows, said, title=title)
    result |= {"recipe": "vggsound", "stages": list(stages), "tables": [stages_table(stages)]}
    if rankings:
        result["ranking"] = described_ranking(settings, rankings)
    if rows:
        result["expectations"] = expectations(result, settings)
        result["tables"].append(heard_table(rows, ratios=settings.ratio, place=PLACE))
    if settings.batch_accuracy and rows:
        result["tables"].append(printed_table(rows))
    return result


def described_ranking(settings: Settings, rankings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page draws, see `reports.ranking`."""
    return {
        "place": PLACE,
        "layer": PLACE,
        "distance": settings.distance,
        "draws": settings.permutations,
        "share": min(settings.ratio[0], 1 - settings.ratio[0]),
        "seeds": list(rankings),
    }


def expectations(result: Mapping[str, Any], settings: Settings) -> list[dict[str, Any]]:
    """The authors' expectation for each share, and its tests."""
    found = []
    for ratio in settings.ratio if "least" in settings.remove else ():
        others = [remove for remove in ("most", "random", "none") if remove in settings.remove]
        found += expected_best(
            result,
            title=f"The least salient removed against the others, {ratio:g}",
            who=f"The authors expect (share {ratio:g})",
            what=EXPECTED,
            best=student_name("least", ratio),
            over=[student_name(remove, ratio) for remove in others],
        )
    return found


def stages_table(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What each stage ended with, over the seeds."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in seeds:
        for stage in one["stages"]:
            found.setdefault(stage["name"], []).append(stage)
    return {
        "title": "Stages",
        "header": ["trained", "network", "parameters", "epoch kept", "validation accuracy (%)"],
        "rows": [
            [
                name,
                stages[0]["network"],
                f"{stages[0]['parameters']:,}",
                _between([stage["epoch"] + 1 for stage in stages], 0),
                _between([100 * stage["valid"] for stage in stages], 1),
            ]
            for name, stages in found.items()
        ],
        "caption": "Mean (and range) over the seeds; epochs count from 1. Stages that were in the folder were not "
        "trained again.",
    }


def printed_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracies of the test clips as the authors' loops print them, beside those that count clips."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return {
        "title": "Accuracies as the authors' test loops print them",
        "header": ["name", "as printed (%)", "of the clips (%)"],
        "rows": [
            [
                name,
                _between([100 * row["printed"] for row in mine], 2),
                _between([100 * row["test"]["accuracy"] for row in mine], 2),
            ]
            for name, mine in found.items()
        ],
        "caption": "Mean (and range) over the seeds. Sound: the mean of the batches' accuracies; video: their sum, "
        "divided by the number of clips.",
    }


def _between(values: Sequence[float], digits: int) -> str:
    between = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{between}"
