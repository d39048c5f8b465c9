"""The one loop. It knows the contract of `Method` and nothing of any paper.

    run = fit(method, data, FitSettings(epochs=20), seed=0, folder=Path("runs/kd"))

Every epoch: train on the training split, score every student on the validation split, keep each student's best
weights. A run with a folder can be killed at any moment and resumed (`resume=True`) to the same bits.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xmodal import files
from xmodal.data.base import Data
from xmodal.data.loader import Batches, Loader, mix
from xmodal.engine import checkpoint, interrupt, run_folder
from xmodal.engine.evaluate import evaluate
from xmodal.engine.finite import non_finite
from xmodal.engine.launch import launch
from xmodal.engine.optim import Optimisers
from xmodal.engine.progress import Progress
from xmodal.engine.seeding import restore, seed_all, states
from xmodal.engine.selection import Selection
from xmodal.engine.settings import FitSettings
from xmodal.engine.sums import Agreement, Sums, agree
from xmodal.engine.sync_batchnorm import synchronise_batchnorm
from xmodal.engine.teacher_cache import Teaching
from xmodal.errors import InputError, Interrupted
from xmodal.method import Method, gather_rows
from xmodal.models.student_file import load_weights_into, save_student, save_weights
from xmodal.types import Batch, Student

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class Run:
    """What a fit leaves behind, in memory; `folder` holds the same on disk.

    Attributes:
        method: the method with its weights after the last epoch.
        students: each with the weights of its best epoch, in eval mode.
        history: one row per epoch.
        best: student → best epoch, score and validation metrics.
        seconds: training time of this process, not of earlier ones that were resumed.
    """

    method: Method
    students: dict[str, Student]
    history: list[dict[str, Any]]
    best: dict[str, dict[str, Any]]
    seconds: float = 0.0
    folder: Path | None = None
    notes: list[str] = field(default_factory=list)


def fit(
    method: Method,
    data: Data,
    settings: FitSettings,
    *,
    seed: int = 0,
    folder: Path | None = None,
    fabric: Fabric | None = None,
    resume: bool = False,
    shuffle_teacher: bool = False,
    progress: Progress | None = None,
    title: str = "training",
) -> Run:
    """Train a method.

    Args:
        method: networks and objective.
        data: splits and what is known of them; the test split is not touched.
        settings: epochs, optimiser and so on.
        seed: of everything random, with the thread count part of the bits.
        folder: where to keep the run; None: in memory only.
        fabric: started devices (`engine.launch`); None: one process.
        resume: go on with what the folder holds; a finished run is read back.
        shuffle_teacher: exchange the teacher's answers among samples of one class.
        progress: where to tell how it goes.
        title: what the progress line calls it.

    Raises:
        NonFinite: a loss term was infinite or not a number.
        Interrupted: a signal asked to stop; the state was saved if there is a folder.
    """
    fabric = fabric or launch(precision=settings.precision)
    loop = _Loop(method, data, settings, seed, folder, fabric, shuffle_teacher, progress or Progress(quiet=True), title)
    if folder is not None:
        described = {"fit": settings.model_dump(), "seed": seed, "shuffle_teacher": shuffle_teacher}
        if fabric.global_rank == 0:
            run_folder.open_folder(folder, described, resume=resume)
        fabric.barrier()
        if resume and (folder / "result.json").exists():
            return loop.read_back()
    loop.prepare()
    if folder is not None and resume:
        loop.restore()
    with interrupt.deferred():
        loop.progress.start(title, settings.epochs, loop.epoch)
        while not loop.finished:
            loop.train_epoch()
            loop.end_epoch()
        run = loop.finish()
    if interrupt.pending():
        raise Interrupted(interrupt.pending(), saved=None if folder is None else str(folder))
    return run


class _Loop:
    """Everything that one fit holds: built in `prepare`, moved by `train_epoch` and `end_epoch`."""

    def __init__(
        self,
        method: Method,
        data: Data,
        settings: FitSettings,
        seed: int,
        folder: Path | None,
        fabric: Fabric,
        shuffle_teacher: bool,
        progress: Progress,
        title: str,
    ) -> None:
        self.method, self.data, self.settings, self.seed = method, data, settings, seed
        self.folder, self.fabric, self.shuffle_teacher = folder, fabric, shuffle_teacher
        self.progress, self.title = progress, title
        self.epoch, self.step, self.stopped = 0, 0, ""
        self.history: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.sums = Sums()
        self.selection = Selection(*data.info.select)
        self.began = self.saved_at = time.monotonic()
        self.writes = folder is not None and fabric.global_rank == 0

    def prepare(self) -> None:
        """Wrap for devices, build optimisers and loaders, ask the teacher; the order matters to a resume."""
        fabric, settings = self.fabric, self.settings
        seed_all(self.seed, "fit", fabric.global_rank)
        self.method.train()
        if fabric.world_size > 1:
            synchronise_batchnorm(self.method)
        # one process in full precision needs no wrapper, and a wrapper costs a third of a small step
        self.wrapped = fabric.world_size > 1 or settings.precision != "32-true"
        if self.wrapped:
            self.forward: nn.Module = fabric.setup_module(self.method)
        else:
            self.forward = self.method.to(fabric.device)
        info = self.data.info
        sampler = Batches(
            info.rows["train"],
            paired=info.paired,
            batch_size=settings.batch_size,
            seed=mix(self.seed, "order"),
            unequal=settings.unequal,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        self.loader = Loader(self.data.train, sampler, workers=settings.workers)
        whole, rest = divmod(len(sampler), settings.accumulate)
        updates = whole + bool(rest and settings.remainder == "flush")
        if not updates:
            raise InputError(
                f"accumulate={settings.accumulate} batches per update, but an epoch has {len(sampler)} and "
                "remainder='drop' throws an incomplete update away: nothing would be learned. Lower one of them."
            )
        self.optimisers = Optimisers(self.method.param_groups(), settings, updates)
        self.teaching = Teaching(
            self.method,
            self.data.train,
            info,
            fabric,
            cache=settings.cache,
            shuffle=self.shuffle_teacher,
            seed=self.seed,
        )

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to train."""
        return bool(self.stopped) or self.epoch >= self.settings.epochs

    def train_epoch(self) -> None:
        """The rest of the current epoch, from batch number ``self.step`` on."""
        self.epoch_began = time.monotonic()
        self.method.train()
        self.method.on_epoch_start(self.epoch, self.settings.epochs)
        total, every = len(self.loader), self.settings.accumulate
        save_due = False
        for batch in self.loader.epoch(self.epoch, self.step):
            group = min(every, total - self.step // every * every)  # batches in this update
            closes = (self.step + 1) % every == 0 or self.step + 1 == total
            agreement = self._backward(batch.to(self.fabric.device), group, closes)
            self.step += 1
            save_due |= agreement.save
            if not closes:
                continue
            if group < every and self.settings.remainder == "drop":
                self.optimisers.drop()
            else:
                self.optimisers.step()
            if agreement.signal:
                self._stop(agreement.signal)
            if save_due:
                self._save()
                save_due = False

    def _backward(self, batch: Batch, group: int, closes: bool) -> Agreement:
        """Gradients of one batch, and what all processes agree on about it."""
        taught = self.teaching(batch)
        if not self.wrapped:
            step = self.forward(batch, taught)
        else:
            with self.fabric.no_backward_sync(self.forward, enabled=not closes):  # type: ignore[arg-type]
                step = self.forward(batch, taught)
        agreement = agree(step, batch, self.fabric, signal=interrupt.pending(), save=self._save_due())
        if not agreement.finite:
            raise non_finite(step, batch, epoch=self.epoch, step=self.step, broken=agreement.broken)
        loss = agreement.loss
        if group > 1 and self.settings.accumulate_mode == "mean":
            loss = loss / group
        if not self.wrapped:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            with self.fabric.no_backward_sync(self.forward, enabled=not closes):  # type: ignore[arg-type]
                self.fabric.backward(loss)
        if self.settings.clip_at == "backward":
            self.optimisers.clip()
        self.sums.add(step, batch)
        return agreement

    def _save_due(self) -> bool:
        if self.folder is None:
            return False
        if self.settings.save_every:
            return (self.step + 1) % self.settings.save_every == 0
        return time.monotonic() - self.saved_at > self.settings.save_seconds

    def end_epoch(self) -> None:
        """Score, select, record; decide whether to stop early."""
        students = self.method.students()
        self.method.eval()
        scores = evaluate(students, self.data.valid, self.data.info, fabric=self.fabric, predict=self.method.predict)
        self.selection.update(self.epoch, scores, students)
        self.optimisers.end_epoch(self.selection.loss(scores))
        row = {
            "epoch": self.epoch,
            "steps": self.step,
            **self.sums.means(self.fabric),
            "lr": self.optimisers.rates,
            "valid": scores,
            "seconds": time.monotonic() - self.epoch_began,
        }
        self.history.append(row)
        if self.writes and self.folder is not None:
            files.append_row(self.folder / "history.jsonl", row)
        self.progress.epoch(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, Sums()
        if self.settings.patience and self.selection.waited >= self.settings.patience:
            self.stopped = "patience"

    def _stop(self, signal_number: int) -> None:
        if self.folder is not None:
            self._save()
        raise Interrupted(signal_number, saved=None if self.folder is None else str(self.folder))

    def _save(self) -> None:
        """A checkpoint of everything that the next step depends on."""
        assert self.folder is not None
        self.saved_at = time.monotonic()
        self.sums.fold()
        tensors: dict[str, Tensor] = {}
        plain: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "history": files.plain(self.history),
            "sums": self.sums.state(),
            "threads": torch.get_num_threads(),
            "world": self.fabric.world_size,
            "method": self.method.extra_state(),
        }
        for name, part in (("optimizer", self.optimisers), ("best", self.selection)):
            found, plain[name] = part.state()
            tensors.update({f"{name}/{key}": value for key, value in found.items()})
        tensors.update({f"method/{key}": value for key, value in self.method.state_dict().items()})
        for key, value in self._generators().items():
            tensors[f"generators/{key}"] = value
        if self.writes:
            number = self.epoch * len(self.loader) + self.step
            checkpoint.save(self.folder / "checkpoints", number, tensors, plain)
        self.fabric.barrier()

    def _generators(self) -> dict[str, Tensor]:
        """Generator states of all processes, (processes, …) each."""
        if self.fabric.world_size == 1:
            return {key: value[None] for key, value in states().items()}
        device, world = self.fabric.device, self.fabric.world_size
        gathered = {key: gather_rows(value[None].to(device)).cpu() for key, value in states().items()}
        return {key: value.reshape(world, -1) for key, value in gathered.items()}

    def restore(self) -> None:
        """Go back to the newest complete checkpoint, if there is one."""
        assert self.folder is not None
        if self.fabric.global_rank == 0:
            checkpoint.sweep(self.folder / "checkpoints")
        self.fabric.barrier()
        found = checkpoint.load_newest(self.folder / "checkpoints")
        tensors, plain, notes = found if found is not None else ({}, {}, [])
        for note in notes:
            self.progress.say(note)
        self.notes += notes
        if plain:
            self._take_back(tensors, plain)
        if self.writes:
            files.write_rows(self.folder / "history.jsonl", self.history)

    def _take_back(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        if plain["world"] != self.fabric.world_size:
            raise InputError(
                f"The run in {self.folder} was started with {plain['world']} processes and is resumed with "
                f"{self.fabric.world_size}. Give --devices {plain['world']}."
            )
        torch.set_num_threads(plain["threads"])  # the bits depend on it
        self.epoch, self.step, self.history = plain["epoch"], plain["step"], plain["history"]
        self.sums = Sums(plain["sums"])
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            owner, _, name = key.partition("/")
            parts.setdefault(owner, {})[name] = value
        self.method.load_state_dict(parts.get("method", {}))
        self.method.load_extra_state(plain["method"])
        self.optimisers.load_state(parts.get("optimizer", {}), plain["optimizer"])
        self.selection.load_state(parts.get("best", {}), plain["best"], self.fabric.device)
        mine = {key: value[self.fabric.global_rank] for key, value in parts["generators"].items()}
        scalars = ("python_gauss", "numpy_gauss")
        restore({key: value.reshape(()) if key in scalars else value for key, value in mine.items()})

    def finish(self) -> Run:
        """The finished run, written out."""
        students = {name: self._best(name, student) for name, student in self.method.students().items()}
        seconds = time.monotonic() - self.began
        if self.writes and self.folder is not None:
            for name, student in students.items():
                save_weights(self.folder / "best" / f"{name}.safetensors", student.module)
                save_student(self.folder / "students" / name / "student.safetensors", student, self.data.info)
            result = {
                "seed": self.seed,
                "epochs": len(self.history),
                "stopped": self.stopped or "epochs",
                "seconds": seconds,
                "students": {
                    name: {
                        "needs": list(student.needs),
                        "best_epoch": self.selection.best[name]["epoch"],
                        "valid": self.selection.best[name]["valid"],
                    }
                    for name, student in students.items()
                },
            }
            files.write_json(self.folder / "result.json", result)
        self.fabric.barrier()
        self.progress.end()
        return Run(self.method, students, self.history, self.selection.best, seconds, self.folder, self.notes)

    def _best(self, name: str, student: Student) -> Student:
        """A copy of a student with the weights of its best epoch."""
        kept = copy.copy(student)
        kept.module = copy.deepcopy(student.module).eval()
        kept.module.load_state_dict(self.selection.weights[name])
        return kept

    def read_back(self) -> Run:
        """A finished run from its folder."""
        assert self.folder is not None
        result = files.read_json(self.folder / "result.json")
        students = self.method.to(self.fabric.device).students()
        for name, student in students.items():
            load_weights_into(student.module, self.folder / "best" / f"{name}.safetensors")
            student.module.eval()
        best = {
            name: {
                "epoch": found["best_epoch"],
                "valid": found["valid"],
                "score": found["valid"][self.selection.metric],
            }
            for name, found in result["students"].items()
        }
        self.progress.end()
        history = files.read_rows(self.folder / "history.jsonl")
        return Run(self.method, students, history, best, 0.0, self.folder)
