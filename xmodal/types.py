"""The four types that pass between the packages: Batch, DataInfo, Step, Student.

data ──Batch──▶ models ──outputs──▶ method ──Step──▶ engine ──Student──▶ export

They are plain dataclasses. `Batch`, `Step` and `Student` are not frozen: Lightning Fabric rebuilds what it moves to
another device, and fails on frozen dataclasses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from xmodal.errors import InputError, did_you_mean
from xmodal.files import SCHEMA as SCHEMA
from xmodal.names import SPLITS as SPLITS
from xmodal.names import TASKS as TASKS
from xmodal.names import owner as owner

Label = str | bool | int | float  # a class as users write it; each of these types is a JSON value of its own
LABEL_LOSSES = ("cross_entropy", "focal", "lovasz")  # losses of class labels, for tasks with one class per target
BLOCK_BYTES = 256 * 2**20  # inputs and outputs of one forward pass without gradient take at most this much


@dataclass(slots=True)
class Batch:
    """A batch, as loaders yield it.

    Attributes:
        inputs: name → tensor (rows, …). A name is a modality (``audio``) or an input that belongs to one
            (``audio.lengths``).
        targets: modality → tensor (rows, …). Paired data has the same tensor under each name.
        valid: modality → boolean mask, per sample (rows,) or per pixel or voxel of a dense target (rows, …): what
            counts in losses and metrics. Empty: everything counts.
        index: modality → row numbers in its split (rows,), for methods that store examples and for caches.
        scored: modality → integers of the shape of a dense target: metrics leave out 0 and tell other numbers apart as
            regions. Losses of labels are computed everywhere. Empty: metrics count what losses count.
        labelled: modality → boolean mask per sample (rows,): which samples have a label. Targets of the others are -1
            or NaN, so that code which forgets this mask fails. Empty: all samples have one.
        present: modality → boolean mask per sample (rows,): which samples have this modality. Inputs of the others are
            NaN, or -1 among integers, so that code which forgets this mask fails. Empty: all samples have all of them.
        weights: modality → weight of each sample in the loss of labels (rows,), of mean 1 over the labelled training
            rows. Empty: all samples count alike.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    valid: dict[str, Tensor] = field(default_factory=dict)
    index: dict[str, Tensor] = field(default_factory=dict)
    scored: dict[str, Tensor] = field(default_factory=dict)
    labelled: dict[str, Tensor] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def paired(self) -> bool:
        """Whether all modalities have the same targets and the same rows."""
        # targets alone do not decide: those of unpaired modalities may be equal by chance, and there may be no labels
        return _shared(self.targets) and _shared(self.index)

    @property
    def target(self) -> Tensor:
        """The target of all modalities; an error if the batch is unpaired or has no targets."""
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
        """How many samples there are; in unpaired data, the sum over the modalities."""
        return self.rows_of(paired=not self.targets or self.paired)

    def rows_of(self, *, paired: bool) -> int:
        """The same as ``rows``, for a caller that knows whether modalities share their rows and need not compare them.

        On a GPU a comparison of values waits for the device.
        """
        parts = self.targets or self.inputs
        return len(next(iter(parts.values()))) if paired or not self.targets else sum(map(len, parts.values()))

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with every tensor changed; tensors that were shared stay shared."""
        # by identity: paired data has one target under several names, which is changed once and stays one tensor
        changed: dict[int, Tensor] = {}

        def once(tensor: Tensor) -> Tensor:
            if id(tensor) not in changed:
                changed[id(tensor)] = change(tensor)
            return changed[id(tensor)]

        return Batch(**{key: {name: once(part[name]) for name in part} for key, part in self.parts().items()})

    def input(self, name: str) -> Tensor:
        """An input by name; the error for an unknown name lists the inputs of the batch."""
        if name not in self.inputs:
            raise InputError(
                f"The batch holds no input called '{name}'. {did_you_mean(name, self.inputs)} In training it holds the "
                "inputs that the method names in `reads`."
            )
        return self.inputs[name]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in memory from which a GPU copies while the program goes on."""
        return self.map(Tensor.pin_memory)

    def doubled(self) -> Batch:
        """The same batch with floating-point inputs and targets as float64."""
        numbers = Batch(self.inputs, self.targets).map(
            lambda tensor: tensor.double() if tensor.is_floating_point() else tensor
        )
        return replace(self, inputs=numbers.inputs, targets=numbers.targets)

    def having(self, modalities: Iterable[str]) -> Batch:
        """The samples that have all of these modalities; the same batch where all samples have all of them.

        Rows are selected before a forward pass and not behind it: rows of NaN, or of a value in its place, would enter
        the statistics of BatchNorm.

        Example:
            >>> sound, label = torch.tensor([[0.5], [float("nan")]]), torch.tensor([1, 0])
            >>> batch = Batch({"a": sound}, {"a": label}, present={"a": torch.tensor([True, False])})
            >>> batch.having(["a"]).inputs["a"]
            tensor([[0.5000]])
        """
        return self.take(rows_with(self.present, modalities)) if self.present else self

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """The dictionaries of a batch by the name of their field; ``Batch(**batch.parts())`` is an equal batch."""
        return {key: getattr(self, key) for key in PARTS}

    def take(self, rows: Tensor | slice) -> Batch:
        """Some samples of a paired batch, by a boolean mask, row numbers or a slice."""
        return self.map(lambda tensor: tensor[rows])


