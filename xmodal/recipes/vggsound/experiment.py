"""Does a video network learn more from audio through the channels that both modalities share? MFH on VGGSound.

Teacher: audio; student: video. The stages are kept in the run folder, and none is repeated there:

    teacher    the audio network, on labels
    video      the video network, on labels: the no-KD control
    saliency   Algorithm 1 on these two networks, which were not trained jointly: the effect of each pooled channel of
               the teacher on their agreement (absolute differences, exact mean over all permutations)
    students   fresh video networks, which learn from the teacher alone: without its least salient channels, without
               its most salient, without random ones, and from the whole teacher; and a shuffled-teacher control

The epoch of each network is selected on a part of the training clips; the test clips are read when all students of a
seed are trained. The authors expect the best student from the teacher without its least salient channels; the page
tests that. The paper's figures for VGGSound are known from a secondary source alone: a video student of depth 18 gains
1.3 points over ordinary distillation.

On synthetic clips (`--preset small`) two minutes for each seed on a CPU; the published networks need one or more GPUs.

    xmodal data make vggsound RAW --classes 8 --clips 60 --test-clips 25 --seconds 1
    xmodal data prepare vggsound RAW DIR --seconds 1 --frames 8 --size 32
    xmodal run vggsound --vggsound.root DIR --preset small --seeds 3
    xmodal run vggsound --vggsound.root DIR --until saliency --out RUN
    xmodal run vggsound --vggsound.root DIR --out RUN --remove least,none --ratio 0.25,0.5,0.75
    xmodal run vggsound --vggsound.root DIR --teacher-weights a.pt --video-weights v.pt --saliency audio_permute.npy

Reference: Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; numbers from the authors' code.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.files import read_json
from xmodal.recipes.vggsound.settings import FREE, PLACE, STAGES, VggsoundSettings, student_name
from xmodal.study.channels import EXPECTED, expected_best, measure_teachers, teachers_table
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, Plan, open_seed
from xmodal.study.seeds import each_seed

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.devices import Devices
    from xmodal.diagnostics.saliency import Saliency
    from xmodal.methods.mfh import MFH
    from xmodal.study.bench import Bench, Earlier

Settings = VggsoundSettings
NETWORKS = "teacher and control"


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Run the stages that the run folder does not contain yet, write the run folder and its page."""
    from xmodal.study.comparison import summarised

    with open_study(settings, "vggsound", progress=progress) as study:
        # data of the first seed, and all checks: nothing is written yet
        plan = settings.plan()
        first = open_seed(plan, settings.seeds[0])
        check(settings, plan, first, study.fabric, given_files(settings))

        # a folder with earlier stages is continued, also without --resume: that is how its stages are used
        resume = settings.resume or holds_a_run(settings.out)
        fits = len(settings.seeds) * count_fits(settings)
        study.start(fits=fits, resume=resume, free=FREE)

        # the seeds, one after the other or several at a time
        rows: list[dict[str, Any]] = []
        stages: list[dict[str, Any]] = []
        rankings: list[dict[str, Any]] = []
        notes: list[str] = []
        for found in each_seed(study, train_seed, plan, settings.seeds, first, settings, plan):
            rows += found["rows"]
            notes += found["notes"]
            rankings += found["rankings"]
            stages.append(found["stages"])

        # report
        notes += [ranking["note"] for ranking in rankings if ranking["note"]]
        if settings.until != STAGES[-1]:
            notes.append(
                f"This run ends after the stage {settings.until}; the same command with a later --until continues in "
                "its folder. The test clips are not read."
            )
        result = summarised(Comparison(plan=plan), first, rows, notes, title="Channels of a teacher on VGGSound")
        result |= {"stages": stages, "tables": [stages_table(stages)]}
        if rankings:
            result["ranking"] = described_ranking(settings, rankings)
        if rows:
            result["expectations"] = expectations(result, settings)
            result["tables"].append(teachers_table(rows, ratios=settings.ratio, place=PLACE))
        if settings.batch_accuracy and rows:
            result["tables"].append(printed_table(rows))
        return study.finish(result)


def train_seed(study: Study, seed: int, data: Data, settings: Settings, plan: Plan) -> dict[str, Any]:
    """The stages of a seed; its test clips are read when everything of it is trained."""
    bench = study.bench(plan, data, seed, earlier=with_ranking(given_files(settings), study.out, seed))
    notes: list[str] = []
    rankings: list[dict[str, Any]] = []
    if settings.needs_teacher:
        bench.teacher()
    if settings.needs_video:
        bench.control()
    if settings.includes("saliency") or settings.includes("students"):
        saliency = rank(bench, settings)
        keep_ranking(bench, saliency, settings)
        rankings.append({"seed": seed, "value": saliency.value.tolist(), "note": saliency.note})
    if settings.includes("students"):
        notes += distil(bench, saliency, settings)
    stages = described_stages(bench)
    if settings.published_files:
        keep_networks(bench)
    rows = scored(bench, settings) if settings.includes("students") else []
    return {"rows": rows, "notes": notes, "rankings": rankings, "stages": stages}


