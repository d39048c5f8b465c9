"""A LiDAR's network for every pixel, taught by a camera's: the first large experiment of NTDH, on SemanticKITTI.

In the camera's picture each LiDAR point has a pixel. For every seed a camera network learns the classes of labelled
pixels (*teacher*), a LiDAR network learns them alone (*control*), and the same network learns them and what the teacher
says (*student*); with ``--pmf`` a network of both modalities, too. Deployed is the student, on LiDAR. The page shows
each class, the gap between the modalities (divergence of right and of wrong classes) beside the gain, and pictures.
Every stage is kept in the run folder: a run that was stopped, or ended by ``--until teacher``, goes on with --resume.

What should come out: the student is better than the control, and a student of an untrained teacher, or of one that saw
other frames, is not. On made drives with the small preset about two minutes for each seed on a CPU; the published
numbers need GPUs. The paper's table was not accessible to us, and its code multiplies the teacher's term by 0.

    xmodal data make semantic-kitti ROOT --width 160 --height 48
    xmodal run semantic-kitti --semantic-kitti.root ROOT --preset small
    xmodal run semantic-kitti --config config_server_kitti.yaml --devices 2

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; numbers from the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.recipes.semantic_kitti.authors_config import DATA, read_config
from xmodal.recipes.semantic_kitti.settings import TEACHER, Settings
from xmodal.study import comparison
from xmodal.study.dense import SHOWN, class_table, gap_table, measure_gap, teacher_file

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.study.bench import Bench, Earlier

PMF = "pmf"
PICTURES = "pictures.npz"
__all__ = ["Settings", "run"]


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train the stages that are asked for, write the run folder and its page, return what `result.json` holds."""
    gaps: list[dict[str, Any]] = []

    def look(bench: Bench, rows: list[dict[str, Any]], out: Path) -> None:
        gaps.extend(measure_gap(bench, rows, settings.gap_frames))
        if settings.pictures and rows and bench.seed == settings.seeds[0] and not bench.fabric.global_rank:
            draw(bench, rows, out / PICTURES, settings.pictures)

    def earlier(seed: int) -> Earlier | None:
        return None if settings.teacher_checkpoint is None else earlier_teacher(settings.teacher_checkpoint, seed)

    def adapt(data: Data) -> Data:
        return replace(data, info=replace(data.info, label_losses={"focal": 1.0, "lovasz": settings.lovasz_weight}))

    return comparison.run(
        settings,
        progress=progress,
        recipe=DATA,
        look=look,
        beside=lambda bench: train_beside(bench, settings),
        adapt=adapt,
        complete=lambda found: complete(found, settings, gaps),
        earlier=earlier,
    )


def train_beside(bench: Bench, settings: Settings) -> None:
    """PMFNet, if it is asked for: it reads both modalities, so nothing is compared with it but itself."""
    from xmodal.methods import METHODS
    from xmodal.study.bench import method_settings

    if settings.pmf and "student" in settings.stages():
        card = METHODS[PMF]
        options = method_settings(card, {PMF: settings.pmf_options()})
        bench.progress.expect()
        bench.train(PMF, bench.build(card, options), role="teacher")


def earlier_teacher(path: Path, seed: int) -> Earlier:
    """The teacher of another run: of the same seed, if that run has it, else of the first one there.

    Args:
        path: of the run folder, of a training in it, or of a ``student.safetensors``.
        seed: whose teacher is wanted.
    """
    from xmodal.models.student_file import load_student
    from xmodal.study.bench import Earlier

    found = path if path.is_file() else teacher_file(path, TEACHER, seed)
    if found is None:
        raise InputError(
            f"{path} holds no finished teacher: expected a run folder with seed-{seed}/teacher/students/{TEACHER}, or "
            "a student.safetensors. Train one with --until teacher, or leave --teacher-checkpoint out."
        )
    student, _ = load_student(found)
    if student.needs != (TEACHER,):
        raise InputError(f"{found} reads {', '.join(student.needs)}; the teacher reads {TEACHER}. Name another file.")
    return Earlier({"teacher": {TEACHER: student.module.state_dict()}}, where=str(found))


def draw(bench: Bench, rows: Sequence[Mapping[str, Any]], path: Path, frames: int) -> None:
    """Some test frames: the camera's picture, the labels, and what each network says."""
    import numpy as np
    import torch

    from xmodal.data.loader import Pick
    from xmodal.data.semantic_kitti.classes import CLASSES, coloured
    from xmodal.files import written_whole
    from xmodal.models.network import evaluating

    test = bench.data.test
    chosen = torch.linspace(0, len(test) - 1, min(frames, len(test))).round().long()
    pick = Pick(dict.fromkeys(bench.info.modalities, chosen), None)
    batch, raw = test[pick].to(bench.fabric.device), test.raw()[pick]
    names, maps = [], []
    for row in rows:
        if row["role"] not in SHOWN:
            continue
        module = bench.runs[row["name"]].students[row["student"]].module
        with evaluating(module), torch.no_grad():
            said = [
                module({name: part[number : number + 1] for name, part in batch.inputs.items()})
                for number in range(len(chosen))
            ]
        names.append(row["name"])
        maps.append(torch.cat(said).argmax(dim=1).to(torch.uint8).cpu().numpy())
    with written_whole(path) as beside:
        np.savez_compressed(
            beside,
            pictures=raw.inputs[TEACHER].clamp(0, 255).round().to(torch.uint8).numpy(),
            labels=raw.targets[TEACHER].to(torch.uint8).numpy(),
            seen=raw.valid[TEACHER].numpy(),
            names=np.array(names),
            maps=np.stack(maps),
            palette=coloured(np.arange(len(CLASSES))),
            frames=np.array([bench.data.ids[test.numbers[TEACHER][number]] for number in chosen.tolist()]),
        )


def complete(result: dict[str, Any], settings: Settings, gaps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The result with tables of classes and of the gap, pictures, and what is worth knowing."""
    caption = (
        "Test frames, pixels with a labelled point, mean over the seeds; classes that no test frame shows are left "
        "out, and count 0 in mean_iou."
    )
    rows = result["rows"]
    tables = [{**class_table(rows, result["class_names"]), "caption": caption}] if rows else []
    tables += [gap_table(rows, gaps, (result["metric"],), where="labelled pixels")] if gaps else []
    found = {
        **result,
        "title": f"SemanticKITTI: LiDAR taught by a camera{', as published' if settings.as_published else ''}",
        "tables": tables,
        "gaps": [dict(gap) for gap in gaps],
        "notes": [*result["notes"], *notes(settings)],
    }
    if settings.pictures and result["rows"]:
        found["class_maps"] = {
            "file": PICTURES,
            "title": "Test frames",
            "picture": "camera",
            "ignore": 0,
            "class_names": result["class_names"],
            "caption": f"Seed {settings.seeds[0]}. Pixels without a point are dark in the labels and the errors; among "
            "the errors a pixel that was told rightly is blue, a wrong one orange.",
        }
    return found


def notes(settings: Settings) -> list[str]:
    """What is worth knowing of these settings, in sentences."""
    found = []
    if settings.config is not None and settings.config.is_file():
        found += read_config(settings.config).notes
    if settings.teacher_checkpoint is not None:
        found.append(f"The teacher was taken from {settings.teacher_checkpoint}.")
    if settings.until != "student":
        found.append(
            f"This run ends behind the {settings.until}; --resume without --until goes on. The test frames are not "
            "read."
        )
    if settings.as_published:
        found.append("As published but for the weight of the teacher's term, which is 0 in the authors' code.")
    return found
