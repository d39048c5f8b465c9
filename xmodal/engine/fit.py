"""`fit`: train a method. It uses the interface of `Method` and depends on no particular method.

    run = fit(method, data, FitSettings(epochs=20), seed=0, folder=Path("runs/kd"))

Each epoch trains on the training split, scores every student on the validation split, and keeps the best weights of
each student. A run with a folder can be killed at any moment and resumed (`resume=True`); it ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.data.base import Data
from xmodal.devices import matmul_precision
from xmodal.engine.callbacks import check_callbacks, tell_end
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
    from xmodal.devices import Devices

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
    fabric: Devices | None = None,
    resume: bool = False,
    exchange_teacher: str = "",
    progress: Progress | None = None,
    title: str = "training",
    teacher_disk: Path | None = None,
    callbacks: Sequence[object] = (),
) -> Run:
    """Train a method.

    Args:
        method: networks and objective; the precision ``64-true`` converts its parameters to float64 in place.
        data: splits and their description; the test split is not read.
        settings: epochs, optimiser and so on.
        metrics: constructor of an object with ``update`` and ``compute``, for each pass over the validation split.
        seed: of everything random; the bits of the result depend on it and on the number of threads.
        folder: run folder; None: nothing is written.
        fabric: started devices (`engine.processes.launch`); None: one process.
        resume: continue the run in the folder; a finished run is loaded.
        exchange_teacher: as a control, exchange the teacher's outputs between samples: ``class``, of the same class;
            ``all``, of any; empty: not at all.
        progress: shows the progress; None: nothing is shown.
        title: name of the training in progress lines.
        teacher_disk: folder for teacher outputs that are too large for memory, which several trainings can share;
            None: a folder in ``folder``.
        callbacks: objects with ``on_epoch(row)`` or ``on_end(run)``, see `xmodal.engine.callbacks`. A row is one of the
            history, with the ``seed`` and the ``name`` of the training; epochs before a resume are not told again.

    Raises:
        NonFinite: a loss term was infinite or NaN; the best weights so far are saved if there is a folder.
        Interrupted: SIGINT or SIGTERM arrived; the state is saved if there is a folder.
    """
    check_callbacks(callbacks)
    fabric = fabric or launch(precision=settings.precision)
    if settings.precision == "64-true":
        data = data.doubled()
    as_precise(method, data.info)
    progress = progress or Progress(quiet=True)
    teacher_disk = teacher_disk or (folder and folder / "answers")
    loop = Loop(method, data, settings, seed, folder, fabric, exchange_teacher, progress, metrics, teacher_disk)
    # every process has the same scores, and a tracker should get them once
    loop.callbacks = callbacks if fabric.global_rank == 0 else ()
    loop.title = title
    if folder is not None:
        finished = resume and (folder / "result.json").exists()
        # before the folder is created, and in all processes: one that raised alone would leave the others waiting
        if settings.tracking and not finished:
            require_tensorboard()
        if fabric.global_rank == 0:
            open_folder(folder, described(settings, seed, exchange_teacher), resume=resume)
        fabric.barrier()
        # the order of floating-point sums depends on the number of threads
        if resume:
            restore_threads(folder)
        if finished:
            run = read_back(loop)
            tell_end(loop.callbacks, run)
            return run
    with matmul_precision(settings.matmul):
        loop.prepare()
        if folder is not None and resume:
            loop.resume()
        with interrupt.deferred(), ExitStack() as stack:
            if settings.tracking and loop.writes and folder is not None:
                log = TensorBoardLog(folder, title=title, epochs=loop.settings.epochs, history=loop.history)
                loop.tensorboard = stack.enter_context(closing(log))
            progress.start(title, loop.settings.epochs, loop.epoch, metric=loop.selection.metric)
            try:
                while not loop.finished:
                    loop.train_epoch()
                    loop.end_epoch()
            except NonFinite:
                save_best(loop)
                raise
            run = finish(loop)
            # Inside the block, where a first signal does not raise: the other processes would wait for one that left.
            stop = any_signal(fabric, interrupt.pending())
    if stop:
        raise Interrupted(stop, saved=None if folder is None else str(folder))
    tell_end(loop.callbacks, run)
    return run


@kept()
def as_it_is(
    method: Method,
    data: Data,
    *,
    metrics: MetricsFor = Scores,
    seed: int = 0,
    folder: Path | None = None,
    fabric: Devices | None = None,
) -> Run:
    """A run without training: the students with the weights they have, scored on the validation split.

    Args:
        method: networks whose weights were loaded from elsewhere.
        data: splits; the test split is not read.
        metrics: see `fit`.
        seed: recorded in the result.
        folder: run folder with the files that `fit` writes; a run that is already in it is loaded. None: nothing is
            written.
        fabric: started devices.
    """
    fabric = fabric or launch()
    settings = FitSettings(epochs=1)
    as_precise(method, data.info)
    loop = Loop(method, data, settings, seed, folder, fabric, "", Progress(quiet=True), metrics)
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


def described(settings: FitSettings, seed: int, exchange_teacher: str = "") -> dict[str, Any]:
    """Content of `settings.json` in the folder of a training; a resumed training must have the same."""
    return {"fit": settings.model_dump(), "seed": seed, "exchange_teacher": exchange_teacher}
