"""Method: the contract between a paper and the engine.

A method is a module that holds the student(s), a frozen teacher if there is one, and every network that exists only
for training. The engine calls its members in this order and depends on nothing else:

    on_epoch_start → teach (or the teacher cache) → training_step → predict on the validation split → students

Two protocols are optional: `DescribesTeacher` for the teacher cache, `Reports` for findings that a run keeps. A new
method is one file in `methods/`, its settings, one card, a test and a docs page (docs/guide/new_method.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from xmodal.collectives import gather_rows
from xmodal.types import Batch, DataInfo, Step, Student

M = TypeVar("M", bound=nn.Module)
F = TypeVar("F")


class Method(nn.Module, ABC):
    """The step of a paper from a batch to its losses; subclasses write `training_step` and `students`."""

    # True promises `fit_many` that `training_step` is a function of parameters, buffers, batch and ``teacher_outputs``
    # alone, that its branches do not depend on values of tensors, and that it calls no frozen part. Only then can the
    # step be recorded once and mapped over many models.
    stackable = False
    # Whether a term of `training_step` learns from rows without a label. Where some training rows have none, such a
    # method gets batches of labelled and unlabelled rows, and the others get labelled rows alone.
    uses_unlabelled = False
    # Whether a step may leave parameters that require a gradient without one. Several processes then look for these in
    # every step, which takes time. `KD` sets it where its options leave the head of the student unused.
    unused_parameters = False
    # Early stopping and the schedule `plateau` follow the score of this student; empty: of all students.
    lead = ""

    def __init__(self) -> None:
        super().__init__()
        # a plain list: as an `nn.ModuleList` the teacher would be in the state dict under two names
        self._frozen: list[nn.Module] = []

    @abstractmethod
    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """The paper's objective on one batch; ``teacher_outputs`` has the rows that `teach` computes for the batch."""

    def reads(self) -> tuple[str, ...] | None:
        """The inputs that `training_step` reads; None: any that the batch holds.

        What is not named is not loaded: batches lack it. The inputs of `teach` are not among these, see `taught_by`.
        """
        return None

    def row_needs(self, *, labelled: bool) -> tuple[str, ...] | None:
        """The modalities that a training row must have to be of use, if it has a label or if not; None: all.

        It matters where rows lack modalities: batches then hold rows that have these, and what else such a row lacks is
        NaN, see `Batch.present`. By default they are those of all students and of the teacher, so every term can be
        computed for every row. A method says less if one of its terms does with less, and then selects rows before
        the forward pass, see `Batch.having`.
        """
        taught = self.taught_by()
        if taught is None:
            return None
        read = [name for student in self.students().values() for name in student.modalities]
        return tuple(dict.fromkeys([*read, *taught]))

    def taught_by(self) -> tuple[str, ...] | None:
        """The modalities that `teach` reads; None: any that the batch holds. Empty without a teacher."""
        if type(self).teach is Method.teach:
            return ()
        return self.teach_inputs if isinstance(self, DescribesTeacher) else None

    @abstractmethod
    def students(self) -> dict[str, Student]:
        """The networks to select, save and export, by name."""

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of each student whose inputs are all present. It receives these inputs and no others."""
        return {
            name: student.module({need: inputs[need] for need in student.needs})
            for name, student in self.students().items()
            if all(need in inputs for need in student.needs)
        }

    def teach(self, batch: Batch) -> dict[str, Tensor]:
        """All outputs of frozen teachers that `training_step` reads, one row per sample, without gradient.

        A row must depend on its own sample alone, and on nothing random: the engine computes it once and reads it from
        a table in later epochs. A method for which this does not hold says so, see `DescribesTeacher`.
        """
        return {}

    def param_groups(self) -> list[dict[str, Any]]:
        """The parameters to optimise. A group may have an ``optimizer``, an ``lr`` and other options of its own."""
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Schedules that belong to the paper: a pure function of its arguments, called again on resume."""

    def extra_state(self) -> dict[str, Any]:
        """JSON that a resumed training needs and that is in no parameter or buffer."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `extra_state`; ``state`` of a finished run holds the `Reports.report` too."""

    def forward(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """The training step. Distributed wrappers call `forward`, so it is the whole method that they wrap."""
        return self.training_step(batch, teacher_outputs)

    def train(self, mode: bool = True) -> Method:
        """Switch to training mode, frozen parts excepted."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def freeze(self, module: M) -> M:
        """Stop a module's gradients and keep it in eval mode, now and after every ``train()``."""
        # Eval mode must begin here: switched only in `train`, a teacher would normalise by batch statistics, and move
        # its running ones, in every call before the first `train`.
        module.requires_grad_(False).eval()
        self._frozen.append(module)
        return module

    @property
    def frozen(self) -> Sequence[nn.Module]:
        """The modules passed to `freeze`."""
        return tuple(self._frozen)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes joined, differentiable; the same tensor where there is one process.

        A term computed on gathered rows has the same value in every process: its ``counts`` are the gathered rows.
        """
        return gather_rows(rows)


@runtime_checkable
class DescribesTeacher(Protocol):
    """A method that tells the teacher cache what `Method.teach` depends on.

    Without it the cache assumes that the teacher reads every input and that its outputs are the same in every epoch.
    """

    @property
    def teach_inputs(self) -> tuple[str, ...] | None:
        """The modalities that `teach` reads; None: any that the batch holds."""

    @property
    def teach_online(self) -> str:
        """The reason why the outputs must be computed in every epoch, for a sentence; empty: there is none."""


@runtime_checkable
class Reports(Protocol):
    """A method with findings for tables and figures."""

    def report(self) -> dict[str, Any]:
        """JSON that `result.json` of a run holds under ``method``. It is no state: training never reads it."""


class Kit(Protocol):
    """The services that ``build(kit, settings)`` of a method receives from a recipe, so that methods import no engine.

    While ``build`` runs, the global random generators are seeded from the seed and the method's name, and no service of
    the kit moves them. So a layer that ``build`` creates has the same initial weights whether a teacher, a stage or a
    measurement was computed before it or loaded from an earlier run.

    Attributes:
        info: of the data.
        student: modalities at deployment.
        teaching: modalities that the teacher reads.
        seed: of all random draws.
    """

    info: DataInfo
    student: tuple[str, ...]
    teaching: tuple[str, ...]
    seed: int

    def network(self, modalities: Sequence[str], *, side: str = "student") -> Student:
        """A fresh network for these modalities, as a student with the description that rebuilds it.

        Equal seeds, sides and modalities give equal initial weights.
        """

    def teacher(self) -> nn.Module:
        """The finished teacher, trained on the first call; every call returns a copy."""

    def batches(self, split: str = "train", *, size: int | None = None, most: int | None = None) -> Iterable[Batch]:
        """Rows of the training or validation split in order, without augmentation; for diagnostics.

        ``size`` is the number of rows of a batch; None: as many as the memory allows. ``most`` is the number of rows,
        evenly spread over the split; None: all.
        """

    def fit(self, method: Method, *, stage: str, epochs: int | None = None, keep: str = "") -> Method:
        """Train a stage of the method; a stage that the run folder holds is loaded instead.

        ``epochs`` can shorten the recipe's training, not lengthen it; ``keep`` (``best`` or ``last``) replaces the
        recipe's choice of weights.
        """

    def validate(self, method: Method) -> dict[str, dict[str, float]]:
        """Student → metric → value on the validation split."""

    def once(self, what: str, find: Callable[[], F]) -> F:
        """The result of ``find``, computed on the first call with this name: methods that are compared share it.

        The name must contain everything that the result depends on, apart from data and seed, and no caller may change
        the result.
        """


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """All parameters of some modules that require gradients."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
