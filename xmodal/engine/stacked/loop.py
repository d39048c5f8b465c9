"""The loop of `fit` for a stack of models: the same order of things, every tensor with an axis of models in front."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xmodal.data.loader import Batches
from xmodal.engine.evaluate import MetricsFor
from xmodal.engine.finite import samples_of
from xmodal.engine.loop import updates_per_epoch
from xmodal.engine.optim import Optimisers
from xmodal.engine.processes import interrupt
from xmodal.engine.progress import Progress
from xmodal.engine.run.result import Run, with_weights
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.history import Tables
from xmodal.engine.stacked.model_kind import BLOCK, Kind, Member, StepRecord
from xmodal.engine.stacked.scores import ManyScores
from xmodal.engine.stacked.selection import StackSelection
from xmodal.engine.stacked.tables import Table, batch_of
from xmodal.errors import Interrupted, NonFinite
from xmodal.metrics.task import Scores
from xmodal.seeding import mix
from xmodal.types import Student

Values = Mapping[str, Sequence[Any] | Tensor]  # metric → one value per model
Rows = Mapping[str, Tensor]  # owner → (models, batch)


class StackLoop:
    """Training of models that are alike.

    Args:
        kind: what they have in common.
        members: the models.
        settings: of all of them.
        metrics: as in `fit`.
        score: whether the validation split is looked at.
        progress: where to tell how it goes.
    """

    def __init__(
        self,
        kind: Kind,
        members: Sequence[Member],
        settings: FitSettings,
        *,
        metrics: MetricsFor,
        score: bool,
        progress: Progress,
    ) -> None:
        self.kind, self.members, self.settings = kind, members, settings
        self.metrics, self.score, self.progress = metrics, score, progress
        self.epoch = 0
        self.began = time.monotonic()
        self.device = members[0].train.tensors[0].device
        states = [dict([*m.method.named_parameters(), *m.method.named_buffers()]) for m in members]
        stacked = {
            name: torch.stack([state[name].detach() for state in states]) for name in (*kind.trained, *kind.fixed)
        }
        self.trained = [nn.Parameter(stacked[name]) for name in kind.trained]
        self.fixed = [stacked[name] for name in kind.fixed]
        self.table = Table([kind.pick(member.train) for member in members], kind.owners)
        self.samplers = [
            Batches(
                member.info.rows["train"],
                paired=kind.paired,
                batch_size=settings.batch_size,
                seed=mix(member.seed, "order"),
                unequal=settings.unequal,
            )
            for member in members
        ]
        self.steps = len(self.samplers[0])
        # unpaired rows that are recycled or cut are others in each epoch
        self.all_at_once = self.steps == 1 and (kind.paired or len({*members[0].info.rows["train"].values()}) == 1)
        own = dict(zip(kind.trained, self.trained, strict=True))
        groups = [{"params": [own[name] for name in names if name in own], **more} for names, more in kind.groups]
        updates = updates_per_epoch(self.steps, settings)
        # the bound of a gradient is each model's own, so it is kept here
        self.optimisers = Optimisers(groups, settings.model_copy(update={"clip": None}), updates)
        self.tables = Tables(len(members), self.steps)
        self.selection = StackSelection(*members[0].info.select, models=len(members), keep=settings.keep)
        self.valid: Table | None = None
        if score:
            splits = [member.valid for member in members if member.valid]
            self.valid = Table([kind.pick_valid(leaves) for leaves in splits], kind.valid_owners)
        self.whole: tuple[StepRecord, Sequence[Tensor]] | None = None

    def rehearse(self) -> None:
        """Do once what a training does, to no effect: raises where these models can't be stacked."""
        next(self._batches())
        if self.score:
            self._scores()

    def run(self) -> list[Run]:
        """Train to the end."""
        self.kind.method.train()  # it is what is recorded, and an earlier stack has left it in eval mode
        for member in self.members:
            member.method.train()
        while self.epoch < self.settings.epochs:
            began = time.monotonic()
            self._train_epoch()
            scores = self._scores() if self.score else {}
            self.selection.update(self.epoch, scores, self._state(), self.kind.students)
            self.tables.end_epoch(scores, self.optimisers.rates, time.monotonic() - began)
            if not self.progress.quiet:
                self.progress.epoch(self.tables.mean_row())
            self.epoch += 1
            if stop := interrupt.pending():
                raise Interrupted(stop, saved=None)
        return self._finish()

    def _state(self) -> dict[str, Tensor]:
        return dict(zip([*self.kind.trained, *self.kind.fixed], [*self.trained, *self.fixed], strict=True))

    def _batches(self) -> Iterator[tuple[StepRecord, Sequence[Tensor], Rows | None]]:
        """Recorded step, prepared batch and the rows in it; a batch of all rows is prepared once, in any order."""
        weights = [tensor.data for tensor in self.trained]
        if self.all_at_once:
            if self.whole is None:
                tensors = self.table.tensors
                step = self.kind.step(weights, self.fixed, tensors, self.table.axes)
                self.whole = step, step.play.prepare(tensors)
            yield *self.whole, None
            return
        picks = [[pick.rows for pick in sampler.at(self.epoch)] for sampler in self.samplers]
        some = next(iter(self.members[0].info.rows["train"]))  # with paired data the order of all
        for number in range(self.steps):
            rows = {
                owner: torch.stack([own[number][owner or some] for own in picks]).to(self.device)
                for owner in dict.fromkeys(self.table.owners)
            }
            tensors = self.table.pick(rows)
            step = self.kind.step(weights, self.fixed, tensors, [0] * len(tensors))
            yield step, step.play.prepare(tensors), rows

    @torch.no_grad()
    def _train_epoch(self) -> None:
        every, settings = self.settings.accumulate, self.settings
        waiting: list[Tensor] = []
        seen = []
        for number, (step, prepared, rows) in enumerate(self._batches()):
            group = min(every, self.steps - number // every * every)
            found = step.play([*(tensor.data for tensor in self.trained), *self.fixed], prepared)
            slopes, rest = found[: len(self.trained)], found[len(self.trained) :]
            self._keep_buffers(rest[len(rest) - len(self.kind.buffers) :])
            whole = self.table.tensors[0].shape[0 if self.table.shared[0] else 1]
            size = whole if rows is None else next(iter(rows.values())).shape[1]
            self.tables.add(step, rest, size)
            seen.append(rows)
            parts = self.samplers[0].parts(number, every)
            if parts != 1.0 and settings.accumulate_mode == "mean":
                slopes = [slope / parts for slope in slopes]
            waiting = [a + b for a, b in zip(waiting, slopes, strict=True)] if waiting else list(slopes)
            if settings.clip_at == "backward":
                waiting = self._clipped(waiting)
            if (number + 1) % every and number + 1 < self.steps:
                continue
            if group == every or settings.remainder == "flush":
                if settings.clip_at == "step":
                    waiting = self._clipped(waiting)
                for parameter, slope in zip(self.trained, waiting, strict=True):
                    parameter.grad = slope
                self.optimisers.step()
            waiting = []
        if broken := self.tables.broken():
            raise self._non_finite(*broken, seen)

    def _keep_buffers(self, found: Sequence[Tensor]) -> None:
        for place, tensor in zip(self.kind.buffer_places, found, strict=True):
            self.fixed[place] = tensor

    def _clipped(self, slopes: list[Tensor]) -> list[Tensor]:
        """Gradients within their bound, each model's by itself."""
        bound = self.settings.clip
        if bound is None:
            return slopes
        if self.settings.clip_mode == "value":
            return [slope.clamp(-bound, bound) for slope in slopes]
        norms = torch.stack([slope.reshape(len(slope), -1).norm(dim=1) for slope in slopes]).norm(dim=0)
        factor = (bound / (norms + 1e-6)).clamp(max=1.0)
        return [slope * factor.reshape(-1, *[1] * (slope.ndim - 1)) for slope in slopes]

    @torch.no_grad()
    def _scores(self) -> dict[str, Values]:
        """Student → metric → one value per model."""
        assert self.valid is not None and self.members[0].valid is not None
        infos = [member.info for member in self.members]
        students = self.members[0].method.students()
        masked = any(part in (2, 4) for part, _, _ in self.kind.valid_layout)
        together = self.metrics is Scores and ManyScores.applies(infos[0]) and not masked
        counting: dict[str, Any] = {
            name: ManyScores(infos[0], models=len(infos), device=self.device)
            if together
            else [self.metrics(info, full=False, device=self.device) for info in infos]
            for name in students
        }
        for outputs, batch, axes in self._answers():
            for name, answer in outputs.items():
                own = students[name].target
                if together:
                    counting[name].update(answer, batch.targets[own])
                    continue
                targets = _each(batch.targets[own], axes.targets[own], len(infos))
                masks = _each(batch.valid.get(own), axes.valid.get(own), len(infos))
                regions = _each(batch.scored.get(own), axes.scored.get(own), len(infos))
                for score, *of_one in zip(counting[name], answer, targets, masks, regions, strict=True):
                    score.update(*(of_one if of_one[-1] is not None else of_one[:-1]))
        if together:
            return {name: scores.compute() for name, scores in counting.items()}
        found = {name: [score.compute() for score in scores] for name, scores in counting.items()}
        return {name: {key: [row[key] for row in rows] for key in rows[0]} for name, rows in found.items()}

    def _answers(self) -> Iterator[tuple[Mapping[str, Tensor], Any, Any]]:
        """What students say of a block of the validation split, the block, and the axes of the models in its tensors.

        Unpaired rows are looked at modality by modality.
        """
        assert self.valid is not None and self.members[0].valid is not None
        for owner, names in self.kind.scored_together().items():
            axes = self._valid_batch(self.valid.axes, owner)
            for first in range(0, self.members[0].valid.rows(owner), BLOCK):
                batch = self._valid_batch(self.valid.slice(first, first + BLOCK), owner)
                inputs = {name: batch.inputs[name] for name in names}
                yield self.kind.predict(self._state(), inputs, {name: axes.inputs[name] for name in names}), batch, axes

    def _valid_batch(self, leaves: Sequence[Any], owner: str) -> Any:
        """A batch of what scoring reads of one owner's validation rows, or of what belongs to its tensors."""
        read = zip(self.kind.valid_leaves, leaves, self.kind.valid_owners, strict=True)
        return batch_of(self.kind.valid_layout, {number: leaf for number, leaf, own in read if own == owner})[0]

    def _finish(self) -> list[Run]:
        seconds = (time.monotonic() - self.began) / len(self.members)
        tables = self.tables.done()
        return [
            Run(member.method, students, tables.of(number), self.selection.row(number, students, tables), seconds)
            for number, (member, students) in enumerate(zip(self.members, self.kept(), strict=True))
        ]

    @torch.no_grad()
    def kept(self) -> list[dict[str, Student]]:
        """The students of every model with the weights that they keep; its method gets those of this moment."""
        state, found = self._state(), []
        for number, member in enumerate(self.members):
            own = dict([*member.method.named_parameters(), *member.method.named_buffers()])
            for name in (*self.kind.trained, *self.kind.buffers):
                own[name].copy_(state[name][number])
            member.method.eval()
            students = member.method.students().items()
            found.append({name: with_weights(one, self.selection.weights(name, number)) for name, one in students})
        return found

    def _non_finite(self, step: int, model: int, values: Mapping[str, float], seen: Sequence[Rows | None]) -> NonFinite:
        member, rows = self.members[model], seen[step]
        own = {
            owner: torch.arange(member.train.rows(owner)) if rows is None else rows[owner][model].cpu()
            for owner in self.table.owners
        }
        tensors = zip(self.kind.pick(member.train), self.kind.owners, strict=True)
        picked = [tensor[own[owner].to(tensor.device)] for tensor, owner in tensors]
        batch, _ = self.kind.batch(picked, len(next(iter(own.values()))))
        owners = {name: member.train.owners[n] for part, name, n in self.kind.layout if part == 0}
        batch.index = {name: own[owner] for name, owner in owners.items() if owner in own}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        told = ", ".join(f"{name} = {value:g}" for name, value in values.items())
        return NonFinite(
            f"The loss term{'s' if len(broken) > 1 else ''} {', '.join(broken)} of model {member.number} became "
            f"non-finite in epoch {self.epoch + 1}, step {step + 1} ({told}). {samples_of(batch)} "
            "Lower the learning rate, clip the gradient, or check these samples."
        )


def _each(values: Tensor | None, axis: int | None, models: int) -> Sequence[Tensor | None]:
    """One model's values after the other."""
    return [values] * models if values is None or axis is None else list(values)
