"""The voxels of a room from depth, with a teacher that also reads colours: the second large experiment of NTDH.

From one image a network predicts the class of every voxel of a room, also of those that no pixel shows (semantic scene
completion). For every seed a network that reads depth and colours learns the labels (*teacher*), one that reads depth
learns them alone (*control*), and the same network learns them and the teacher's outputs on the voxels of the room
(*student*), where each voxel has the weight of the class that the teacher predicts. Any of six networks may teach any
other. The page shows each class, divergence from the teacher and gain, and rooms. A run that was interrupted, or ended
by ``--until teacher``, continues with --resume.

The published code trains single networks and contains no distillation; its table was not accessible to us, so there is
no figure to compare with. Results on synthetic rooms are in docs/recipes/nyu-ssc.md.

    xmodal data make nyu RAW --seed 0
    xmodal data prepare nyu RAW ROOT
    xmodal run nyu-ssc --nyu.root ROOT --preset small
    xmodal run nyu-ssc --nyu.root ROOT --teacher-network ddrnet_rgb --student-network palnet

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; networks and training: Li et al.,
DDRNet, CVPR 2019; numbers from the authors' code.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.engine.progress import Progress
from xmodal.errors import InputError, did_you_mean
from xmodal.recipes.nyu_ssc.settings import METRICS, NETWORKS, Settings
from xmodal.study.dense import SHOWN, class_table, classes_of, first_frames, gap_table, measure_gap, teacher_file
from xmodal.study.drawing import drawing, networks_of
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, open_seed
from xmodal.study.seeds import each_seed

if TYPE_CHECKING:
    import torch

    from xmodal.data.base import Data
    from xmodal.study.bench import Earlier
    from xmodal.types import Batch, DataInfo, Student

SCENES = "scenes.npz"
__all__ = ["Settings", "run"]


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train the stages up to ``until``, write the run folder and its page, and return the result."""
    from xmodal.study.comparison import check, summarised

    with open_study(settings, "nyu-ssc", progress=progress) as study:
        # data of the first seed, the teacher of another run, and all checks: nothing is written yet
        comparison, plan = settings.comparison(), settings.plan()
        first = open_seed(plan, settings.seeds[0])
        earlier = [given_teacher(settings, seed) for seed in settings.seeds]
        comparison = check(comparison, first, study.fabric, earlier=earlier[0])
        study.start(fits=len(settings.seeds) * comparison.fits(few=bool(first.info.labelled)))

        # the seeds, one after the other or several at a time
        rows: list[dict[str, Any]] = []
        notes: list[str] = []
        gaps: list[dict[str, Any]] = []
        for found in each_seed(study, train_seed, plan, settings.seeds, first, settings, comparison):
            rows += found["rows"]
            notes += found["notes"]
            gaps += found["gaps"]

        # report
        title = f"NYU Depth V2: {settings.student_network} taught by {settings.teacher_network}"
        result = summarised(comparison, first, rows, [*notes, *notes_on(settings)], title=title)
        result["tables"] = tables_of(result, gaps)
        result["gaps"] = gaps
        if settings.pictures and rows and study.first:
            study.save(result)
            with drawing(result["notes"], "Test frames"):
                shown = [row for row in rows if row["seed"] == settings.seeds[0] and row["role"] in SHOWN]
                draw(
                    first,
                    networks_of(study.folder, shown),
                    study.folder / SCENES,
                    settings.pictures,
                    study.fabric.device,
                )
                result["scenes"] = described_scenes(result, settings)
        return study.finish(result)


def train_seed(study: Study, seed: int, data: Data, settings: Settings, comparison: Comparison) -> dict[str, Any]:
    """Teacher, control and student of a seed, up to the last stage; then the scores and gaps."""
    from xmodal.study.comparison import train

    bench = study.bench(comparison.plan, data, seed, earlier=given_teacher(settings, seed))
    notes = train(bench, comparison)
    # the test frames are read when everything of a seed is trained, so a run that ends early has no scores
    if settings.until != "student":
        return {"rows": [], "notes": notes, "gaps": []}
    rows, gaps = bench.score(), []
    for row in rows if comparison.train_teacher and settings.gap_frames else ():
        if row["role"] != "teacher":
            gaps.append(measure_gap(bench, row, map(occupied, first_frames(bench, settings.gap_frames))))
    return {"rows": rows, "notes": notes, "gaps": gaps}


