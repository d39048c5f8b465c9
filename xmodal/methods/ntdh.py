r"""Distillation that avoids what the two modalities disagree about: the masks of the non-target divergence hypothesis.

The hypothesis: a student of another modality is hindered by disagreement about the classes that are not true. Two masks
reduce it, alone or together, with any loss of the zoo. The *channel mask* removes the teacher's channels without shared
information: two networks are trained jointly to be right and to agree on the wrong classes, and a channel is salient if
disturbing it increases the divergence between them. The *sample mask* leaves out the samples where the teacher is
wrong, unless the student is wrong in the same direction. Training needs paired samples with labels; deployment the
student's modalities.

$$L = w_{task} \, L_{task}(s, y) + w_{kd} \, \frac1n \sum_i \omega_i \, D(s_i, \tilde t_i), \qquad
\tilde t = tail(keep \cdot \varphi)$$

| symbol | argument | meaning |
|---|---|---|
| s, t̃ | ``student``, ``teacher`` | outputs of the student and of the teacher without the removed channels |
| keep | ``channels`` | the channels φ of a layer of the teacher that stay |
| ω | ``samples``, ``threshold`` | `xmodal.losses.mask.pssm`: 1 where the teacher is right |

Reference: Chen et al.: Non-target Divergence Hypothesis, 2024, arXiv 2409.02438; the masks follow the authors' code,
the text of the paper was not available.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.losses.mask import pssm
from xmodal.method import Kit
from xmodal.methods.joint import fit_joint
from xmodal.methods.loss_text import split_loss
from xmodal.methods.mfh import MFH, Channels, stay_of
from xmodal.methods.options import DEFAULTS, DistillationOptions
from xmodal.methods.ranking import UNRANKED, channel_means, count_channels, rank_channels
from xmodal.methods.settings import NTDHSettings
from xmodal.methods.terms import BY_TASK, OUTPUTS, Term
from xmodal.types import Batch, DataInfo, Student

MASKED = {"kl": "kl_pssm", "dkd": "dkd_pssm"}  # loss → its form with ω inside
RANDOM = ("random", "index")  # choices of channels that do not depend on a saliency


class NTDH(MFH):
    """Distillation from a teacher with removed channels, on the samples where it can be trusted.

    Args:
        student: the network to deploy.
        teacher: a finished network; frozen here.
        info: of the data: one class per sample or place.
        options: losses, weights and layers, as in `KD`.
        channels: the channels of the teacher that stay, and their layer; None: all.
        samples: whether the sample mask is used.
        threshold: cosine of the outputs from which a sample counts although the teacher is wrong.
        detach: True: ω is a constant. In the authors' code a gradient flows through the cosine of the kept samples.
        scale_logits: True: ω multiplies the logits inside ``kl``, as in the authors' code, not its values.
        cosine: of the ``logits``, or of the ``probabilities``, as in the authors' code for pictures.
        findings: JSON about the channels for the run's report.

    Example:
        >>> from xmodal.models.network import build_for
        >>> from xmodal.types import InputInfo
        >>> vector = InputInfo((4,), layout="vector")
        >>> info = DataInfo({"clear": vector, "faint": vector}, "multiclass", 3, rows={})
        >>> student, teacher = build_for(info, ["faint"]), build_for(info, ["clear"]).module
        >>> method = NTDH(student, teacher, info, DistillationOptions(losses=("rkd", "kl")))
        >>> sorted(method.students())
        ['faint']
    """

    def __init__(
        self,
        student: Student,
        teacher: nn.Module,
        info: DataInfo,
        options: DistillationOptions = DEFAULTS,
        *,
        channels: Channels | None = None,
        samples: bool = True,
        threshold: float = 0.996,
        detach: bool = True,
        scale_logits: bool = False,
        cosine: str = "logits",
        findings: Mapping[str, Any] | None = None,
    ) -> None:
        if info.task != "multiclass":
            raise InputError(f"The method 'ntdh' compares the wrong classes, and the task is {info.task}. Choose mfh.")
        if samples and scale_logits:
            losses = options.losses or (BY_TASK[info.task],)
            options = replace(options, losses=[_with_mask_inside(loss) for loss in losses])
        super().__init__(student, teacher, info, options, channels=channels, findings=findings)
        self.samples, self.threshold, self.detach, self.cosine = samples, threshold, detach, cosine
        for term in self.terms:
            if term.card.name in MASKED.values():
                term.options |= {"threshold": threshold, "detach": detach}

    def weigh(
        self, term: Term, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], batch: Batch
    ) -> Tensor | None:
        """ω, except in losses that compute it inside."""
        if not self.samples or term.card.name in MASKED.values():
            return None
        s, t = student[OUTPUTS], teacher[OUTPUTS].to(student[OUTPUTS].dtype)
        if self.cosine == "probabilities":
            s, t = s.softmax(dim=1), t.softmax(dim=1)
        return pssm(
            s,
            t,
            batch.target,
            threshold=self.threshold,
            detach=self.detach,
            ignore=self._info.ignore,
            labelled=batch.labelled.get(self._student.target),
        )


def _with_mask_inside(loss: str) -> str:
    """The form of a loss that has ω inside; losses without one unchanged.

    Example:
        >>> _with_mask_inside("kl(temperature=2):0.5"), _with_mask_inside("rkd")
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
        stage = joint_stage(settings)
        joint = fit_joint(kit, agreement=settings.agreement, stage=stage)
        teacher = joint.teacher
        values, note, ranked = _rank(kit, teacher, joint.student, settings)
        keep = stay_of(values, settings.ratio, settings.remove, kit.seed)
        means = channel_means(kit, teacher, settings.layer, networks=stage) if settings.fill == "mean" else None
        channels = Channels(settings.layer, keep, settings.fill, means)
        findings = {
            # "place" is an earlier name of the layer; reports read it in the results of every version
            "place": settings.layer,
            "removed": settings.remove,
            "ratio": settings.ratio,
            "saliency": values if ranked else [],
            "note": note,
            "keep": keep.tolist(),
            "curve": [],
        }
    return NTDH(
        kit.network(kit.student),
        copy.deepcopy(teacher),
        kit.info,
        settings.options(),
        channels=channels,
        samples=settings.mask in ("samples", "both"),
        threshold=settings.threshold,
        detach=settings.detach,
        scale_logits=settings.scale_logits,
        cosine=settings.cosine,
        findings=findings,
    )


