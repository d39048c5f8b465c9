r"""Modality-general distillation: the teacher is heard through the channels that both modalities know.

A teacher that sees another modality partly decides by what the student can never see. Algorithm 1 finds out which of
its channels that are: train both networks to agree, exchange one channel at a time among the samples, and see how much
of the agreement breaks. The channels that break it most are modality-general; the others are removed before the teacher
answers. Training needs paired samples of both sides; deployment needs the student's modalities alone.

$$L = w_{task} \, L_{task}(s, y) + w_{kd} \, D(s, \tilde t), \qquad \tilde t = tail(keep \cdot \varphi + (1 - keep)
\cdot fill)$$

| symbol | argument | meaning |
|---|---|---|
| s, t̃ | ``student``, ``teacher`` | outputs of the student and of the teacher without the removed channels |
| φ | ``place`` | activations (rows, channels, …) of a module of the teacher |
| keep | ``keep`` | (channels,), True where a channel stays |

Reference: Xue, Gao, Ren, Zhao: The Modality Focusing Hypothesis: Towards Understanding Crossmodal Knowledge
Distillation, ICLR 2023, arXiv 2206.06487, Algorithm 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from xmodal.diagnostics.saliency import Saliency, keep_mask
from xmodal.errors import InputError
from xmodal.method import Kit
from xmodal.methods.joint import fit_joint
from xmodal.methods.kd import KD
from xmodal.methods.ranking import channel_means, rank_channels
from xmodal.methods.settings import MFHSettings
from xmodal.models.masking import masked
from xmodal.types import Batch, DataInfo, Student

RATIOS = (0.0, 0.25, 0.5, 0.75, 0.9)  # that `--ratio auto` tries
JOINT = "mfh joint training"  # the stage


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """Which channels of a teacher are heard.

    Attributes:
        place: name of the module whose channels these are.
        keep: boolean (channels,); the others are removed.
        fill: what stands in for a removed one: ``mean`` (``values``), ``batch_mean`` or ``zero``.
        values: (channels, …), such as `layer_means` of the training split.
    """

    place: str
    keep: Tensor
    fill: str = "zero"
    values: Tensor | None = None


class MFH(KD):
    """Distillation from a teacher of which some channels were removed.

    Args:
        student: the network to deploy.
        teacher: a finished network; frozen here.
        info: of the data.
        channels: which channels stay, at which place, and what stands in for the others; None: all of them stay.
        losses, temperature, kd_weight, task_weight, student_layer, teacher_layer, pixels, reduction, weighting: as in
            `KD`.
        findings: what was found out about the channels, in JSON; kept with the run for the report.

    Example:
        >>> import torch
        >>> from xmodal.models.network import build_for
        >>> from xmodal.types import InputInfo
        >>> vector = InputInfo((4,), layout="vector")
        >>> info = DataInfo({"clear": vector, "faint": vector}, "multiclass", 3, rows={})
        >>> teacher = build_for(info, ["clear"], width=2).module
        >>> channels = Channels("embedding", torch.tensor([True, False]), "zero")
        >>> MFH(build_for(info, ["faint"]), teacher, info, channels=channels).channels.keep.tolist()
        [True, False]
    """

    keep: Tensor
    instead: Tensor | None

    def __init__(
        self,
        student: Student,
        teacher: nn.Module,
        info: DataInfo,
        *,
        channels: Channels | None = None,
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
        super().__init__(
            student,
            teacher,
            info,
            losses=losses,
            temperature=temperature,
            kd_weight=kd_weight,
            task_weight=task_weight,
            student_layer=student_layer,
            teacher_layer=teacher_layer,
            pixels=pixels,
            reduction=reduction,
            weighting=weighting,
        )
        self.channels, self.findings = channels, dict(findings or {})
        self.register_buffer("keep", None if channels is None else channels.keep)
        self.register_buffer("instead", None if channels is None else channels.values)

    @contextmanager
    def heard(self) -> Iterator[nn.Module]:
        """Within this block the teacher answers without the removed channels, as it does in training."""
        if self.channels is None:
            yield self.teacher
            return
        with masked(self.teacher, self.channels.place, self.keep, fill=self.channels.fill, values=self.instead):
            yield self.teacher

    def teach(self, batch: Batch) -> dict[str, Tensor]:
        """What the teacher says without the removed channels."""
        with self.heard():
            return super().teach(batch)

    @property
    def teach_online(self) -> str:
        """A mean over the batch changes from batch to batch."""
        if self.channels is not None and self.channels.fill == "batch_mean":
            return "removed channels of the teacher are filled with the mean of the batch"
        return ""

    def extra_state(self) -> dict[str, Any]:
        """What was found out about the channels."""
        return {"channels": self.findings} if self.findings else {}


def build(kit: Kit, settings: MFHSettings) -> MFH:
    """Joint training, saliency, the ratio if none is given, and then the student's method."""
    if settings.distance == "ncjsd" and (kit.info.task != "multiclass" or kit.info.classes < 3):
        raise InputError(
            f"The distance ncjsd is about wrong classes: three classes or more are needed, and this is {kit.info.task} "
            f"data with {kit.info.classes}. Choose mse or l1."
        )
    joint = fit_joint(kit, agreement="mse", stage=JOINT)
    teacher = joint.teacher if settings.joint else kit.teacher()
    networks = JOINT if settings.joint else "the ordinary teacher"
    found = rank_channels(
        kit,
        teacher,
        joint.student,
        settings.place,
        networks=networks,
        distance=settings.distance,
        permutations=settings.permutations,
    )
    return build_masked(kit, settings, teacher, found, networks=networks)


