"""A LiDAR network that classifies every pixel, with a camera teacher: the first large experiment of NTDH.

Each LiDAR point has a pixel in the camera's image. For every seed a camera network learns the classes of labelled
pixels (*teacher*), a LiDAR network learns them alone (*control*), and the same network learns them and the teacher's
outputs (*student*); with ``--pmf`` also a network of both modalities. The student is deployed, on LiDAR. The LiDAR
network may also teach the camera's, and PMFNet, which reads both, either of the two. The page shows each class, the gap
between the modalities (divergence of right and of wrong classes) and the gain, and images. Every stage is kept in the
run folder: a run that was interrupted, or ended by ``--until teacher``, continues with --resume.

Expected result: the student is better than the control, and a student of an untrained teacher, or of one that saw other
frames, is not. On synthetic drives with the small preset about two minutes for each seed on a CPU; the published
numbers need GPUs. The paper's table was not accessible to us, and its code multiplies the distillation loss by 0.

    xmodal data make semantic-kitti ROOT --width 160 --height 48
    xmodal run semantic-kitti --semantic-kitti.root ROOT --preset small
    xmodal run semantic-kitti --config config_server_kitti.yaml --devices 2
    xmodal run semantic-kitti --semantic-kitti.root ROOT --teacher-network pmf --teacher-checkpoint best_IOU_model.pth

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; numbers from the authors' code.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.data.semantic_kitti.classes import CLASSES
from xmodal.engine.progress import Progress
from xmodal.errors import InputError, did_you_mean
from xmodal.files import written_whole
from xmodal.methods import METHODS
from xmodal.recipes.semantic_kitti.authors_config import DATA, read_config
from xmodal.recipes.semantic_kitti.settings import CAMERA, SIDES, Settings
from xmodal.study.dense import SHOWN, class_table, classes_of, first_frames, gap_table, measure_gap, teacher_file
from xmodal.study.drawing import drawing, networks_of
from xmodal.study.opening import Study, open_study
from xmodal.study.plan import Comparison, Plan, method_settings, open_seed
from xmodal.study.seeds import each_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from xmodal.data.base import Data
    from xmodal.study.bench import Bench, Earlier
    from xmodal.types import DataInfo, Student

PMF = "pmf"
NAMES = {"camera": "a camera", "lidar": "LiDAR", PMF: "both"}  # network → in the title
PICTURES = "pictures.npz"
__all__ = ["Settings", "run"]


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train the stages up to ``until``, write the run folder and its page, and return the result."""
    from xmodal.study.comparison import check, summarised

    with open_study(settings, DATA, progress=progress) as study:
        # data of the first seed, the teacher of another run, and all checks: nothing is written yet
        comparison, plan = settings.comparison(), settings.plan()
        first = open_frames(settings, plan, settings.seeds[0])
        earlier = [given_teacher(settings, seed) for seed in settings.seeds]
        comparison = check(comparison, first, study.fabric, earlier=earlier[0])
        study.start(fits=len(settings.seeds) * comparison.fits(few=bool(first.info.labelled)))
        if settings.config is not None and study.first:
            keep_config(settings.config, study.folder)

        # the seeds, one after the other or several at a time
        rows: list[dict[str, Any]] = []
        notes: list[str] = []
        gaps: list[dict[str, Any]] = []
        opened = functools.partial(open_frames, settings)
        for found in each_seed(study, train_seed, plan, settings.seeds, first, settings, comparison, opened=opened):
            rows += found["rows"]
            notes += found["notes"]
            gaps += found["gaps"]

        # report
        sides = (NAMES[settings.student_network], NAMES[settings.teacher_network])
        title = f"SemanticKITTI: {' taught by '.join(sides)}{', as published' if settings.as_published else ''}"
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
                    study.folder / PICTURES,
                    settings.pictures,
                    study.fabric.device,
                )
                result["class_maps"] = described_pictures(result, settings)
        return study.finish(result)


