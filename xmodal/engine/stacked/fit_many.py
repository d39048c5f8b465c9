"""Many small models trained as one: hundreds of runs of a synthetic study for the price of a few.

    runs = fit_many(methods, data, FitSettings(epochs=1000, batch_size=200))

A step of a tiny network is all overhead. Models that are alike (`alike`) are therefore stacked: their parameters get
an axis in front, and the method's own training step, mapped over it and recorded once (`kind`, `record`), moves all of
them together. Each starts from its own weights, sees its own batches in the order of its own seed, keeps its own best
epoch, and ends with the numbers of `fit` up to rounding. What can't be stacked is trained alone, and its run says why.

With folders each run leaves there what `fit` leaves. A stack has no checkpoints: one that was interrupted is trained
again from its beginning, with the same models in it, because their number decides about the last bits.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xmodal import files
from xmodal.data.base import Data
from xmodal.engine.evaluate import MetricsFor
from xmodal.engine.fit import described, fit
from xmodal.engine.processes import interrupt
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.engine.run.folder import open_folder, restore_threads
from xmodal.engine.run.result import Run, write_run, write_students
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.loop import StackLoop
from xmodal.engine.stacked.model_kind import Kind, Member
from xmodal.engine.stacked.stackable import hindrance
from xmodal.engine.stacked.tables import Leaves, read, strange_targets, with_teacher_outputs
from xmodal.engine.teacher_cache import Teaching
from xmodal.errors import InputError, NonFinite
from xmodal.method import Method
from xmodal.metrics.task import Scores
from xmodal.seeding import kept, seed_all

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# On a CPU a stack whose step goes through more than this falls out of the caches and gets slower per model.
CACHE = 16 * 2**20
FEW = 5  # models of which two fit into it are quicker in a stack of so many than in twos


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
    fabric: Fabric | None = None,
    progress: Progress | None = None,
    title: str = "training",
) -> list[Run]:
    """Train many methods, those that are alike together.

    Both sequences may make their items when they are asked for: each is asked once, in order, and no more of them are
    held than fit into ``memory`` (the methods themselves come back in the runs).

    Args:
        methods: networks and objectives.
        data: of each method, or one for all.
        settings: of all of them.
        seeds: of each method's order of batches; None: 0, 1, 2, …
        memory: bytes that a stack may take with its data; more models are trained in several stacks.
        metrics: as in `fit`.
        score: look at the validation split after each epoch. Without it there is no best epoch, so ``settings.keep``
            must be ``last``. A method that is trained alone is scored all the same.
        folders: where to keep the run of each method; None: in memory only.
        resume: take what the folders hold where all of them are finished; otherwise train the stacks again.
        fabric: started devices (`engine.processes.launch`); None: one process.
        progress: where to tell how it goes.
        title: what the progress line calls it.

    Returns:
        One run per method, in their order.

    Raises:
        NonFinite: a loss term of a model was infinite or not a number; none of the runs is returned. Folders hold the
            best weights so far of all models of its stack.
        Interrupted: a signal asked to stop; what was finished before is in the folders.
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
    with interrupt.deferred():
        for number in range(count):
            own = data if isinstance(data, Data) else data[number]
            stacks.add(number, methods[number], own, numbers[number])
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
    for name, given in (("data", data), ("seeds", seeds), ("folders", folders)):
        if given is not None and not isinstance(given, Data) and len(given) != count:
            problems.append(f"{count} methods were given and {len(given)} {name}: expected one each.")
    if not score and settings.keep != "last":
        problems.append(
            "Without scores there is no best epoch, and settings.keep is 'best': 'last' was expected. Set it, or score."
        )
    if not score and folders is not None:
        problems.append("A run folder holds scores of the validation split. Score, or leave the folders out.")
    if problems:
        raise InputError(problems)