def given_teacher(settings: Settings, seed: int) -> Earlier | None:
    """The teacher that the settings name, if a student learns from it."""
    file = settings.teacher_checkpoint if settings.has_teacher else None
    return earlier_teacher(file, settings.teacher_network, seed)


def earlier_teacher(path: Path | None, network: str, seed: int) -> Earlier | None:
    """The teacher of another run, or of the authors' code.

    Args:
        path: of a run folder, of a training in it, of a ``student.safetensors``, or of a file of the authors; None: no
            teacher is named.
        network: name of the teacher's network.
        seed: of the student; a run folder without a teacher of this seed gives that of its first seed.
    """
    if path is None:
        return None
    from xmodal.models.scenes.authors_weights import load_published
    from xmodal.models.student_file import load_student
    from xmodal.study.bench import Earlier

    # the network by its name, to know its modalities and to check the file, before any data is open
    plain = without_data(network)
    name = "+".join(plain.needs)
    file = teacher_file(path, name, seed) if path.is_dir() else path
    if file is None:
        raise InputError(
            f"{path} holds no finished teacher {network}: expected seed-{seed}/teacher/students/{name}. Train one "
            "with --until teacher, or leave --teacher-checkpoint out."
        )
    if file.suffix != ".safetensors":
        load_published(plain.module, file)
        return Earlier({"teacher": {name: plain.module.state_dict()}}, where=str(file))
    student, _ = load_student(file)
    if (student.builder, set(student.needs)) != (plain.builder, set(plain.needs)):
        raise InputError(
            f"{file} holds a network {student.builder} that reads {', '.join(student.needs)}; {network} was expected. "
            "Give another file, or another --teacher-network."
        )
    return Earlier({"teacher": {name: student.module.state_dict()}}, where=str(file))


def open_weights(path: Path, network: str, info: DataInfo) -> Student:
    """A network of `NETWORKS` with the weights in a file of the authors' code.

    Args:
        path: of the ``.pth.tar``.
        network: its name.
        info: of the data.
    """
    from xmodal.models.scenes.authors_weights import load_published
    from xmodal.models.scenes.build import build_scene

    if network not in NETWORKS:
        hint = f"There is none called '{network}'. {did_you_mean(network, NETWORKS)}" if network else ""
        raise InputError(f"{path}: name its network, {', '.join(NETWORKS)}, with --network. {hint}".strip())
    architecture, modalities = NETWORKS[network]
    student = build_scene(info, modalities, network=architecture)
    load_published(student.module, path)
    return student


def without_data(network: str) -> Student:
    """A network of `NETWORKS` for a room of the smallest size; its weights have the shapes of any size."""
    from xmodal.models.scenes.build import build_scene
    from xmodal.types import DataInfo, InputInfo

    position = InputInfo((4, 4), dtype="int64")
    inputs = {"depth": InputInfo((1, 4, 4)), "rgb": InputInfo((3, 4, 4)), "tsdf": InputInfo((1, 4, 4, 4))}
    inputs |= {"depth.position": position, "rgb.position": position}
    architecture, modalities = NETWORKS[network]
    return build_scene(
        DataInfo(inputs, "multiclass", 12, {}, dense=True, target_shape=(1, 1, 1)), modalities, network=architecture
    )


def occupied(batch: Batch) -> Batch:
    """The batch, with scored and occupied voxels as the only valid ones."""
    # the mean IoU, with whose gain the gap is compared, leaves out the class empty as well
    counts = {name: (region > 0) & (batch.targets[name] > 0) for name, region in batch.scored.items()}
    return replace(batch, valid=counts)