def keep_config(config: Path, folder: Path) -> None:
    """Put a copy of the authors' settings file into the run folder, under its own name."""
    with written_whole(folder / config.name) as copy:
        shutil.copyfile(config, copy)


def open_frames(settings: Settings, plan: Plan, seed: int) -> Data:
    """The frames, with the losses of labels of the published training."""
    data = open_seed(plan, seed)
    if CAMERA not in data.info.inputs:
        raise InputError(
            f"{plan.options.get('root')} has no pictures (image_2), and the {settings.teacher_network} network teaches "
            f"the {settings.student_network} network here. Add them; LiDAR alone: xmodal compare semantic-kitti "
            "--methods supervised."
        )
    return replace(data, info=replace(data.info, label_losses={"focal": 1.0, "lovasz": settings.lovasz_weight}))


def train_seed(study: Study, seed: int, data: Data, settings: Settings, comparison: Comparison) -> dict[str, Any]:
    """Teacher, control, student and PMFNet of a seed, up to the last stage; then the scores and gaps."""
    from xmodal.study.comparison import train

    earlier = given_teacher(settings, seed)
    bench = study.bench(comparison.plan, data, seed, earlier=earlier)
    if settings.teacher_network == PMF and comparison.train_teacher and earlier is None:
        train_pmf(bench, settings, name="teacher")
    notes = train(bench, comparison)
    # the test frames are read when everything of a seed is trained, so a run that ends early has no scores
    if settings.until != "student":
        return {"rows": [], "notes": notes, "gaps": []}
    if settings.pmf and settings.teacher_network != PMF:
        train_pmf(bench, settings)
    rows, gaps = bench.score(), []
    for row in rows if comparison.train_teacher and settings.gap_frames else ():
        if row["role"] != "teacher":
            gaps.append(measure_gap(bench, row, first_frames(bench, settings.gap_frames)))
    return {"rows": rows, "notes": notes, "gaps": gaps}


def train_pmf(bench: Bench, settings: Settings, *, name: str = PMF) -> None:
    """Train PMFNet, the network of both modalities, as the teacher or in a row of its own."""
    # in the role of a teacher: it is no method for the deployed modality, and no control is compared with it
    card = METHODS[PMF]
    if name == PMF:
        bench.progress.expect()
    bench.train(name, bench.build(card, method_settings(card, settings.pmf_options())), role="teacher")


def given_teacher(settings: Settings, seed: int) -> Earlier | None:
    """The teacher that the settings name, if a student learns from it."""
    return earlier_teacher(settings.teacher_checkpoint, seed, settings.teacher_network)


def earlier_teacher(path: Path | None, seed: int, network: str = "camera") -> Earlier | None:
    """The teacher of another run, or of the authors' code.

    Args:
        path: of a run folder, of a training in it, of a ``student.safetensors``, or of a file of the authors; None: no
            teacher is named.
        seed: of the student; a run folder without a teacher of this seed gives that of its first seed.
        network: of `SIDES`.
    """
    if path is None:
        return None
    from xmodal.models.student_file import load_student
    from xmodal.study.bench import Earlier

    needs = SIDES[network]
    name = "+".join(needs)
    file = path if path.is_file() else teacher_file(path, name, seed)
    if file is None:
        raise InputError(
            f"{path} holds no finished teacher: expected a run folder with seed-{seed}/teacher/students/{name}, a "
            "student.safetensors, or a .pth file of the authors. Train one with --until teacher, or leave "
            "--teacher-checkpoint out."
        )
    if file.suffix != ".safetensors":
        return Earlier({"teacher": {name: published_tensors(file, needs)}}, where=str(file))
    student, _ = load_student(file)
    if student.needs != needs:
        raise InputError(
            f"{file} reads {', '.join(student.needs)}; the teacher reads {', '.join(needs)}. Name another file, or "
            "another --teacher-network."
        )
    return Earlier({"teacher": {name: student.module.state_dict()}}, where=str(file))