# ---- before anything is trained


def check(settings: Settings, plan: Plan, data: Data, fabric: Devices, given: Earlier) -> None:
    """Build networks, ranking and students once without training, so that errors in them appear before it."""
    from xmodal.study.rehearsal import Rehearsal

    bench = Rehearsal(data, plan, seed=0, fabric=fabric, earlier=given)
    bench.dry_run()
    problems: list[str] = []
    # the weights of given files are compared with the networks
    for side in (bench.teacher, bench.control):
        try:
            side()
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    if not settings.includes("saliency") and not settings.includes("students"):
        return
    saliency = rank(bench, settings)
    if len(saliency.value) != (channels := count_channels_of(bench)):
        raise InputError(
            f"{settings.saliency} holds {len(saliency.value)} numbers, and the teacher has {channels} pooled channels: "
            "one number for each was expected. Give the file of this teacher."
        )
    for remove, ratio in settings.students().values():
        try:
            masked(bench, saliency, settings, remove, ratio)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError([*dict.fromkeys(problems)])


def count_channels_of(bench: Bench) -> int:
    """Number of the teacher's channels that are ranked."""
    from xmodal.methods.ranking import count_channels

    return count_channels(bench, bench.teacher(), PLACE)


def given_files(settings: Settings) -> Earlier:
    """Networks and ranking of the authors' files; all problems of the files are reported together."""
    from xmodal.recipes.vggsound.authors_files import read_given

    return read_given(settings, name_of(settings))


def holds_a_run(out: Path | None) -> bool:
    """Whether a folder contains a run of this recipe."""
    if out is None or not (out / "settings.json").is_file():
        return False
    return bool(read_json(out / "settings.json").get("recipe") == "vggsound")


def with_ranking(given: Earlier, out: Path | None, seed: int) -> Earlier:
    """The given files, and the ranking of a seed that the folder contains unless one is given."""
    from xmodal.study.ranking_file import SALIENCY, read_ranking

    file = None if out is None else out / f"seed-{seed}" / SALIENCY
    if given.measured or file is None or not file.exists():
        return given
    return replace(given, measured=dict([read_ranking(file)]))


def count_fits(settings: Settings) -> int:
    """Number of trainings per seed, for the estimate of the remaining time."""
    networks = [
        settings.needs_teacher and settings.teacher_weights is None,
        settings.needs_video and settings.video_weights is None,
    ]
    return sum(networks) + settings.includes("students") * (len(settings.students()) + settings.shuffled)


# ---- the stages


def rank(bench: Bench, settings: Settings) -> Saliency:
    """Algorithm 1 on the training clips, with the teacher's pooled channels and the control as the student."""
    from xmodal.methods.ranking import rank_channels

    # a ranking that exists needs no video network, which might have to be trained for it
    if (name := name_of(settings)) in bench.measured:
        ranking: Saliency = bench.measured[name]
        return ranking
    return rank_channels(
        bench,
        bench.teacher(),
        bench.control(),
        PLACE,
        networks=NETWORKS,
        **permuting(settings),
    )


def name_of(settings: Settings) -> str:
    """The name of the ranking, see `xmodal.methods.ranking.name_of_ranking`."""
    from xmodal.methods.ranking import name_of_ranking

    return name_of_ranking(NETWORKS, PLACE, disturb="permute", **permuting(settings))


def permuting(settings: Settings) -> dict[str, Any]:
    """Arguments of the ranking: how channels are permuted, and the distance of the outputs."""
    return {"distance": settings.distance, "permutations": settings.permutations, "within": settings.within}


def keep_ranking(bench: Bench, saliency: Saliency, settings: Settings) -> None:
    """Write a new ranking for later commands in the same folder, and optionally as the authors' code does."""
    from xmodal.recipes.vggsound.authors_files import write_saliency
    from xmodal.study.ranking_file import write_ranking

    if bench.folder is None or bench.fabric.global_rank:
        return
    if name_of(settings) not in bench.earlier.measured:
        write_ranking(bench.folder, saliency, name_of(settings))
    # a ranking that was read from their file is not written again
    if settings.published_files and settings.saliency is None:
        write_saliency(bench.folder, saliency, within=settings.within)


