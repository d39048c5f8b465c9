"""Terms: losses of the zoo between a student and a teacher, on their outputs or on layers named by their modules.

A term knows which tensors of both networks it compares, adapts their shapes, and says how many things its mean counts.
Methods that distil from a frozen teacher hold a list of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xmodal.cards import LossCard
from xmodal.errors import InputError, did_you_mean
from xmodal.losses.adaptors import adaptor_for, pointwise
from xmodal.losses.reduce import masked_mean, picked
from xmodal.methods.loss_text import parse_loss
from xmodal.models.layers import layer_of, output_shapes
from xmodal.models.network import zeros
from xmodal.types import Batch, DataInfo

OUTPUTS = "outputs"
WHOLE = ("maps", "stages")  # kinds of inputs of losses that compare a sample's maps, not single places
BY_TASK = {"multiclass": "kl", "binary": "bernoulli_kl", "multilabel": "bernoulli_kl", "regression": "mse"}
REDUCTIONS = ("pixel", "reference")
Gather = Callable[[Tensor], Tensor]
Shape = tuple[int, ...]


class Side:
    """What one of the two networks offers to compare.

    Args:
        module: the network.
        info: of the data.
        needs: inputs that it reads.
        layers: names asked for, ``outputs`` among them; empty: chosen by what a loss compares.
        role: ``student`` or ``teacher``, for the sentences.
    """

    def __init__(
        self, module: nn.Module, info: DataInfo, needs: Sequence[str], layers: Sequence[str], role: str
    ) -> None:
        self.module, self.info, self.needs = module, info, tuple(needs)
        self.layers, self.role = tuple(layers), role
        for name in layers:
            if name != OUTPUTS:
                layer_of(module, name)

    @functools.cached_property
    def shapes(self) -> dict[str, Shape]:
        """Layer → shape of one sample; a dry run, for the losses that compare features."""
        device = next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))
        inputs = zeros({name: self.info.inputs[name] for name in self.needs}, 2)
        return output_shapes(self.module, {name: tensor.to(device) for name, tensor in inputs.items()})

    def shape_of(self, name: str, card: LossCard | None = None) -> Shape:
        """Shape of one sample of a layer or of the outputs; of one place of dense outputs, unless maps are asked."""
        if name != OUTPUTS:
            return self.shapes[name]
        whole = self.info.dense and (card is None or card.inputs in WHOLE)
        return next(reversed(self.shapes.values())) if whole else (self.info.outputs,)

    def choose(self, card: LossCard) -> tuple[str, ...]:
        """Names of the layers that a loss compares on this side."""
        if card.inputs == "logits" or "features" not in card.needs:
            return (OUTPUTS,)
        if card.inputs == "stages":
            return self.layers if len(self.layers) > 1 else self._stages()
        if self.layers:
            return (self._fitting(card),)
        return (self._last_map(),) if card.inputs == "maps" else (self._embedding(),)

    def _fitting(self, card: LossCard) -> str:
        for name in self.layers:
            if card.inputs != "maps" or len(self.shape_of(name)) in (3, 4):
                return name
        raise self._no_maps(f"the layers {', '.join(self.layers)} give none")

    def _maps(self) -> list[str]:
        """Layers with maps of pixels (channels, height, width); of voxels, where a network comes to have those."""
        axes = max((len(shape) for shape in self.shapes.values() if len(shape) in (3, 4)), default=3)
        return [name for name, shape in self.shapes.items() if len(shape) == axes]

    def _last_map(self) -> str:
        names = [name for name in self._maps() if min(self.shapes[name][1:]) > 1] or self._maps()
        if not names:
            raise self._no_maps("it has no such layer")
        return names[-1]

    def _stages(self) -> tuple[str, ...]:
        by_size = {self.shapes[name][1:]: name for name in self._maps()}  # the last layer of each resolution
        if len(by_size) < 2:
            raise self._no_maps("it has not two of them at different resolutions")
        return tuple(by_size.values())[-2:]

    def _no_maps(self, why: str) -> InputError:
        return InputError(
            f"The loss compares maps (channels, height, width), or (channels, depth, height, width), of the "
            f"{self.role}, and {why}. Choose an encoder with convolutions, or another loss. Layers: "
            f"{', '.join(f'{n} {s}' for n, s in self.shapes.items())}."
        )

    def _embedding(self) -> str:
        if "embedding" in self.shapes:
            return "embedding"
        return list(self.shapes)[-2] if len(self.shapes) > 1 else list(self.shapes)[-1]


class Term(nn.Module):
    """One loss between two networks.

    Args:
        card: of the loss.
        weight: of the term.
        student: layers to compare and their shapes.
        teacher: the same.
        info: of the data.
        temperature: for losses that have one; None leaves each its own.
        options: of the loss and of the term, see `xmodal.methods.loss_text`.
        reduction: ``pixel`` or ``reference``, see `xmodal.methods.kd.KD`; for losses with one value per place.
    """

    def __init__(
        self,
        card: LossCard,
        weight: float,
        *,
        student: Mapping[str, Shape],
        teacher: Mapping[str, Shape],
        info: DataInfo,
        temperature: float | None = None,
        options: Mapping[str, Any] | None = None,
        reduction: str = "pixel",
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise InputError(f"There is no reduction called '{reduction}'. {did_you_mean(reduction, REDUCTIONS)}")
        self.reduction, self.ignore, self.classes = reduction, info.ignore, info.outputs
        # places of dense outputs are rows like any others to losses that do not ask how they lie
        self.by_place = info.dense and OUTPUTS in student and OUTPUTS in teacher and card.inputs not in WHOLE
        self.card, self.weight = card, weight
        self.student_layers, self.teacher_layers = tuple(student), tuple(teacher)
        self.adaptors = nn.ModuleList()
        own = {**(options or {})}
        adaptor, self.group = own.pop("adaptor", "auto"), own.pop("group", 0)
        loss = card.load()
        if card.module:
            loss, own = _build(card, loss, student, teacher, info, own), {}
        elif card.widths == "same":
            join = pointwise if adaptor == "linear" else adaptor_for
            pairs = zip(student.values(), teacher.values(), strict=True)
            self.adaptors.extend(join(mine, theirs) for mine, theirs in pairs)
        self.loss: Callable[..., Tensor] = loss
        known = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters
        self.options: dict[str, Any] = {}
        if temperature is not None and "temperature" in known:
            self.options["temperature"] = temperature
        self.options |= own
        self.by_row = card.samples == "pointwise" and "reduction" in known

    def forward(
        self,
        mine: Mapping[str, Tensor],
        theirs: Mapping[str, Tensor],
        batch: Batch,
        *,
        valid: Tensor | None,
        gather: Gather,
        omega: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | int]:
        """Value of the loss (unweighted) and what its mean counted.

        Places of dense outputs that count are rows of their own, samples in all that follows.

        Args:
            mine: layers and outputs of the student.
            theirs: of the teacher.
            batch: labels and row numbers.
            valid: (rows,) or (rows, …), which places count; None: all.
            gather: joins the rows of all processes.
            omega: (rows, …), how much each sample counts: it multiplies the values of a loss that has one per sample,
                with the same divisor; where samples are compared with one another, those with 0 are left out.
        """
        target = batch.target if "labels" in self.card.needs else None
        places = 0
        if self.by_place:
            places = mine[OUTPUTS].numel() // self.classes
            mine, theirs, target, omega = self._as_rows(mine, theirs, target, valid, omega)
            valid = None
        student = [mine[name] for name in self.student_layers]
        if len(self.adaptors):
            student = [adaptor(part) for adaptor, part in zip(self.adaptors, student, strict=True)]
        teacher = [theirs[name].to(student[0].dtype) for name in self.teacher_layers]
        options = dict(self.options)
        if target is not None:
            options["target"] = target
        if "memory" in self.card.needs:
            options["rows"] = next(iter(batch.index.values()))
            options["weight"], omega = omega, None
        elif self.card.samples != "pointwise":
            student, teacher = [gather(part) for part in student], [gather(part) for part in teacher]
            options = {key: gather(value) if isinstance(value, Tensor) else value for key, value in options.items()}
            omega = None if omega is None else gather(omega)
        count = len(student[0])
        if not count:  # no place counts, here or anywhere
            return sum((part.sum() * 0.0 for part in student), student[0].new_zeros(())), count
        if omega is not None and not self.by_row:
            kept = self._kept(omega)
            if not len(kept):
                return sum((part.sum() * 0.0 for part in student), student[0].new_zeros(())), count
            student, teacher = [part[kept] for part in student], [part[kept] for part in teacher]
            options = {key: value[kept] if isinstance(value, Tensor) else value for key, value in options.items()}
        sides = (student, teacher) if self.card.inputs == "stages" else (student[0], teacher[0])
        if not self.by_row and 0 < self.group < len(student[0]):
            return self._in_groups(student, teacher, options), count
        if not self.by_row:
            return self.loss(*sides, **options), count
        values = self.loss(*sides, **options, reduction="none")
        if omega is not None:
            values = values * self._per_value(omega, values)
        if valid is not None and valid.shape != values.shape:
            valid = valid.flatten(1).any(dim=1)
        mean, counted = masked_mean(values, valid)
        if self.reduction == "reference":
            divisor = places if self.by_place else values.numel()
            return mean * counted / (divisor * self.classes), divisor
        return mean, counted

    def _as_rows(
        self,
        mine: Mapping[str, Tensor],
        theirs: Mapping[str, Tensor],
        target: Tensor | None,
        valid: Tensor | None,
        omega: Tensor | None,
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor], Tensor | None, Tensor | None]:
        """Outputs, labels and weights of the places that count."""
        student, teacher = mine[OUTPUTS], theirs[OUTPUTS]
        numbers = torch.arange(student.numel() // student.shape[1], device=student.device)
        numbers = numbers.reshape(len(student), *student.shape[2:])
        if target is not None and self.ignore is not None and not 0 <= self.ignore < self.classes:
            known = target != self.ignore  # a loss of labels has nothing to say elsewhere
            valid = known if valid is None else valid & known
        rows, chosen = picked(student, numbers, valid)
        theirs = {**theirs, OUTPUTS: picked(teacher, numbers, valid)[0]}
        if omega is not None:
            spread = omega if omega.ndim > 1 else omega.reshape(-1, *[1] * (numbers.ndim - 1)).expand_as(numbers)
            omega = spread.flatten()[chosen]
        return {**mine, OUTPUTS: rows}, theirs, None if target is None else target.flatten()[chosen], omega

    def _in_groups(self, student: list[Tensor], teacher: list[Tensor], options: Mapping[str, Any]) -> Tensor:
        """Mean over groups of rows, each by its number of rows; a last one of a single row has nothing to compare."""
        values, rows = [], len(student[0])
        for first in range(0, rows - 1, self.group):
            part = slice(first, first + self.group)
            sides = [part_of[part] for part_of in student], [part_of[part] for part_of in teacher]
            own = {key: value[part] if isinstance(value, Tensor) else value for key, value in options.items()}
            chosen = sides if self.card.inputs == "stages" else (sides[0][0], sides[1][0])
            values.append(len(sides[0][0]) / rows * self.loss(*chosen, **own))
        return torch.stack(values).sum()

    def _kept(self, omega: Tensor) -> Tensor:
        """Numbers of the rows that count."""
        return (omega.flatten(1).amax(dim=1) if omega.ndim > 1 else omega).nonzero().flatten()

    def _per_value(self, omega: Tensor, values: Tensor) -> Tensor:
        if omega.shape == values.shape:
            return omega
        return omega.flatten(1).mean(dim=1) if omega.ndim > 1 else omega

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """The loss's own schedule, where it has one."""
        start = getattr(self.loss, "on_epoch_start", None)
        if start is not None:
            start(epoch, epochs)


