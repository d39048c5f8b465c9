"""Your own data in one command: a teacher that sees everything, a student that sees less, the evidence, a report.

Trains the teacher, the no-KD control, the student and its shuffled-teacher control with one seed, and says whether
distillation helped. One seed is no proof: `compare` repeats it. A minute on a CPU for small arrays.

    xmodal distill my_data --teacher audio,image --student image --method kd
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from xmodal.data.options import validated
from xmodal.engine.processes import interrupt
from xmodal.engine.progress import Progress
from xmodal.engine.run.folder import choose_folder, open_folder, restore_threads
from xmodal.errors import InputError
from xmodal.study import comparison
from xmodal.study.references import finish
from xmodal.study.settings import PairSettings

if TYPE_CHECKING:
    from torch import nn

    from xmodal.data.base import Data
    from xmodal.types import DataInfo, Student


class Settings(PairSettings):
    """Train a teacher, a no-KD control and a distilled student, and report."""

    method: str = Field("kd", description="a method of `xmodal list methods`; its settings become flags")
    seed: int = Field(0, ge=0, description="of weights, order and, where none is fixed, the split")
    shuffled: bool = Field(True, description="run the shuffled-teacher control")


@dataclass
class Distilled:
    """What `distill` returns.

    Attributes:
        student: the distilled network with its normalisation; `xmodal.export` writes it.
        result: scores of teacher, control and student, as in `result.json`.
        info: what is known of the data.
        folder: the run folder, None when nothing was to be written.
    """

    student: Student
    result: dict[str, Any]
    info: DataInfo
    folder: Path | None = None

    @property
    def scores(self) -> dict[str, float]:
        """Test score of everything that was trained, by name."""
        return {row["name"]: row["test"][self.result["metric"]] for row in self.result["rows"]}


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train, write the run folder and its page, return what `result.json` holds."""
    from xmodal.data import open_data
    from xmodal.engine.processes.launch import launch

    # machine: processes start here, before data and folder
    fabric = launch(settings.machine(), precision=settings.precision)
    progress = progress or Progress(quiet=True)
    progress.quiet |= fabric.global_rank > 0

    # data
    data = open_data(
        settings.data,
        options=settings.options.get(settings.data, {}),
        task=settings.task,
        train_fraction=settings.train_fraction,
        augment=settings.augment,
        seed=settings.seed,
    )
    plan = as_comparison(settings)
    comparison.check(plan, data, fabric)

    # run folder
    out = choose_folder(settings.out, f"distill-{Path(settings.data).name}", fabric, resume=settings.resume)
    if fabric.global_rank == 0:
        open_folder(out, {"recipe": "distill", "settings": settings.described()}, resume=settings.resume)
    fabric.barrier()
    if settings.resume:
        restore_threads(out)

    # teacher, control, student, and one look at the test split
    progress.fits = comparison.count_fits(plan)
    with interrupt.saved_in(out):
        _, rows, notes = comparison.contest(plan, data, seed=settings.seed, fabric=fabric, out=out, progress=progress)

    # report
    result = comparison.summarised(plan, data, rows, notes, title=f"{settings.data}: {settings.method}")
    result["recipe"] = "distill"
    finish(out, result, fabric)
    progress.close()
    return {**result, "folder": str(out)}


def as_comparison(settings: Settings) -> comparison.Settings:
    """One method, one seed: the smallest comparison."""
    shared = {name: getattr(settings, name) for name in PairSettings.model_fields}
    return comparison.Settings(**shared, methods=(settings.method,), seeds=(settings.seed,), shuffled=settings.shuffled)


