"""Method: the contract between a paper and the engine.

A method is a module that holds the student(s), a frozen teacher if there is one, and every network that exists only
for training. The engine calls its members in this order and knows nothing else about it:

    on_epoch_start → teach (or the teacher cache) → training_step → predict on the validation split → students

A new method is one file in `methods/`, one card in its list, a test and a docs page (docs/guide/new_method.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from xmodal.collectives import gather_rows
from xmodal.types import Batch, DataInfo, Step, Student

M = TypeVar("M", bound=nn.Module)
F = TypeVar("F")


class Method(nn.Module, ABC):
    """What a paper does between a batch and its losses; subclasses write `training_step` and `students`."""

    # True promises `fit_many` that `training_step` is a function of parameters, buffers, batch and ``teacher_outputs``
    # alone, without branches on their numbers, and that it never calls a frozen part: then many may be trained as one
    stackable = False
    # the student whose score early stopping and the schedule plateau look at; empty: all of them
    lead = ""

    def __init__(self) -> None:
        super().__init__()
        self._frozen: list[nn.Module] = []

    @abstractmethod
    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """The paper's objective on one batch; ``teacher_outputs`` is what ``teach`` said about its rows."""

    @abstractmethod
    def students(self) -> dict[str, Student]:
        """What to select, save and export, by name."""

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of each student that finds its inputs, and of those inputs alone."""
        return {
            name: student.module({need: inputs[need] for need in student.needs})
            for name, student in self.students().items()
            if all(need in inputs for need in student.needs)
        }

    def teach(self, batch: Batch) -> dict[str, Tensor]:
        """All that a frozen teacher says of a batch, one row per sample, without gradient.

        What it says of a row must not depend on the other rows, or on anything drawn; if it does, `teach_online` says
        why, and the teacher is asked again in every epoch.
        """
        return {}

    @property
    def teach_online(self) -> str:
        """Why the teacher can't be asked once; empty when it can."""
        return ""

    @property
    def teach_inputs(self) -> tuple[str, ...] | None:
        """The modalities that `teach` looks at; None: any that the batch holds."""
        return None

    def param_groups(self) -> list[dict[str, Any]]:
        """What to optimise. A group may carry ``optimizer``, ``lr`` and other options of its own."""
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Schedules that belong to the paper: a pure function of its arguments, called again on resume."""

    def extra_state(self) -> dict[str, Any]:
        """JSON that must survive a resume."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take back what ``extra_state`` gave."""

    def forward(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """The training step: distributed wrappers go around the whole method."""
        return self.training_step(batch, teacher_outputs)

    def train(self, mode: bool = True) -> Method:
        """Switch to training mode, frozen parts excepted."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def freeze(self, module: M) -> M:
        """Stop a module's gradients and keep it in eval mode, now and after every ``train()``."""
        module.requires_grad_(False).eval()
        self._frozen.append(module)
        return module

    @property
    def frozen(self) -> Sequence[nn.Module]:
        """The modules given to ``freeze``."""
        return tuple(self._frozen)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes joined, differentiable; the same tensor when there is one process.

        A term computed on gathered rows is the same number everywhere: give its ``counts`` the gathered rows.
        """
        return gather_rows(rows)


class Kit(Protocol):
    """What a recipe lends to ``build(kit, settings)`` of a method, so that methods import no engine."""

    info: DataInfo
    student: tuple[str, ...]  # modalities at deployment
    teaching: tuple[str, ...]  # modalities that the teacher sees
    seed: int  # of everything that is drawn

    def network(self, modalities: Sequence[str], *, side: str = "student") -> Student:
        """A fresh network for these modalities, as a student that says how to rebuild it."""

    def teacher(self) -> nn.Module:
        """The finished teacher network, reused where it was trained before."""

    def batches(self, split: str = "train", *, size: int | None = None) -> Iterable[Batch]:
        """Rows of the training or validation split in their order, as they are; for diagnostics.

        ``size`` is how many there are in a batch; None: as many as the memory takes.
        """

    def fit(self, method: Method, *, stage: str, epochs: int | None = None, keep: str = "") -> Method:
        """Train a stage of the method; a finished stage is taken as it is.

        ``epochs`` shortens what the recipe is set to; ``keep`` (``best`` or ``last``) replaces it.
        """

    def validate(self, method: Method) -> dict[str, dict[str, float]]:
        """Student → metric → value on the validation split."""

    def once(self, what: str, find: Callable[[], F]) -> F:
        """What was found under this name before, else what ``find`` finds now: methods side by side measure once.

        The name must say all that the finding depends on, apart from data and seed; nobody may change what it is.
        """


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """All parameters of some modules that require gradients."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
