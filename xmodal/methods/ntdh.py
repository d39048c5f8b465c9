r"""Distillation that avoids what the two modalities disagree about: the masks of the non-target divergence hypothesis.

The hypothesis: what hinders a student of another modality is disagreement about the classes that are not true. Two
masks lower it, alone or together, with any loss of the zoo. The *channel mask* removes the teacher's channels that
carry nothing shared: two networks are trained jointly to be right and to agree on the wrong classes, and a channel is
salient if disturbing it moves those apart. The *sample mask* leaves out the samples where the teacher is wrong, unless
the student is wrong in the same direction. Training needs paired samples with labels; deployment the student's
modalities.

$$L = w_{task} \, L_{task}(s, y) + w_{kd} \, \frac1n \sum_i \omega_i \, D(s_i, \tilde t_i), \qquad
\tilde t = tail(keep \cdot \varphi)$$

| symbol | argument | meaning |
|---|---|---|
| s, t̃ | ``student``, ``teacher`` | outputs of the student and of the teacher without the removed channels |
| keep | ``channels`` | which channels φ of the teacher stay, at which place |
| ω | ``samples``, ``threshold`` | `xmodal.losses.mask.pssm`: 1 where the teacher is right |

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; the masks are read from the authors'
code, the paper's body was not available.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.losses.mask import pssm
from xmodal.method import Kit
from xmodal.methods.joint import fit_joint
from xmodal.methods.loss_text import split_loss
from xmodal.methods.mfh import MFH, Channels, stay_of
from xmodal.methods.ranking import channel_means, count_channels, rank_channels
from xmodal.methods.settings import NTDHSettings
from xmodal.methods.terms import BY_TASK, OUTPUTS, Term
from xmodal.types import Batch, DataInfo, Student

MASKED = {"kl": "kl_pssm", "dkd": "dkd_pssm"}  # losses that have a form with ω inside
UNRANKED = ("random", "index")  # ways to choose channels that look at no saliency


class NTDH(MFH):
    """Distillation from a teacher with removed channels, from samples that can be trusted.

    Args:
        student: the network to deploy.
        teacher: a finished network; frozen here.
        info: of the data: one class per sample.
        channels: which channels of the teacher stay, at which place; None: all of them.
        samples: whether the sample mask is used.
        threshold: cosine of the outputs from which a sample counts although the teacher is wrong.
        detach: True: ω is a constant. In the authors' code a gradient flows through the cosine of the kept samples.
        scale_logits: True: ω multiplies the logits inside ``kl``, as in the authors' code, not its values.
        cosine: of the ``logits``, or of the ``probabilities``, as in the authors' code for pictures.
        losses, temperature, kd_weight, task_weight, student_layer, teacher_layer, pixels, reduction, weighting: as in
            `KD`.
        findings: what was found out about the channels, in JSON; kept with the run for the report.

    Example:
        >>> from xmodal.models.network import build_for
        >>> from xmodal.types import InputInfo
        >>> vector = InputInfo((4,), layout="vector")
        >>> info = DataInfo({"clear": vector, "faint": vector}, "multiclass", 3, rows={})
        >>> method = NTDH(build_for(info, ["faint"]), build_for(info, ["clear"]).module, info, losses=("rkd", "kl"))
        >>> sorted(method.students())
        ['faint']
    """

    def __init__(
        self,
        student: Student,
        teacher: nn.Module,
        info: DataInfo,
        *,
        channels: Channels | None = None,
        samples: bool = True,
        threshold: float = 0.996,
        detach: bool = True,
        scale_logits: bool = False,
        cosine: str = "logits",
        losses: Sequence[str] = (),
        temperature: float | None = None,
        kd_weight: float = 0.5,
        task_weight: float = 0.5,
        student_layer: Sequence[str] = (),
        teacher_layer: Sequence[str] = (),
        pixels: str = "labelled",
        reduction: str = "pixel",
        weighting: str = "alike",
        findings: Mapping[str, Any] | None = None,
    ) -> None:
        if info.task != "multiclass":
            raise InputError(f"The method 'ntdh' compares the wrong classes, and the task is {info.task}. Choose mfh.")
        losses = losses or (BY_TASK[info.task],)
        super().__init__(
            student,
            teacher,
            info,
            channels=channels,
            losses=[_inside(loss) for loss in losses] if samples and scale_logits else losses,
            temperature=temperature,
            kd_weight=kd_weight,
            task_weight=task_weight,
            student_layer=student_layer,
            teacher_layer=teacher_layer,
            pixels=pixels,
            reduction=reduction,
            weighting=weighting,
            findings=findings,
        )
        self.samples, self.threshold, self.detach, self.cosine = samples, threshold, detach, cosine
        for term in self.terms:
            if term.card.name in MASKED.values():
                term.options |= {"threshold": threshold, "detach": detach}

    def weigh(
        self, term: Term, mine: Mapping[str, Tensor], teacher_outputs: Mapping[str, Tensor], batch: Batch
    ) -> Tensor | None:
        """ω, except in losses that compute it themselves."""
        if not self.samples or term.card.name in MASKED.values():
            return None
        sides = mine[OUTPUTS], teacher_outputs[OUTPUTS].to(mine[OUTPUTS].dtype)
        if self.cosine == "probabilities":
            sides = sides[0].softmax(dim=1), sides[1].softmax(dim=1)
        ignore = self._info.ignore
        return pssm(*sides, batch.target, threshold=self.threshold, detach=self.detach, ignore=ignore)


def _inside(loss: str) -> str:
    """The form of a loss that has ω inside; other losses as they are.

    Example:
        >>> _inside("kl(temperature=2):0.5"), _inside("rkd")
        ('kl_pssm(temperature=2):0.5', 'rkd')
    """
    name, _, _ = split_loss(loss)
    return MASKED.get(name, name) + loss.strip().removeprefix(name)


def build(kit: Kit, settings: NTDHSettings) -> NTDH:
    """Joint training and saliency where channels are masked, and then the student's method."""
    channels: Channels | None = None
    findings: dict[str, Any] = {}
    if settings.mask in ("samples", "none"):
        teacher = kit.teacher()
    else:
        _check(kit.info, settings)
        stage = f"ntdh joint training {settings.agreement}"
        joint = fit_joint(kit, agreement=settings.agreement, stage=stage)
        teacher = joint.teacher
        values, note = _rank(kit, teacher, joint.student, settings, stage)
        keep = stay_of(values, settings.ratio, settings.remove, kit.seed)
        means = channel_means(kit, teacher, settings.place, networks=stage) if settings.fill == "mean" else None
        channels = Channels(settings.place, keep, settings.fill, means)
        findings = {
            "place": settings.place,
            "removed": settings.remove,
            "ratio": settings.ratio,
            "saliency": [] if settings.remove in UNRANKED else values,
            "note": note,
            "keep": keep.tolist(),
            "curve": [],
        }
    return NTDH(
        kit.network(kit.student),
        copy.deepcopy(teacher),
        kit.info,
        channels=channels,
        samples=settings.mask in ("samples", "both"),
        threshold=settings.threshold,
        detach=settings.detach,
        scale_logits=settings.scale_logits,
        losses=settings.loss,
        temperature=settings.temperature,
        kd_weight=settings.kd_weight,
        task_weight=settings.task_weight if settings.labels else 0.0,
        student_layer=settings.student_layer,
        teacher_layer=settings.teacher_layer,
        pixels=settings.pixels,
        reduction=settings.reduction,
        weighting=settings.weighting,
        cosine=settings.cosine,
        findings=findings,
    )


def _rank(
    kit: Kit, teacher: nn.Module, student: nn.Module, settings: NTDHSettings, stage: str
) -> tuple[list[float], str]:
    """A value per channel of the teacher, and what to know about them; zeros where the choice does not look at them."""
    if settings.remove in UNRANKED:
        return [0.0] * count_channels(kit, teacher, settings.place), ""
    found = rank_channels(
        kit,
        teacher,
        student,
        settings.place,
        networks=stage,
        distance=settings.agreement,
        disturb=settings.disturb,
        permutations=settings.permutations,
    )
    return found.value.tolist(), found.note


def _check(info: DataInfo, settings: NTDHSettings) -> None:
    if info.classes == 2 and settings.agreement == "ncjsd":
        raise InputError(
            "With two classes there is one wrong class, so nothing to disagree about: the channel mask by ncjsd needs "
            "three or more. Use --mask samples, or --agreement mse."
        )
