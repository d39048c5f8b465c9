"""Epochs and steps: what happens between a batch and an update.

One iteration moves the batch to the device, gets the teacher's outputs, calls the method's training step, exchanges
losses and signals with the other processes, and computes the gradients. The optimiser steps after each group of
accumulated batches. Signals and checkpoints act after an optimiser step only, when no partial gradient would have to be
saved.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xmodal import files
from xmodal.collectives import gather_json, gather_rows
from xmodal.data.base import Data
from xmodal.data.loader import Loader
from xmodal.data.streams import Needs, batches_for
from xmodal.engine.ahead import on_device
from xmodal.engine.callbacks import tell_epoch
from xmodal.engine.evaluate import MetricsFor, evaluate
from xmodal.engine.finite import non_finite
from xmodal.engine.optim import Optimisers
from xmodal.engine.processes import interrupt
from xmodal.engine.processes.sync_batchnorm import synchronise_batchnorm
from xmodal.engine.progress import Progress
from xmodal.engine.run import checkpoint
from xmodal.engine.run.tensorboard import TensorBoardLog
from xmodal.engine.selection import Selection
from xmodal.engine.settings import FitSettings
from xmodal.engine.step_sums import Agreement, StepSums, agree
from xmodal.engine.teacher_cache import TeacherCache
from xmodal.errors import InputError, Interrupted, listed
from xmodal.method import Method
from xmodal.metrics.task import Scores
from xmodal.seeding import mix, seed_all
from xmodal.seeding import restore as restore_generators
from xmodal.seeding import states as generator_states
from xmodal.types import Batch, DataInfo, owner, rows_with

if TYPE_CHECKING:
    from xmodal.devices import Devices


class Loop:
    """The state of one training: built by `prepare`, advanced by `train_epoch` and `end_epoch`."""

    def __init__(
        self,
        method: Method,
        data: Data,
        settings: FitSettings,
        seed: int,
        folder: Path | None,
        fabric: Devices,
        exchange_teacher: str,
        progress: Progress,
        metrics: MetricsFor,
        teacher_disk: Path | None = None,
    ) -> None:
        self.method, self.data, self.settings, self.seed = method, data, settings, seed
        self.folder, self.fabric, self.exchange_teacher = folder, fabric, exchange_teacher
        self.progress, self.metrics, self.teacher_disk = progress, metrics, teacher_disk
        self.epoch, self.step, self.stopped = 0, 0, ""
        self.history: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.sums = StepSums()
        self.collectors: dict[str, Scores] = {}
        self.selection = Selection(*data.info.select, lead=method.lead)
        self.began = self.saved_at = time.monotonic()
        self.writes = folder is not None and fabric.global_rank == 0
        self.tensorboard: TensorBoardLog | None = None
        self.callbacks: Sequence[object] = ()
        self.title = ""

    def prepare(self) -> None:
        """Seed, move to the device, build loader and optimisers, and fill the teacher cache."""
        fabric, settings = self.fabric, self.settings
        # First, since everything below may draw random numbers. The rank is part of the seed: processes hold different
        # samples, whose dropout masks must differ.
        seed_all(self.seed, "fit", fabric.global_rank)
        if settings.patience and self.data.info.labelled:
            raise InputError(
                "Some training rows have no label, and --patience would stop each training after another number of "
                "updates: what is compared must have learned equally long. Leave --patience out."
            )
        self.method.train()
        if fabric.world_size > 1:
            synchronise_batchnorm(self.method)
        # One process without mixed precision needs no wrapper; Fabric's makes a small step (300 µs) a third slower.
        self.wrapped = fabric.world_size > 1 or settings.precision == "bf16-mixed"
        if self.wrapped:
            self.forward: nn.Module = fabric.setup_module(self.method)
        else:
            self.forward = self.method.to(fabric.device)
        info = self.data.info
        sampler = batches_for(
            info.rows["train"],
            self.data.train.labelled,
            unlabelled=self.method.uses_unlabelled,
            paired=info.paired,
            batch_size=settings.batch_size,
            seed=mix(self.seed, "order"),
            present=self.data.train.present,
            needs=needs_of(self.method, self.data.train.present),
            unequal=settings.unequal,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        updates = updates_per_epoch(len(sampler), settings)
        self.settings = settings = resolved(settings, info, updates)
        self.optimisers = Optimisers(self.method.param_groups(), settings, updates)
        self.teacher_cache = TeacherCache(
            self.method,
            self.data.train,
            info,
            fabric,
            cache=settings.cache,
            exchange=self.exchange_teacher,
            seed=self.seed,
            disk=self.teacher_disk,
        )
        # after the cache: a training that reads a table needs no inputs of the teacher
        read = self.data.train.reading(inputs_of(self.method, info, taught=self.teacher_cache.computes))
        # prepared here, and the same for the validation of every epoch
        needs = {need for student in self.method.students().values() for need in student.needs}
        self.valid = self.data.valid.reading(needs)
        self.loader = Loader(read, sampler, workers=settings.workers, pinned=fabric.device.type == "cuda")

    @property
    def finished(self) -> bool:
        """Whether training is over: all epochs are done, or it stopped early."""
        return bool(self.stopped) or self.epoch >= self.settings.epochs

    def train_epoch(self) -> None:
        """Train on the rest of the current epoch, from batch number ``self.step`` on."""
        self.epoch_began = time.monotonic()
        self.method.train()
        self.method.on_epoch_start(self.epoch, self.settings.epochs)
        total, every = self._batches_in_epoch(), self.settings.accumulate
        save_due = False
        # `step` counts batches that were trained on, not those that loading processes fetched ahead: a resumed epoch
        # begins at the right one
        batches = itertools.islice(self.loader.epoch(self.epoch, self.step), total - self.step)
        for batch in on_device(batches, self.fabric.device):
            group = min(every, total - self.step // every * every)  # batches in this update
            closes = (self.step + 1) % every == 0 or self.step + 1 == total
            agreement = self._backward(batch, closes)
            self.step += 1
            # a checkpoint that falls due within a group of accumulated batches is written after the update
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
                self.save()
                save_due = False

    def _batches_in_epoch(self) -> int:
        """How many batches this epoch has; with ``updates`` the last epoch may end early."""
        total, settings = len(self.loader), self.settings
        if not settings.updates:
            return total
        left = settings.updates - self.epoch * self.optimisers.steps_per_epoch
        return min(total, left * settings.accumulate)

    def _backward(self, batch: Batch, closes: bool) -> Agreement:
        """Compute the gradients of one batch; returns what all processes agreed on."""
        teacher_outputs = self.teacher_cache(batch)
        # Gradients are averaged over the processes once per update, with the last batch of its group. Clipping after
        # each backward pass needs the average each time.
        local = not closes and not (self.settings.clip is not None and self.settings.clip_at == "backward")
        try:
            # The forward pass too: DDP decides there whether the next backward pass synchronises.
            with self._unsynchronised(local):
                step = self.forward(batch, teacher_outputs)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                "A batch has one row, and this network normalises with the statistics of its batch: at least 2 rows "
                "were expected. Raise --batch-size, give more training rows, or use a network without BatchNorm."
            ) from error
        except RuntimeError as error:
            # from an earlier step; `_all_used` notices what has never had a gradient
            if "Expected to have finished reduction" not in str(error):
                raise
            raise InputError(unused(self.method, "some")) from error
        # Before the backward pass, in which the NaN of a process would spread to the gradients of all; and for signals
        # and checkpoints too, since all processes must stop or save at the same step.
        rows = batch.rows_of(paired=self.data.info.paired)
        agreement = agree(step, rows, self.fabric, signal=interrupt.pending(), save=self._save_due())
        if agreement.broken:
            raise non_finite(step, batch, self.fabric, epoch=self.epoch, step=self.step, broken=agreement.broken)
        loss = agreement.loss
        if self.settings.accumulate > 1 and self.settings.accumulate_mode == "mean":
            # by rows and not by batches: the last batch may be shorter or longer
            parts = self.loader.sampler.parts(self.step, self.settings.accumulate)
            loss = loss if parts == 1.0 else loss / parts
        with self._unsynchronised(local):
            if self.wrapped:
                self.fabric.backward(loss)
            else:
                loss.backward()  # type: ignore[no-untyped-call]
        if self.fabric.world_size > 1 and not local and not self.method.unused_parameters:
            self._all_used()
        if self.settings.clip_at == "backward":
            self.optimisers.clip()
        self.sums.add(agreement.numbers)
        return agreement

    def _all_used(self) -> None:
        """Raise an error about parameters without a gradient, whose parts of the method would not be averaged."""
        parameters = self.method.named_parameters()
        names = [name for name, each in parameters if each.requires_grad and each.grad is None]
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise InputError(unused(self.method, shown))

    def _unsynchronised(self, local: bool) -> AbstractContextManager[Any]:
        """A block in which gradients are not averaged over the processes, if ``local``."""
        if self.fabric.world_size == 1:
            return nullcontext()
        return self.fabric.no_backward_sync(self.forward, enabled=local)

    def _save_due(self) -> bool:
        if self.folder is None:
            return False
        if self.settings.save_every:
            return (self.step + 1) % self.settings.save_every == 0
        return time.monotonic() - self.saved_at > self.settings.save_seconds

    def end_epoch(self) -> None:
        """Score on the validation split, select the best weights, record the epoch; decide whether to stop early."""
        students = self.method.students()
        self.method.eval()
        scores = evaluate(
            students,
            self.valid,
            self.data.info,
            fabric=self.fabric,
            predict=self.method.predict,
            metrics=self.metrics,
            collectors=self.collectors,
        )
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
        if self.tensorboard is not None:
            self.tensorboard.epoch(row)
        self.progress.epoch(row)
        tell_epoch(self.callbacks, {**row, "name": self.title, "seed": self.seed})
        self.epoch, self.step, self.sums = self.epoch + 1, 0, StepSums()
        if self.settings.patience and self.selection.waited >= self.settings.patience:
            self.stopped = "patience"

    def _stop(self, signal_number: int) -> None:
        if self.folder is not None:
            self.save()
        raise Interrupted(signal_number, saved=None if self.folder is None else str(self.folder))

    # ---- checkpoints: everything that the next step depends on

    def save(self) -> None:
        """Write a checkpoint: all processes contribute their state, rank 0 writes."""
        assert self.folder is not None
        self.saved_at = time.monotonic()
        tensors, plain = self.state()
        if self.writes:
            number = self.epoch * len(self.loader) + self.step
            checkpoint.save(self.folder / "checkpoints", number, tensors, plain)
        self.fabric.barrier()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The state of the training as tensors and JSON: method, optimisers, best weights, loss sums, generators."""
        plain: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "history": files.plain(self.history),
            "sums": gather_json(self.sums.state(), self.fabric.device),  # one entry per process
            "threads": torch.get_num_threads(),
            "world": self.fabric.world_size,
            "method": self.method.extra_state(),
        }
        tensors = {f"method/{key}": value for key, value in self.method.state_dict().items()}
        for name, part in (("optimizer", self.optimisers), ("best", self.selection)):
            values, plain[name] = part.state()
            tensors.update({f"{name}/{key}": value for key, value in values.items()})
        tensors.update({f"generators/{key}": value for key, value in self._generators().items()})
        return tensors, plain

    def _generators(self) -> dict[str, Tensor]:
        """Generator states of all processes: name → (processes, …)."""
        world, device = self.fabric.world_size, self.fabric.device
        if world == 1:
            return {key: value[None] for key, value in generator_states().items()}
        gathered = {key: gather_rows(value[None].to(device)).cpu() for key, value in generator_states().items()}
        return {key: value.reshape(world, -1) for key, value in gathered.items()}

    def resume(self) -> None:
        """Continue from the newest complete checkpoint, if there is one."""
        assert self.folder is not None
        # one process removes leftovers, and no other may read the folder before it has
        if self.fabric.global_rank == 0:
            checkpoint.sweep(self.folder / "checkpoints")
        self.fabric.barrier()
        newest = checkpoint.load_newest(self.folder / "checkpoints")
        if newest is not None:
            tensors, plain, notes = newest
            for note in notes:
                self.progress.say(note)
            self.notes += notes
            if plain:
                self.restore(tensors, plain)
        # Rewritten, because it may hold an epoch that ended after the checkpoint, or half a line.
        if self.writes:
            files.write_rows(self.folder / "history.jsonl", self.history)

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore the state that `state` returned."""
        if plain["world"] != self.fabric.world_size:
            raise InputError(
                f"The run in {self.folder} was started with {plain['world']} processes and is resumed with "
                f"{self.fabric.world_size}. Give --devices {plain['world']}."
            )
        # the order of floating-point sums depends on the number of threads
        torch.set_num_threads(plain["threads"])
        self.epoch, self.step, self.history = plain["epoch"], plain["step"], plain["history"]
        self.sums = StepSums(plain["sums"][self.fabric.global_rank])
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = value
        self.method.load_state_dict(parts.get("method", {}))
        self.method.load_extra_state(plain["method"])
        self.optimisers.load_state(parts.get("optimizer", {}), plain["optimizer"])
        self.selection.load_state(parts.get("best", {}), plain["best"], self.fabric.device)
        # clones: torch reads the state from the start of the storage, even if the tensor is a view of a later row
        states = {key: value[self.fabric.global_rank].clone() for key, value in parts["generators"].items()}
        scalars = ("python_gauss", "numpy_gauss")
        # last: loading weights and optimisers may draw random numbers
        restore_generators({key: value.reshape(()) if key in scalars else value for key, value in states.items()})


def unused(method: Method, names: str) -> str:
    """The error sentence about parameters that several processes can't average."""
    return (
        f"Where several processes train, every parameter that requires a gradient must get one in every step, and of "
        f"{type(method).__name__} these got none: {names}. Stop their gradients with requires_grad_(False), or set "
        "`unused_parameters = True` in the class of the method."
    )