def _shared(part: Mapping[str, Tensor]) -> bool:
    tensors = iter(part.values())
    first = next(tensors, None)
    return all(other is first or torch.equal(other, first) for other in tensors)  # type: ignore[arg-type]


def rows_with(present: Mapping[str, Tensor], modalities: Iterable[str] | None) -> Tensor:
    """(rows,) which rows have all of some modalities.

    Args:
        present: modality → mask of the rows that have it; not empty.
        modalities: the names; those of inputs such as ``audio.lengths`` count as their modality. None: all of them.

    Example:
        >>> present = {"a": torch.tensor([True, True, False]), "b": torch.tensor([True, False, True])}
        >>> rows_with(present, ["a.lengths"]).tolist(), rows_with(present, None).tolist()
        ([True, True, False], [True, False, False])
    """
    mask = torch.ones_like(next(iter(present.values())))
    for name in present if modalities is None else map(owner, modalities):
        mask = mask & present[name]
    return mask


PARTS = tuple(each.name for each in fields(Batch))


# torch's transforms (torch.func, torch.export) take tensors only inside containers that are registered with them
pytree.register_pytree_node(
    Batch,
    lambda batch: (list(batch.parts().values()), None),
    lambda parts, _: Batch(*parts),
    serialized_type_name="xmodal.types.Batch",
)


