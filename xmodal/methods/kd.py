r"""Knowledge distillation: a student that reads one modality learns the outputs of a teacher that reads others.

The outputs of a frozen teacher are computed for each training sample; the student, which reads another view of the same
sample, learns the label and the teacher's softened outputs. Training needs paired samples of both sides' modalities,
deployment the student's alone. Labelled rows that lack the teacher's modalities teach the student their label.

$$L = w_{task} \, L_{task}(s, y) + w_{kd} \, \tau^2 \, KL(p_{t / \tau} \,\|\, p_{s / \tau})$$

With other losses $D_k$ of the zoo, weighted $w_k$, the second term is $w_{kd} \sum_k w_k D_k(s, t)$. Reference: Hinton,
Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.losses.logits import standardise
from xmodal.losses.reduce import at_least_float32
from xmodal.losses.task import label_terms
from xmodal.method import Kit, Method
from xmodal.methods.options import DEFAULTS, DistillationOptions
from xmodal.methods.settings import KDSettings
from xmodal.methods.terms import BY_TASK, OUTPUTS, Side, Term, build_terms, compared_places
from xmodal.models.layers import tapped
from xmodal.models.network import Network, Reads
from xmodal.types import Batch, DataInfo, Step, Student, rows_with


class KD(Method):
    r"""Distillation by any losses of the zoo; by default the temperature-scaled divergence of outputs.

    Args:
        student: the network to deploy.
        teacher: a finished network that takes a dictionary of inputs; frozen here.
        info: of the data; its kind of target selects the default loss.
        options: losses, weights and layers.

    Example:
        >>> from xmodal.models.network import build_for
        >>> from xmodal.types import InputInfo
        >>> vector = InputInfo((4,), layout="vector")
        >>> info = DataInfo({"clear": vector, "faint": vector}, "multiclass", 3, rows={})
        >>> student, teacher = build_for(info, ["faint"]), build_for(info, ["clear"]).module
        >>> method = KD(student, teacher, info, DistillationOptions(temperature=2.0))
        >>> sorted(method.students()), method.teacher.training
        (['faint'], False)
    """

    def __init__(
        self, student: Student, teacher: nn.Module, info: DataInfo, options: DistillationOptions = DEFAULTS
    ) -> None:
        super().__init__()
        if not info.paired:
            raise InputError(
                "Distillation compares teacher and student on the same samples, and this data is unpaired. Give paired "
                "data, or choose a method that accepts unpaired data (`xmodal list methods`), such as supervised."
            )
        if options.weighting == "classes" and not (info.class_weights and options.reduction == "pixel"):
            raise InputError(
                "The weighting 'classes' needs data with class weights, and the reduction 'pixel'. "
                "Choose the weighting 'alike'."
            )
        if not options.kd_weight and not options.task_weight:
            raise InputError(
                "The options kd_weight and task_weight are both 0, so no row would teach anything, with a label or "
                "without one. Raise one of them."
            )
        self.network = student.module
        self.teacher = self.freeze(teacher)
        self._student, self._info, self.options = student, info, options
        self.warmup = 1.0  # factor of kd_weight in this epoch
        sides = (
            Side(student.module, info, student.needs, options.student_layer, "student"),
            Side(teacher, info, tuple(info.inputs), options.teacher_layer, "teacher"),
        )
        losses = options.losses or (BY_TASK[info.task],)
        self.terms = build_terms(losses, *sides, info, temperature=options.temperature, reduction=options.reduction)
        if info.present and any("memory" in term.card.needs for term in self.terms):
            names = ", ".join(term.card.name for term in self.terms if "memory" in term.card.needs)
            raise InputError(
                f"The loss {names} stores all training rows, and some of them lack a modality. Choose a loss without a "
                "memory (`xmodal list losses`)."
            )
        # as a module list, parameters of losses and adaptors reach the optimiser and the checkpoint
        self.trained_terms = nn.ModuleList(self.terms)
        self._student_layers = sorted({name for term in self.terms for name in term.student_layers} - {OUTPUTS})
        self._teacher_layers = sorted({name for term in self.terms for name in term.teacher_layers} - {OUTPUTS})
        # the head is used by outputs alone; parameters of a loss are unused in a process where it finds no rows
        self.unused_parameters = not options.task_weight and OUTPUTS not in {
            name for term in self.terms for name in term.student_layers
        }
        self.unused_parameters |= any(term.has_parameters for term in self.terms)
        # a memory holds rows of other batches, and where the order of rows matters, a full batch must be shuffled too
        self.stackable = all("memory" not in term.card.needs and term.card.samples != "ordered" for term in self.terms)
        # these select rows, and a recorded step has one shape for all models
        self.stackable &= not (info.dense or info.label_losses or info.class_weights or info.weighted)
        self.stackable &= not (info.labelled and any(term.selects_rows for term in self.terms))
        self.uses_unlabelled = bool(options.kd_weight) and any(term.uses_unlabelled for term in self.terms)

    def teach(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs of the teacher and of its layers that are compared, one row per sample."""
        with torch.no_grad(), tapped(self.teacher, self._teacher_layers) as layers:
            outputs = self.teacher(batch.inputs)
        return {OUTPUTS: outputs, **layers}

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """L = w_kd Σ_k w_k D_k(s, t) + w_task L_task(s, y), a term for each D_k."""
        if batch.present:
            teacher_outputs = taken(teacher_outputs, rows_with(batch.present, self._student.modalities))
            batch = batch.having(self._student.modalities)
        student, options = self._outputs(batch), self.options
        logits = student[OUTPUTS]
        compared, student, teacher = self._compared(batch, student, teacher_outputs)
        if options.standardise:
            student, teacher = ({**side, OUTPUTS: standardise(side[OUTPUTS])} for side in (student, teacher))
        mask, class_weights = self._mask(compared), self._class_weights(teacher)

        step = Step({})
        for name, term in self._named_terms():
            distance, count = self._distance(term, student, teacher, compared, mask, class_weights)
            step.losses[name] = self.warmup * options.kd_weight * term.weight * distance
            step.counts[name] = count
        if options.task_weight:
            labels = label_terms(
                logits,
                batch.target,
                self._info,
                valid=batch.valid.get(self._student.target),
                labelled=batch.labelled.get(self._student.target),
                row_weight=batch.weights.get(self._student.target),
                gather=self.gather,
            )
            for name, (loss, count) in labels.items():
                step.losses[name], step.counts[name] = options.task_weight * loss, count
        return step

    def _compared(
        self, batch: Batch, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
    ) -> tuple[Batch, Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The rows that have the teacher's modalities too: the batch and both sides' tensors."""
        if not batch.present:
            return batch, student, teacher
        rows = rows_with(batch.present, self.taught_by())
        return batch.take(rows), taken(student, rows), taken(teacher, rows)

    def _outputs(self, batch: Batch) -> Mapping[str, Tensor]:
        """Outputs of the student and of its layers that are compared."""
        with tapped(self.network, self._student_layers) as layers:
            outputs = self.network({name: batch.input(name) for name in self._student.needs})
        return {OUTPUTS: outputs, **layers}

    def _named_terms(self) -> list[tuple[str, Term]]:
        if len(self.terms) == 1:
            return [("kd", self.terms[0])]
        return [(f"kd {number} {term.card.name}", term) for number, term in enumerate(self.terms, start=1)]

    def _distance(
        self,
        term: Term,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Batch,
        mask: Tensor | None,
        class_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor | int]:
        """D of one term, and what its mean runs over: rows, or with class weights their sum."""
        weights = self.weigh(term, student, teacher, batch)
        if not term.by_row or (self._info.dense and not term.by_place):
            class_weights = None  # a loss without a value per place has nothing for them to multiply
        if class_weights is not None:
            weights = class_weights if weights is None else class_weights * weights
        mean, count = term(student, teacher, batch, mask=mask, gather=self.gather, weights=weights)
        if class_weights is None:
            return mean, count
        # the term divides by the number of places, a weighted mean by the sum of the class weights; the weights of
        # `weigh` are not in the divisor: a sample that is left out still counts there
        mask = term.mask_of(batch, mask)
        total = (class_weights if mask is None else class_weights[mask]).sum()
        return mean * count / torch.where(total > 0, total, torch.ones_like(total)), total

    def weigh(
        self, term: Term, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], batch: Batch
    ) -> Tensor | None:
        """Weights of the samples in a term, for methods that trust some more than others; None: 1 for each."""
        return None

    def _mask(self, batch: Batch) -> Tensor | None:
        """Where outputs are compared, as the option ``pixels`` says; None: everywhere."""
        pixels, info, modality = self.options.pixels, self._info, self._student.target
        if pixels == "all":
            return None
        if pixels == "scored":
            if modality not in batch.scored:
                raise InputError(
                    "The option pixels is 'scored', and this data does not say where metrics look in training. Choose "
                    "other pixels: labelled, projected or all."
                )
            return batch.scored[modality] > 0
        return compared_places(batch, modality, info) if pixels == "labelled" else batch.valid.get(modality)

    def _class_weights(self, teacher: Mapping[str, Tensor]) -> Tensor | None:
        """Weight Σ_k p_k w_k of each place, (rows, …), with the teacher's probabilities p; None: all are 1."""
        if self.options.weighting == "alike":
            return None
        probabilities = at_least_float32(teacher[OUTPUTS]).softmax(dim=1)
        weights = torch.tensor(self._info.class_weights, device=probabilities.device, dtype=probabilities.dtype)
        return torch.einsum("rk...,k->r...", probabilities, weights)

    def reads(self) -> tuple[str, ...]:
        """The inputs of the student; what the teacher reads is said by `teach_inputs`."""
        return self._student.needs

    def row_needs(self, *, labelled: bool) -> tuple[str, ...] | None:
        """Of a row with a label the student's modalities, for L_task; of others the teacher's as well."""
        if labelled and self.options.task_weight:
            return self._student.modalities
        return super().row_needs(labelled=labelled)

    @property
    def teach_inputs(self) -> tuple[str, ...] | None:
        """The teacher's modalities, if its kind of network has them."""
        return self.teacher.modalities if isinstance(self.teacher, (Network, Reads)) else None

    @property
    def teach_online(self) -> str:
        """Empty: equal samples have equal outputs in every epoch."""
        return ""

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Strength of the teacher's terms, and schedules of the losses that have one."""
        self.warmup = min(1.0, epoch / self.options.kd_warmup) if self.options.kd_warmup else 1.0
        for term in self.terms:
            term.on_epoch_start(epoch, epochs)

    def students(self) -> dict[str, Student]:
        """The student, named after the modalities that it reads."""
        return {"+".join(self._student.needs): self._student}


def taken(outputs: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Some rows of all tensors."""
    return {name: tensor[rows] for name, tensor in outputs.items()}


def build(kit: Kit, settings: KDSettings) -> KD:
    """A fresh student, taught by the recipe's teacher."""
    return KD(kit.network(kit.student), kit.teacher(), kit.info, settings.options())
