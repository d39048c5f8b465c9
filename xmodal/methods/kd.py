r"""Knowledge distillation: a student that sees one modality learns the outputs of a teacher that sees others.

A frozen teacher answers each training sample; the student, fed another view of the same sample, is asked for the
label and for the teacher's softened answer. Training needs paired samples of both sides' modalities, deployment the
student's alone.

$$L = w_{task} \, L_{task}(s, y) + w_{kd} \, \tau^2 \, KL(p_{t / \tau} \,\|\, p_{s / \tau})$$

Reference: Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from xmodal.errors import InputError, did_you_mean
from xmodal.losses.logits import standardise as standardised
from xmodal.losses.reduce import at_least_float32
from xmodal.losses.task import label_terms, what_counts
from xmodal.method import Kit, Method
from xmodal.methods.settings import KDSettings
from xmodal.methods.terms import BY_TASK, OUTPUTS, Side, Term, build_terms
from xmodal.models.layers import tapped
from xmodal.models.network import Network, Reads
from xmodal.types import Batch, DataInfo, Step, Student

PIXELS = ("labelled", "projected", "scored", "all")
WEIGHTINGS = ("alike", "classes")


class KD(Method):
    r"""Distillation by any losses of the zoo; by default the temperature-scaled one of outputs.

    Args:
        student: the network to deploy.
        teacher: a finished network that takes a dictionary of inputs; frozen here.
        info: kind of target: class probabilities, yes-or-no outputs or values are compared accordingly.
        losses: ``name`` or ``name:weight`` each; empty: the one of the task.
        temperature: τ of the losses that have one; None: each its own default.
        kd_weight: w_kd, over all terms together.
        task_weight: w_task; 0 learns from the teacher alone.
        student_layer: modules whose features are compared; empty: chosen by what a loss needs.
        teacher_layer: the same for the teacher.
        standardise: let the losses see outputs with mean 0 and spread 1 in each row.
        kd_warmup: epochs over which kd_weight grows from nothing, in equal steps.
        pixels: where the teacher is heard: at ``labelled`` places, at ``projected`` ones (all that the batch calls
            valid, labelled or not), at ``scored`` ones (where metrics look, in data that says so), or at ``all``.
        reduction: ``pixel``, the mean over these places; ``reference``, as the authors of the non-target divergence
            hypothesis do for pictures: the sum over them, divided by all places of the batch and by the classes.
        weighting: how much a place counts in losses with a value for each: all ``alike``; or by the weights of the
            ``classes`` that the teacher sees there, $c_i = \sum_k p_{t,ik} w_k$ with `DataInfo.class_weights`, as a
            weighted mean $\sum_i c_i D_i / \sum_i c_i$: what there is most of does not drown the rest.

    Example:
        >>> from xmodal.models.network import build_for
        >>> from xmodal.types import InputInfo
        >>> vector = InputInfo((4,), layout="vector")
        >>> info = DataInfo({"clear": vector, "faint": vector}, "multiclass", 3, rows={})
        >>> method = KD(build_for(info, ["faint"]), build_for(info, ["clear"]).module, info, temperature=2.0)
        >>> sorted(method.students()), method.teacher.training
        (['faint'], False)
    """

    def __init__(
        self,
        student: Student,
        teacher: nn.Module,
        info: DataInfo,
        *,
        losses: Sequence[str] = (),
        temperature: float | None = None,
        kd_weight: float = 0.5,
        task_weight: float = 0.5,
        student_layer: Sequence[str] = (),
        teacher_layer: Sequence[str] = (),
        standardise: bool = False,
        kd_warmup: int = 0,
        pixels: str = "labelled",
        reduction: str = "pixel",
        weighting: str = "alike",
    ) -> None:
        super().__init__()
        if not info.paired:
            raise InputError(
                "Distillation asks teacher and student about the same samples, and this data is unpaired. Give paired "
                "data, or choose a method that accepts unpaired data (`xmodal list methods`), such as supervised."
            )
        self.network = student.module
        self.teacher = self.freeze(teacher)
        self._student, self._info = student, info
        self.kd_weight, self.task_weight = kd_weight, task_weight
        if pixels not in PIXELS:
            raise InputError(f"There is no choice of pixels called '{pixels}'. {did_you_mean(pixels, PIXELS)}")
        if weighting not in WEIGHTINGS:
            raise InputError(f"There is no weighting called '{weighting}'. {did_you_mean(weighting, WEIGHTINGS)}")
        if weighting == "classes" and not (info.class_weights and reduction == "pixel"):
            raise InputError(
                "To weigh places by the classes that the teacher sees, the data must give weights of classes, and the "
                "reduction must be pixel. Choose the weighting alike."
            )
        self.pixels, self.reduction, self.weighting = pixels, reduction, weighting
        self.standardise, self.kd_warmup, self.grown = standardise, kd_warmup, 1.0
        mine = Side(student.module, info, student.needs, student_layer, "student")
        theirs = Side(teacher, info, tuple(info.inputs), teacher_layer, "teacher")
        losses = losses or (BY_TASK[info.task],)
        self.temperature = temperature
        self.terms = build_terms(losses, mine, theirs, info, temperature=temperature, reduction=reduction)
        self.trained_terms = nn.ModuleList(self.terms)  # parameters of losses and adaptors reach the optimiser
        # a memory knows more than the batch, and where the order of rows counts, a whole batch has to be shuffled
        self.stackable = all("memory" not in term.card.needs and term.card.samples != "ordered" for term in self.terms)
        self.stackable &= not (info.dense or info.label_losses or info.class_weights)  # those pick rows
        self._mine = sorted({name for term in self.terms for name in term.student_layers} - {OUTPUTS})
        self._theirs = sorted({name for term in self.terms for name in term.teacher_layers} - {OUTPUTS})

    def teach(self, batch: Batch) -> dict[str, Tensor]:
        """The teacher's outputs and the layers that are compared, one row per sample."""
        with torch.no_grad(), tapped(self.teacher, self._theirs) as seen:
            outputs = self.teacher(batch.inputs)
        return {OUTPUTS: outputs, **seen}

    @property
    def teach_inputs(self) -> tuple[str, ...] | None:
        """What the teacher reads, where its kind of network tells."""
        return self.teacher.modalities if isinstance(self.teacher, (Network, Reads)) else None

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """Label term plus the teacher's terms."""
        info, valid = self._info, batch.valid.get(self._student.target)
        heard = None if self.pixels == "all" else valid
        if self.pixels == "labelled" and info.task == "multiclass" and info.ignore is not None:
            heard = what_counts(batch.target, valid=valid, ignore=info.ignore)
        if self.pixels == "scored":
            heard = self._scored(batch)
        with tapped(self.network, self._mine) as seen:
            outputs = self.network({name: batch.input(name) for name in self._student.needs})
        mine = {OUTPUTS: outputs, **seen}
        if self.standardise:
            mine, teacher_outputs = ({**side, OUTPUTS: standardised(side[OUTPUTS])} for side in (mine, teacher_outputs))
        step = Step({})
        classes = self._class_weight(teacher_outputs) if self.weighting == "classes" else None
        for number, term in enumerate(self.terms):
            omega = self.weigh(term, mine, teacher_outputs, batch)
            by_class = classes is not None and term.by_row and (term.by_place or not info.dense)
            if classes is not None and by_class:
                omega = classes if omega is None else classes * omega
            value, count = term(mine, teacher_outputs, batch, valid=heard, gather=self.gather, omega=omega)
            if classes is not None and by_class:
                total = (classes if heard is None else classes[heard]).sum()
                value, count = value * count / torch.where(total > 0, total, torch.ones_like(total)), total
            name = "kd" if len(self.terms) == 1 else f"kd {number + 1} {term.card.name}"
            step.losses[name] = self.grown * self.kd_weight * term.weight * value
            step.counts[name] = count
        if self.task_weight:
            for name, (loss, count) in label_terms(
                outputs, batch.target, info, valid=valid, gather=self.gather
            ).items():
                step.losses[name], step.counts[name] = self.task_weight * loss, count
        return step

    def _scored(self, batch: Batch) -> Tensor:
        """The places that metrics look at."""
        if self._student.target not in batch.scored:
            raise InputError(
                "The teacher is to be heard where metrics look, and this data does not say where that is in training. "
                "Choose other pixels: labelled, projected or all."
            )
        return batch.scored[self._student.target] > 0

    def _class_weight(self, teacher_outputs: Mapping[str, Tensor]) -> Tensor:
        """How much the class that the teacher sees counts, (rows, …)."""
        seen = at_least_float32(teacher_outputs[OUTPUTS]).softmax(dim=1)
        weights = torch.tensor(self._info.class_weights, device=seen.device, dtype=seen.dtype)
        return torch.einsum("rk...,k->r...", seen, weights)

    def weigh(
        self, term: Term, mine: Mapping[str, Tensor], teacher_outputs: Mapping[str, Tensor], batch: Batch
    ) -> Tensor | None:
        """How much each sample of a batch counts in a term; None: all of them fully. For methods that trust some."""
        return None

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Strength of the teacher's term, and schedules of the losses that have one."""
        self.grown = min(1.0, epoch / self.kd_warmup) if self.kd_warmup else 1.0
        for term in self.terms:
            term.on_epoch_start(epoch, epochs)

    def students(self) -> dict[str, Student]:
        """The student, named after the modalities that it reads."""
        return {"+".join(self._student.needs): self._student}


def build(kit: Kit, settings: KDSettings) -> KD:
    """A fresh student, taught by the recipe's teacher."""
    return KD(
        kit.network(kit.student),
        kit.teacher(),
        kit.info,
        losses=settings.loss,
        temperature=settings.temperature,
        student_layer=settings.student_layer,
        teacher_layer=settings.teacher_layer,
        kd_weight=settings.kd_weight,
        task_weight=settings.task_weight if settings.labels else 0.0,
        standardise=settings.standardise,
        kd_warmup=settings.kd_warmup,
        pixels=settings.pixels,
        reduction=settings.reduction,
        weighting=settings.weighting,
    )
