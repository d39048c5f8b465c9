"""The one loop. It knows the contract of `Method` and nothing of any paper.

    run = fit(method, data, FitSettings(epochs=20), seed=0, folder=Path("runs/kd"))

Every epoch: train on the training split, score every student on the validation split, keep each student's best
weights. A run with a folder can be killed at any moment and resumed (`resume=True`) to the same bits.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.data.base import Data
from xmodal.engine.evaluate import MetricsFor, evaluate
from xmodal.engine.loop import Loop
from xmodal.engine.processes import interrupt
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.engine.run.folder import open_folder, restore_threads
from xmodal.engine.run.result import Run, finish, read_back, save_best
from xmodal.engine.run.tensorboard import TensorBoardLog, require_tensorboard
from xmodal.engine.settings import FitSettings
from xmodal.engine.step_sums import any_signal
from xmodal.errors import Interrupted, NonFinite
from xmodal.files import write_text
from xmodal.method import Method
from xmodal.metrics.task import Scores
from xmodal.models.network import as_precise
from xmodal.seeding import kept

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Run", "as_it_is", "fit"]


@kept()
def fit(
    method: Method,
    data: Data,
    settings: FitSettings,
    *,
    metrics: MetricsFor = Scores,
    seed: int = 0,
    folder: Path | None = None,
    fabric: Fabric | None = None,
    resume: bool = False,
    shuffle_teacher: bool = False,
    progress: Progress | None = None,
    title: str = "training",
    answers: Path | None = None,
) -> Run:
    """Train a method.

    Args:
        method: networks and objective; with the precision ``64-true`` its numbers have 64 bits from then on.
        data: splits and what is known of them; the test split is not touched.
        settings: epochs, optimiser and so on.
        metrics: makes an object with ``update`` and ``compute`` for each pass over the validation split.
        seed: of everything random, with the thread count part of the bits.
        folder: where to keep the run; None: in memory only.
        fabric: started devices (`engine.processes.launch`); None: one process.
        resume: go on with what the folder holds; a finished run is read back.
        shuffle_teacher: exchange the teacher's answers among samples of one class.
        progress: where to tell how it goes.
        title: what the progress line calls it.
        answers: where a teacher's answers lie that the memory can't hold, for several trainings to share; None: in
            ``folder``.

    Raises:
        NonFinite: a loss term was infinite or not a number; the best weights so far are kept if there is a folder.
        Interrupted: a signal asked to stop; the state was saved if there is a folder.
    """
    fabric = fabric or launch(precision=settings.precision)
    if settings.precision == "64-true":
        data = data.doubled()
    as_precise(method, data.info)
    progress = progress or Progress(quiet=True)
    answers = answers or (folder and folder / "answers")
    loop = Loop(method, data, settings, seed, folder, fabric, shuffle_teacher, progress, metrics, answers)
    if folder is not None:
        finished = resume and (folder / "result.json").exists()
        if settings.tracking and not finished:
            require_tensorboard()  # in all processes: one that raised alone would leave the others waiting
        if fabric.global_rank == 0:
            open_folder(folder, described(settings, seed, shuffle_teacher), resume=resume)
        fabric.barrier()
        if resume:
            restore_threads(folder)
        if finished:
            return read_back(loop)
    loop.prepare()
    if folder is not None and resume:
        loop.resume()
    with interrupt.deferred(), ExitStack() as stack:
        if settings.tracking and loop.writes and folder is not None:
            log = TensorBoardLog(folder, title=title, epochs=settings.epochs, history=loop.history)
            loop.tensorboard = stack.enter_context(closing(log))
        progress.start(title, settings.epochs, loop.epoch, metric=loop.selection.metric)
        try:
            while not loop.finished:
                loop.train_epoch()
                loop.end_epoch()
        except NonFinite:
            save_best(loop)
            raise
        run = finish(loop)
        stop = any_signal(fabric, interrupt.pending())  # within the block: a process alone must not leave the others
    if stop:
        raise Interrupted(stop, saved=None if folder is None else str(folder))
    return run


@kept()
def as_it_is(
    method: Method,
    data: Data,
    *,
    metrics: MetricsFor = Scores,
    seed: int = 0,
    folder: Path | None = None,
    fabric: Fabric | None = None,
) -> Run:
    """A run of no epochs: the students with the weights that they come with, scored on the validation split.

    Args:
        method: networks, with weights from elsewhere.
        data: splits; the test split is not touched.
        metrics: see `fit`.
        seed: noted in the result.
        folder: where to keep the run, as one of `fit`; one that is there already is read back.
        fabric: started devices.
    """
    fabric = fabric or launch()
    settings = FitSettings(epochs=1)
    as_precise(method, data.info)
    loop = Loop(method, data, settings, seed, folder, fabric, False, Progress(quiet=True), metrics)
    if folder is not None:
        if fabric.global_rank == 0:
            open_folder(folder, {"fit": "as it is", "seed": seed}, resume=True)
            write_text(folder / "history.jsonl", "")
        fabric.barrier()
        if (folder / "result.json").exists():
            return read_back(loop)
    students = method.to(fabric.device).eval().students()
    scores = evaluate(students, data.valid, data.info, fabric=fabric, predict=method.predict, metrics=metrics)
    loop.selection.update(-1, scores, students)
    loop.stopped = "as it is"
    return finish(loop)


def described(settings: FitSettings, seed: int, shuffle_teacher: bool = False) -> dict[str, Any]:
    """What `settings.json` in the folder of a training holds, and what it must equal when it is resumed."""
    return {"fit": settings.model_dump(), "seed": seed, "shuffle_teacher": shuffle_teacher}