def _build(
    card: LossCard,
    kind: type[nn.Module],
    student: Mapping[str, Shape],
    teacher: Mapping[str, Shape],
    info: DataInfo,
    options: Mapping[str, Any],
) -> nn.Module:
    """A loss with parameters or a memory, for the shapes at hand."""
    shapes = (next(iter(student.values())), next(iter(teacher.values())))
    if "memory" in card.needs:
        rows = max(info.rows["train"].values())
        labels = next(iter(info.train_targets.values())) if options.get("exact") else None
        return kind(*shapes, **{"rows": rows, "negatives": min(16384, rows - 1), **options}, labels=labels)
    return kind(*shapes, **options) if "features" in card.needs else kind(**options)


def build_terms(
    losses: Sequence[str],
    student: Side,
    teacher: Side,
    info: DataInfo,
    *,
    temperature: float | None = None,
    reduction: str = "pixel",
) -> list[Term]:
    """The terms that were asked for; all that can't be is told together."""
    terms, problems = [], []
    for text in losses:
        try:
            card, weight, options = parse_loss(text)
            _check_task(card, info)
            mine, theirs = student.choose(card), teacher.choose(card)
            shapes = {name: student.shape_of(name, card) for name in mine}
            teacher_outputs = {name: teacher.shape_of(name, card) for name in theirs}
            told: dict[str, Any] = {"temperature": temperature, "options": options, "reduction": reduction}
            terms.append(Term(card, weight, student=shapes, teacher=teacher_outputs, info=info, **told))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return terms


def _check_task(card: LossCard, info: DataInfo) -> None:
    of_classes = card.inputs == "logits" and card.name != "bernoulli_kl"
    if of_classes and info.task != "multiclass":
        raise InputError(
            f"The loss '{card.name}' compares class probabilities, and the task is {info.task}. "
            f"Choose {BY_TASK[info.task]}, or a loss on features."
        )
