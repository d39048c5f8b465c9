"""The four nouns that travel through the library: Batch, DataInfo, Step, Student.

data ──Batch──▶ models ──outputs──▶ method ──Step──▶ engine ──Student──▶ export

They are plain dataclasses. Those that cross a device or a process boundary are not frozen, because Lightning Fabric
rebuilds them when it moves them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from xmodal.errors import InputError, did_you_mean
from xmodal.files import SCHEMA as SCHEMA
from xmodal.names import SPLITS as SPLITS
from xmodal.names import TASKS as TASKS
from xmodal.names import owner as owner

LABEL_LOSSES = ("cross_entropy", "focal", "lovasz")  # what labels of one class each can ask of a network
BLOCK_BYTES = 256 * 2**20  # of inputs and outputs that pass through a network at once where nothing is trained


@dataclass(slots=True)
class Batch:
    """What a loader yields.

    Attributes:
        inputs: name → tensor (rows, …). A name is a modality (``audio``) or something that goes with one
            (``audio.lengths``).
        targets: modality → tensor (rows, …). Paired data has the same tensor under each name.
        valid: modality → boolean, one per sample (rows,) or per place of a dense target (rows, …): what losses and
            metrics may count. Empty: everything counts.
        index: modality → rows of its split (rows,), for methods that remember examples and for caches.
        scored: modality → whole numbers like a dense target: 0 where metrics do not look, others tell regions apart.
            Losses of labels look at all places. Empty: metrics look wherever losses do.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    valid: dict[str, Tensor] = field(default_factory=dict)
    index: dict[str, Tensor] = field(default_factory=dict)
    scored: dict[str, Tensor] = field(default_factory=dict)

    @property
    def paired(self) -> bool:
        """Whether all modalities share one target (one set of rows, where there are no labels)."""
        # unpaired modalities may have equal targets by chance; then their rows tell, as they do without labels
        return _shared(self.targets) and _shared(self.index)

    @property
    def target(self) -> Tensor:
        """The target that all modalities share; unpaired batches have none."""
        if not self.targets:
            raise InputError("This batch has no targets: a labelled split was expected. Add labels to the data.")
        if not self.paired:
            raise InputError(
                f"The modalities {', '.join(self.targets)} have targets of their own (unpaired data), so there is no "
                "shared one. Use batch.targets[modality], or a method that needs paired data with paired data."
            )
        return next(iter(self.targets.values()))

    @property
    def rows(self) -> int:
        """How many samples there are: once if paired, the sum over the modalities otherwise."""
        if not self.targets:
            return len(next(iter(self.inputs.values())))
        if self.paired:
            return len(next(iter(self.targets.values())))
        return sum(len(target) for target in self.targets.values())

    def input(self, name: str) -> Tensor:
        """One input by name, or a sentence that lists what the batch holds."""
        if name not in self.inputs:
            raise InputError(f"The batch holds no input called '{name}'. {did_you_mean(name, self.inputs)}")
        return self.inputs[name]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device; tensors that were shared stay shared."""
        moved: dict[int, Tensor] = {}

        def move(tensor: Tensor) -> Tensor:
            if id(tensor) not in moved:
                moved[id(tensor)] = tensor.to(device, non_blocking=non_blocking)
            return moved[id(tensor)]

        return Batch(*({name: move(tensor) for name, tensor in part.items()} for part in _parts(self)))

    def doubled(self) -> Batch:
        """The same batch with inputs and targets of 64 bits where they are broken numbers."""
        moved: dict[int, Tensor] = {}

        def widen(tensor: Tensor) -> Tensor:
            if id(tensor) not in moved:
                moved[id(tensor)] = tensor.double() if tensor.is_floating_point() else tensor
            return moved[id(tensor)]

        inputs, targets, *others = _parts(self)
        wide = ({name: widen(tensor) for name, tensor in part.items()} for part in (inputs, targets))
        return Batch(*wide, *others)


def _shared(part: Mapping[str, Tensor]) -> bool:
    tensors = list(part.values())
    return all(other is tensors[0] or torch.equal(other, tensors[0]) for other in tensors[1:])


def _parts(batch: Batch) -> tuple[dict[str, Tensor], ...]:
    return batch.inputs, batch.targets, batch.valid, batch.index, batch.scored


pytree.register_pytree_node(
    Batch,
    lambda batch: (list(_parts(batch)), None),
    lambda parts, _: Batch(*parts),
    serialized_type_name="xmodal.types.Batch",
)


@dataclass(frozen=True, slots=True)
class InputInfo:
    """What one input looks like, without the batch axis.

    Attributes:
        shape: of one sample; a dynamic axis holds the length of a typical one.
        dtype: NumPy's name of the type that a batch carries.
        layout: ``vector`` (F), ``sequence`` (C, T), ``image`` (C, H, W) or ``other``.
        dynamic: axes of ``shape`` that vary from sample to sample.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str = "other"
    dynamic: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Statistics of the training split: a network sees ``(raw - mean) / std``.

    Attributes:
        mean: nested lists whose shape broadcasts against one sample.
        std: the same shape as ``mean``, nowhere zero.
        empty: whether places at which all channels (the first axis) are zero hold nothing, and stay zero.
    """

    mean: Any
    std: Any
    empty: bool = field(default=False, kw_only=True)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation as float32 tensors."""
        return torch.tensor(self.mean, dtype=torch.float32), torch.tensor(self.std, dtype=torch.float32)