def build_masked(kit: Kit, settings: MFHSettings, teacher: nn.Module, found: Saliency, *, networks: str) -> MFH:
    """The student's method once the channels of a teacher are ranked, and before that the ratio if none is given.

    Args:
        kit: lends student, rows and training.
        settings: what is removed and how the student is taught; how channels were ranked does not matter here.
        teacher: a finished network.
        found: the ranking of its channels.
        networks: which they are, in a word: the means of the channels are kept under it.
    """
    values = channel_means(kit, teacher, settings.place, networks=networks) if settings.fill == "mean" else None

    def at(ratio: float, findings: Mapping[str, Any] | None = None) -> MFH:
        keep = _keep(found, settings, ratio, kit.seed)
        return MFH(
            kit.network(kit.student),
            copy.deepcopy(teacher),
            kit.info,
            channels=Channels(settings.place, keep, settings.fill, values),
            losses=settings.loss,
            temperature=settings.temperature,
            kd_weight=settings.kd_weight,
            task_weight=settings.task_weight if settings.labels else 0.0,
            student_layer=settings.student_layer,
            teacher_layer=settings.teacher_layer,
            pixels=settings.pixels,
            reduction=settings.reduction,
            weighting=settings.weighting,
            findings=findings,
        )

    curve = {} if settings.ratio != "auto" or settings.channels else _sweep(kit, at, settings.sweep_epochs)
    ratio = _best(curve, kit.info.select) if curve else float(settings.ratio if settings.ratio != "auto" else 0.0)
    findings = {
        "place": settings.place,
        "removed": settings.remove if not settings.channels else "all but a given list",
        "ratio": ratio,
        "saliency": found.value.tolist(),
        "note": found.note,
        "keep": _keep(found, settings, ratio, kit.seed).tolist(),
        "curve": [{"ratio": ratio, "metric": kit.info.select[0], "valid": value} for ratio, value in curve.items()],
    }
    return at(ratio, findings)


def stay(found: Saliency, ratio: float, remove: str, seed: int) -> Tensor:
    """Booleans (channels,): all but a share of the least salient, of the most salient, of any, or of the last ones."""
    return stay_of(found.value, ratio, remove, seed)


def stay_of(values: ArrayLike, ratio: float, remove: str, seed: int) -> Tensor:
    """The same, from a value per channel; for ``random`` and ``index`` it is no matter which.

    Example:
        >>> stay_of([0.1, 0.9], 0.5, "least", 0).tolist(), stay_of([0.0, 0.0], 0.5, "index", 0).tolist()
        ([False, True], [True, False])
    """
    order = {"least": "most", "most": "least", "random": "random", "index": "first"}[remove]
    return torch.from_numpy(keep_mask(values, ratio=ratio, order=order, seed=seed))  # type: ignore[arg-type]


def _keep(found: Saliency, settings: MFHSettings, ratio: float, seed: int) -> Tensor:
    """Which channels stay: the listed ones, or all but a share."""
    count = len(found.value)
    if not settings.channels:
        return stay(found, ratio, settings.remove, seed)
    if outside := [channel for channel in settings.channels if not 0 <= channel < count]:
        raise InputError(
            f"Channels {', '.join(map(str, outside))} were asked for, and '{settings.place}' has the channels 0 to "
            f"{count - 1}. Name some of these."
        )
    keep = torch.zeros(count, dtype=torch.bool)
    keep[list(settings.channels)] = True
    return keep


def _sweep(kit: Kit, at: Callable[[float], MFH], epochs: int) -> dict[float, float]:
    """Ratio → validation score of a student after a short training."""
    curve = {}
    for ratio in RATIOS:
        method = kit.fit(at(ratio), stage=f"mfh ratio {ratio:g}", epochs=epochs)
        (scores,) = kit.validate(method).values()
        curve[ratio] = scores[kit.info.select[0]]
    return curve


def _best(curve: Mapping[float, float], select: tuple[str, str]) -> float:
    """The ratio with the best score; of equal ones the smallest, which removes least."""
    sign = 1.0 if select[1] == "max" else -1.0
    return max(curve, key=lambda ratio: (sign * curve[ratio], -ratio))
