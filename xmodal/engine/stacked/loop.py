"""The loop of `fit` for a stack of models: the same steps in the same order, with an axis of models in every tensor."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xmodal.data.streams import batches_for
from xmodal.engine.evaluate import MetricsFor
from xmodal.engine.finite import samples_of
from xmodal.engine.loop import resolved, updates_per_epoch
from xmodal.engine.optim import Optimisers
from xmodal.engine.processes import interrupt
from xmodal.engine.progress import Progress
from xmodal.engine.run.result import Run, with_weights
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.history import Tables
from xmodal.engine.stacked.model_kind import BLOCK, Member, ModelKind, StepRecord
from xmodal.engine.stacked.scores import ManyScores
from xmodal.engine.stacked.selection import StackSelection
from xmodal.engine.stacked.tables import Table, batch_of
from xmodal.errors import Interrupted, NonFinite
from xmodal.metrics.task import Scores
from xmodal.seeding import mix
from xmodal.types import Student

Values = Mapping[str, Sequence[Any] | Tensor]  # metric → one value per model
Rows = Mapping[str, Tensor]  # owner → (models, batch) row numbers


class StackLoop:
    """Training of a stack.

    Args:
        kind: what the models have in common.
        members: the models.
        settings: of all models.
        metrics: as in `fit`.
        score: whether to score the validation split.
        progress: shows the progress.
    """

    def __init__(
        self,
        kind: ModelKind,
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
            batches_for(
                member.info.rows["train"],
                member.labelled,
                unlabelled=member.method.uses_unlabelled,
                paired=kind.paired,
                batch_size=settings.batch_size,
                seed=mix(member.seed, "order"),
                unequal=settings.unequal,
            )
            for member in members
        ]
        self.steps = len(self.samplers[0])
        # Whether every batch holds all rows, the same ones in each epoch. Unpaired modalities of different length are
        # recycled or cut, with other rows in each epoch; batches with unlabelled rows are composed anew.
        self.full_batch = self.steps == 1 and (kind.paired or len({*members[0].info.rows["train"].values()}) == 1)
        self.full_batch &= not members[0].labelled
        parameters = dict(zip(kind.trained, self.trained, strict=True))
        groups = [
            {"params": [parameters[name] for name in names if name in parameters], **options}
            for names, options in kind.groups
        ]
        updates = updates_per_epoch(self.steps, settings)
        self.settings = settings = resolved(settings, members[0].info, updates)
        # without clipping, which `_clipped` does for each model by itself
        self.optimisers = Optimisers(groups, settings.model_copy(update={"clip": None}), updates)
        self.tables = Tables(len(members), self.steps)
        self.selection = StackSelection(*members[0].info.select, models=len(members), keep=settings.keep)
        self.valid: Table | None = None
        if score:
            splits = [member.valid for member in members if member.valid]
            self.valid = Table([kind.pick_valid(leaves) for leaves in splits], kind.valid_owners)
        self.whole: tuple[StepRecord, Sequence[Tensor]] | None = None

    def rehearse(self) -> None:
        """Prepare a step and score once, without changing weights; raises if these models can't be stacked."""
        next(self._batches())
        if self.score:
            self._scores()

    def run(self) -> list[Run]:
        """Train to the end."""
        # the method that is recorded is that of the first member of the kind; an earlier stack left it in eval mode
        self.kind.method.train()
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
            # a stack has no checkpoints, so nothing is saved
            if stop := interrupt.pending():
                raise Interrupted(stop, saved=None)
        return self._finish()

    def _state(self) -> dict[str, Tensor]:
        return dict(zip([*self.kind.trained, *self.kind.fixed], [*self.trained, *self.fixed], strict=True))

    def _batches(self) -> Iterator[tuple[StepRecord, Sequence[Tensor], Rows | None]]:
        """Per batch of an epoch: the recorded step, the prepared batch, and its rows; None: all rows in their order."""
        weights = [tensor.data for tensor in self.trained]
        # a batch of all rows is the same in every epoch, and its order does not matter: prepared once
        if self.full_batch:
            if self.whole is None:
                tensors = self.table.tensors
                step = self.kind.step(weights, self.fixed, tensors, self.table.axes)
                self.whole = step, step.play.prepare(tensors)
            yield *self.whole, None
            return
        picks = [[pick.rows for pick in sampler.at(self.epoch)] for sampler in self.samplers]
        # in paired data (owner `ALL`, an empty string) all modalities have the order of the first one
        first = next(iter(self.members[0].info.rows["train"]))
        for number in range(self.steps):
            rows = {
                owner: torch.stack([batches[number][owner or first] for batches in picks]).to(self.device)
                for owner in dict.fromkeys(self.table.owners)
            }
            tensors = self.table.pick(rows)
            step = self.kind.step(weights, self.fixed, tensors, [0] * len(tensors))
            yield step, step.play.prepare(tensors), rows

    @torch.no_grad()
    def _train_epoch(self) -> None:
        every, settings = self.settings.accumulate, self.settings
        accumulated: list[Tensor] = []
        batch_rows = []
        for number, (step, prepared, rows) in enumerate(self._batches()):
            group = min(every, self.steps - number // every * every)
            results = step.play([*(tensor.data for tensor in self.trained), *self.fixed], prepared)
            gradients, rest = results[: len(self.trained)], results[len(self.trained) :]
            self._store_buffers(rest[len(rest) - len(self.kind.buffers) :])
            all_rows = self.table.tensors[0].shape[0 if self.table.shared[0] else 1]
            size = all_rows if rows is None else next(iter(rows.values())).shape[1]
            self.tables.add(step, rest, size)
            batch_rows.append(rows)
            parts = self.samplers[0].parts(number, every)
            if parts != 1.0 and settings.accumulate_mode == "mean":
                gradients = [gradient / parts for gradient in gradients]
            # the order of `fit`: autograd adds a batch's gradient to those before, and clipping bounds the sum
            if accumulated:
                accumulated = [total + gradient for total, gradient in zip(accumulated, gradients, strict=True)]
            else:
                accumulated = list(gradients)
            if settings.clip_at == "backward":
                accumulated = self._clipped(accumulated)
            if (number + 1) % every and number + 1 < self.steps:
                continue
            if group == every or settings.remainder == "flush":
                if settings.clip_at == "step":
                    accumulated = self._clipped(accumulated)
                for parameter, gradient in zip(self.trained, accumulated, strict=True):
                    parameter.grad = gradient
                self.optimisers.step()
            accumulated = []
        # once per epoch: each check waits for the device, and steps of small models are short
        if broken := self.tables.broken():
            raise self._non_finite(*broken, batch_rows)

    def _store_buffers(self, buffers: Sequence[Tensor]) -> None:
        for place, tensor in zip(self.kind.buffer_places, buffers, strict=True):
            self.fixed[place] = tensor

    def _clipped(self, gradients: list[Tensor]) -> list[Tensor]:
        """Clipped gradients; the norm is that of each model by itself."""
        bound = self.settings.clip
        if bound is None:
            return gradients
        if self.settings.clip_mode == "value":
            return [gradient.clamp(-bound, bound) for gradient in gradients]
        norms = torch.stack([gradient.reshape(len(gradient), -1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        # 1e-6 as in torch's clip_grad_norm_, which `fit` uses
        factor = (bound / (norms + 1e-6)).clamp(max=1.0)
        return [gradient * factor.reshape(-1, *[1] * (gradient.ndim - 1)) for gradient in gradients]

    @torch.no_grad()
    def _scores(self) -> dict[str, Values]:
        """Student → metric → one value per model."""
        assert self.valid is not None and self.members[0].valid is not None
        infos = [member.info for member in self.members]
        students = self.members[0].method.students()
        # `ManyScores` knows neither masks nor scored regions
        masked = any(part in ("valid", "scored") for part, _, _ in self.kind.valid_layout)
        together = self.metrics is Scores and ManyScores.applies(infos[0]) and not masked
        scores: dict[str, Any] = {
            name: ManyScores(infos[0], models=len(infos), device=self.device)
            if together
            else [self.metrics(info, full=False, device=self.device) for info in infos]
            for name in students
        }
        for outputs, batch, axes in self._predictions():
            for name, output in outputs.items():
                modality = students[name].target
                if together:
                    scores[name].update(output, batch.targets[modality])
                    continue
                targets = _per_model(batch.targets[modality], axes.targets[modality], len(infos))
                masks = _per_model(batch.valid.get(modality), axes.valid.get(modality), len(infos))
                regions = _per_model(batch.scored.get(modality), axes.scored.get(modality), len(infos))
                for score, *arguments in zip(scores[name], output, targets, masks, regions, strict=True):
                    # regions only where there are any, as `counting` in `evaluate` passes them
                    score.update(*(arguments if arguments[-1] is not None else arguments[:-1]))
        if together:
            return {name: score.compute() for name, score in scores.items()}
        rows = {name: [score.compute() for score in per_model] for name, per_model in scores.items()}
        return {
            name: {key: [row[key] for row in per_model] for key in per_model[0]} for name, per_model in rows.items()
        }

    def _predictions(self) -> Iterator[tuple[Mapping[str, Tensor], Any, Any]]:
        """Outputs of the students for blocks of the validation split, each block, and the axes of the models in it.

        Unpaired rows are predicted modality by modality.
        """
        assert self.valid is not None and self.members[0].valid is not None
        for owner, names in self.kind.scored_together().items():
            axes = self._valid_batch(self.valid.axes, owner)
            for first in range(0, self.members[0].valid.rows(owner), BLOCK):
                batch = self._valid_batch(self.valid.slice(first, first + BLOCK), owner)
                inputs = {name: batch.inputs[name] for name in names}
                yield self.kind.predict(self._state(), inputs, {name: axes.inputs[name] for name in names}), batch, axes

    def _valid_batch(self, leaves: Sequence[Any], owner: str) -> Any:
        """A batch of an owner's validation leaves, or of values that belong to these leaves, such as axes."""
        read = zip(self.kind.valid_leaves, leaves, self.kind.valid_owners, strict=True)
        return batch_of(self.kind.valid_layout, {number: leaf for number, leaf, name in read if name == owner})[0]

    def _finish(self) -> list[Run]:
        seconds = (time.monotonic() - self.began) / len(self.members)
        tables = self.tables.done()
        return [
            Run(member.method, students, tables.of(number), self.selection.row(number, students, tables), seconds)
            for number, (member, students) in enumerate(zip(self.members, self.kept(), strict=True))
        ]

    @torch.no_grad()
    def kept(self) -> list[dict[str, Student]]:
        """The students of every model with their final weights; the methods get the present weights."""
        state, kept = self._state(), []
        for number, member in enumerate(self.members):
            tensors = dict([*member.method.named_parameters(), *member.method.named_buffers()])
            for name in (*self.kind.trained, *self.kind.buffers):
                tensors[name].copy_(state[name][number])
            member.method.eval()
            students = member.method.students().items()
            kept.append({name: with_weights(item, self.selection.weights(name, number)) for name, item in students})
        return kept

    def _non_finite(
        self, step: int, model: int, values: Mapping[str, float], batch_rows: Sequence[Rows | None]
    ) -> NonFinite:
        """The error for a loss of a model, with the samples of its batch."""
        member, rows = self.members[model], batch_rows[step]
        model_rows = {
            owner: torch.arange(member.train.rows(owner)) if rows is None else rows[owner][model].cpu()
            for owner in self.table.owners
        }
        tensors = zip(self.kind.pick(member.train), self.kind.owners, strict=True)
        picked = [tensor[model_rows[owner].to(tensor.device)] for tensor, owner in tensors]
        batch, _ = self.kind.batch(picked, len(next(iter(model_rows.values()))))
        owners = {name: member.train.owners[n] for part, name, n in self.kind.layout if part == "inputs"}
        batch.index = {name: model_rows[owner] for name, owner in owners.items() if owner in model_rows}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        listed = ", ".join(f"{name} = {value:g}" for name, value in values.items())
        return NonFinite(
            f"The loss term{'s' if len(broken) > 1 else ''} {', '.join(broken)} of model {member.number} became "
            f"non-finite in epoch {self.epoch + 1}, step {step + 1} ({listed}). {samples_of(batch)} "
            "Lower the learning rate, clip the gradient, or check these samples."
        )


def _per_model(values: Tensor | None, axis: int | None, models: int) -> Sequence[Tensor | None]:
    """The values of each model; ``axis`` None: all models share them."""
    return [values] * models if values is None or axis is None else list(values)
