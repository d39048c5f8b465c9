"""One command as a study: devices, run folder, benches, and the result at the end.

    with open_study(settings, "ravdess", progress=progress) as study:
        …                                   # data, and all checks: nothing is written yet
        study.start(fits=10)                # from here on there is a run folder
        for seed in settings.seeds:
            bench = study.bench(plan, open_seed(plan, seed), seed)
            …
        return study.finish(result)

The order is a promise: what is wrong with the input is reported before a folder exists, and whatever is interrupted
after `start` says how to resume the whole command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from xmodal.engine.processes import interrupt
from xmodal.engine.progress import Progress
from xmodal.engine.run.folder import choose_folder, open_folder, restore_threads
from xmodal.engine.settings import MachineSettings, Precision
from xmodal.files import read_json, write_json

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from xmodal.data.base import Data
    from xmodal.study.bench import Bench, Earlier
    from xmodal.study.plan import Plan

PAGE = "report.html"


class StudySettings(Protocol):
    """What a study needs of a recipe's settings."""

    @property
    def out(self) -> Path | None:
        """Run folder; None: the next free one under runs/."""

    @property
    def resume(self) -> bool:
        """Whether to continue the run in ``out``."""

    @property
    def precision(self) -> Precision:
        """Number format of training."""

    def machine(self) -> MachineSettings:
        """Devices and threads."""

    def described(self) -> dict[str, Any]:
        """What a run is replayed from, and must equal when it is resumed."""


class Study:
    """A command that is running; `open_study` makes it.

    Attributes:
        settings: of the recipe.
        recipe: name of its card.
        fabric: started devices.
        progress: what a person sees.
        out: run folder; None before `start`, and where nothing is written.
    """

    def __init__(self, settings: StudySettings, recipe: str, fabric: Fabric, progress: Progress) -> None:
        self.settings, self.recipe, self.fabric, self.progress = settings, recipe, fabric, progress
        self.out: Path | None = None
        self._until_the_end = ExitStack()

    @property
    def first(self) -> bool:
        """Whether this process writes: one of them does."""
        return self.fabric.global_rank == 0

    @property
    def folder(self) -> Path:
        """The run folder, once there is one."""
        assert self.out is not None, "the study has no run folder: `start` opens it"
        return self.out

    def start(
        self, *, fits: int, name: str = "", resume: bool | None = None, free: Sequence[str] = (), write: bool = True
    ) -> None:
        """Open the run folder; everything that can be refused has been refused before.

        Args:
            fits: trainings to come, for the time left.
            name: of a new folder under runs/; empty: the recipe.
            resume: whether to continue the run in the folder; None: as the settings say.
            free: settings that may differ from those of the run that is continued.
            write: False: train in memory alone.
        """
        self.progress.fits = fits
        if not write:
            return
        resume = self.settings.resume if resume is None else resume
        self.out = choose_folder(self.settings.out, name or self.recipe, self.fabric, resume=resume)
        if self.first:
            description = {"recipe": self.recipe, "settings": self.settings.described()}
            open_folder(self.out, description, resume=resume, free=free)
        self.fabric.barrier()  # no process may look into the folder before it is opened
        if resume:
            restore_threads(self.out)
        # whatever is interrupted from now on says how to resume this folder
        self._until_the_end.enter_context(interrupt.saved_in(self.out))

    def bench(
        self,
        plan: Plan,
        data: Data,
        seed: int,
        *,
        earlier: Earlier | None = None,
        modules: Mapping[str, nn.Module] | None = None,
        inside: str = "",
    ) -> Bench:
        """The bench of one seed; its runs go to ``seed-<n>`` in the run folder, or in the folder ``inside`` there."""
        from xmodal.study.bench import Bench

        folder = None if self.out is None else self.out / inside / f"seed-{seed}"
        return Bench(
            data,
            plan,
            seed=seed,
            fabric=self.fabric,
            folder=folder,
            progress=self.progress,
            modules=modules,
            earlier=earlier,
        )

    def saved_rows(self, part: str) -> list[dict[str, Any]] | None:
        """Rows of one part of the study that an interrupted run has finished; None where it has not."""
        file = self.folder / "rows" / f"{part}.json"
        rows: list[dict[str, Any]] | None = read_json(file)["rows"] if file.exists() else None
        return rows

    def save_rows(self, part: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep the rows of a finished part; returns them as they are read back, numbers rounded nowhere."""
        file = self.folder / "rows" / f"{part}.json"
        write_json(file, {"rows": rows})
        saved: list[dict[str, Any]] = read_json(file)["rows"]
        return saved

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write `result.json`, then draw the page from it; returns the result with the folder's name."""
        complete = {"recipe": self.recipe, **result}
        if self.out is not None and self.first:
            from xmodal.reports.page import write_page

            write_json(self.out / "result.json", complete)
            write_page([self.out], self.out / PAGE)
        self.fabric.barrier()
        self.progress.close()
        return complete if self.out is None else {**complete, "folder": str(self.out)}


@contextmanager
def open_study(settings: StudySettings, recipe: str, *, progress: Progress | None = None) -> Iterator[Study]:
    """Start devices and processes; an interruption inside the block is told how to resume the whole command.

    Args:
        settings: of the recipe.
        recipe: name of its card.
        progress: what a person sees; None: nothing.
    """
    from xmodal.engine.processes.launch import launch

    # first of all: with several devices the command starts again here, once per device
    fabric = launch(settings.machine(), precision=settings.precision)
    progress = progress or Progress(quiet=True)
    progress.quiet |= fabric.global_rank > 0
    study = Study(settings, recipe, fabric, progress)
    with study._until_the_end:
        yield study