def keep_networks(bench: Bench) -> None:
    """Write teacher, video network and students as the authors' code does, each beside its other files."""
    from xmodal.recipes.vggsound.authors_files import write_network
    from xmodal.study.bench import folder_name

    if bench.folder is None or bench.fabric.global_rank:
        return
    for name, run in bench.runs.items():
        for key, student in run.students.items():
            # a checkpoint that was given is there already
            if bench.roles[name] in ("teacher", "control", "method") and name not in bench.earlier.weights:
                folder = bench.folder / folder_name(name)
                accuracy = run.best[key]["valid"][bench.info.select[0]]
                write_network(folder, student, epoch=run.best[key]["epoch"], accuracy=accuracy)


def masked(bench: Bench, saliency: Saliency, settings: Settings, remove: str, ratio: float) -> MFH:
    """The method of one student: a fresh network, and the teacher without some of its channels."""
    from xmodal.methods.mfh import build_masked
    from xmodal.methods.settings import MFHSettings
    from xmodal.seeding import seeded

    options = MFHSettings(
        layer=PLACE,
        remove=remove,
        ratio=ratio,
        fill=settings.fill,
        loss=settings.loss,
        temperature=settings.temperature,
        kd_weight=settings.kd_weight,
        task_weight=settings.task_weight,
    )
    # layers of a loss must not depend on what was trained, or loaded from the run folder, before them
    with seeded(bench.seed, "method", "mfh"):
        return build_masked(bench, options, bench.teacher(), saliency, networks=NETWORKS)


def distil(bench: Bench, saliency: Saliency, settings: Settings) -> list[str]:
    """Train a student for each choice of channels, and the control of the first; returns notes on what is left out."""
    notes: list[str] = []
    for number, (name, removed) in enumerate(settings.students().items()):
        bench.train(name, masked(bench, saliency, settings, *removed), role="method")
        if number == 0 and settings.shuffled:
            try:
                control = masked(bench, saliency, settings, *removed)
                bench.train(f"{name} (shuffled teacher)", control, role="shuffled", exchange="class")
            except InputError as error:
                notes.append(f"{name}, no shuffled-teacher control: {error}")
    return notes


def scored(bench: Bench, settings: Settings) -> list[dict[str, Any]]:
    """Rows of teacher, control and students on the test clips, with the measurements of the teachers on validation."""
    from xmodal.metrics.batch_accuracy import batch_accuracy

    rows = bench.score()
    measure_teachers(bench, rows)
    for row in rows if settings.batch_accuracy else ():
        outputs = bench.outputs[row["name"]][row["student"]]
        # the authors' two test loops differ: that of audio takes the mean over batches, that of video divides their sum
        # by the number of clips
        divide = "batches" if row["needs"] == ["audio"] else "rows"
        row["printed"] = batch_accuracy(
            outputs["outputs"], outputs["target"], batch_size=settings.batch_size, divide=divide
        )
    return rows


def described_stages(bench: Bench) -> dict[str, Any]:
    """Networks, selected epochs and validation scores of the stages of a seed."""
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


def described_ranking(settings: Settings, rankings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The content of the plot on the page, see `reports.ranking`."""
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
    tests = []
    for ratio in settings.ratio if "least" in settings.remove else ():
        others = [remove for remove in ("most", "random", "none") if remove in settings.remove]
        tests += expected_best(
            result,
            title=f"The least salient removed against the others, {ratio:g}",
            who=f"The authors expect (share {ratio:g})",
            what=EXPECTED,
            best=student_name("least", ratio),
            over=[student_name(remove, ratio) for remove in others],
        )
    return tests


def stages_table(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A table of the stages: networks, selected epochs and validation accuracies, over the seeds."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for seed in seeds:
        for stage in seed["stages"]:
            by_name.setdefault(stage["name"], []).append(stage)
    return {
        "title": "Stages",
        "header": ["trained", "network", "parameters", "epoch kept", "validation accuracy (%)"],
        "rows": [
            [
                name,
                stages[0]["network"],
                f"{stages[0]['parameters']:,}",
                # a network that was read has no epoch
                "given" if stages[0]["epoch"] < 0 else _between([stage["epoch"] + 1 for stage in stages], 0),
                _between([100 * stage["valid"] for stage in stages], 1),
            ]
            for name, stages in by_name.items()
        ],
        "caption": "Mean (and range) over the seeds; epochs count from 1. Stages that the folder already contained "
        "were not trained again.",
    }


def printed_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A table of test accuracies, as the authors' loops print them and as shares of the clips."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    return {
        "title": "Accuracies as the authors' test loops print them",
        "header": ["name", "as printed (%)", "of the clips (%)"],
        "rows": [
            [
                name,
                _between([100 * row["printed"] for row in runs], 2),
                _between([100 * row["test"]["accuracy"] for row in runs], 2),
            ]
            for name, runs in by_name.items()
        ],
        "caption": "Mean (and range) over the seeds. Audio: the mean of the batches' accuracies; video: their sum, "
        "divided by the number of clips.",
    }


def _between(values: Sequence[float], digits: int) -> str:
    between = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{between}"