def joint_stage(settings: NTDHSettings) -> str:
    """Name of the stage in which teacher and student are trained jointly."""
    return f"ntdh joint training {settings.agreement}"


def ranking_options(settings: NTDHSettings) -> dict[str, Any]:
    """Arguments of `rank_channels` and of `name_of_ranking`."""
    return {
        "networks": joint_stage(settings),
        "distance": settings.agreement,
        "disturb": settings.disturb,
        "permutations": settings.permutations,
    }


def _rank(kit: Kit, teacher: nn.Module, student: nn.Module, settings: NTDHSettings) -> tuple[list[float], str, bool]:
    """Saliency of each channel of the teacher, a note about it, and whether it was measured; zeros otherwise."""
    if settings.remove in RANDOM:
        # a ranking passes over the training split many times, and these choices would not use it
        return [0.0] * count_channels(kit, teacher, settings.layer), "", False
    options = ranking_options(settings)
    saliency = rank_channels(kit, teacher, student, settings.layer, pixels=settings.rank_pixels, **options)
    return saliency.value.tolist(), saliency.note, saliency.form != UNRANKED


def _check(info: DataInfo, settings: NTDHSettings) -> None:
    if info.classes == 2 and settings.agreement == "ncjsd":
        raise InputError(
            "With two classes there is one wrong class, so nothing to disagree about: the channel mask by ncjsd needs "
            "three or more. Use --mask samples, or --agreement mse."
        )