class Stacks:
    """Models that wait for others of their kind until there are enough for a stack, and the runs that came out."""

    def __init__(
        self,
        settings: FitSettings,
        fabric: Fabric,
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
        self.half = memory // 2  # one half is for models that wait, one for the stack that is trained
        self.progress, self.title = progress, title
        self.runs: dict[int, Run] = {}
        self.kinds: dict[Hashable, Kind | str] = {}  # a sentence: why models of this kind can't be stacked
        self.waiting: dict[Hashable, list[Member]] = {}
        self._read: tuple[Data, Leaves, Leaves | None] | None = None

    def open_folders(self, seeds: Sequence[int], *, resume: bool) -> None:
        """Start the runs in their folders, or find out whether they are all there."""
        for folder, seed in zip(self.folders or (), seeds, strict=False):
            if self.fabric.global_rank == 0:
                open_folder(folder, described(self.settings, seed), resume=resume)
            if resume:
                restore_threads(folder)
        self.finished = bool(self.folders) and all(map(_is_finished, self.folders or ()))

    def add(self, number: int, method: Method, data: Data, seed: int) -> None:
        """Take a model in, and train what is ready."""
        if self.finished:
            self._fit(number, method, data, seed)  # which reads it back
            return
        reason = hindrance(method, data, self.settings)
        found = self._member(number, method, data, seed) if not reason else reason
        if isinstance(found, str):
            self._train_alone(number, method, data, seed, found)
            return
        key, kind = self._kind(found)
        if isinstance(kind, Kind) and kind.bytes > self.half:
            kind = f"one of it takes about {kind.bytes / 2**20:.0f} MiB, more than half of the memory allowed"
        if isinstance(kind, Kind) and self._limit(kind) < 2:
            kind = "a step of one fills the cache or the memory, so a stack of several would not be faster"
        if isinstance(kind, str):
            self._train_alone(number, method, data, seed, kind)
            return
        kind.trim(found)
        if kind.proven:
            found.data = None
        self.waiting.setdefault(key, []).append(found)
        if len(self.waiting[key]) >= self._limit(kind):
            self._train(key)
        elif sum(map(_bytes, self.waiting.values())) > self.half:
            self._train(max(self.waiting, key=lambda key: _bytes(self.waiting[key])))

    def _kind(self, member: Member) -> tuple[Hashable, Kind | str]:
        """The kind of a model, found by a first one that differs at most in the data that it reads."""
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
        """Train all that still wait."""
        for key in list(self.waiting):
            self._train(key)

    def _limit(self, kind: Kind) -> int:
        """How many models make a full stack; 1: a stack of them would not be faster."""
        room, cached = self.half // kind.bytes, CACHE // max(kind.working, 1)
        if self.fabric.device.type != "cpu":
            return room
        return min(room, max(cached, FEW)) if cached > 1 else 1

    def _member(self, number: int, method: Method, data: Data, seed: int) -> Member | str:
        """A model with its data as tensors, or why there is none."""
        device = self.fabric.device
        method.to(device).train()
        if self._read is None or self._read[0] is not data:
            valid = read(data.valid, device) if self.score else None
            self._read = data, read(data.train, device), valid
        _, train, valid = self._read
        if reason := strange_targets(train, data.info):
            return reason
        teaching = Teaching(
            method, data.train, data.info, self.fabric, cache=self.settings.cache, shuffle=False, seed=seed
        )
        if teaching.active:
            if teaching.table is None:
                return "its teacher's answers are too large to keep"
            train = with_teacher_outputs(train, teaching.table)
        return Member(number, method, data.info, seed, train.copy(), valid.copy() if valid else None, data)

    def _train(self, key: Hashable) -> None:
        kind, members = self.kinds[key], self.waiting.pop(key)
        assert isinstance(kind, Kind)
        title = f"{self.title}, {len(members)} models at once"
        loop = StackLoop(kind, members, self.settings, metrics=self.metrics, score=self.score, progress=self.progress)
        if not kind.proven:
            try:
                loop.rehearse()
            except Exception as error:  # whatever it is: trained alone the method meets it again, or it doesn't
                self.kinds[key] = reason = _sentence(error)
                for member in members:
                    assert member.data is not None
                    self._train_alone(member.number, member.method, member.data, member.seed, reason)
                return
            kind.proven = True
        for member in members:
            member.data = None
        seed_all("fit_many", *(member.seed for member in members))
        self.progress.start(title, self.settings.epochs)
        try:
            found = loop.run()
        except NonFinite:
            for member, students in zip(members, loop.kept() if loop.epoch else (), strict=False):
                if self.folders:
                    write_students(self.folders[member.number], students, member.info)
            raise
        for member, run in zip(members, found, strict=True):
            self.runs[member.number] = run
            if self.folders:
                run.folder = self.folders[member.number]
                self._write(run, member)
        self.progress.end()

    def _write(self, run: Run, member: Member) -> None:
        """Leave in the folder of a run what `fit` leaves there; one that is there already has the same bits."""
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
            resume=bool(self.folders),  # they were opened, and looked at, before
            fabric=self.fabric,
            progress=self.progress,
            title=f"{self.title}, model {number}",
        )


def _is_finished(folder: Path) -> bool:
    return (folder / "result.json").exists()


def _kind_of(member: Member, settings: FitSettings) -> Kind | str:
    try:
        return Kind(member, settings.batch_size)
    except Exception as error:  # as above
        return _sentence(error)


def _sentence(error: Exception) -> str:
    told = str(error).strip().partition("\n")[0].rstrip(".")
    return f"its training step can't be run for many models at once ({type(error).__name__}: {told})"


def _bytes(members: Sequence[Member]) -> int:
    return sum(member.train.bytes + (member.valid.bytes if member.valid else 0) for member in members)
