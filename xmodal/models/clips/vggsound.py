"""The two networks of the VGGSound experiment, ResNets for audio and for video, and video networks of other depths.

| layer | ``vggsound_audio``, (1, 513, 313) | ``vggsound_video``, (32, 3, 256, 256) |
|---|---|---|
| conv1 | 64 of 7x7, padding 1 → (64, 255, 155) | 64 of 3x7x7, padding (1, 3, 3) → (64, 16, 128, 128) |
| maxpool | (64, 128, 78) | (64, 8, 64, 64) |
| layer1 | 2 blocks → (64, 128, 78) | 3 blocks → (64, 8, 64, 64) |
| layer2 | 2 blocks → (128, 64, 39) | 3 blocks → (128, 4, 32, 32) |
| layer3 | 2 blocks → (256, 32, 20) | 3 blocks → (256, 2, 16, 16) |
| layer4 | 2 blocks → (512, 16, 10) | 3 blocks → (512, 1, 8, 8) |
| avgpool, the feature layer ``embedding`` | 512 | 512 |
| head | 512 → 100 | 512 → 100 |
| parameters | 11 221 540 | 52 022 052 |

conv1 and maxpool have stride 2. Audio is the magnitude of a spectrogram (1, frequencies, frames), video is (frames,
channels, height, width); both may have any size above a small minimum. The authors' audio network is torchvision's
ResNet-18 except for the padding of its first layer, 1 instead of 3 (they wrote True, which older versions of PyTorch
read as 1). The paper mentions video networks of depth 18 and 50, its code contains only the one above, of depth 26;
`video_resnet18`, `34` and `50` have as many blocks as the networks for pictures. Initial weights are drawn as in
torchvision.

Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; read from the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from xmodal.errors import InputError
from xmodal.models.network import build_network, numbers_of
from xmodal.models.resnet import DEPTHS, VIDEO, ResNet
from xmodal.models.small import expect_shape
from xmodal.types import Student

LAYER = "embedding"  # the pooled channels; only the linear head follows
SHAPES = {"audio": (1, 513, 313), "video": (32, 3, 256, 256)}
SMALLEST = 5  # smallest side that a 7x7 convolution with padding 1 can read


class VideoResNet(ResNet):
    """A `ResNet` with convolutions over time, for videos with frames before channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, channels, H, W) → (batch, width)."""
        # Files store frame after frame; nn.Conv3d expects the channels first.
        return super().forward(x.transpose(1, 2))


def build_vggsound_audio(shape: Sequence[int], *, width: int = 512, padding: int = 1, dropout: float = 0.0) -> ResNet:
    """Trunk of ResNet-18 for spectrograms (channels, frequencies, frames); published for (1, 513, 313)."""
    expect_shape("vggsound_audio", shape, ("channels", "frequencies", "frames"), smallest=SMALLEST)
    return ResNet(*DEPTHS[18], channels=shape[0], width=width, padding=padding, dropout=dropout)


def build_vggsound_video(shape: Sequence[int], *, width: int = 512, dropout: float = 0.0) -> VideoResNet:
    """Trunk of the authors' video network, three blocks per stage: 52.0 million parameters."""
    return _video("vggsound_video", 26, shape, width, dropout)


def build_video_resnet18(shape: Sequence[int], *, width: int = 512, dropout: float = 0.0) -> VideoResNet:
    """Trunk of ResNet-18 over time and picture: 33.2 million parameters."""
    return _video("video_resnet18", 18, shape, width, dropout)


def build_video_resnet34(shape: Sequence[int], *, width: int = 512, dropout: float = 0.0) -> VideoResNet:
    """Trunk of ResNet-34 over time and picture: 63.5 million parameters."""
    return _video("video_resnet34", 34, shape, width, dropout)


def build_video_resnet50(shape: Sequence[int], *, width: int = 2048, dropout: float = 0.0) -> VideoResNet:
    """Trunk of ResNet-50 over time and picture: 46.2 million parameters."""
    return _video("video_resnet50", 50, shape, width, dropout)


def _video(encoder: str, depth: int, shape: Sequence[int], width: int, dropout: float) -> VideoResNet:
    expect_shape(encoder, shape, ("frames", "channels", "height", "width"))
    return VideoResNet(*DEPTHS[depth], channels=shape[1], width=width, padding=(1, 3, 3), axes=VIDEO, dropout=dropout)


def build_vggsound(
    modality: str,
    *,
    classes: int = 100,
    shape: Sequence[int] | None = None,
    encoder: str | None = None,
    width: int | None = None,
) -> Student:
    """A complete network of the experiment as a student that can be rebuilt from its file.

    Args:
        modality: ``audio`` or ``video``.
        classes: width of the head.
        shape: of a sample; None: the published shape.
        encoder: another network, such as ``video_resnet50``; None: the published network.
        width: of the embedding; None: the default of the encoder.

    Example:
        >>> build_vggsound("audio", classes=4, width=16).module.head
        Linear(in_features=16, out_features=4, bias=True)
    """
    if modality not in SHAPES:
        raise InputError(f"The networks of VGGSound read audio or video, not '{modality}'.")
    name = encoder or f"vggsound_{modality}"
    numbers = numbers_of(modality, name, {} if width is None else {"width": width})
    arguments: dict[str, Any] = {
        "inputs": {modality: {"encoder": name, "shape": list(shape or SHAPES[modality]), **numbers}},
        "outputs": classes,
    }
    return Student(build_network(**arguments), (modality,), modality, "network", arguments)
