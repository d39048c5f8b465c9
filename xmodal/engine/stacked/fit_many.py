"""Many small models trained as one: hundreds of trainings of a synthetic study in the time of a few.

    runs = fit_many(methods, data, FitSettings(epochs=1000, batch_size=200))

A step of a tiny network takes most of its time for overhead. Models that can be stacked (`stackable`) are therefore
trained together: their parameters get an axis in front, and the method's training step, mapped over this axis and
recorded once (`model_kind`, `recorded`), updates all of them. Each model has its own initial weights, its own batches
in the order of its own seed, and its own best epoch, and ends with the weights of `fit` up to rounding. Models that
can't be stacked are trained alone, and their runs say why.

With folders each run writes the files that `fit` writes. A stack has no checkpoints. If it was interrupted, it is
trained again from the beginning, with the same models in it: their number decides about the last bits.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xmodal import files
from xmodal.data.base import Data
from xmodal.devices import matmul_precision
from xmodal.engine.evaluate import MetricsFor
from xmodal.engine.fit import described, fit
from xmodal.engine.processes import interrupt
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.engine.run.folder import open_folder, restore_threads
from xmodal.engine.run.result import Run, write_run, write_students
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.loop import StackLoop
from xmodal.engine.stacked.model_kind import Member, ModelKind
from xmodal.engine.stacked.stackable import hindrance
from xmodal.engine.stacked.tables import Leaves, invalid_targets, read, with_teacher_outputs
from xmodal.engine.teacher_cache import TeacherCache
from xmodal.errors import InputError, NonFinite
from xmodal.method import Method
from xmodal.metrics.task import Scores
from xmodal.seeding import kept, seed_all

if TYPE_CHECKING:
    from xmodal.devices import Devices

# On a CPU a stack whose step takes more memory than this does not fit into the caches, and is slower per model.
CACHE = 16 * 2**20
FEW = 5  # models; if two of them fit into the cache, a stack of so many is faster than stacks of two


@kept()
def fit_many(
    methods: Sequence[Method],
    data: Sequence[Data] | Data,
    settings: FitSettings,
    *,
    seeds: Sequence[int] | None = None,
    memory: int = 2**30,
    metrics: MetricsFor = Scores,
    score: bool = True,
    folders: Sequence[Path] | None = None,
    resume: bool = False,
    fabric: Devices | None = None,
    progress: Progress | None = None,
    title: str = "training",
) -> list[Run]:
    """Train many methods, as many as possible together.

    Both sequences may build their items when they are read: each item is read once, in order, and no more data is held
    than fits into ``memory`` (the methods are returned in the runs).

    Args:
        methods: networks and objectives.
        data: of each method, or one data set for all.
        settings: of all methods.
        seeds: of each method's order of batches; None: 0, 1, 2, …
        memory: bytes that a stack may take with its data; more models are trained in several stacks.
        metrics: as in `fit`.
        score: whether to score the validation split after each epoch. Without scores there is no best epoch, so
            ``settings.keep`` must be ``last``. A method that is trained alone is scored anyway.
        folders: run folder of each method; None: nothing is written.
        resume: load the runs from the folders if all of them are finished; otherwise train the stacks again.
        fabric: started devices (`engine.processes.launch`); None: one process.
        progress: shows the progress; None: nothing is shown.
        title: name of the training in progress lines.

    Returns:
        One run per method, in the same order.

    Raises:
        NonFinite: a loss term of a model was infinite or NaN; no run is returned. Folders hold the best weights so far
            of all models of its stack.
        Interrupted: SIGINT or SIGTERM arrived; runs that were finished before are in the folders.
    """
    count = len(methods)
    _check(count, data, seeds, settings, score, folders)
    progress = progress or Progress(quiet=True)
    fabric = fabric or launch(precision=settings.precision)
    stacks = Stacks(
        settings,
        fabric,
        memory=memory,
        metrics=metrics,
        score=score,
        folders=folders,
        progress=progress,
        title=title,
    )
    numbers = range(count) if seeds is None else seeds
    stacks.open_folders(numbers, resume=resume)
    with interrupt.deferred(), matmul_precision(settings.matmul):
        for number in range(count):
            stacks.add(number, methods[number], data if isinstance(data, Data) else data[number], numbers[number])
        stacks.train_rest()
    return [stacks.runs[number] for number in range(count)]


def _check(
    count: int,
    data: Sequence[Data] | Data,
    seeds: Sequence[int] | None,
    settings: FitSettings,
    score: bool,
    folders: Sequence[Path] | None,
) -> None:
    problems = []
    for name, values in (("data", data), ("seeds", seeds), ("folders", folders)):
        if values is not None and not isinstance(values, Data) and len(values) != count:
            problems.append(f"{count} methods were given and {len(values)} {name}: expected one each.")
    if not score and settings.keep != "last":
        problems.append(
            f"With score=False there is no best epoch, and settings.keep is '{settings.keep}': 'last' was expected. "
            "Change one of them."
        )
    if not score and folders is not None:
        problems.append(
            "Run folders contain scores of the validation split, and score is False. Set it to True, or leave the "
            "folders out."
        )
    if problems:
        raise InputError(problems)


class Stacks:
    """Models that wait until there are enough of their kind for a stack, and the runs of those that were trained."""

    def __init__(
        self,
        settings: FitSettings,
        fabric: Devices,
        *,
        memory: int,
        metrics: MetricsFor,
        score: bool,
        folders: Sequence[Path] | None,
        progress: Progress,
        title: str,
    ) -> None:
        self.settings, self.fabric, self.metrics, self.score = settings, fabric, metrics, score
        self.folders, self.finished = folders, False
        self.half = memory // 2  # half for models that wait, half for the stack in training
        self.progress, self.title = progress, title
        self.runs: dict[int, Run] = {}
        self.kinds: dict[Hashable, ModelKind | str] = {}  # text: why models of this kind can't be stacked
        self.waiting: dict[Hashable, list[Member]] = {}
        self._read: tuple[Data, Leaves, Leaves | None] | None = None

    def open_folders(self, seeds: Sequence[int], *, resume: bool) -> None:
        """Start the runs in their folders, and check whether all of them are finished."""
        for folder, seed in zip(self.folders or (), seeds, strict=False):
            if self.fabric.global_rank == 0:
                open_folder(folder, described(self.settings, seed), resume=resume)
            if resume:
                restore_threads(folder)
        # All or none: a stack without the models that are finished would have other last bits.
        self.finished = bool(self.folders) and all(map(_is_finished, self.folders or ()))

    def add(self, number: int, method: Method, data: Data, seed: int) -> None:
        """Add a model, and train the stack that is complete with it, if any."""
        if self.finished:
            self._fit(number, method, data, seed)  # which loads it
            return
        reason = hindrance(method, data, self.settings)
        member = reason or self._member(number, method, data, seed)
        if isinstance(member, str):
            self._train_alone(number, method, data, seed, member)
            return
        key, kind = self._kind(member)
        if isinstance(kind, ModelKind) and kind.bytes > self.half:
            kind = f"one of it takes about {kind.bytes / 2**20:.0f} MiB, more than half of the memory allowed"
        if isinstance(kind, ModelKind) and self._limit(kind) < 2:
            kind = "a step of one fills the cache or the memory, so a stack of several would not be faster"
        if isinstance(kind, str):
            self._train_alone(number, method, data, seed, kind)
            return
        kind.trim(member)
        # the data set is kept only as long as the model may have to be trained alone
        if kind.proven:
            member.data = None
        self.waiting.setdefault(key, []).append(member)
        # a stack is trained when it is full, or the largest one when the waiting models take their half of the memory
        if len(self.waiting[key]) >= self._limit(kind):
            self._train(key)
        elif sum(map(_bytes, self.waiting.values())) > self.half:
            self._train(max(self.waiting, key=lambda key: _bytes(self.waiting[key])))

    def _kind(self, member: Member) -> tuple[Hashable, ModelKind | str]:
        """The kind of a model, and its key."""
        # In two steps: which data a model reads is known only after the step of a first model with the same key was
        # recorded. Then the shapes of this data decide; those of other data may differ.
        key = member.key()
        first = self.kinds.get(key)
        if first is None:
            self.kinds[key] = first = _kind_of(member, self.settings)
        if isinstance(first, str):
            return key, first
        full = (key, first.shapes_read(member))
        if full not in self.kinds:
            same = first.shapes_of_first == full[1]
            self.kinds[full] = first if same else _kind_of(member, self.settings)
        return full, self.kinds[full]

    def train_rest(self) -> None:
        """Train all models that still wait."""
        for key in list(self.waiting):
            self._train(key)

    def _limit(self, kind: ModelKind) -> int:
        """Number of models in a full stack; 1: a stack would not be faster."""
        room, cached = self.half // kind.bytes, CACHE // max(kind.working, 1)
        if self.fabric.device.type != "cpu":
            return room
        return min(room, max(cached, FEW)) if cached > 1 else 1

    def _member(self, number: int, method: Method, data: Data, seed: int) -> Member | str:
        """A model with its data as tensors, or why it can't be stacked."""
        device = self.fabric.device
        method.to(device).train()
        # models that follow one another often have the same data, which is read once
        if self._read is None or self._read[0] is not data:
            valid = read(data.valid, device) if self.score else None
            self._read = data, read(data.train, device), valid
        _, train, valid = self._read
        if reason := invalid_targets(train, data.info):
            return reason
        teacher = TeacherCache(
            method, data.train, data.info, self.fabric, cache=self.settings.cache, exchange="", seed=seed
        )
        if teacher.active:
            if teacher.table is None:
                return "the outputs of its teacher are too large for memory"
            train = with_teacher_outputs(train, teacher.table)
        labelled = data.train.labelled
        return Member(number, method, data.info, seed, train.copy(), valid.copy() if valid else None, data, labelled)

    def _train(self, key: Hashable) -> None:
        kind, members = self.kinds[key], self.waiting.pop(key)
        assert isinstance(kind, ModelKind)
        title = f"{self.title}, {len(members)} models at once"
        loop = StackLoop(kind, members, self.settings, metrics=self.metrics, score=self.score, progress=self.progress)
        if not kind.proven:
            # Any exception may mean that the step can't be mapped or recorded. If the method itself is wrong, the same
            # exception is raised when it is trained alone.
            try:
                loop.rehearse()
            except Exception as error:
                self.kinds[key] = reason = _reason(error)
                for member in members:
                    assert member.data is not None
                    self._train_alone(member.number, member.method, member.data, member.seed, reason)
                return
            kind.proven = True
        for member in members:
            member.data = None
        # after the rehearsal, which may have drawn dropout masks
        seed_all("fit_many", *(member.seed for member in members))
        self.progress.start(title, loop.settings.epochs)
        try:
            runs = loop.run()
        except NonFinite:
            for member, students in zip(members, loop.kept() if loop.epoch else (), strict=False):
                if self.folders:
                    write_students(self.folders[member.number], students, member.info)
            raise
        for member, run in zip(members, runs, strict=True):
            self.runs[member.number] = run
            if self.folders:
                run.folder = self.folders[member.number]
                self._write(run, member)
        self.progress.end()

    def _write(self, run: Run, member: Member) -> None:
        """Write the files of a run that `fit` writes; a run that is already in the folder has the same bits."""
        assert run.folder is not None
        if self.fabric.global_rank == 0 and not _is_finished(run.folder):
            files.write_rows(run.folder / "history.jsonl", run.history)
            write_run(run, member.info, seed=member.seed)

    def _train_alone(self, number: int, method: Method, data: Data, seed: int, reason: str) -> None:
        self._fit(number, method, data, seed)
        self.runs[number].notes.append(f"Trained alone, not in a stack: {reason}.")

    def _fit(self, number: int, method: Method, data: Data, seed: int) -> None:
        self.runs[number] = fit(
            method,
            data,
            self.settings,
            metrics=self.metrics,
            seed=seed,
            folder=self.folders[number] if self.folders else None,
            # the folder was opened and checked in `open_folders`
            resume=bool(self.folders),
            fabric=self.fabric,
            progress=self.progress,
            title=f"{self.title}, model {number}",
        )


def _is_finished(folder: Path) -> bool:
    return (folder / "result.json").exists()


def _kind_of(member: Member, settings: FitSettings) -> ModelKind | str:
    # any exception, as in `Stacks._train`
    try:
        return ModelKind(member, settings.batch_size)
    except Exception as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0].rstrip(".")
    return f"its training step can't be run for many models together ({type(error).__name__}: {first_line})"


def _bytes(members: Sequence[Member]) -> int:
    return sum(member.train.bytes + (member.valid.bytes if member.valid else 0) for member in members)
