"""Terms: losses of the zoo between a student and a teacher, on their outputs or on named layers.

A term selects the tensors of both networks that it compares, adapts their shapes, and returns the number of rows that
its mean runs over. Methods with a frozen teacher hold a list of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xmodal.cards import LossCard
from xmodal.data.unlabelled import has_label
from xmodal.errors import InputError
from xmodal.losses.adaptors import adaptor_for, pointwise
from xmodal.losses.reduce import masked_mean, picked
from xmodal.losses.task import filled, rows_as
from xmodal.methods.loss_text import parse_loss
from xmodal.models.layers import layer_of, output_shapes
from xmodal.models.network import StoredEmbeddings, zeros
from xmodal.names import UNLABELLED
from xmodal.types import Batch, DataInfo

OUTPUTS = "outputs"
WHOLE = ("maps", "stages")  # kinds of inputs of losses that compare a sample's maps, not single places
BY_TASK = {"multiclass": "kl", "binary": "bernoulli_kl", "multilabel": "bernoulli_kl", "regression": "mse"}
Gather = Callable[[Tensor], Tensor]
Shape = tuple[int, ...]


class Side:
    """The tensors of one of the two networks that a loss can compare.

    Args:
        module: the network.
        info: of the data.
        needs: inputs that it reads.
        layers: names of layers to compare, ``outputs`` among them; empty: chosen by what a loss compares.
        role: ``student`` or ``teacher``, for error messages.
    """

    def __init__(
        self, module: nn.Module, info: DataInfo, needs: Sequence[str], layers: Sequence[str], role: str
    ) -> None:
        self.module, self.info, self.needs = module, info, tuple(needs)
        self.layers, self.role = tuple(layers), role
        for name in layers:
            if name != OUTPUTS:
                layer_of(module, name)

    # cached and computed on first use: losses of outputs never need this pass through the network
    @functools.cached_property
    def shapes(self) -> dict[str, Shape]:
        """Layer → shape of one sample, from a pass of zeros."""
        device = next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))
        inputs = zeros({name: self.info.inputs[name] for name in self.needs}, 2)
        return output_shapes(self.module, {name: tensor.to(device) for name, tensor in inputs.items()})

    def shape_of(self, name: str, card: LossCard | None = None) -> Shape:
        """Shape of one sample of a layer or of the outputs; dense outputs have that of one place, or of whole maps."""
        if name != OUTPUTS:
            return self.shapes[name]
        whole = self.info.dense and (card is None or card.inputs in WHOLE)
        return next(reversed(self.shapes.values())) if whole else (self.info.outputs,)

    def choose(self, card: LossCard) -> tuple[str, ...]:
        """Names of the layers that a loss compares on this side."""
        if card.inputs == "logits" or "features" not in card.needs:
            if isinstance(self.module, StoredEmbeddings):
                raise InputError(
                    f"The loss '{card.name}' compares outputs, and the {self.role} is a table of embeddings, which has "
                    "none. Choose a loss on features (`xmodal list losses`), or make a teacher of it with a linear "
                    "probe (--teacher-probe)."
                )
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
        raise self._no_maps(f"the layers {', '.join(self.layers)} have none")

    def _maps(self) -> list[str]:
        """Layers with maps of pixels (channels, height, width), or of voxels in networks that have both."""
        axes = max((len(shape) for shape in self.shapes.values() if len(shape) in (3, 4)), default=3)
        return [name for name, shape in self.shapes.items() if len(shape) == axes]

    def _last_map(self) -> str:
        # pooled maps of one pixel have no spatial pattern to compare; they are better than none
        names = [name for name in self._maps() if min(self.shapes[name][1:]) > 1] or self._maps()
        if not names:
            raise self._no_maps("there is no such layer")
        return names[-1]

    def _stages(self) -> tuple[str, ...]:
        by_size = {self.shapes[name][1:]: name for name in self._maps()}  # the last layer of each resolution
        if len(by_size) < 2:
            raise self._no_maps("there are no two of different resolutions")
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
        # the last layer makes the outputs, so the one before it makes the features
        return list(self.shapes)[-2] if len(self.shapes) > 1 else list(self.shapes)[-1]


@dataclass(slots=True)
class Rows:
    """The rows that a loss compares: row i of the student with row i of the teacher.

    Attributes:
        student: a tensor for each layer.
        teacher: the same.
        options: keyword arguments of the loss; tensors among them have a value per row.
        weights: (rows, …), factor of each row; None: 1.
    """

    student: list[Tensor]
    teacher: list[Tensor]
    options: dict[str, Any]
    weights: Tensor | None

    def __len__(self) -> int:
        return len(self.student[0])

    def map(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """The same change of every tensor."""
        return Rows(
            [change(part) for part in self.student],
            [change(part) for part in self.teacher],
            {key: change(value) if isinstance(value, Tensor) else value for key, value in self.options.items()},
            None if self.weights is None else change(self.weights),
        )

    def take(self, rows: Tensor | slice) -> Rows:
        """Some of the rows."""
        return self.map(lambda part: part[rows])

    def nothing(self) -> Tensor:
        """The value of a loss without rows: 0."""
        # Zero times the outputs keeps them in the graph: with several processes a network without a gradient in one of
        # them would make the others wait.
        return sum((part.sum() * 0.0 for part in self.student), self.student[0].new_zeros(()))


class Term(nn.Module):
    """One loss between two networks, on all rows, or on the labelled ones where it reads labels or has a memory.

    Args:
        card: of the loss.
        weight: of the term.
        student: layers to compare and their shapes.
        teacher: the same.
        info: of the data.
        temperature: for losses that have one; None leaves each its default.
        options: of the loss and of the term, see `xmodal.methods.loss_text`.
        reduction: of losses with one value per place, see `xmodal.methods.options`.
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
        self.stored: Tensor | None
        self.reduction, self.ignore, self.classes = reduction, info.ignore, info.outputs
        # to losses that do not look at neighbours, the places of dense outputs are rows like any others
        self.by_place = info.dense and OUTPUTS in student and OUTPUTS in teacher and card.inputs not in WHOLE
        self.card, self.weight = card, weight
        self.student_layers, self.teacher_layers = tuple(student), tuple(teacher)
        self.adaptors = nn.ModuleList()
        coefficients = {**(options or {})}
        adaptor, self.group = coefficients.pop("adaptor", "auto"), coefficients.pop("group", 0)
        # position in the memory of each training row, where only some rows are stored
        self.register_buffer("stored", stored_rows(info) if "memory" in card.needs else None, persistent=False)
        loss = card.load()
        if card.module:
            loss, coefficients = _build(card, loss, student, teacher, info, coefficients), {}
        elif card.widths == "same":
            adapt = pointwise if adaptor == "linear" else adaptor_for
            self.adaptors.extend(adapt(*shapes) for shapes in zip(student.values(), teacher.values(), strict=True))
        self.loss: Callable[..., Tensor] = loss
        arguments = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters
        self.options: dict[str, Any] = {}
        if temperature is not None and "temperature" in arguments:
            self.options["temperature"] = temperature
        # after the common temperature, so that one written with the loss, kl(temperature=2), replaces it
        self.options |= coefficients
        self.by_row = card.samples == "pointwise" and "reduction" in arguments
        # A value per row is computed for all rows and averaged over the labelled ones. Other losses see these alone,
        # as no label stands for "unknown".
        self.selects_rows = card.labelled_only and not self.by_row
        self.uses_unlabelled = bool(weight) and not card.labelled_only
        # parameters of the loss, which get no gradient from a batch without rows for it
        self.has_parameters = isinstance(loss, nn.Module) and any(each.requires_grad for each in loss.parameters())

    def labelled_of(self, batch: Batch) -> Tensor | None:
        """(rows,), the rows that this term uses; None: all."""
        return next(iter(batch.labelled.values()), None) if self.card.labelled_only else None

    def mask_of(self, batch: Batch, mask: Tensor | None) -> Tensor | None:
        """A mask of rows or places, without the rows that this term does not use."""
        labelled = self.labelled_of(batch)
        if labelled is None or mask is None:
            return mask if labelled is None else labelled
        return mask & rows_as(labelled, mask)

    def forward(
        self,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Batch,
        *,
        mask: Tensor | None,
        gather: Gather,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | int]:
        """Value of the loss without the term's weight, and how many rows its mean runs over.

        Args:
            student: outputs of the student and of its layers.
            teacher: the same of the teacher.
            batch: labels and row numbers.
            mask: (rows,) or (rows, …), the rows or places to compare; None: all.
            gather: joins the rows of all processes.
            weights: (rows, …), factor of each value in losses with a value per row or place, without a change of the
                divisor. Losses that compare rows with one another leave out the rows of weight 0.
        """
        labelled, mask = self.labelled_of(batch), self.mask_of(batch, mask)
        places = student[OUTPUTS].numel() // self.classes if self.by_place else 0
        target = batch.target if "labels" in self.card.needs else None
        if target is not None and labelled is not None:
            target = filled(target, labelled)
        if self.by_place:
            student, teacher, target, weights = self._places_as_rows(student, teacher, target, mask, weights)
            mask = None
        rows = self._compared(student, teacher, target, weights, batch)
        if labelled is not None and self.selects_rows and not self.by_place:
            rows = rows.take(labelled)
        # Pointwise losses stay with the rows of this process, and the engine averages them by their counts. A memory
        # gathers by itself.
        if self.card.samples != "pointwise" and "memory" not in self.card.needs:
            rows = rows.map(gather)
        # a memory joins the rows of all processes, so a process without rows takes part unless all are without
        joins = "memory" in self.card.needs and labelled is not None
        if not len(gather(rows.options["rows"]) if joins else rows):
            return rows.nothing(), 0
        if self.by_row:
            return self._mean(rows, mask, places, labelled)
        return self._between_rows(rows), len(rows)

    def _places_as_rows(
        self,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        target: Tensor | None,
        mask: Tensor | None,
        weights: Tensor | None,
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor], Tensor | None, Tensor | None]:
        """Outputs, labels and weights of the places in the mask, (places, …)."""
        logits, teacher_logits = student[OUTPUTS], teacher[OUTPUTS]
        numbers = torch.arange(logits.numel() // logits.shape[1], device=logits.device)
        numbers = numbers.reshape(len(logits), *logits.shape[2:])
        if mask is not None and mask.ndim < numbers.ndim:
            mask = rows_as(mask, numbers)
        if target is not None and self.ignore is not None and not 0 <= self.ignore < self.classes:
            # the value that marks unlabelled places is no class, so a loss of labels would index out of range there
            labelled = target != self.ignore
            mask = labelled if mask is None else mask & labelled
        rows, chosen = picked(logits, numbers, mask)
        teacher_rows, _ = picked(teacher_logits, numbers, mask)
        if weights is not None:
            per_place = weights.reshape(*weights.shape, *[1] * (numbers.ndim - weights.ndim)).expand_as(numbers)
            weights = per_place.flatten()[chosen]
        target = None if target is None else target.flatten()[chosen]
        return {**student, OUTPUTS: rows}, {**teacher, OUTPUTS: teacher_rows}, target, weights

    def _compared(
        self,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        target: Tensor | None,
        weights: Tensor | None,
        batch: Batch,
    ) -> Rows:
        """The layers of both sides, those of the student through their adaptors, and the arguments of the loss."""
        layers = [student[name] for name in self.student_layers]
        if len(self.adaptors):
            layers = [adaptor(part) for adaptor, part in zip(self.adaptors, layers, strict=True)]
        # the teacher's table is in the precision in which it was computed, which mixed precision changes
        teacher_layers = [teacher[name].to(layers[0].dtype) for name in self.teacher_layers]
        options = dict(self.options)
        if target is not None:
            options["target"] = target
        if "memory" in self.card.needs:
            numbers = next(iter(batch.index.values()))
            numbers = numbers if self.stored is None else self.stored[numbers.to(self.stored.device)]
            options |= {"rows": numbers, "weight": weights}
            weights = None
        return Rows(layers, teacher_layers, options, weights)

    def _value(self, rows: Rows, **more: Any) -> Tensor:
        sides = (rows.student, rows.teacher) if self.card.inputs == "stages" else (rows.student[0], rows.teacher[0])
        return self.loss(*sides, **rows.options, **more)

    def _mean(
        self, rows: Rows, mask: Tensor | None, places: int, labelled: Tensor | None
    ) -> tuple[Tensor, Tensor | int]:
        """Of a loss with a value per row (or place): the weighted values' mean over the mask."""
        values = self._value(rows, reduction="none")
        if rows.weights is not None:
            # a loss with one value for a sample of many places gives it the mean weight of these
            shared = rows.weights.ndim > 1 and rows.weights.shape != values.shape
            values = values * (rows.weights.flatten(1).mean(dim=1) if shared else rows.weights)
        if mask is not None and mask.shape != values.shape:
            mask = mask.flatten(1).any(dim=1)  # a sample is compared if any of its places is
        mean, count = masked_mean(values, mask)
        if self.reduction == "pixel":
            return mean, count
        divisor: Tensor | int = places if self.by_place else values.numel()
        if labelled is None:
            return mean * count / (divisor * self.classes), divisor
        divisor = divisor // len(labelled) * labelled.sum()
        return mean * count / (divisor.clamp(min=1) * self.classes), divisor

    def _between_rows(self, rows: Rows) -> Tensor:
        """Of a loss that compares rows with one another: its value, or the mean over groups weighted by their size."""
        if rows.weights is not None:
            weights = rows.weights.flatten(1).amax(dim=1) if rows.weights.ndim > 1 else rows.weights
            counted = weights.nonzero().flatten()
            if not len(counted):
                return rows.nothing()
            rows = rows.take(counted)
        if not 0 < self.group < len(rows):
            return self._value(rows)
        # the range ends one row early: a last group of a single row has nothing to compare
        starts = range(0, len(rows) - 1, self.group)
        groups = [rows.take(slice(start, start + self.group)) for start in starts]
        return torch.stack([len(group) / len(rows) * self._value(group) for group in groups]).sum()

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """The schedule of the loss, if it has one."""
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
    """A loss with parameters or a memory, for these shapes."""
    shapes = (next(iter(student.values())), next(iter(teacher.values())))
    if "memory" in card.needs:
        known = known_rows(info)
        rows = max(info.rows["train"].values()) if known is None else int(known.sum())
        labels = next(iter(info.train_targets.values())) if options.get("exact") else None
        if labels is not None and known is not None:
            labels = labels[known]
        # 16384 negatives as in the CRD authors' code; a small data set has fewer other rows
        return kind(*shapes, **{"rows": rows, "negatives": min(16384, rows - 1), **options}, labels=labels)
    return kind(*shapes, **options) if "features" in card.needs else kind(**options)


def known_rows(info: DataInfo) -> Tensor | None:
    """(rows,), the rows of the training split of paired data with a label; None: all.

    Example:
        >>> target = torch.tensor([2, -1, 0])
        >>> known_rows(DataInfo({}, "multiclass", 3, {}, train_targets={"a": target}, labelled={"a": 2})).tolist()
        [True, False, True]
    """
    if not info.labelled or not info.train_targets:
        return None
    target = next(iter(info.train_targets.values()))
    # as `Split.without_labels` marks them
    return torch.from_numpy(has_label(target.numpy(), 255 if target.dtype == torch.uint8 else UNLABELLED))


def stored_rows(info: DataInfo) -> Tensor | None:
    """Position of each training row in a memory of the labelled ones, -1 for the others; None: all are stored."""
    known = known_rows(info)
    return None if known is None else torch.where(known, known.cumsum(0) - 1, -1)


def compared_places(batch: Batch, modality: str, info: DataInfo) -> Tensor | None:
    """Mask of the valid rows or places, without those whose label is `DataInfo.ignore`; None: all.

    Rows without a label keep all their valid places: their teacher is compared with whatever they show.
    """
    valid = batch.valid.get(modality)
    if info.task != "multiclass" or info.ignore is None:
        return valid
    mask = batch.target != info.ignore
    if modality in batch.labelled:
        mask = mask | ~rows_as(batch.labelled[modality], mask)
    return mask if valid is None else valid & mask


def build_terms(
    losses: Sequence[str],
    student: Side,
    teacher: Side,
    info: DataInfo,
    *,
    temperature: float | None = None,
    reduction: str = "pixel",
) -> list[Term]:
    """A term for each loss; all problems of the losses are raised together."""
    terms, problems = [], []
    for text in losses:
        try:
            card, weight, options = parse_loss(text)
            _check_task(card, info)
            student_layers, teacher_layers = student.choose(card), teacher.choose(card)
            term = Term(
                card,
                weight,
                student={name: student.shape_of(name, card) for name in student_layers},
                teacher={name: teacher.shape_of(name, card) for name in teacher_layers},
                info=info,
                temperature=temperature,
                options=options,
                reduction=reduction,
            )
            terms.append(term)
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
