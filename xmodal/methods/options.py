"""The options of distillation from a frozen teacher, shared by `KD`, `MFH` and `NTDH`. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xmodal.errors import InputError, did_you_mean

PIXELS = ("labelled", "projected", "scored", "all")
REDUCTIONS = ("pixel", "reference")
WEIGHTINGS = ("alike", "classes")


@dataclass(frozen=True, slots=True)
class DistillationOptions:
    r"""How a student learns from the outputs and features of a frozen teacher.

    Attributes:
        losses: ``name`` or ``name:weight`` each, see `xmodal.methods.loss_text`; empty: the usual loss of the task.
        temperature: τ of the losses that have one; None: the default of each loss.
        kd_weight: w_kd, factor of all terms of the teacher.
        task_weight: w_task, factor of the loss of labels; 0: no labels are used.
        student_layer: modules of the student whose outputs are compared; empty: chosen by what a loss needs.
        teacher_layer: the same for the teacher.
        standardise: compare outputs that are shifted and scaled to mean 0 and standard deviation 1 in each row.
        kd_warmup: epochs over which kd_weight grows from 0, in equal steps.
        pixels: where the teacher's terms of dense data are computed: at ``labelled`` places (in samples without any
            label at all valid ones), at ``projected`` ones (all that `Batch.valid` marks, labelled or not), at
            ``scored`` ones (where metrics look, see `Batch.scored`), or at ``all``.
        reduction: ``pixel``, the mean over these places; ``reference``, as in the NTDH authors' code for pictures: the
            sum over these places, divided by all places of the batch and by the classes.
        weighting: of places, in losses with a value for each: ``alike``; or ``classes``, by the class weights that the
            teacher's probabilities select, $c_i = \sum_k p_{t,ik} w_k$ with w of `DataInfo.class_weights`, as a
            weighted mean $\sum_i c_i D_i / \sum_i c_i$, so that frequent classes do not dominate.

    Example:
        >>> DistillationOptions(losses=["kl", "rkd:0.5"], temperature=2.0).losses
        ('kl', 'rkd:0.5')
    """

    losses: Sequence[str] = ()
    temperature: float | None = None
    kd_weight: float = 0.5
    task_weight: float = 0.5
    student_layer: Sequence[str] = ()
    teacher_layer: Sequence[str] = ()
    standardise: bool = False
    kd_warmup: int = 0
    pixels: str = "labelled"
    reduction: str = "pixel"
    weighting: str = "alike"

    def __post_init__(self) -> None:
        """Refuse words that mean nothing."""
        # `fit_many` trains methods together whose options are equal; a list has no hash, and would look unequal
        for name in ("losses", "student_layer", "teacher_layer"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        choices = {
            "choice of pixels": (self.pixels, PIXELS),
            "reduction": (self.reduction, REDUCTIONS),
            "weighting": (self.weighting, WEIGHTINGS),
        }
        problems = [
            f"There is no {kind} called '{word}'. {did_you_mean(word, words)}"
            for kind, (word, words) in choices.items()
            if word not in words
        ]
        if problems:
            raise InputError(problems)


DEFAULTS = DistillationOptions()