@dataclass(frozen=True, slots=True)
class DataInfo:
    """All that is known of a data set before its first batch.

    Attributes:
        inputs: name → shape, type and layout.
        task: ``multiclass``, ``binary``, ``multilabel`` or ``regression``.
        classes: classes, labels (multilabel) or width of the target (regression).
        rows: split → modality → number of rows.
        paired: whether row i of every modality shows the same thing.
        select: metric and direction (``max`` or ``min``) that choose an epoch on the validation split.
        class_names: one name per class or label.
        dense: whether there is a target per pixel, point or voxel.
        target_shape: shape of the dense target of one sample, such as (height, width) or (depth, height, width);
            empty: it varies, or is not known.
        inner: numbers that networks hold at once for one sample besides inputs and outputs, where those are more, such
            as a volume into which pictures are put.
        ignore: target value that counts nowhere; where it is a class as well, networks have an output for it.
        label_losses: terms of the loss of labels, of `LABEL_LOSSES`, with their weights; empty: the usual of the task.
        class_weights: how much each class counts in the loss of labels; empty: all alike.
        train_targets: modality → targets of the training split, for class weights and memories.
        normalisation: input → statistics of the training split; absent inputs are used as they are.
        metrics: a set of `xmodal.metrics.task.SETS` in place of the task's usual metrics; empty: those.
    """

    inputs: Mapping[str, InputInfo]
    task: str
    classes: int
    rows: Mapping[str, Mapping[str, int]]
    paired: bool = True
    select: tuple[str, str] = ("accuracy", "max")
    class_names: tuple[str, ...] = ()
    dense: bool = False
    ignore: int | None = None
    label_losses: Mapping[str, float] = field(default_factory=dict)
    class_weights: tuple[float, ...] = ()
    train_targets: Mapping[str, Tensor] = field(default_factory=dict)
    normalisation: Mapping[str, Normalisation] = field(default_factory=dict)
    metrics: str = ""
    target_shape: tuple[int, ...] = ()
    inner: int = 0

    def __post_init__(self) -> None:
        """Refuse losses of labels that the targets cannot have."""
        for name in self.label_losses:
            if name not in LABEL_LOSSES:
                raise InputError(f"There is no loss of labels called '{name}'. {did_you_mean(name, LABEL_LOSSES)}")
        if (self.label_losses or self.class_weights) and self.task != "multiclass":
            raise InputError(f"Losses and weights of classes were given, and the task is {self.task}. Leave them out.")
        if self.class_weights and len(self.class_weights) != self.classes:
            raise InputError(
                f"There are {len(self.class_weights)} class weights and {self.classes} classes: one for each was "
                "expected. Add or remove some."
            )

    def block(self, most: int) -> int:
        """How many rows to run at once where nothing is trained: at most so many, fewer of large samples.

        Example:
            >>> pictures = {"lidar": InputInfo((5, 256, 1024)), "image": InputInfo((3, 256, 1024))}
            >>> DataInfo(pictures, "multiclass", 20, {}, dense=True).block(512)
            9
        """
        shapes = [known.shape for known in self.inputs.values()]
        like_inputs = max((math.prod(shape[1:]) for shape in shapes), default=1)
        answers = (math.prod(self.target_shape) if self.target_shape else like_inputs) if self.dense else 1
        numbers = sum(map(math.prod, shapes)) + self.outputs * answers + self.inner
        return max(1, min(most, BLOCK_BYTES // (4 * numbers)))

    def typed(self, dtype: str) -> DataInfo:
        """The same data, whose broken numbers are of another type, a name of NumPy's."""
        inputs = {
            name: replace(known, dtype=dtype) if known.dtype.startswith("float") else known
            for name, known in self.inputs.items()
        }
        return replace(self, inputs=inputs)

    @property
    def doubled(self) -> bool:
        """Whether samples are numbers of 64 bits, and networks must be."""
        return any(known.dtype == "float64" for known in self.inputs.values())

    @property
    def outputs(self) -> int:
        """Width of a network's output: one logit for binary targets, ``classes`` otherwise."""
        return 1 if self.task == "binary" else self.classes

    @property
    def modalities(self) -> tuple[str, ...]:
        """The inputs that are modalities; ``audio.lengths`` goes with ``audio`` and is not one."""
        return tuple(name for name in self.inputs if "." not in name)

    def require(self, names: tuple[str, ...], role: str) -> tuple[str, ...]:
        """The same names, once each of them is known to be a modality of this data."""
        for name in names:
            if name not in self.modalities:
                known = did_you_mean(name, self.modalities)
                raise InputError(f"The {role} asks for the modality '{name}', which this data does not have. {known}")
        return names


@dataclass(slots=True)
class Step:
    """What a method returns from one training step.

    Attributes:
        losses: name → scalar, already weighted; the engine sums all of them and differentiates the sum.
        counts: name → number of things the mean of that term runs over; absent: the rows of the batch. Several
            processes weigh their terms by it, so that two equal one.
        logs: name → scalar, recorded only, averaged over the epoch by rows.
    """

    losses: dict[str, Tensor]
    counts: dict[str, Tensor | int] = field(default_factory=dict)
    logs: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Student:
    """What is deployed.

    Attributes:
        module: takes a dictionary with the inputs in ``needs`` (normalised) and returns the outputs.
        needs: names of the inputs it reads.
        target: the modality whose targets it predicts.
        builder: name under which ``models.BUILDERS`` rebuilds it; None for a user's own module.
        arguments: JSON arguments of the builder.
        normalisation: input → statistics, so that an exported student takes raw input.
    """

    module: nn.Module
    needs: tuple[str, ...]
    target: str
    builder: str | None = None
    arguments: dict[str, Any] | None = None
    normalisation: Mapping[str, Normalisation] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities it reads; lengths and other inputs that go with one are part of it.

        Example:
            >>> Student(nn.Identity(), ("audio", "audio.lengths", "text.tokens"), "audio").modalities
            ('audio', 'text')
        """
        return tuple(dict.fromkeys(owner(name) for name in self.needs))
