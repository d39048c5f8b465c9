"""Epochs and steps: what happens between a batch and an update.

One iteration: move the batch, ask the teacher, take the method's step, let all processes agree on it, go backward, and
at the end of a group of accumulated batches update. Signals and checkpoints act at updates only, where no half-summed
gradient has to be kept.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from xmodal import files
from xmodal.data.base import Data
from xmodal.data.loader import Batches, Loader, mix
from xmodal.engine import interrupt
from xmodal.engine.evaluate import MetricsFor, evaluate
from xmodal.engine.finite import non_finite
from xmodal.engine.journal import Journal
from xmodal.engine.optim import Optimisers
from xmodal.engine.progress import Progress
from xmodal.engine.seeding import seed_all
from xmodal.engine.selection import Selection
from xmodal.engine.settings import FitSettings
from xmodal.engine.snapshot import save
from xmodal.engine.sums import Agreement, Sums, agree
from xmodal.engine.sync_batchnorm import synchronise_batchnorm
from xmodal.engine.teacher_cache import Teaching
from xmodal.errors import InputError, Interrupted
from xmodal.method import Method
from xmodal.types import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Loop:
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
        metrics: MetricsFor,
        answers: Path | None = None,
    ) -> None:
        self.method, self.data, self.settings, self.seed = method, data, settings, seed
        self.folder, self.fabric, self.shuffle_teacher = folder, fabric, shuffle_teacher
        self.progress, self.metrics, self.answers = progress, metrics, answers
        self.epoch, self.step, self.stopped = 0, 0, ""
        self.history: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.sums = Sums()
        self.selection = Selection(*data.info.select, lead=method.lead)
        self.began = self.saved_at = time.monotonic()
        self.writes = folder is not None and fabric.global_rank == 0
        self.journal: Journal | None = None

    def prepare(self) -> None:
        """Wrap for devices, build optimisers and loaders, ask the teacher; the order matters to a resume."""
        fabric, settings = self.fabric, self.settings
        seed_all(self.seed, "fit", fabric.global_rank)
        self.method.train()
        if fabric.world_size > 1:
            synchronise_batchnorm(self.method)
        # one process without mixed precision needs no wrapper, and a wrapper costs a third of a small step
        self.wrapped = fabric.world_size > 1 or settings.precision == "bf16-mixed"
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
        updates = updates_per_epoch(len(sampler), settings)
        self.optimisers = Optimisers(self.method.param_groups(), settings, updates)
        self.teaching = Teaching(
            self.method,
            self.data.train,
            info,
            fabric,
            cache=settings.cache,
            shuffle=self.shuffle_teacher,
            seed=self.seed,
            place=self.answers,
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
            agreement = self._backward(batch.to(self.fabric.device), closes)
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
                save(self)
                save_due = False

    def _backward(self, batch: Batch, closes: bool) -> Agreement:
        """Gradients of one batch, and what all processes agree on about it."""
        taught = self.teaching(batch)
        # what is clipped must be everybody's gradient, also before the update
        alone = not closes and not (self.settings.clip is not None and self.settings.clip_at == "backward")
        try:
            with self._unsynchronised(alone):
                step = self.forward(batch, taught)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                "A batch holds one row, and this network normalises by the statistics of its batch: at least 2 rows "
                "were expected. Raise --batch-size, give more training rows, or use a network without BatchNorm."
            ) from error
        agreement = agree(step, batch, self.fabric, signal=interrupt.pending(), save=self._save_due())
        if not agreement.finite:
            raise non_finite(step, batch, self.fabric, epoch=self.epoch, step=self.step, broken=agreement.broken)
        loss = agreement.loss
        parts = self.loader.sampler.parts(self.step, self.settings.accumulate)
        if parts != 1.0 and self.settings.accumulate_mode == "mean":
            loss = loss / parts  # by rows: the last batch may be shorter or longer
        with self._unsynchronised(alone):
            if self.wrapped:
                self.fabric.backward(loss)
            else:
                loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip_at == "backward":
            self.optimisers.clip()
        self.sums.add(step, batch)
        return agreement

    def _unsynchronised(self, alone: bool) -> AbstractContextManager[Any]:
        """Within it gradients stay with their process, where there are several and ``alone`` asks for it."""
        if self.fabric.world_size == 1:
            return nullcontext()
        return self.fabric.no_backward_sync(self.forward, enabled=alone)  # type: ignore[arg-type]

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
        scores = evaluate(
            students,
            self.data.valid,
            self.data.info,
            fabric=self.fabric,
            predict=self.method.predict,
            metrics=self.metrics,
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
        if self.journal is not None:
            self.journal.epoch(row)
        self.progress.epoch(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, Sums()
        if self.settings.patience and self.selection.waited >= self.settings.patience:
            self.stopped = "patience"

    def _stop(self, signal_number: int) -> None:
        if self.folder is not None:
            save(self)
        raise Interrupted(signal_number, saved=None if self.folder is None else str(self.folder))


def updates_per_epoch(batches: int, settings: FitSettings) -> int:
    """How many updates so many batches make."""
    whole, rest = divmod(batches, settings.accumulate)
    updates = whole + bool(rest and settings.remainder == "flush")
    if not updates:
        raise InputError(
            f"accumulate={settings.accumulate} batches per update, but an epoch has {batches} and "
            "remainder='drop' throws an incomplete update away: nothing would be learned. Lower one of them."
        )
    return updates
