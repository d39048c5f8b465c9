"""A kind of model: what all members of a stack have in common, and their training step recorded for many."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from xmodal.data.base import Data
from xmodal.engine.alike import groups_of, plain_settings, shape_of, state_of
from xmodal.engine.record import NotRecordable, Recorded, record
from xmodal.engine.stack import Leaves, batch_of
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
        """What must be equal for two models to be alike."""
        state = tuple((name, shape_of(tensor), tensor.requires_grad) for name, tensor in state_of(self.method).items())
        groups = tuple((names, repr(sorted(options.items()))) for names, options in groups_of(self.method))
        splits = tuple(
            (leaves.layout, tuple(map(shape_of, leaves.tensors))) for leaves in (self.train, self.valid) if leaves
        )
        students = tuple((name, student.needs, student.target) for name, student in self.method.students().items())
        known = (self.info.task, self.info.classes, self.info.select, tuple(self.info.rows["train"].values()))
        return type(self.method), plain_settings(self.method), state, groups, splits, students, known


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
    """

    def __init__(self, member: Member) -> None:
        self.method, self.layout, self.shapes = member.method, member.train.layout, member.train.tensors[:]
        state = state_of(member.method)
        parameters = {name for name, _ in member.method.named_parameters()}
        self.groups = groups_of(member.method)
        self.students = {
            name: _names(state, student.module.state_dict(keep_vars=True))
            for name, student in member.method.students().items()
        }
        self.needs = sorted({need for student in member.method.students().values() for need in student.needs})
        self._steps: dict[Hashable, StepRecord] = {}
        self._predictions: dict[Hashable, Recorded] = {}
        optimised = {name for names, _ in self.groups for name in names}
        alone = self._alone(list(state), list(state.values()), member.train.tensors)
        used_state, used_leaves = alone.used[: len(state)], alone.used[len(state) :]
        used = {name for name, is_used in zip(state, used_state, strict=True) if is_used}
        self.trained = [name for name in state if state[name].requires_grad and name in used & optimised]
        self.fixed = [name for name in state if name not in self.trained]
        self.buffers = [name for name in self.fixed if name not in parameters]
        if not self.trained:
            raise NotRecordable("nothing in it is trained")
        self.leaves = [number for number, is_used in enumerate(used_leaves) if is_used]
        self.shapes = [torch.empty_like(tensor[:0]) for tensor in self.shapes]  # not a slice, which holds the whole
        self.proven = False  # whether a stack was seen to work
        size = sum(tensor.nelement() * tensor.element_size() for tensor in state.values())
        scored = member.valid.bytes if member.valid else 0
        data = sum(tensor.nelement() * tensor.element_size() for tensor in self.pick(member.train))
        self.working = data + 2 * alone.bytes  # what one step of one model goes through
        self.bytes = 8 * size + data + 2 * scored + self.working  # with copies, gradients, moments, best weights

    def pick(self, leaves: Leaves) -> list[Tensor]:
        """The leaves of a training split that the training step reads."""
        return [leaves.tensors[number] for number in self.leaves]

    def trimmed(self, leaves: Leaves) -> Leaves:
        """The same without the tensors that the training step doesn't read."""
        tensors = [t if n in self.leaves else self.shapes[n] for n, t in enumerate(leaves.tensors)]
        return Leaves(leaves.layout, tensors)

    def batch(self, tensors: Sequence[Tensor], rows: int) -> tuple[Batch, dict[str, Tensor]]:
        """A batch from the leaves that are read; the others are there with the right shape and no content."""
        found: list[Tensor] = [shape.new_zeros(()).expand(rows, *shape.shape[1:]) for shape in self.shapes]
        for number, tensor in zip(self.leaves, tensors, strict=True):
            found[number] = tensor
        return batch_of(self.layout, found)

    def _alone(self, names: Sequence[str], state: Sequence[Tensor], leaves: Sequence[Tensor]) -> Recorded:
        """The step of one model, to see which tensors it reads and how much it computes."""

        def losses(*tensors: Tensor) -> list[Tensor]:
            given = {name: tensor.clone() for name, tensor in zip(names, tensors[: len(names)], strict=True)}
            step = functional_call(self.method, given, batch_of(self.layout, tensors[len(names) :]))
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
        buffers = [self.fixed.index(name) for name in self.buffers]

        def loss(
            weights: list[Tensor], rest: list[Tensor], tensors: list[Tensor]
        ) -> tuple[Tensor, tuple[list[Tensor], ...]]:
            rest = [tensor.clone() for tensor in rest]  # batch statistics write to them
            state = dict(zip([*self.trained, *self.fixed], [*weights, *rest], strict=True))
            batch, taught = self.batch(tensors, rows)
            step = functional_call(self.method, state, (batch, taught))
            names.update(losses=list(step.losses), logs=list(step.logs))
            terms = list(step.losses.values())
            counts = [torch.as_tensor(step.counts.get(name, batch.rows)) for name in step.losses]
            aux = (terms, counts, list(step.logs.values()), [rest[number] for number in buffers])
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
        """Outputs (models, batch, …) of every student, in eval mode."""
        key = (len(next(iter(state.values()))), tuple(map(shape_of, inputs.values())), tuple(axes.values()))
        if key not in self._predictions:

            def all_models(*tensors: Tensor) -> list[Tensor]:
                weights, given = list(tensors[: len(state)]), list(tensors[len(state) :])
                found: list[Tensor] = vmap(self._outputs(list(state), list(inputs)), in_dims=(0, list(axes.values())))(
                    weights, given
                )
                return found

            training = self.method.training
            self.method.eval()
            self._predictions[key] = record(all_models, list(state.values()), list(inputs.values()))
            self.method.train(training)
        play = self._predictions[key]
        outputs = play(list(state.values()), play.prepare(list(inputs.values())))
        return dict(zip(self.students, outputs, strict=True))

    def _outputs(self, state: list[str], inputs: list[str]) -> Callable[[list[Tensor], list[Tensor]], list[Tensor]]:
        asked = _Predicts(self.method)

        def outputs(weights: list[Tensor], given: list[Tensor]) -> list[Tensor]:
            named = {f"method.{name}": tensor for name, tensor in zip(state, weights, strict=True)}
            found = functional_call(asked, named, (dict(zip(inputs, given, strict=True)),))
            return [found[name] for name in self.students]

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
