"""What the models of a stack have in common, and their training step recorded for many models."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from xmodal.data.base import Data
from xmodal.engine.stacked.recorded import Recorded, record
from xmodal.engine.stacked.stackable import groups_of, plain_settings, shape_of, state_of
from xmodal.engine.stacked.tables import ALL, Leaves, batch_of, bytes_of
from xmodal.engine.stacked.tracer import NotRecordable
from xmodal.method import Method
from xmodal.types import Batch, DataInfo

BLOCK = 512  # rows per forward pass on the validation split, as in `evaluate`


@dataclass(slots=True)
class Member:
    """One model and its data.

    Attributes:
        number: its index in the methods passed to `fit_many`.
        seed: of its order of batches.
        train: the training split, with the outputs of its teacher.
        valid: the validation split; None: not scored.
        data: the data set; None once it is certain that the model is not trained alone.
        labelled: modality → mask of the training rows with a label; empty: all have one.
    """

    number: int
    method: Method
    info: DataInfo
    seed: int
    train: Leaves
    valid: Leaves | None
    data: Data | None = None
    labelled: Mapping[str, Tensor] = field(default_factory=dict)

    def key(self) -> Hashable:
        """What must be equal for two models to be stacked together, besides the shapes of the data that they read."""
        state = tuple((name, shape_of(tensor), tensor.requires_grad) for name, tensor in state_of(self.method).items())
        groups = tuple((names, repr(sorted(options.items()))) for names, options in groups_of(self.method))
        layouts = tuple((leaves.layout, tuple(leaves.owners)) for leaves in (self.train, self.valid) if leaves)
        students = tuple((name, student.needs, student.target) for name, student in self.method.students().items())
        # the numbers of labelled rows decide how batches are composed
        rows = (*self.info.rows["train"].values(), *self.info.labelled.values())
        data = (self.info.task, self.info.classes, self.info.select, rows)
        return type(self.method), plain_settings(self.method), state, groups, layouts, students, data


@dataclass(slots=True)
class StepRecord:
    """The recorded training step of many models, and the names of its results.

    Attributes:
        play: weights, fixed state and a batch → gradients, losses, counts, logs and buffers.
        losses: names of the loss terms.
        logs: names of the logged values.
    """

    play: Recorded
    losses: list[str]
    logs: list[str]


class ModelKind:
    """Models that can be stacked together.

    Args:
        member: any of them.
        batch_size: rows per step.
    """

    def __init__(self, member: Member, batch_size: int) -> None:
        self.method, self.layout, self.shapes = member.method, member.train.layout, member.train.tensors[:]
        self.valid_layout = member.valid.layout if member.valid else ()
        self.paired = member.info.paired
        state = state_of(member.method)
        parameters = {name for name, _ in member.method.named_parameters()}
        self.groups = groups_of(member.method)
        self.students = {
            name: _names(state, student.module.state_dict(keep_vars=True))
            for name, student in member.method.students().items()
        }
        self.needs = sorted({need for student in member.method.students().values() for need in student.needs})
        self.targets = sorted({student.target for student in member.method.students().values()})
        self.reads = {name: set(student.needs) for name, student in member.method.students().items()}
        self._steps: dict[Hashable, StepRecord] = {}
        self._predictions: dict[Hashable, Recorded] = {}
        optimised = {name for names, _ in self.groups for name in names}
        # The step of one model is recorded, to see which tensors it reads and how much memory it takes. Leaves shorter
        # than a batch start over.
        rows = min(batch_size, max(map(len, member.train.tensors)))
        first = [tensor[torch.arange(rows) % len(tensor)] for tensor in member.train.tensors]
        one_step = self._record_one(list(state), list(state.values()), first)
        used_state, used_leaves = one_step.used[: len(state)], one_step.used[len(state) :]
        used = {name for name, is_used in zip(state, used_state, strict=True) if is_used}
        self.trained = [name for name in state if state[name].requires_grad and name in used & optimised]
        self.fixed = [name for name in state if name not in self.trained]
        self.buffers = [name for name in self.fixed if name not in parameters]
        self.buffer_places = [self.fixed.index(name) for name in self.buffers]
        if not self.trained:
            raise NotRecordable("nothing in it is trained")
        self.leaves = [number for number, is_used in enumerate(used_leaves) if is_used]
        self.owners = [member.train.owners[number] for number in self.leaves]
        # of the validation split: inputs that students read, their targets, masks and scored regions
        parts = {"inputs": self.needs, **dict.fromkeys(("targets", "valid", "scored"), self.targets)}
        self.valid_leaves = sorted({n for part, name, n in self.valid_layout if name in parts.get(part, ())})
        self.valid_owners = [member.valid.owners[number] for number in self.valid_leaves] if member.valid else []
        # shapes only; a slice `tensor[:0]` would keep the memory of the whole tensor
        self.shapes = [torch.empty_like(tensor[:0]) for tensor in self.shapes]
        self.shapes_of_first = self.shapes_read(member)
        self.proven = False  # whether a stack has run without an error
        size = bytes_of(state.values())
        scored = bytes_of(self.pick_valid(member.valid)) if member.valid else 0
        data = bytes_of(self.pick(member.train))
        batch = bytes_of(tensor[:batch_size] for tensor in self.pick(member.train))
        # Estimates of the memory of one model. In a step: the batch, forward pass and backward pass.
        self.working = batch + 2 * one_step.bytes
        # In all: weights (8 times: copies, gradients, moments of Adam, best weights), data, and the step.
        self.bytes = 8 * size + data + 2 * scored + self.working

    def pick(self, leaves: Leaves) -> list[Tensor]:
        """The leaves of a training split that the training step reads."""
        return [leaves.tensors[number] for number in self.leaves]

    def pick_valid(self, leaves: Leaves) -> list[Tensor]:
        """The leaves of a validation split that scoring reads."""
        return [leaves.tensors[number] for number in self.valid_leaves]

    def shapes_read(self, member: Member) -> Hashable:
        """Shapes of the data that a model reads; they too must be equal for two models to be stacked together."""
        valid = self.pick_valid(member.valid) if member.valid else []
        return tuple(map(shape_of, self.pick(member.train))), tuple(map(shape_of, valid))

    def trim(self, member: Member) -> None:
        """Release the data that is not read."""
        for leaves, used in ((member.train, self.leaves), (member.valid, self.valid_leaves)):
            if leaves:
                leaves.tensors = [t if n in used else torch.empty_like(t[:0]) for n, t in enumerate(leaves.tensors)]

    def scored_together(self) -> dict[str, list[str]]:
        """Owner of rows → inputs that students read: the groups in which the validation split is predicted."""
        if self.paired:
            return {ALL: self.needs}
        owner_of = dict(zip(self.valid_leaves, self.valid_owners, strict=True))
        owners = {
            name: owner_of[number]
            for part, name, number in self.valid_layout
            if part == "inputs" and name in self.needs
        }
        return {
            owner: [name for name in self.needs if owners[name] == owner] for owner in dict.fromkeys(owners.values())
        }

    def batch(self, tensors: Sequence[Tensor], rows: int) -> tuple[Batch, dict[str, Tensor]]:
        """A batch with the leaves that are read; the others have the right shape and zeros."""
        # expanded from a single zero, which takes no memory
        empty = {n: shape.new_zeros(()).expand(rows, *shape.shape[1:]) for n, shape in enumerate(self.shapes)}
        return batch_of(self.layout, {**empty, **dict(zip(self.leaves, tensors, strict=True))})

    def _record_one(self, names: Sequence[str], state: Sequence[Tensor], leaves: Sequence[Tensor]) -> Recorded:
        """The recorded forward pass of a training step of one model."""

        def losses(*tensors: Tensor) -> list[Tensor]:
            # clones: batch statistics are written to buffers, which must stay those of the model
            copies = {name: tensor.clone() for name, tensor in zip(names, tensors[: len(names)], strict=True)}
            step = functional_call(self.method, copies, batch_of(self.layout, dict(enumerate(tensors[len(names) :]))))
            return [*step.losses.values(), *step.logs.values()]

        return record(losses, [tensor.detach() for tensor in state], leaves)

    def step(
        self, trained: Sequence[Tensor], fixed: Sequence[Tensor], leaves: Sequence[Tensor], axes: Sequence[int | None]
    ) -> StepRecord:
        """The recorded training step for tensors of these shapes; ``axes`` of the leaves as in `torch.func.vmap`."""
        key = (len(trained[0]), tuple(map(shape_of, leaves)), tuple(axes))
        if key not in self._steps:
            rows = leaves[0].shape[0 if axes[0] is None else 1] if leaves else 0
            self._steps[key] = self._record(trained, fixed, leaves, list(axes), rows)
        return self._steps[key]

    def _record(
        self,
        trained: Sequence[Tensor],
        fixed: Sequence[Tensor],
        leaves: Sequence[Tensor],
        axes: list[int | None],
        rows: int,
    ) -> StepRecord:
        names: dict[str, list[str]] = {}

        def loss(
            weights: list[Tensor], rest: list[Tensor], tensors: list[Tensor]
        ) -> tuple[Tensor, tuple[list[Tensor], ...]]:
            # clones: batch normalisation writes its running statistics to buffers
            rest = [tensor.clone() for tensor in rest]
            state = dict(zip([*self.trained, *self.fixed], [*weights, *rest], strict=True))
            batch, teacher_outputs = self.batch(tensors, rows)
            step = functional_call(self.method, state, (batch, teacher_outputs))
            names.update(losses=list(step.losses), logs=list(step.logs))
            terms = list(step.losses.values())
            # `Batch.rows` can't be read here: it compares index numbers to find out whether the batch is paired
            all_rows = rows if self.paired else rows * len(batch.targets)
            counts = [torch.as_tensor(step.counts.get(name, all_rows)) for name in step.losses]
            aux = (terms, counts, list(step.logs.values()), [rest[place] for place in self.buffer_places])
            return sum(terms[1:], terms[0]), aux

        def all_models(*tensors: Tensor) -> list[Tensor]:
            inputs = list(tensors)
            first, second = len(trained), len(trained) + len(fixed)
            # randomness="different": each model has its own dropout masks
            gradients, aux = vmap(grad(loss, has_aux=True), in_dims=(0, 0, axes), randomness="different")(
                inputs[:first], inputs[first:second], inputs[second:]
            )
            return [*gradients, *(tensor for part in aux for tensor in part)]

        return StepRecord(record(all_models, [*trained, *fixed], leaves), **names)

    def predict(
        self, state: Mapping[str, Tensor], inputs: Mapping[str, Tensor], axes: Mapping[str, int | None]
    ) -> dict[str, Tensor]:
        """Outputs (models, batch, …) of every student whose inputs are given, in eval mode."""
        shapes = tuple((name, shape_of(tensor)) for name, tensor in inputs.items())
        key = (len(next(iter(state.values()))), shapes, tuple(axes.values()))
        students = [name for name, needs in self.reads.items() if needs <= inputs.keys()]
        if key not in self._predictions:

            def all_models(*tensors: Tensor) -> list[Tensor]:
                weights, batch = list(tensors[: len(state)]), list(tensors[len(state) :])
                outputs: list[Tensor] = vmap(
                    self._outputs(students, list(state), list(inputs)), in_dims=(0, list(axes.values()))
                )(weights, batch)
                return outputs

            training = self.method.training
            self.method.eval()
            self._predictions[key] = record(all_models, list(state.values()), list(inputs.values()))
            self.method.train(training)
        play = self._predictions[key]
        outputs = play(list(state.values()), play.prepare(list(inputs.values())))
        # contiguous: outputs that were computed transposed are views, which not every metric can read
        return {name: tensor.contiguous() for name, tensor in zip(students, outputs, strict=True)}

    def _outputs(
        self, students: list[str], state: list[str], inputs: list[str]
    ) -> Callable[[list[Tensor], list[Tensor]], list[Tensor]]:
        module = _Predicts(self.method)

        def outputs(weights: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
            named = {f"method.{name}": tensor for name, tensor in zip(state, weights, strict=True)}
            predictions = functional_call(module, named, (dict(zip(inputs, tensors, strict=True)),))
            return [predictions[name] for name in students]

        return outputs


class _Predicts(nn.Module):
    """A module whose ``forward`` is the method's ``predict``: `functional_call` calls nothing else."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.method.predict(inputs)


def _names(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Key of a student's state → name in the method's state."""
    names = {id(tensor): name for name, tensor in state.items()}
    return {key: names[id(tensor)] for key, tensor in tensors.items() if id(tensor) in names}
