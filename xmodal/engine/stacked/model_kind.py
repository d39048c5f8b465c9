"""A kind of model: what all members of a stack have in common, and their training step recorded for many."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

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

BLOCK = 512  # rows that are predicted at a time, as in `evaluate`


@dataclass(slots=True)
class Member:
    """One model with all that training it asks for.

    Attributes:
        number: its place among the methods that were given.
        seed: of its order of batches.
        train: the training split, with what its teacher says.
        valid: the validation split; None: not scored.
        data: where it all came from, as long as it may be trained alone.
    """

    number: int
    method: Method
    info: DataInfo
    seed: int
    train: Leaves
    valid: Leaves | None
    data: Data | None = None

    def key(self) -> Hashable:
        """What must be equal for two models to be alike, but for the shapes of the data that they read."""
        state = tuple((name, shape_of(tensor), tensor.requires_grad) for name, tensor in state_of(self.method).items())
        groups = tuple((names, repr(sorted(options.items()))) for names, options in groups_of(self.method))
        layouts = tuple((leaves.layout, tuple(leaves.owners)) for leaves in (self.train, self.valid) if leaves)
        students = tuple((name, student.needs, student.target) for name, student in self.method.students().items())
        known = (self.info.task, self.info.classes, self.info.select, tuple(self.info.rows["train"].values()))
        return type(self.method), plain_settings(self.method), state, groups, layouts, students, known


@dataclass(slots=True)
class StepRecord:
    """The training step of a number of models, and what its results are.

    Attributes:
        play: gradients, losses, counts, logs and buffers from weights, fixed state and a batch.
        losses: names of the terms.
        logs: names of what is logged.
    """

    play: Recorded
    losses: list[str]
    logs: list[str]


class Kind:
    """Models that are alike.

    Args:
        member: any of them.
        batch_size: rows in a step.
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
        rows = min(batch_size, max(map(len, member.train.tensors)))
        first = [tensor[torch.arange(rows) % len(tensor)] for tensor in member.train.tensors]
        alone = self._alone(list(state), list(state.values()), first)
        used_state, used_leaves = alone.used[: len(state)], alone.used[len(state) :]
        used = {name for name, is_used in zip(state, used_state, strict=True) if is_used}
        self.trained = [name for name in state if state[name].requires_grad and name in used & optimised]
        self.fixed = [name for name in state if name not in self.trained]
        self.buffers = [name for name in self.fixed if name not in parameters]
        self.buffer_places = [self.fixed.index(name) for name in self.buffers]
        if not self.trained:
            raise NotRecordable("nothing in it is trained")
        self.leaves = [number for number, is_used in enumerate(used_leaves) if is_used]
        self.owners = [member.train.owners[number] for number in self.leaves]
        # of the validation split: what students read, their targets, and what counts
        asked = {0: self.needs, 1: self.targets, 2: self.targets, 4: self.targets}
        self.valid_leaves = sorted({n for part, name, n in self.valid_layout if name in asked.get(part, ())})
        self.valid_owners = [member.valid.owners[number] for number in self.valid_leaves] if member.valid else []
        self.shapes = [torch.empty_like(tensor[:0]) for tensor in self.shapes]  # not a slice, which holds the whole
        self.shapes_of_first = self.shapes_read(member)
        self.proven = False  # whether a stack was seen to work
        size = bytes_of(state.values())
        scored = bytes_of(self.pick_valid(member.valid)) if member.valid else 0
        data = bytes_of(self.pick(member.train))
        batch = bytes_of(tensor[:batch_size] for tensor in self.pick(member.train))
        self.working = batch + 2 * alone.bytes  # what one step of one model goes through
        self.bytes = 8 * size + data + 2 * scored + self.working  # with copies, gradients, moments, best weights

    def pick(self, leaves: Leaves) -> list[Tensor]:
        """The leaves of a training split that the training step reads."""
        return [leaves.tensors[number] for number in self.leaves]

    def pick_valid(self, leaves: Leaves) -> list[Tensor]:
        """The leaves of a validation split that scoring reads."""
        return [leaves.tensors[number] for number in self.valid_leaves]

    def shapes_read(self, member: Member) -> Hashable:
        """Shapes of the data that a model reads: the rest of what must be equal for two models to be alike."""
        valid = self.pick_valid(member.valid) if member.valid else []
        return tuple(map(shape_of, self.pick(member.train))), tuple(map(shape_of, valid))

    def trim(self, member: Member) -> None:
        """Let go of the data that nobody reads."""
        for leaves, used in ((member.train, self.leaves), (member.valid, self.valid_leaves)):
            if leaves:
                leaves.tensors = [t if n in used else torch.empty_like(t[:0]) for n, t in enumerate(leaves.tensors)]

    def scored_together(self) -> dict[str, list[str]]:
        """Owner of rows → inputs that students read of them: the parts in which a validation split is looked at."""
        if self.paired:
            return {ALL: self.needs}
        places = dict(zip(self.valid_leaves, self.valid_owners, strict=True))
        owners = {name: places[number] for part, name, number in self.valid_layout if part == 0 and name in self.needs}
        return {
            owner: [name for name in self.needs if owners[name] == owner] for owner in dict.fromkeys(owners.values())
        }

    def batch(self, tensors: Sequence[Tensor], rows: int) -> tuple[Batch, dict[str, Tensor]]:
        """A batch from the leaves that are read; the others are there with the right shape and no content."""
        empty = {n: shape.new_zeros(()).expand(rows, *shape.shape[1:]) for n, shape in enumerate(self.shapes)}
        return batch_of(self.layout, {**empty, **dict(zip(self.leaves, tensors, strict=True))})

    def _alone(self, names: Sequence[str], state: Sequence[Tensor], leaves: Sequence[Tensor]) -> Recorded:
        """The step of one model, to see which tensors it reads and how much it computes."""

        def losses(*tensors: Tensor) -> list[Tensor]:
            given = {name: tensor.clone() for name, tensor in zip(names, tensors[: len(names)], strict=True)}
            step = functional_call(self.method, given, batch_of(self.layout, dict(enumerate(tensors[len(names) :]))))
            return [*step.losses.values(), *step.logs.values()]

        return record(losses, [tensor.detach() for tensor in state], leaves)

    def step(
        self, trained: Sequence[Tensor], fixed: Sequence[Tensor], leaves: Sequence[Tensor], axes: Sequence[int | None]
    ) -> StepRecord:
        """The recorded training step for tensors of these shapes; ``axes`` as in `torch.func.vmap`, for the leaves."""
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
            rest = [tensor.clone() for tensor in rest]  # batch statistics write to them
            state = dict(zip([*self.trained, *self.fixed], [*weights, *rest], strict=True))
            batch, teacher_outputs = self.batch(tensors, rows)
            step = functional_call(self.method, state, (batch, teacher_outputs))
            names.update(losses=list(step.losses), logs=list(step.logs))
            terms = list(step.losses.values())
            # `Batch.rows`, which would compare rows to find out whether they belong together
            whole = rows if self.paired else rows * len(batch.targets)
            counts = [torch.as_tensor(step.counts.get(name, whole)) for name in step.losses]
            aux = (terms, counts, list(step.logs.values()), [rest[place] for place in self.buffer_places])
            return sum(terms[1:], terms[0]), aux

        def all_models(*tensors: Tensor) -> list[Tensor]:
            given = list(tensors)
            first, second = len(trained), len(trained) + len(fixed)
            found = vmap(grad(loss, has_aux=True), in_dims=(0, 0, axes), randomness="different")(
                given[:first], given[first:second], given[second:]
            )
            return [*found[0], *(tensor for part in found[1] for tensor in part)]

        return StepRecord(record(all_models, [*trained, *fixed], leaves), **names)

    def predict(
        self, state: Mapping[str, Tensor], inputs: Mapping[str, Tensor], axes: Mapping[str, int | None]
    ) -> dict[str, Tensor]:
        """Outputs (models, batch, …) of every student that finds its inputs, in eval mode."""
        shapes = tuple((name, shape_of(tensor)) for name, tensor in inputs.items())
        key = (len(next(iter(state.values()))), shapes, tuple(axes.values()))
        students = [name for name, needs in self.reads.items() if needs <= inputs.keys()]
        if key not in self._predictions:

            def all_models(*tensors: Tensor) -> list[Tensor]:
                weights, given = list(tensors[: len(state)]), list(tensors[len(state) :])
                found: list[Tensor] = vmap(
                    self._outputs(students, list(state), list(inputs)), in_dims=(0, list(axes.values()))
                )(weights, given)
                return found

            training = self.method.training
            self.method.eval()
            self._predictions[key] = record(all_models, list(state.values()), list(inputs.values()))
            self.method.train(training)
        play = self._predictions[key]
        outputs = play(list(state.values()), play.prepare(list(inputs.values())))
        # sideways computed outputs are views, which not every metric can read
        return {name: tensor.contiguous() for name, tensor in zip(students, outputs, strict=True)}

    def _outputs(
        self, students: list[str], state: list[str], inputs: list[str]
    ) -> Callable[[list[Tensor], list[Tensor]], list[Tensor]]:
        asked = _Predicts(self.method)

        def outputs(weights: list[Tensor], given: list[Tensor]) -> list[Tensor]:
            named = {f"method.{name}": tensor for name, tensor in zip(state, weights, strict=True)}
            found = functional_call(asked, named, (dict(zip(inputs, given, strict=True)),))
            return [found[name] for name in students]

        return outputs


class _Predicts(nn.Module):
    """A method whose forward is ``predict``, which is what `functional_call` can call."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.method.predict(inputs)


def _names(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Key of a student's state → name in the method's state."""
    names = {id(tensor): name for name, tensor in state.items()}
    return {key: names[id(tensor)] for key, tensor in tensors.items() if id(tensor) in names}
