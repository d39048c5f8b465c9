"""The camera network: a ResNet with the maps of all four stages, and a narrow decoder back to full resolution.

| layer | channels, ResNet-34 | resolution |
|---|---|---|
| encoder.conv1, stride 1, then the pool | 3 → 64 | 1/2 |
| encoder.layer1 to layer4 | 64, 128, 256, 512 | 1/2, 1/4, 1/8, 1/16 |
| up4, of layer4 | 512 → d | 1/8 |
| up3, of up4 and layer3 | d + 256 → d | 1/4 |
| up2, of up3 and layer2 | d + 128 → d | 1/2 |
| up1, of up2 and layer1; its convolution has side 1 | d + 64 → d | 1 |
| head (of the `Network` around it), side 3 | d → classes | 1 |

d is 16, or 64 where the ResNet has bottlenecks. With 20 classes that is 21 422 676 parameters (ResNet-34), 25 678 932
(50), 44 671 060 (101) or 60 314 708 (152). The encoder has torchvision's names, so ImageNet weights load.

Reference: Zhuang et al.: Perception-Aware Multi-Sensor Fusion for 3D LiDAR Semantic Segmentation, ICCV 2021, arXiv
2106.15277; read from the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.pixels.salsanext import expect_picture, layer
from xmodal.models.resnet import DEPTHS, Block, ResNet, load_weights


class CameraEncoder(ResNet):
    """A `ResNet` whose first convolution keeps the resolution; `stages` returns the maps of all four stages.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        depths: blocks in each stage.
        channels: of the pictures.
        width: channels of the last stage.
        dropout: on the maps of the last two stages.
    """

    def __init__(self, block: Block, depths: Sequence[int], *, channels: int, width: int, dropout: float) -> None:
        super().__init__(block, depths, channels=channels, width=width, stride=1)
        self.drop3, self.drop4 = nn.Dropout(dropout), nn.Dropout(dropout)

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(batch, channels, H, W) → four maps, at a half, a quarter, an eighth and a sixteenth of H and W."""
        first = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        second = self.layer2(first)
        # As in the authors' code, the last stage reads these maps after dropout, too.
        third = self.drop3(self.layer3(second))
        return first, second, third, self.drop4(self.layer4(third))


class CameraNet(nn.Module):
    """The network of the table, without its head.

    Args:
        encoder: has a method ``stages`` that returns four maps.
        width: d, the channels of the decoder.
    """

    reach = 3  # side of the convolution in the head

    def __init__(self, encoder: CameraEncoder, *, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = width
        first, second, third, fourth = stage_widths(encoder)
        self.up4 = _up(fourth, width, 3)
        self.up3 = _up(width + third, width, 3)
        self.up2 = _up(width + second, width, 3)
        self.up1 = _up(width + first, width, 1)

    def forward(self, samples: Tensor) -> Tensor:
        """(batch, channels, H, W) → (batch, width, H, W)."""
        return self.decode(self.encoder.stages(samples))

    def decode(self, stages: Sequence[Tensor]) -> Tensor:
        """The encoder's four maps → (batch, width, H, W)."""
        first, second, third, fourth = stages
        x = self.up3(torch.cat([self.up4(fourth), third], dim=1))
        x = self.up2(torch.cat([x, second], dim=1))
        out: Tensor = self.up1(torch.cat([x, first], dim=1))
        return out


def stage_widths(encoder: ResNet) -> tuple[int, int, int, int]:
    """Channels of the four stages."""
    # Rounded up, as in `ResNet`.
    return (-(-encoder.width // 8), -(-encoder.width // 4), -(-encoder.width // 2), encoder.width)


def _up(read: int, write: int, side: int) -> nn.Sequential:
    double = nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)
    return nn.Sequential(*layer(read, write, side), double)


def _camera(depth: int, shape: Sequence[int], width: int, channels: int, dropout: float) -> CameraNet:
    expect_picture(f"camera_resnet{depth}", shape)
    block, depths = DEPTHS[depth]
    return CameraNet(CameraEncoder(block, depths, channels=shape[0], width=channels, dropout=dropout), width=width)


def build_camera_resnet10(
    shape: Sequence[int], *, width: int = 16, channels: int = 64, dropout: float = 0.2
) -> CameraNet:
    """One block per stage, 8 to 64 channels: for small pictures and for tests."""
    return _camera(10, shape, width, channels, dropout)


def build_camera_resnet34(
    shape: Sequence[int], *, width: int = 16, channels: int = 512, dropout: float = 0.2
) -> CameraNet:
    """The published teacher; ``channels`` of the last stage, ``width`` of the decoder."""
    return _camera(34, shape, width, channels, dropout)


def build_camera_resnet50(
    shape: Sequence[int], *, width: int = 64, channels: int = 2048, dropout: float = 0.2
) -> CameraNet:
    """The camera network of depth 50; see `build_camera_resnet34`."""
    return _camera(50, shape, width, channels, dropout)


def build_camera_resnet101(
    shape: Sequence[int], *, width: int = 64, channels: int = 2048, dropout: float = 0.2
) -> CameraNet:
    """The camera network of depth 101; see `build_camera_resnet34`."""
    return _camera(101, shape, width, channels, dropout)


def build_camera_resnet152(
    shape: Sequence[int], *, width: int = 64, channels: int = 2048, dropout: float = 0.2
) -> CameraNet:
    """The camera network of depth 152; see `build_camera_resnet34`."""
    return _camera(152, shape, width, channels, dropout)


def load_imagenet(network: nn.Module, path: Path | str | None) -> None:
    """Load torchvision's ImageNet weights into the camera encoder of a network, all of them or none.

    Args:
        network: contains one `CameraEncoder`.
        path: a ``.pth`` file; its classification layer is ignored.
    """
    # The first convolution of torchvision has stride 2 and this one stride 1; the weights have the same shape.
    encoders = [module for module in network.modules() if isinstance(module, CameraEncoder)]
    if len(encoders) != 1:
        raise InputError(f"The network has {len(encoders)} camera encoders: ImageNet weights need exactly one.")
    if path is None:
        raise InputError(
            "ImageNet weights are requested without a file, and nothing is downloaded. Give the path of a torchvision "
            ".pth file of this ResNet, or train from random weights (imagenet_pretrained false)."
        )
    load_weights(encoders[0], path)
