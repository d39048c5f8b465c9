r"""Modality-general distillation: the teacher's outputs are computed without the channels that only it can use.

A teacher of another modality partly relies on what the student can never observe. Algorithm 1 identifies the channels
for this: train both networks to agree, permute one channel at a time among the samples, and measure how much the
agreement suffers. The channels with the largest effect are modality-general; the others are removed from the teacher.
Training needs paired samples of both sides; deployment needs the student's modalities alone.

$$L = w_{task} \, L_{task}(s, y) + w_{kd} \, D(s, \tilde t), \qquad \tilde t = tail(keep \cdot \varphi + (1 - keep)
\cdot fill)$$

| symbol | argument | meaning |
|---|---|---|
| s, t̃ | ``student``, ``teacher`` | outputs of the student and of the teacher without the removed channels |
| φ | ``layer`` | activations (rows, channels, …) of a module of the teacher |
| keep | ``keep`` | (channels,), True where a channel stays |

Reference: Xue, Gao, Ren, Zhao: The Modality Focusing Hypothesis: Towards Understanding Crossmodal Knowledge
Distillation, ICLR 2023, arXiv 2206.06487, Algorithm 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
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
from xmodal.methods.options import DEFAULTS, DistillationOptions
from xmodal.methods.ranking import UNRANKED, channel_means, name_of_ranking, rank_channels
from xmodal.methods.settings import MFHSettings
from xmodal.models.masking import masked
from xmodal.types import Batch, DataInfo, Student

RATIOS = (0.0, 0.25, 0.5, 0.75, 0.9)  # that `--ratio auto` tries
JOINT = "mfh joint training"  # the stage
ORDINARY = "the ordinary teacher"  # trained alone, or given


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """The channels of a teacher that stay.

    Attributes:
        layer: name of the module whose channels these are.
        keep: boolean (channels,); the others are removed.
        fill: value in place of a removed channel: ``mean`` (``values``), ``batch_mean`` or ``zero``.
        values: (channels, …), such as `layer_means` of the training split.
    """

    layer: str
    keep: Tensor
    fill: str = "zero"
    values: Tensor | None = None


class MFH(KD):
    """Distillation from a teacher some of whose channels are removed.

    Args:
        student: the network to deploy.
        teacher: a finished network; frozen here.
        info: of the data.
        options: losses, weights and layers, as in `KD`.
        channels: the channels that stay, their layer, and the value in place of the others; None: all stay.
        findings: JSON about the channels for the run's report.

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
        options: DistillationOptions = DEFAULTS,
        *,
        channels: Channels | None = None,
        findings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(student, teacher, info, options)
        self.channels, self.findings = channels, dict(findings or {})
        # buffers, so that the mask moves to the device with the method and is saved in checkpoints
        self.register_buffer("keep", None if channels is None else channels.keep)
        self.register_buffer("instead", None if channels is None else channels.values)

    @contextmanager
    def heard(self) -> Iterator[nn.Module]:
        """Within this block the teacher computes without the removed channels, as it does in training."""
        if self.channels is None:
            yield self.teacher
            return
        with masked(self.teacher, self.channels.layer, self.keep, fill=self.channels.fill, values=self.instead):
            yield self.teacher

    def teach(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs of the teacher without the removed channels."""
        with self.heard():
            return super().teach(batch)

    @property
    def teach_online(self) -> str:
        """A mean over the batch differs from batch to batch, so the outputs of a sample do."""
        if self.channels is not None and self.channels.fill == "batch_mean":
            return "removed channels of the teacher are filled with the mean of the batch"
        return ""

    def report(self) -> dict[str, Any]:
        """The ranking of the channels, those that stay, and the scores of the ratios that were tried."""
        return {"channels": self.findings} if self.findings else {}


def build(kit: Kit, settings: MFHSettings) -> MFH:
    """Joint training, saliency, the ratio if none is given, and then the student's method."""
    if settings.distance == "ncjsd" and (kit.info.task != "multiclass" or kit.info.classes < 3):
        raise InputError(
            f"The distance ncjsd is about wrong classes: three classes or more are needed, and this is {kit.info.task} "
            f"data with {kit.info.classes}. Choose mse or l1."
        )
    if settings.joint:
        joint = fit_joint(kit, agreement="mse", stage=JOINT)
        saliency = _ranked(kit, settings, joint.teacher, joint.student, networks=JOINT)
        return build_masked(kit, settings, joint.teacher, saliency, networks=JOINT)
    teacher = kit.teacher()
    name = name_of_ranking(
        ORDINARY,
        settings.layer,
        distance=settings.distance,
        disturb="permute",
        permutations=settings.permutations,
    )

    def ranked() -> Saliency:
        student = fit_joint(kit, agreement="mse", stage=JOINT).student
        return _ranked(kit, settings, teacher, student, networks=ORDINARY)

    # the student that the teacher is compared with would be trained for nothing if the ranking is there already
    return build_masked(kit, settings, teacher, kit.once(name, ranked), networks=ORDINARY)


def _ranked(kit: Kit, settings: MFHSettings, teacher: nn.Module, student: nn.Module, *, networks: str) -> Saliency:
    """Algorithm 1 with the settings of the method."""
    return rank_channels(
        kit,
        teacher,
        student,
        settings.layer,
        networks=networks,
        distance=settings.distance,
        permutations=settings.permutations,
    )


def build_masked(kit: Kit, settings: MFHSettings, teacher: nn.Module, saliency: Saliency, *, networks: str) -> MFH:
    """The student's method once the channels of a teacher are ranked; the ratio is searched first if none is given.

    Args:
        kit: builds the student and trains.
        settings: of the removal and of the student's losses; those of the ranking are not used.
        teacher: a finished network.
        saliency: of its channels.
        networks: name of the trained networks, under which the means of the channels are kept.
    """
    values = channel_means(kit, teacher, settings.layer, networks=networks) if settings.fill == "mean" else None

    def at(ratio: float, findings: Mapping[str, Any] | None = None) -> MFH:
        keep = _keep(saliency, settings, ratio, kit.seed)
        return MFH(
            kit.network(kit.student),
            # one teacher serves all ratios of the sweep; a method freezes a copy of its own
            copy.deepcopy(teacher),
            kit.info,
            settings.options(),
            channels=Channels(settings.layer, keep, settings.fill, values),
            findings=findings,
        )

    curve = {} if settings.ratio != "auto" or settings.channels else _sweep(kit, at, settings.sweep_epochs)
    ratio = _best(curve, kit.info.select) if curve else float(settings.ratio if settings.ratio != "auto" else 0.0)
    findings = {
        # "place" is an earlier name of the layer; reports read it in the results of every version
        "place": settings.layer,
        "removed": settings.remove if not settings.channels else "all but a given list",
        "ratio": ratio,
        "saliency": [] if saliency.form == UNRANKED else saliency.value.tolist(),
        "note": saliency.note,
        "keep": _keep(saliency, settings, ratio, kit.seed).tolist(),
        "curve": [{"ratio": ratio, "metric": kit.info.select[0], "valid": value} for ratio, value in curve.items()],
    }
    return at(ratio, findings)


def stay(saliency: Saliency, ratio: float, remove: str, seed: int) -> Tensor:
    """Booleans (channels,), False for the share of channels to remove: see `stay_of`."""
    return stay_of(saliency.value, ratio, remove, seed)


def stay_of(values: ArrayLike, ratio: float, remove: str, seed: int) -> Tensor:
    """Booleans (channels,): False for the ``least`` or ``most`` salient, ``random`` or last (``index``) channels.

    Args:
        values: saliency of each channel; ``random`` and ``index`` use only its length.
        ratio: share of the channels to remove.
        remove: which ones.
        seed: of ``random``.

    Example:
        >>> stay_of([0.1, 0.9], 0.5, "least", 0).tolist(), stay_of([0.0, 0.0], 0.5, "index", 0).tolist()
        ([False, True], [True, False])
    """
    # `keep_mask` is named after the channels that stay, the option after those that go
    order = {"least": "most", "most": "least", "random": "random", "index": "first"}[remove]
    return torch.from_numpy(keep_mask(values, ratio=ratio, order=order, seed=seed))  # type: ignore[arg-type]


def _keep(saliency: Saliency, settings: MFHSettings, ratio: float, seed: int) -> Tensor:
    """The channels that stay: the listed ones, or all but a share."""
    count = len(saliency.value)
    if not settings.channels:
        return stay(saliency, ratio, settings.remove, seed)
    if outside := [channel for channel in settings.channels if not 0 <= channel < count]:
        raise InputError(
            f"The option channels names {', '.join(map(str, outside))}, and '{settings.layer}' has the channels 0 to "
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
    """The ratio with the best score; of equal scores the smallest ratio, which removes least."""
    sign = 1.0 if select[1] == "max" else -1.0
    return max(curve, key=lambda ratio: (sign * curve[ratio], -ratio))
