"""PMFNet: a LiDAR stream that reads the maps of a camera stream; both predict a class for every pixel.

`SalsaNext` reads the LiDAR picture, `CameraNet` the camera picture. The pooled maps of the first four LiDAR stages are
fused with the camera's maps of the same resolution; the maps of the skip connections are not. A pyramid of dilated
convolutions follows the deepest stage.

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
    """The logits of the two streams, each (batch, classes, H, W)."""

    lidar: Tensor
    camera: Tensor


class Fusion(nn.Module):
    """Adds a joint representation of two modalities to the maps of the first one, weighted by a gate.

    Args:
        lidar: channels of the first modality, in and out.
        camera: channels of the second modality.
    """

    def __init__(self, lidar: int, camera: int) -> None:
        super().__init__()
        self.join = layer(lidar + camera, lidar, 3)
        # Here BatchNorm precedes the activation, unlike in the rest of SalsaNext, as in the authors' code.
        self.gate = nn.Sequential(
            nn.Conv2d(lidar, lidar, 3, padding=1),
            nn.BatchNorm2d(lidar),
            nn.ReLU(),
            nn.Conv2d(lidar, lidar, 3, padding=1),
            nn.BatchNorm2d(lidar),
            nn.Sigmoid(),
        )

    def forward(self, lidar: Tensor, camera: Tensor) -> Tensor:
        """(batch, lidar, H, W) and (batch, camera, H, W) → (batch, lidar, H, W)."""
        joined = self.join(torch.cat([lidar, camera], dim=1))
        out: Tensor = joined * self.gate(joined) + lidar
        return out


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling (ASPP): 1 × 1, three dilated convolutions and the global mean, then 1 × 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.place = nn.Conv2d(channels, channels, 1)
        self.rings = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation) for dilation in (6, 12, 18)
        )
        self.everywhere = nn.Conv2d(channels, channels, 1)
        self.join = nn.Conv2d(5 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, H, W) → the same."""
        # The authors interpolate the mean to the size of the maps. It has one value per map, which this only repeats.
        everywhere = self.everywhere(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        out: Tensor = self.join(torch.cat([everywhere, self.place(x), *(ring(x) for ring in self.rings)], dim=1))
        return out


class PMFNet(nn.Module):
    """Both streams; as a student it returns the logits of the LiDAR stream.

    Args:
        lidar: reads the modality ``names[0]``.
        camera: reads the modality ``names[1]``.
        outputs: number of classes.
        names: names of the two modalities.
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
        """Modality → (batch, channels, H, W) in, the logits of the LiDAR stream (batch, classes, H, W) out."""
        # The decoder of the camera is not run: it has no influence on these logits.
        return self._lidar(inputs, self.camera.encoder.stages(pick_input(inputs, self.names[1])))

    def streams(self, inputs: Mapping[str, Tensor]) -> Streams:
        """The logits of both streams, for training."""
        stages = self.camera.encoder.stages(pick_input(inputs, self.names[1]))
        return Streams(self._lidar(inputs, stages), self.camera_head(self.camera.decode(stages)))

    def _lidar(self, inputs: Mapping[str, Tensor], stages: Sequence[Tensor]) -> Tensor:
        deepest, skips = self.lidar.descend(
            pick_input(inputs, self.names[0]), lambda number, maps: self.fusions[number](maps, stages[number])
        )
        logits: Tensor = self.head(self.lidar.ascend(self.pyramid(deepest), skips))
        return logits

    def lidar_parameters(self) -> list[nn.Parameter]:
        """The parameters of the LiDAR stream's optimiser."""
        return [p for part in (self.lidar, self.fusions, self.pyramid, self.head) for p in part.parameters()]

    def camera_parameters(self) -> list[nn.Parameter]:
        """The parameters of the camera stream's optimiser."""
        return [p for part in (self.camera, self.camera_head) for p in part.parameters()]


def build_pmf_net(*, lidar: Mapping[str, Any], camera: Mapping[str, Any], outputs: int) -> PMFNet:
    """Build a `PMFNet` from JSON values.

    Args:
        lidar: ``{"name": modality, "shape": [...]}`` and options of `build_salsanext`.
        camera: the same with ``"encoder"``, one of `CAMERAS`, and options of its builder.
        outputs: number of classes.

    Example:
        >>> camera = {"name": "image", "encoder": "camera_resnet10", "shape": [3, 32, 32]}
        >>> network = build_pmf_net(lidar={"name": "lidar", "shape": [5, 32, 32], "width": 4}, camera=camera, outputs=3)
        >>> [fusion.gate[0].out_channels for fusion in network.fusions]
        [8, 16, 32, 32]
    """
    encoder = str(camera.get("encoder"))
    if encoder not in CAMERAS:
        raise InputError(f"There is no camera network called '{encoder}'. {did_you_mean(encoder, CAMERAS)}")
    lidar_options, camera_options = dict(lidar), dict(camera)
    names = [str(options.pop("name", "")) for options in (lidar_options, camera_options)]
    shapes = [tuple(options["shape"]) for options in (lidar_options, camera_options)]
    if shapes[0][1:] != shapes[1][1:]:
        raise InputError(
            f"'{names[0]}' has samples of shape {shapes[0]} and '{names[1]}' of {shapes[1]}: the same height and width "
            "were expected, since the pixels of both belong together."
        )
    # The camera network first, then the LiDAR network: the order of the random draws.
    camera_network = build_encoder(names[1], camera_options)
    assert isinstance(camera_network, CameraNet)
    return PMFNet(build_salsanext(**lidar_options), camera_network, outputs, names=names)


def build_pmf(
    info: DataInfo,
    *,
    lidar: str = "lidar",
    camera: str = "image",
    backbone: str = "camera_resnet34",
    width: int = 32,
    channels: int | None = None,
) -> Student:
    """The published network as a student that can be rebuilt from its file.

    Args:
        info: description of the data.
        lidar: modality of the LiDAR pictures.
        camera: modality of the camera pictures.
        backbone: one of `CAMERAS`.
        width: channels of the LiDAR stream at full resolution.
        channels: of the ResNet's last stage; None: the default of the backbone.
    """
    needs = info.require((lidar, camera), "network")
    shapes = [list(info.inputs[name].shape) for name in needs]
    options = numbers_of(camera, backbone, {} if channels is None else {"channels": channels})
    arguments: dict[str, Any] = {
        "lidar": {"name": lidar, "shape": shapes[0], **numbers_of(lidar, "salsanext", {"width": width})},
        "camera": {"name": camera, "encoder": backbone, "shape": shapes[1], **options},
        "outputs": info.outputs,
    }
    return Student(build_pmf_net(**arguments), needs, lidar, "pmf", arguments, statistics_for(info, needs))


def build_pmf_for(
    info: DataInfo,
    modalities: Sequence[str],
    *,
    network: str = "pmf",
    backbone: str = "camera_resnet34",
    width: int = 32,
    channels: int | None = None,
) -> Student:
    """The network for two modalities, as `xmodal.models.network.build_for` calls it.

    Args:
        info: description of the data.
        modalities: that of the LiDAR pictures, then that of the camera pictures.
        network: ``pmf``, the only one here.
        backbone: see `build_pmf`.
        width: see `build_pmf`.
        channels: see `build_pmf`.
    """
    if len(modalities) != 2:
        raise InputError(
            f"The network '{network}' reads two modalities, LiDAR and camera, and it was given "
            f"{', '.join(modalities)}. Name both, or choose another network."
        )
    lidar, camera = modalities
    return build_pmf(info, lidar=lidar, camera=camera, backbone=backbone, width=width, channels=channels)
