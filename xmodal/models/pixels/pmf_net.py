"""PMFNet: a LiDAR stream that takes in what the camera stream sees, and both answer for every pixel.

`SalsaNext` reads the LiDAR picture, `CameraNet` the camera's. The pooled maps of the LiDAR's first four stages pass a
fusion with the camera's maps of the same resolution; what goes up beside them does not. Behind the deepest stage stands
a pyramid of dilated convolutions.

| part | parameters at width 32, ResNet-34 |
|---|---|
| fusions at 1/2, 1/4, 1/8, 1/16 | 148 032, 590 976, 2 361 600, 2 951 424 |
| pyramid | 2 229 760 |
| LiDAR stream with them and its head | 14 993 364 |
| all | 36 416 040 (ResNet-50: 46 533 672, 101: 65 525 800, 152: 81 169 448) |

Reference: Zhuang et al.: Perception-Aware Multi-Sensor Fusion for 3D LiDAR Semantic Segmentation, ICCV 2021, arXiv
2106.15277, figure 3; read from the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xmodal.errors import InputError, did_you_mean
from xmodal.models.network import build_encoder, numbers_of, pick_input, statistics_for
from xmodal.models.pixels.camera_net import CameraNet, stage_widths
from xmodal.models.pixels.salsanext import SalsaNext, build_salsanext, layer
from xmodal.types import DataInfo, Student

CAMERAS = ("camera_resnet10", "camera_resnet34", "camera_resnet50", "camera_resnet101", "camera_resnet152")


class Streams(NamedTuple):
    """What the two streams answer, each (batch, classes, H, W), before softmax."""

    lidar: Tensor
    camera: Tensor


class Fusion(nn.Module):
    """Lets maps of one modality take in those of another, as far as a gate finds them of use.

    Args:
        mine: channels of the maps that go on.
        others: channels of the maps that are taken in.
    """

    def __init__(self, mine: int, others: int) -> None:
        super().__init__()
        self.join = layer(mine + others, mine, 3)
        self.gate = nn.Sequential(
            nn.Conv2d(mine, mine, 3, padding=1),
            nn.BatchNorm2d(mine),
            nn.ReLU(),
            nn.Conv2d(mine, mine, 3, padding=1),
            nn.BatchNorm2d(mine),
            nn.Sigmoid(),
        )

    def forward(self, mine: Tensor, others: Tensor) -> Tensor:
        """(batch, mine, H, W) and (batch, others, H, W) → (batch, mine, H, W)."""
        joined = self.join(torch.cat([mine, others], dim=1))
        out: Tensor = joined * self.gate(joined) + mine
        return out


class Pyramid(nn.Module):
    """Each place as seen from itself, from three distances and from everywhere (ASPP), joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.place = nn.Conv2d(channels, channels, 1)
        self.rings = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=distance, dilation=distance) for distance in (6, 12, 18)
        )
        self.everywhere = nn.Conv2d(channels, channels, 1)
        self.join = nn.Conv2d(5 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, H, W) → the same."""
        # the mean over all places has one value per map, which any interpolation repeats
        everywhere = self.everywhere(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        out: Tensor = self.join(torch.cat([everywhere, self.place(x), *(ring(x) for ring in self.rings)], dim=1))
        return out


class PMFNet(nn.Module):
    """Both streams; as a student it answers with the LiDAR's.

    Args:
        lidar: reads the modality ``names[0]``.
        camera: reads the modality ``names[1]``.
        outputs: classes.
        names: of the two modalities.
    """

    def __init__(self, lidar: SalsaNext, camera: CameraNet, outputs: int, *, names: Sequence[str]) -> None:
        super().__init__()
        self.names = (names[0], names[1])
        self.lidar, self.camera = lidar, camera
        deep = [2 * lidar.width, 4 * lidar.width, 8 * lidar.width, 8 * lidar.width]
        self.fusions = nn.ModuleList(map(Fusion, deep, stage_widths(camera.encoder)))
        self.pyramid = Pyramid(deep[-1])
        self.head = nn.Conv2d(lidar.width, outputs, lidar.reach)
        self.camera_head = nn.Conv2d(camera.width, outputs, camera.reach, padding=camera.reach // 2)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality → (batch, channels, H, W) in, the LiDAR stream's answers (batch, classes, H, W) out."""
        return self._lidar(inputs, self.camera.encoder.stages(pick_input(inputs, self.names[1])))

    def streams(self, inputs: Mapping[str, Tensor]) -> Streams:
        """The answers of both, for training."""
        stages = self.camera.encoder.stages(pick_input(inputs, self.names[1]))
        return Streams(self._lidar(inputs, stages), self.camera_head(self.camera.decode(stages)))

    def _lidar(self, inputs: Mapping[str, Tensor], stages: Sequence[Tensor]) -> Tensor:
        deepest, beside = self.lidar.descend(
            pick_input(inputs, self.names[0]), lambda number, maps: self.fusions[number](maps, stages[number])
        )
        answers: Tensor = self.head(self.lidar.ascend(self.pyramid(deepest), beside))
        return answers

    def lidar_parameters(self) -> list[nn.Parameter]:
        """What the LiDAR stream's optimiser moves."""
        return [p for part in (self.lidar, self.fusions, self.pyramid, self.head) for p in part.parameters()]

    def camera_parameters(self) -> list[nn.Parameter]:
        """What the camera stream's optimiser moves."""
        return [p for part in (self.camera, self.camera_head) for p in part.parameters()]


