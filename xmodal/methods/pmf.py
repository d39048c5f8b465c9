r"""PMF: camera and LiDAR answer for every pixel, the LiDAR with the camera's maps, and each learns from the surer one.

A network of two streams sees a scene twice in the camera's plane. The LiDAR stream takes in what the camera stream
sees, both answer, and where one is surer than the other of a pixel it guides the other there.

$$L = L_{labels}(p) + L_{labels}(p^{camera}) + \gamma \, L_{per}(p, p^{camera}), \qquad
L_{labels} = L_{foc} + \lambda L_{lov}$$

| symbol | argument | meaning |
|---|---|---|
| p, p^camera | ``network`` | answers of the two streams (rows, classes, height, width) |
| L_labels | ``info`` | what the labels of the data ask for; where it names nothing, focal and Lovász loss, λ = 1 |
| L_per | ``threshold`` τ, ``detach`` | `perception_aware`, a mean over all pixels and classes |
| γ | ``perception_weight`` | weight of L_per |

Samples must be paired and targets dense. Deployed are the LiDAR stream, which needs both modalities, and the camera
stream, which needs its own alone. Reference: Zhuang et al.: Perception-Aware Multi-Sensor Fusion for 3D LiDAR Semantic
Segmentation, ICCV 2021, arXiv 2106.15277, equations 4 to 10; read from the authors' code.
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
from xmodal.seeding import mix
from xmodal.types import Batch, DataInfo, Step, Student

PUBLISHED = {"focal": 1.0, "lovasz": 1.0}  # losses of labels of data that names none
HYBRID: dict[str, dict[str, Any]] = {  # the optimiser of each stream, as published; the rate is that of the run
    "lidar": {"optimizer": "adamw"},
    "camera": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
}


class PMF(Method):
    """Two streams trained together.

    Args:
        student: around a `PMFNet`, as `build_pmf` makes it.
        info: of the data.
        perception_weight: γ; 0 leaves the term out.
        threshold: τ, how sure a stream must be to guide.
        detach: whether the stream that guides is a constant; False as published.
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
            raise InputError("PMF is built around the network of two streams: make the student by build_pmf.")
        if not info.dense or info.task != "multiclass":
            raise InputError("PMF answers with a class for every pixel, and this data has other targets.")
        self.network = student.module
        self.perception_weight, self.threshold, self.detach = perception_weight, threshold, detach
        self.hybrid = hybrid
        self.weight_decay = {"lidar": lidar_weight_decay, "camera": camera_weight_decay}
        self._info = replace(info, label_losses=info.label_losses or PUBLISHED)
        self._students = {"+".join(student.needs): student, student.needs[1]: camera_student(student, info)}
        self.lead = next(iter(self._students))

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        """The labels' terms of both streams, and what they learn from one another."""
        lidar, camera = self.network.names
        said = self.network.streams({name: batch.input(name) for name in (lidar, camera)})
        target, valid = batch.target, batch.valid.get(lidar)
        step = Step({})
        for stream, answers in (("", said.lidar), ("camera ", said.camera)):
            terms = label_terms(answers, target, self._info, valid=valid, gather=self.gather)
            for name, (loss, count) in terms.items():
                step.losses[stream + name], step.counts[stream + name] = loss, count
        p, q = (at_least_float32(answers).softmax(dim=1) for answers in said)
        if self.perception_weight:
            both = perception_aware(p, q, threshold=self.threshold, detach=self.detach, softmax=False)
            step.losses["perception"] = self.perception_weight * both
        with torch.no_grad():
            step.logs = {f"entropy {name}": normalised_entropy(each).mean() for name, each in ((lidar, p), (camera, q))}
        return step

    def predict(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Answers of both streams from one pass, where both modalities are there."""
        lidar, camera = self.network.names
        if lidar in inputs and camera in inputs:
            return dict(zip(self._students, self.network.streams(inputs), strict=True))
        return super().predict(inputs)

    def param_groups(self) -> list[dict[str, Any]]:
        """The two streams, each with its published optimiser, or all in one group."""
        if not self.hybrid:
            return [{"params": trainable([self])}]
        streams = {"lidar": self.network.lidar_parameters(), "camera": self.network.camera_parameters()}
        return [
            {"params": parameters, "weight_decay": self.weight_decay[name], **HYBRID[name]}
            for name, parameters in streams.items()
        ]

    def students(self) -> dict[str, Student]:
        """The LiDAR stream, named after both modalities, and the camera stream, named after its own."""
        return dict(self._students)


def camera_student(student: Student, info: DataInfo) -> Student:
    """The camera stream of a `PMFNet` as a student of its own, which shares the stream's modules."""
    network, asked = student.module, dict((student.arguments or {}).get("camera", {}))
    assert isinstance(network, PMFNet)
    name = network.names[1]
    alone = Network({name: network.camera}, network.camera_head, dense=True)
    described = {key: value for key, value in asked.items() if key != "name"}
    arguments: dict[str, Any] = {
        "inputs": {name: described},
        "outputs": info.outputs,
        "fusion": "sum",
        "dense": True,
    }
    statistics = {key: known for key, known in student.normalisation.items() if key == name}
    known = student.arguments is not None
    return Student(alone, (name,), name, "network" if known else None, arguments if known else None, statistics)


def build(kit: Kit, settings: PMFSettings) -> PMF:
    """A fresh network for the LiDAR pictures that are deployed and the camera pictures that teach."""
    lidar = settings.lidar or kit.student[0]
    others = [name for name in (*kit.teaching, *kit.student) if name != lidar]
    if not settings.camera and not others:
        raise InputError(
            f"PMF reads two modalities, and only '{lidar}' is named on both sides. Name the camera's with --pmf.camera."
        )
    camera = settings.camera or others[0]
    with torch.random.fork_rng(devices=[]):  # fresh weights that depend on the seed alone
        torch.manual_seed(mix(kit.seed, "pmf"))
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