def published_tensors(file: Path, needs: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of the authors' file that belong to a network that reads these modalities, under our names."""
    from xmodal.models.pixels.authors_weights import student_of_file
    from xmodal.types import DataInfo, InputInfo

    # networks of pixels have the same weights for pictures of any size
    shapes = {"lidar": (5, 16, 16), "image": (3, 16, 16)}
    inputs = {name: InputInfo(shape, layout="image") for name, shape in shapes.items()}
    info = DataInfo(inputs, "multiclass", len(CLASSES), {}, dense=True)
    return student_of_file(file, info, needs=needs).module.state_dict()


def open_weights(path: Path, network: str, info: DataInfo) -> Student:
    """The network in a file of the authors' code.

    Args:
        path: of the file.
        network: of `SIDES`; empty: what the file holds.
        info: of the data.
    """
    from xmodal.models.pixels.authors_weights import student_of_file

    if network and network not in SIDES:
        raise InputError(f"There is no network '{network}' for SemanticKITTI. {did_you_mean(network, SIDES)}")
    return student_of_file(path, info, needs=SIDES[network] if network else ())


def draw(
    data: Data, networks: Iterable[tuple[str, Student]], path: Path, frames: int, device: torch.device | str = "cpu"
) -> None:
    """Write some test frames: camera images, labels, and the classes that each network predicts."""
    import numpy as np
    import torch

    from xmodal.data.loader import Pick
    from xmodal.data.semantic_kitti.classes import coloured

    # frames spread over the split
    test = data.test
    chosen = torch.linspace(0, len(test) - 1, min(frames, len(test))).round().long()
    pick = Pick(dict.fromkeys(data.info.modalities, chosen), None)
    inputs, raw = test[pick].to(device).inputs, test.raw()[pick]
    maps = {name: classes_of(student, inputs, device) for name, student in networks}
    with written_whole(path) as file:
        np.savez_compressed(
            file,
            pictures=raw.inputs[CAMERA].clamp(0, 255).round().to(torch.uint8).numpy(),
            labels=raw.targets[CAMERA].to(torch.uint8).numpy(),
            seen=raw.valid[CAMERA].numpy(),
            names=np.array(list(maps)),
            maps=np.stack(list(maps.values())),
            palette=coloured(np.arange(len(CLASSES))),
            frames=np.array([data.ids[test.numbers[CAMERA][number]] for number in chosen.tolist()]),
        )


def tables_of(result: Mapping[str, Any], gaps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tables of classes and of the gap between the modalities."""
    rows, tables = result["rows"], []
    if rows:
        caption = (
            "Test frames, pixels with a labelled point, mean over the seeds; classes that no test frame shows are left "
            "out, and count 0 in mean_iou."
        )
        tables.append({**class_table(rows, result["class_names"]), "caption": caption})
    if gaps:
        tables.append(gap_table(rows, gaps, (result["metric"],), where="labelled pixels"))
    return tables


def described_pictures(result: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """File, title and caption of the images, for the page."""
    return {
        "file": PICTURES,
        "title": "Test frames",
        "picture": "camera",
        "ignore": 0,
        "class_names": result["class_names"],
        "caption": f"Seed {settings.seeds[0]}. Pixels without a point are dark in the labels and the errors; among "
        "the errors a correctly classified pixel is blue, a wrong one orange.",
    }


def notes_on(settings: Settings) -> list[str]:
    """Sentences about consequences of these settings."""
    notes = []
    if settings.config is not None and settings.config.is_file():
        notes += read_config(settings.config).notes
    if settings.teacher_checkpoint is not None:
        notes.append(f"The teacher was taken from {settings.teacher_checkpoint}.")
    if settings.until != "student":
        notes.append(
            f"This run ends after the stage {settings.until}; --resume without --until continues. The test frames are "
            "not read."
        )
    if settings.as_published:
        notes.append("As published except for the weight of the distillation loss, which is 0 in the authors' code.")
    return notes