def build_pmf_net(*, lidar: Mapping[str, Any], camera: Mapping[str, Any], outputs: int) -> PMFNet:
    """Build a `PMFNet` from JSON values.

    Args:
        lidar: ``{"name": modality, "shape": [...]}`` and numbers of `build_salsanext`.
        camera: the same with ``"encoder"``, one of `CAMERAS`, and numbers of its builder.
        outputs: classes.

    Example:
        >>> camera = {"name": "image", "encoder": "camera_resnet10", "shape": [3, 32, 32]}
        >>> network = build_pmf_net(lidar={"name": "lidar", "shape": [5, 32, 32], "width": 4}, camera=camera, outputs=3)
        >>> [fusion.gate[0].out_channels for fusion in network.fusions]
        [8, 16, 32, 32]
    """
    asked = str(camera.get("encoder"))
    if asked not in CAMERAS:
        raise InputError(f"There is no camera network called '{asked}'. {did_you_mean(asked, CAMERAS)}")
    mine, theirs = (dict(side) for side in (lidar, camera))
    names = [str(side.pop("name", "")) for side in (mine, theirs)]
    if mine["shape"][1:] != theirs["shape"][1:]:
        raise InputError(
            f"'{names[0]}' has samples of shape {tuple(mine['shape'])} and '{names[1]}' of {tuple(theirs['shape'])}: "
            "the same height and width were expected, since pixel answers to pixel."
        )
    seeing = build_encoder(names[1], theirs)
    assert isinstance(seeing, CameraNet)
    return PMFNet(build_salsanext(**mine), seeing, outputs, names=names)


def build_pmf(
    info: DataInfo,
    *,
    lidar: str = "lidar",
    camera: str = "image",
    backbone: str = "camera_resnet34",
    width: int = 32,
    channels: int | None = None,
) -> Student:
    """The published network as a student, which its file can rebuild.

    Args:
        info: of the data.
        lidar: modality of the LiDAR pictures.
        camera: modality of the camera's.
        backbone: one of `CAMERAS`.
        width: channels of the LiDAR stream at full resolution.
        channels: of the ResNet's last stage; None leaves it its own.
    """
    needs = info.require((lidar, camera), "network")
    shapes = [list(info.inputs[name].shape) for name in needs]
    sees = numbers_of(camera, backbone, {} if channels is None else {"channels": channels})
    arguments: dict[str, Any] = {
        "lidar": {"name": lidar, "shape": shapes[0], **numbers_of(lidar, "salsanext", {"width": width})},
        "camera": {"name": camera, "encoder": backbone, "shape": shapes[1], **sees},
        "outputs": info.outputs,
    }
    return Student(build_pmf_net(**arguments), needs, lidar, "pmf", arguments, statistics_for(info, needs))