@dataclass(frozen=True, slots=True)
class InputInfo:
    """Shape and type of an input, without the batch axis.

    Attributes:
        shape: of one sample; on a dynamic axis the length of a typical sample.
        dtype: NumPy's name of the type in batches.
        layout: ``vector`` (F), ``sequence`` (C, T), ``image`` (C, H, W) or ``other``.
        dynamic: axes of ``shape`` that vary from sample to sample.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str = "other"
    dynamic: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Statistics of the training split: networks read ``(raw - mean) / std``.

    Attributes:
        mean: nested lists whose shape broadcasts against one sample.
        std: the same shape as ``mean``, nowhere zero.
        empty: whether pixels at which all channels (the first axis) are zero mean "no measurement", and stay zero.
    """

    mean: Any
    std: Any
    empty: bool = field(default=False, kw_only=True)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation as float32 tensors."""
        return torch.tensor(self.mean, dtype=torch.float32), torch.tensor(self.std, dtype=torch.float32)


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What is known of a data set before its first batch.

    Attributes:
        inputs: name → shape, type and layout.
        task: ``multiclass``, ``binary``, ``multilabel`` or ``regression``.
        classes: classes, labels (multilabel) or width of the target (regression).
        rows: split → modality → number of rows.
        paired: whether row i of every modality belongs to the same sample.
        select: metric and direction (``max`` or ``min``) by which the best epoch on the validation split is chosen.
        class_names: one name per class or label.
        label_values: the label that each class number stands for, as it was given: text, whole numbers, floats or
            booleans; empty: the class numbers themselves.
        dense: whether there is a target per pixel, point or voxel.
        target_shape: shape of the dense target of one sample, such as (height, width) or (depth, height, width);
            empty: it varies, or is not known.
        inner: number of values per sample that networks hold in memory besides inputs and outputs, where that is much,
            such as a volume into which images are projected.
        ignore: target value that is left out of losses and metrics; it may be the number of a class, for which networks
            then have an output.
        label_losses: terms of the loss on labels, of `LABEL_LOSSES`, with their weights; empty: the task's usual loss.
        class_weights: weight of each class in the loss on labels; empty: equal weights.
        train_targets: modality → targets of the training split, for class weights and memories; -1 or NaN in rows
            without a label.
        labelled: modality → number of training rows with a label; empty: all have one.
        present: modality → number of training rows that have it; empty: all rows have all modalities.
        normalisation: input → statistics of the training split; other inputs are not normalised.
        metrics: a set of `xmodal.metrics.task.SETS` in place of the task's usual metrics; empty: the usual ones.
        further_metrics: name → `xmodal.metrics.further.FurtherMetric`, besides the others.
        weighted: whether training rows have weights, see `Batch.weights`.
    """

    inputs: Mapping[str, InputInfo]
    task: str
    classes: int
    rows: Mapping[str, Mapping[str, int]]
    paired: bool = True
    select: tuple[str, str] = ("accuracy", "max")
    class_names: tuple[str, ...] = ()
    label_values: tuple[Label, ...] = ()
    dense: bool = False
    ignore: int | None = None
    label_losses: Mapping[str, float] = field(default_factory=dict)
    class_weights: tuple[float, ...] = ()
    train_targets: Mapping[str, Tensor] = field(default_factory=dict)
    labelled: Mapping[str, int] = field(default_factory=dict)
    present: Mapping[str, int] = field(default_factory=dict)
    normalisation: Mapping[str, Normalisation] = field(default_factory=dict)
    metrics: str = ""
    target_shape: tuple[int, ...] = ()
    inner: int = 0
    further_metrics: Mapping[str, Any] = field(default_factory=dict)
    weighted: bool = False

    def __post_init__(self) -> None:
        """Refuse losses and weights that do not fit the targets."""
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
        if self.label_values and len(self.label_values) != self.classes:
            raise InputError(
                f"There are {len(self.label_values)} label values and {self.classes} classes: give one each."
            )

    def block(self, most: int) -> int:
        """How many rows to predict in one forward pass: at most ``most``, fewer where samples are large.

        Example:
            >>> pictures = {"lidar": InputInfo((5, 256, 1024)), "image": InputInfo((3, 256, 1024))}
            >>> DataInfo(pictures, "multiclass", 20, {}, dense=True).block(512)
            9
        """
        values = sum(math.prod(spec.shape) for spec in self.inputs.values()) + self.outputs * self.places + self.inner
        return max(1, min(most, BLOCK_BYTES // (4 * values)))

    @property
    def places(self) -> int:
        """How many targets a sample has: pixels, points or voxels of dense data, otherwise one."""
        if not self.dense:
            return 1
        # a dense target of unknown shape is taken to be as large as the largest input without its channels
        largest = max((math.prod(spec.shape[1:]) for spec in self.inputs.values()), default=1)
        return math.prod(self.target_shape) if self.target_shape else largest

    def typed(self, dtype: str) -> DataInfo:
        """The same facts for floating-point inputs of another type; ``dtype`` is NumPy's name of it."""
        inputs = {
            name: replace(spec, dtype=dtype) if spec.dtype.startswith("float") else spec
            for name, spec in self.inputs.items()
        }
        return replace(self, inputs=inputs)

    @property
    def doubled(self) -> bool:
        """Whether samples are float64, and networks must be too."""
        return any(spec.dtype == "float64" for spec in self.inputs.values())

    @property
    def outputs(self) -> int:
        """Width of a network's output: one logit for binary targets, ``classes`` otherwise."""
        return 1 if self.task == "binary" else self.classes

    @property
    def modalities(self) -> tuple[str, ...]:
        """The inputs that are modalities: ``audio``, but not ``audio.lengths``, which belongs to it."""
        return tuple(name for name in self.inputs if "." not in name)

    def require(self, names: tuple[str, ...], role: str) -> tuple[str, ...]:
        """Check that each name is a modality of this data, and return the names."""
        for name in names:
            if name not in self.modalities:
                hint = did_you_mean(name, self.modalities)
                raise InputError(f"The {role} asks for the modality '{name}', which this data does not have. {hint}")
        return names


@dataclass(slots=True)
class Step:
    """The result of one training step of a method.

    Attributes:
        losses: name → scalar, already weighted; the engine minimises their sum.
        counts: name → how many items the mean of that term is over; absent: the rows of the batch. Several processes
            weight their terms by it, so that two processes compute the same loss as one.
        logs: name → scalar that is only recorded: the mean over the epoch, weighted by rows.
    """

    losses: dict[str, Tensor]
    counts: dict[str, Tensor | int] = field(default_factory=dict)
    logs: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Student:
    """The network that is deployed, and what it takes to rebuild it.

    Attributes:
        module: takes a dictionary with the inputs in ``needs`` (normalised) and returns the outputs.
        needs: names of the inputs it reads.
        target: the modality whose targets it predicts.
        builder: name of the function in ``models.BUILDERS`` that rebuilds it; None: a user's own module.
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
        """The modalities it reads; inputs such as ``audio.lengths`` count as their modality.

        Example:
            >>> Student(nn.Identity(), ("audio", "audio.lengths", "text.tokens"), "audio").modalities
            ('audio', 'text')
        """
        return tuple(dict.fromkeys(owner(name) for name in self.needs))
