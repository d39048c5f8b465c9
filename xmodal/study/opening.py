"""One command as a study: devices, run folder, benches, and the result at the end.

    with open_study(settings, "ravdess", progress=progress) as study:
        …                                   # data, and all checks: nothing is written yet
        study.start(fits=10)                # from here on there is a run folder
        for seed in settings.seeds:
            bench = study.bench(plan, open_seed(plan, seed), seed)
            …
        return study.finish(result)

The order is a promise: errors in the input appear before a folder exists, and the message about an interruption after
`start` contains the command that resumes the whole study.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from xmodal.engine.processes import interrupt
from xmodal.engine.progress import Progress
from xmodal.engine.run.folder import choose_folder, open_folder, restore_threads
from xmodal.engine.settings import MachineSettings, Precision
from xmodal.errors import InputError
from xmodal.files import read_json, write_json
from xmodal.study.drawing import drawing
from xmodal.study.settings import JobSettings

if TYPE_CHECKING:
    from torch import nn

    from xmodal.data.base import Data
    from xmodal.devices import Devices
    from xmodal.study.bench import Bench, Earlier
    from xmodal.study.parallel.trained import TrainedSeed
    from xmodal.study.plan import Plan

PAGE = "report.html"


class StudySettings(Protocol):
    """The part of a recipe's settings that a study reads."""

    @property
    def out(self) -> Path | None:
        """Run folder; None: the next free one under runs/."""

    @property
    def resume(self) -> bool:
        """Whether to continue the run in ``out``."""

    @property
    def precision(self) -> Precision:
        """Floating-point format of training."""

    def machine(self) -> MachineSettings:
        """Devices and threads."""

    def described(self) -> dict[str, Any]:
        """The settings that `settings.json` records; a resumed run must have the same."""


