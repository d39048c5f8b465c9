r"""PMF: a camera and a LiDAR stream classify every pixel, and each learns from the more confident one.

A network of two streams reads a scene twice in the camera's plane. The LiDAR stream fuses the feature maps of the
camera stream, both predict, and where one is more confident about a pixel than the other it guides the other there.

$$L = L_{labels}(p) + L_{labels}(p^{camera}) + \gamma \, L_{per}(p, p^{camera}), \qquad
L_{labels} = L_{foc} + \lambda L_{lov}$$

| symbol | argument | meaning |
|---|---|---|
| p, p^camera | ``network`` | probabilities of the two streams (rows, classes, height, width) |
| L_labels | ``info`` | the data's losses of labels; focal and Lovász loss with λ = 1 where it names none |
| L_per | ``threshold`` τ, ``detach`` | `perception_aware`, a mean over all pixels and classes |
| γ | ``perception_weight`` | weight of L_per |

Samples must be paired and targets dense; rows that lack one of the two are left out. Deployed are the LiDAR stream,
which needs both modalities, and the camera stream, which needs its own alone. Reference: Zhuang et al.:
Perception-Aware Multi-Sensor Fusion for 3D LiDAR Semantic Segmentation, ICCV 2021, arXiv 2106.15277, equations 4 to 10;
after the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from xmodal.errors import InputError
from xmodal.losses.reduce import at_least_float32
from xmodal.losses.segmentation import normalised_entropy, perception_aware
from xmodal.losses.task import label_terms
from xmodal.method import Kit, Method, trainable
from xmodal.methods.settings import PMFSettings
from xmodal.models.network import Network, checked
from xmodal.models.pixels.camera_net import load_imagenet
from xmodal.models.pixels.pmf_net import PMFNet, build_pmf
from xmodal.types import Batch, DataInfo, Step, Student

PUBLISHED = {"focal": 1.0, "lovasz": 1.0}  # losses of labels for data that names none
# the optimiser of each stream, as published; the learning rate is that of the run
HYBRID: dict[str, dict[str, Any]] = {
    "lidar": {"optimizer": "adamw"},
    "camera": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
}


class PMF(Method):
    """Two streams trained together.

    Args:
        student: around a `PMFNet`, from `build_pmf`.
        info: of the data.
        perception_weight: γ; 0 leaves the term out.
        threshold: τ, confidence from which a stream guides the other.
        detach: whether no gradient flows through the guiding stream; False as published.
        hybrid: AdamW for the LiDAR stream and SGD for the camera's, as published; False: the optimiser of the run.
        lidar_weight_decay: of AdamW.
        camera_weight_decay: of SGD.

    Example:
        >>> from xmodal.types import InputInfo
        >>> inputs = {"image": InputInfo((3, 16, 32), layout="image"), "lidar": InputInfo((5, 16, 32), layout="image")}
        >>> info = DataInfo(inputs, "multiclass", 4, {}, dense=True, ignore=0)
        >>> method = PMF(build_pmf(info, backbone="camera_resnet10", width=2, channels=16), info)
        >>> [group["optimizer"] for group in method.param_groups()], sorted(method.students())
        (['adamw', 'sgd'], ['image', 'lidar+image'])
    """

    def __init__(
        self,
        student: Student,
        info: DataInfo,
        *,
        perception_weight: float = 0.5,
        threshold: float = 0.7,
        detach: bool = True,
        hybrid: bool = True,
        lidar_weight_decay: float = 0.01,
        camera_weight_decay: float = 1e-5,
    ) -> None:
        super().__init__()
        if not isinstance(student.module, PMFNet):
            raise InputError("PMF is built around the network of two streams: build the student by build_pmf.")
        if not info.dense or info.task != "multiclass":
            raise InputError(
                "PMF predicts a class for every pixel, and this data has other targets. Choose another method."
            )
        self.network = student.module
        self.perception_weight, self.threshold, self.detach = perception_weight, threshold, detach
        self.uses_unlabelled = perception_weight > 0
        self.hybrid = hybrid
        self.weight_decay = {"lidar": lidar_weight_decay, "camera": camera_weight_decay}
        self._info = replace(info, label_losses=info.label_losses or PUBLISHED)
        self._students = {"+".join(student.needs): student, student.needs[1]: camera_student(student, info)}
        # the network that the paper scores; the camera stream alone must not stop its training
        self.lead = next(iter(self._students))

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """L = L_labels(p) + L_labels(q) + γ L_per(p, q), with q of the camera stream."""
        lidar, camera = self.network.names
        outputs = self.network.streams({name: batch.input(name) for name in (lidar, camera)})
        target, valid, labelled = batch.target, batch.valid.get(lidar), batch.labelled.get(lidar)
        step = Step({})
        for stream, logits in (("", outputs.lidar), ("camera ", outputs.camera)):
            terms = label_terms(logits, target, self._info, valid=valid, labelled=labelled, gather=self.gather)
            for name, (loss, count) in terms.items():
                step.losses[stream + name], step.counts[stream + name] = loss, count
        p, q = (at_least_float32(logits).softmax(dim=1) for logits in outputs)
        if self.perception_weight:
            distance = perception_aware(p, q, threshold=self.threshold, detach=self.detach, softmax=False)
            step.losses["perception"] = self.perception_weight * distance
        with torch.no_grad():
            step.logs = {f"entropy {name}": normalised_entropy(each).mean() for name, each in ((lidar, p), (camera, q))}
        return step

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of both streams from one pass, where both modalities are present."""
        lidar, camera = self.network.names
        # the inherited `predict` would run the camera stream twice: alone, and inside the LiDAR stream
        if lidar in inputs and camera in inputs:
            return dict(zip(self._students, self.network.streams(inputs), strict=True))
        return super().predict(inputs)

    def param_groups(self) -> list[dict[str, Any]]:
        """The two streams, each with its published optimiser, or all parameters in one group."""
        if not self.hybrid:
            return [{"params": trainable([self])}]
        streams = {"lidar": self.network.lidar_parameters(), "camera": self.network.camera_parameters()}
        return [
            {"params": parameters, "weight_decay": self.weight_decay[name], **HYBRID[name]}
            for name, parameters in streams.items()
        ]

    def reads(self) -> tuple[str, ...]:
        """The pictures of both streams."""
        return tuple(self.network.names)

    def students(self) -> dict[str, Student]:
        """The LiDAR stream, named after both modalities, and the camera stream, named after its own."""
        return dict(self._students)