def inputs_of(method: Method, info: DataInfo, *, taught: bool) -> tuple[str, ...] | None:
    """The inputs that the batches of a training hold; None: all.

    Args:
        method: to train.
        info: of the data.
        taught: whether `Method.teach` is called for these batches.
    """
    reads, teacher = method.reads(), method.taught_by() if taught else ()
    if reads is None or teacher is None:
        return None
    return (*reads, *(name for name in info.inputs if owner(name) in teacher))


def needs_of(method: Method, present: Mapping[str, Tensor]) -> Needs:
    """The modalities of the training rows that a method can use; an error if a teacher's term can use none.

    Args:
        method: to train.
        present: modality → mask of the training rows that have it; empty: all rows have all.
    """
    if not present:
        return Needs()
    needs = Needs(method.row_needs(labelled=True), method.row_needs(labelled=False))
    if type(method).teach is not Method.teach and not rows_with(present, needs.unlabelled).any():
        names = listed(present if needs.unlabelled is None else needs.unlabelled)
        raise InputError(
            f"No training row has {names} together, so the teacher would teach nothing. Add such rows, or choose other "
            "modalities."
        )
    return needs


def resolved(settings: FitSettings, info: DataInfo, updates: int) -> FitSettings:
    """The settings with the values that depend on the data: which weights are kept, and the number of epochs.

    Args:
        settings: as the user gave them.
        info: of the data.
        updates: per epoch.
    """
    changes: dict[str, Any] = {}
    if settings.keep == "auto":
        # With 30 validation labels an accuracy has 31 values, and its maximum is often an early epoch by chance. A
        # teacher of such an epoch has learned little, and its outputs are nearly the same for all samples.
        changes["keep"] = "last" if info.labelled else "best"
    if settings.updates:
        changes["epochs"] = math.ceil(settings.updates / updates)
    return settings.model_copy(update=changes) if changes else settings


def updates_per_epoch(batches: int, settings: FitSettings) -> int:
    """Number of optimiser steps in an epoch of so many batches."""
    whole, rest = divmod(batches, settings.accumulate)
    updates = whole + bool(rest and settings.remainder == "flush")
    if not updates:
        raise InputError(
            f"accumulate={settings.accumulate} batches per update, but an epoch has {batches} and "
            "remainder='drop' discards an incomplete update: nothing would be learned. Lower accumulate, or set "
            "remainder='flush'."
        )
    return updates