class Study:
    """A command that is running; `open_study` makes it.

    Attributes:
        settings: of the recipe.
        recipe: name of its card.
        fabric: started devices.
        progress: shows the progress.
        out: run folder; None before `start`, and if nothing is written.
        modules: the user's own networks by side, in place of built ones.
        callbacks: objects that are told of every epoch, see `xmodal.engine.callbacks`.
        jobs: how many seeds are trained at the same time.
        cluster: where, in place of this machine; empty: here.
        trained: seed → its networks, of the seeds whose networks are kept.
    """

    modules: Mapping[str, nn.Module] = {}
    callbacks: Sequence[object] = ()
    jobs, cluster = 1, ""

    def __init__(self, settings: StudySettings, recipe: str, fabric: Devices, progress: Progress) -> None:
        self.settings, self.recipe, self.fabric, self.progress = settings, recipe, fabric, progress
        self.out: Path | None = None
        self._until_the_end = ExitStack()
        self.trained: dict[int, TrainedSeed] = {}
        self._keeps: bool | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files; the others only compute."""
        return self.fabric.global_rank == 0

    @property
    def keeps_networks(self) -> bool:
        """Whether the networks of every seed stay in memory: those that cannot be read back from a file do."""
        return bool(self.modules) or self.out is None if self._keeps is None else self._keeps

    @keeps_networks.setter
    def keeps_networks(self, keeps: bool) -> None:
        self._keeps = keeps

    @property
    def folder(self) -> Path:
        """The run folder, after `start`."""
        assert self.out is not None, "the study has no run folder: `start` opens it"
        return self.out

    def start(
        self,
        *,
        fits: int,
        name: str = "",
        resume: bool | None = None,
        free: Sequence[str] = (),
        facts: Mapping[str, Any] | None = None,
        write: bool = True,
    ) -> None:
        """Open the run folder. Call it after all checks, so that wrong input leaves no folder behind.

        Args:
            fits: number of trainings to come, for the estimate of the remaining time.
            name: of a new folder under runs/; empty: the name of the recipe.
            resume: whether to continue the run in the folder; None: as the settings say.
            free: names of settings that may differ from those of the resumed run.
            facts: what `settings.json` records besides the settings; a resumed run must have the same.
            write: False: nothing is written.
        """
        self.progress.fits = fits
        if not write:
            return
        resume = self.settings.resume if resume is None else resume
        self.out = choose_folder(self.settings.out, name or self.recipe, self.fabric, resume=resume)
        if self.first:
            description = {"recipe": self.recipe, "settings": self.settings.described(), **(facts or {})}
            open_folder(self.out, description, resume=resume, free=free)
        # no process may look into the folder before the first one has opened it
        self.fabric.barrier()
        # before anything is computed: the order of floating-point sums depends on the number of threads
        if resume:
            restore_threads(self.out)
        # from now on the message about an interruption contains the command that resumes this folder
        self._until_the_end.enter_context(interrupt.saved_in(self.out))

    def bench(
        self,
        plan: Plan,
        data: Data,
        seed: int,
        *,
        earlier: Earlier | None = None,
        inside: str = "",
    ) -> Bench:
        """The bench of one seed; it writes to ``seed-<n>`` in the run folder, or in the subfolder ``inside``."""
        from xmodal.study.bench import Bench

        folder = None if self.out is None else self.out / inside / f"seed-{seed}"
        bench = Bench(
            data,
            plan,
            seed=seed,
            fabric=self.fabric,
            folder=folder,
            progress=self.progress,
            modules=self.modules,
            callbacks=self.callbacks,
            earlier=earlier,
        )
        if not inside and self.keeps_networks:
            self.trained[seed] = bench
        return bench

    def saved_rows(self, part: str) -> list[dict[str, Any]] | None:
        """Rows of a part of the study that an earlier, interrupted run finished; None if it did not."""
        file = self.folder / "rows" / f"{part}.json"
        rows: list[dict[str, Any]] | None = read_json(file)["rows"] if file.exists() else None
        return rows

    def save_rows(self, part: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Save the rows of a finished part, and return what a resumed study reads."""
        # read back, so that a resumed study computes its report from the same objects: JSON turns tuples into lists
        file = self.folder / "rows" / f"{part}.json"
        write_json(file, {"rows": rows})
        saved: list[dict[str, Any]] = read_json(file)["rows"]
        return saved

    def save(self, result: Mapping[str, Any]) -> None:
        """Write `result.json` before anything is drawn: `finish` writes the complete one."""
        if self.out is not None and self.first:
            write_json(self.out / "result.json", _without_classes({"recipe": self.recipe, **result}))

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write `result.json` and the page, and return the result with the path of the run folder."""
        complete = {"recipe": self.recipe, **result, "notes": list(result.get("notes", ()))}
        if complete.get("ship") and self.first:
            complete["ship"] = self._completed(complete["ship"])
            complete["deploy"] = complete["ship"]["file"]
        if self.out is not None and self.first:
            from xmodal.reports.page import write_page

            self.save(complete)
            noted = len(complete["notes"])
            # from the files alone, so that `xmodal report` draws the same page again
            with drawing(complete["notes"], f"The page {PAGE}"):
                write_page([self.out], self.out / PAGE)
            if len(complete["notes"]) > noted:
                self.save(complete)
        self.fabric.barrier()
        self.progress.close()
        return complete if self.out is None else {**complete, "folder": str(self.out)}

    def _completed(self, card: Mapping[str, Any]) -> dict[str, Any]:
        """The ship card with what only the finished run knows: size, speed, and the command that exports the student.

        They are measured once: a run that is resumed after its end keeps what it has.
        """
        from xmodal.study.speed import measure, measure_file

        command = "" if self.out is None else f"xmodal export {shlex.quote(str(self.out))}"
        blank = dict.fromkeys(("bytes", "ms_median", "ms_p95"))
        complete = {**card, **({"file": "", "folder": ""} if self.out is None else {}), **blank, "command": command}
        earlier = self.out and self.out / "result.json"
        if earlier and earlier.is_file():
            stored = read_json(earlier).get("ship") or {}
            if stored.get("file") == card["file"] and stored.get("ms_median"):
                return complete | {key: stored[key] for key in (*blank, "parameters")}
        if card["seed"] in self.trained:
            seed = self.trained[card["seed"]]
            return complete | measure(seed.student_in(card["folder"], card["student"]), seed.info)
        file = self.folder / card["file"]
        return complete | (measure_file(file) if file.is_file() else {})


def share_cores(study: Study, settings: JobSettings) -> None:
    """Decide how many seeds are trained at the same time, and give each its share of the cores."""
    from xmodal.study.parallel.cluster import require_cluster
    from xmodal.study.parallel.count import cores, jobs_of

    threads = settings.threads
    if settings.cluster:
        require_cluster()
        if study.fabric.world_size > 1:
            raise InputError("--cluster trains each seed in one process, and --devices in several. Leave one out.")
    study.cluster = settings.cluster
    study.jobs = jobs_of(settings.jobs, tasks=settings.tasks, threads=threads, fabric=study.fabric)
    if threads is None and (study.jobs > 1 or study.cluster):
        import torch

        # now, since the run folder records the number; a process of a cluster has one core
        torch.set_num_threads(1 if study.cluster else max(cores() // study.jobs, 1))


def _without_classes(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without values per class in its rows, if there are so many classes that no table is part of a result.

    Each row names the folder of its training, which holds them; with many networks and seeds they would be most of
    the file.
    """

    def numbers(row: Mapping[str, Any]) -> dict[str, Any]:
        if "confused" not in row.get("test", {}) or not row.get("folder"):
            return dict(row)
        return {
            **row,
            "test": {name: value for name, value in row["test"].items() if not isinstance(value, list | dict)},
        }

    return {**result, **{key: [numbers(row) for row in result[key]] for key in ("rows", "curve_rows") if key in result}}


@contextmanager
def open_study(
    settings: StudySettings,
    recipe: str,
    *,
    progress: Progress | None = None,
    build: Callable[[StudySettings, str, Devices, Progress], Study] = Study,
) -> Iterator[Study]:
    """Start devices and processes for a study.

    Args:
        settings: of the recipe.
        recipe: name of its card.
        progress: shows the progress; None: nothing is shown.
        build: makes the study; that of `xmodal.api` has networks and callbacks of the user.
    """
    from xmodal.engine.processes.launch import launch

    # before data and folders: with several devices this process starts the command again, once per device, and waits
    fabric = launch(settings.machine(), precision=settings.precision)
    progress = progress or Progress(quiet=True)
    progress.quiet |= fabric.global_rank > 0
    study = build(settings, recipe, fabric, progress)
    if isinstance(settings, JobSettings):
        share_cores(study, settings)
    with study._until_the_end:
        yield study