def camera_student(student: Student, info: DataInfo) -> Student:
    """The camera stream of a `PMFNet` as a separate student, which shares the stream's modules."""
    network = student.module
    assert isinstance(network, PMFNet)
    name = network.names[1]
    alone = Network({name: network.camera}, network.camera_head, dense=True)
    statistics = {key: value for key, value in student.normalisation.items() if key == name}
    if student.arguments is None:
        return Student(alone, (name,), name, None, None, statistics)
    # described as an ordinary network, so that its file can be loaded without the LiDAR stream
    encoder = {key: value for key, value in student.arguments["camera"].items() if key != "name"}
    arguments = {"inputs": {name: encoder}, "outputs": info.outputs, "fusion": "sum", "dense": True}
    return Student(alone, (name,), name, "network", arguments, statistics)


def build(kit: Kit, settings: PMFSettings) -> PMF:
    """A fresh network for LiDAR and camera pictures; by default the student's modality is the LiDAR's."""
    lidar = settings.lidar or kit.student[0]
    others = [name for name in (*kit.teaching, *kit.student) if name != lidar]
    if not settings.camera and not others:
        raise InputError(
            f"PMF reads two modalities, and only '{lidar}' is named on both sides. Name the camera's with --pmf.camera."
        )
    camera = settings.camera or others[0]
    student = build_pmf(
        kit.info,
        lidar=lidar,
        camera=camera,
        backbone=settings.backbone,
        width=settings.width,
        channels=settings.channels,
    )
    if settings.imagenet is not None:
        load_imagenet(student.module, settings.imagenet)
    checked(student, kit.info)
    return PMF(
        student,
        kit.info,
        perception_weight=settings.perception_weight,
        threshold=settings.threshold,
        detach=settings.detach,
        hybrid=settings.hybrid,
        lidar_weight_decay=settings.lidar_weight_decay,
        camera_weight_decay=settings.camera_weight_decay,
    )