def distill(
    inputs: Mapping[str, Any] | None = None,
    target: Any = None,
    *,
    dataset: Any = None,
    data: Data | None = None,
    teacher: str | tuple[str, ...] = (),
    student: str | tuple[str, ...] = (),
    method: str = "kd",
    options: Mapping[str, Any] | None = None,
    task: str = "",
    epochs: int = 40,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    splits: Mapping[str, Any] | None = None,
    student_network: nn.Module | None = None,
    teacher_network: nn.Module | None = None,
    training: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    verbose: bool = False,
) -> Distilled:
    """Distil from arrays, tensors or a `torch.utils.data.Dataset`.

    Args:
        inputs: modality → array (rows, …).
        target: labels (rows,), a table for multi-label, floats for regression; modality → target when unpaired.
        dataset: instead of both, samples ``(inputs, target)`` with a dictionary of inputs.
        data: instead of these, opened data (`xmodal.open_data`).
        teacher: modalities the teacher sees, one name or several; default: all.
        student: modalities at deployment; default: the last one.
        method: a name of `xmodal list methods`.
        options: settings of the method, by name.
        task: kind of target; default: told by its type.
        epochs: for each network.
        batch_size: rows per step.
        learning_rate: of Adam.
        seed: of weights, order and split.
        splits: train, valid, test → row numbers; default: drawn 70/10/20, class by class.
        student_network: your own module in place of a built one; it takes one tensor, or a dictionary of several.
        teacher_network: the same for the teacher, trained here.
        training: further flags of ``xmodal distill`` by name, such as ``{"optimizer": "sgd", "precision": "64"}``.
        out: run folder; None: nothing is written.
        verbose: tell how it goes, on standard error.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(0, 2, 200)
        >>> clear, faint = y[:, None] + 0.1 * random.normal(size=(200, 4)), y[:, None] + random.normal(size=(200, 4))
        >>> done = distill({"clear": clear, "faint": faint}, y, teacher="clear", student="faint", epochs=5)
        >>> done.student.needs, done.scores["teacher"] > 0.9
        (('faint',), True)
    """
    from xmodal.engine.processes.launch import launch

    # settings first: they are quick to refuse
    values = {
        "data": "arrays",
        "teacher": (teacher,) if isinstance(teacher, str) else teacher,
        "student": (student,) if isinstance(student, str) else student,
        "method": method,
        "options": {method: options or {}},
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    twice = sorted(values.keys() & (training or {}).keys())
    if twice:
        raise InputError(f"training names {', '.join(twice)}, which distill takes as an argument. Give it there alone.")
    settings = validated(Settings, {**(training or {}), **values}, "distill")

    # data
    data = data or _open(inputs, target, dataset, splits=splits, task=task, seed=seed)
    plan = as_comparison(settings)
    modules = {"student": student_network, "teacher": teacher_network}
    modules = {side: module for side, module in modules.items() if module is not None}
    fabric = launch(settings.machine(), precision=settings.precision)
    comparison.check(plan, data, fabric, modules)

    # run folder, if one is wanted
    folder = None if out is None else Path(out)
    if folder is not None and fabric.global_rank == 0:
        open_folder(folder, {"recipe": "distill", "settings": settings.described()}, resume=False)

    # teacher, control, student, and one look at the test split
    progress = Progress(quiet=not verbose, fits=comparison.count_fits(plan))
    bench, rows, notes = comparison.contest(
        plan,
        data,
        seed=seed,
        fabric=fabric,
        out=folder,
        progress=progress,
        modules=modules,
    )
    result = comparison.summarised(plan, data, rows, notes, title=method)
    result["recipe"] = "distill"
    if folder is not None:
        finish(folder, result, fabric)
    (distilled,) = bench.runs[method if method != "supervised" else "no-KD"].students.values()
    if bench.info.doubled:
        distilled.module.float()  # deployed as every other
    return Distilled(distilled, result, data.info, folder)


def _open(inputs: Any, target: Any, dataset: Any, *, splits: Any, task: str, seed: int) -> Data:
    from xmodal.data.arrays import from_arrays, from_dataset

    if dataset is not None:
        return from_dataset(dataset, splits=splits, task=task, seed=seed)
    if inputs is None or target is None:
        raise InputError("Nothing to distil from: give inputs and target, or dataset=, or data=.")
    return from_arrays(inputs, target, splits=splits, task=task, seed=seed)