def draw(
    data: Data, networks: Iterable[tuple[str, Student]], path: Path, frames: int, device: torch.device | str = "cpu"
) -> None:
    """Write some test frames: images, labels, and the classes that each network predicts."""
    import numpy as np
    import torch

    from xmodal.data.loader import Pick
    from xmodal.data.nyu.frames import COLOURS as STATISTICS
    from xmodal.data.nyu.raw import COLOURS
    from xmodal.files import written_whole

    # frames spread over the split, before normalisation
    test = data.test
    chosen = torch.linspace(0, len(test) - 1, min(frames, len(test))).round().long()
    pick = Pick(dict.fromkeys(data.info.modalities, chosen), None)
    batch, inputs = test.raw()[pick], test[pick].to(device).inputs
    arrays: dict[str, Any] = {}
    if "rgb" in batch.inputs:
        mean, std = (torch.tensor(part).view(3, 1, 1) for part in STATISTICS)
        arrays["pictures"] = (255 * (std * batch.inputs["rgb"] + mean)).clamp(0, 255).round().to(torch.uint8).numpy()
    if "depth" in batch.inputs:
        arrays["depths"] = batch.inputs["depth"][:, 0].numpy()

    maps = {name: classes_of(student, inputs, device) for name, student in networks}
    # the modalities are paired: row numbers of any of them name the frames
    numbers = test.numbers[next(iter(batch.targets))]
    with written_whole(path) as file:
        np.savez_compressed(
            file,
            **arrays,
            labels=batch.target.to(torch.uint8).numpy(),
            names=np.array(list(maps)),
            maps=np.stack(list(maps.values())),
            palette=np.array(COLOURS, np.uint8),
            frames=np.array([data.ids[numbers[number]] for number in chosen.tolist()]),
        )


def tables_of(result: Mapping[str, Any], gaps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tables of scores, classes, and the gap between the modalities."""
    rows, tables = result["rows"], []
    if rows:
        published = result["metric"] == METRICS["reference"]
        tables += [score_table(rows), classes_of_voxels(rows, result["class_names"], published=published)]
    if gaps:
        metrics = (result["metric"], "completion_iou")
        tables.append(gap_table(rows, gaps, metrics, where="scored occupied voxels"))
    return tables


def described_scenes(result: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """File, title and caption of the drawn rooms, for the page."""
    return {
        "file": SCENES,
        "title": "Rooms of the test split",
        "class_names": result["class_names"],
        "caption": f"Seed {settings.seeds[0]}. Labelled voxels, seen from the front and above; ceilings are left "
        "out. Predictions are shown for all labelled voxels, also in visible free space, which is not scored.",
    }


SCORES = {  # metric → column of the table
    "completion_precision": "precision",
    "completion_recall": "recall",
    "completion_iou": "IoU",
    "completion_iou_occluded": "IoU, hidden voxels",
    "accuracy": "accuracy of classes",
    "mean_iou": "mIoU",
    "completion_iou_reference": "IoU, published rule",
    "mean_iou_reference": "mIoU, published rule",
}


def score_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A table with a line per network: completion, classes, and both by the published rule; mean over the seeds."""
    runs = list(dict.fromkeys(row["name"] for row in rows))
    lines = [
        [
            run,
            *(
                f"{100 * statistics.fmean(row['test'][key] for row in rows if row['name'] == run):.1f}"
                for key in SCORES
            ),
        ]
        for run in runs
    ]
    return {
        "title": "Completion and classes",
        "header": ["network", *SCORES.values()],
        "rows": lines,
        "caption": "Test frames, per cent, mean over the seeds. Precision, recall and IoU: occupied or not. The "
        "published rule takes means over frames, and counts unknown voxels on surfaces as empty.",
    }


def classes_of_voxels(rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, published: bool) -> dict[str, Any]:
    """A table with a line per class except empty, by the rule of the benchmark or by the published one."""
    score, mean = ("iou_reference", "mean_iou_reference") if published else ("iou", "mean_iou")
    table = class_table(rows, names, score=score, mean=mean, skip=1, places="voxels")
    return {
        **table,
        "title": f"{table['title']}{' (published rule)' if published else ''}",
        "caption": "Test frames, voxels that are hidden or on a surface and have a label, mean over the seeds.",
    }


def notes_on(settings: Settings) -> list[str]:
    """Sentences about consequences of these settings."""
    notes = []
    if settings.teacher_checkpoint is not None:
        notes.append(f"The teacher was taken from {settings.teacher_checkpoint}.")
    if settings.until != "student":
        notes.append(f"Stopped after the stage {settings.until}; --resume without --until continues.")
    if settings.schedule == "step" and settings.schedule_every >= settings.epochs:
        notes.append(
            f"The learning rate falls every {settings.schedule_every} epochs, and there are {settings.epochs}: it was "
            "constant, as in the authors' code."
        )
    return notes
