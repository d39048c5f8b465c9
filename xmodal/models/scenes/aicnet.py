r"""AICNet: convolutions whose reach along each axis is chosen at every voxel.

$$y = \sum_k m_k(x) \, \mathrm{ReLU}\bigl(\mathrm{conv}_k(x)\bigr), \qquad m(x) = \mathrm{softmax}_k(\text{1 × 1 × 1})$$

for the lengths k = 3, 5, 7 along W, then on what came out along H, then along D. 848 108 parameters: streams of 28 072
(depth) and 28 088, six blocks of 50 752, two of 218 240, head 50 956.

Reference: Li et al.: Anisotropic Convolutional Networks for 3D Semantic Scene Completion, CVPR 2020, arXiv 2004.02122.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from xmodal.models.scenes.ddr import Point, again, head, initialise
from xmodal.models.scenes.streams import WIDTH, Streams, added

LENGTHS = (3, 5, 7)


class Anisotropic(nn.Module):
    """Three lengths along each of three axes, weighed voxel by voxel; the input is added, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.choice = Point(channels, 3 * len(LENGTHS), bias=False)
        self.axes = nn.ModuleList(
            nn.ModuleList(_line(channels, axis, length) for length in LENGTHS) for axis in (2, 1, 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, D, H, W) → the same."""
        shares = self.choice(x).unflatten(1, (3, len(LENGTHS))).softmax(dim=2)
        y = x
        for place, axis in enumerate((2, 1, 0)):
            lines = self.axes.get_submodule(str(place)).children()
            parts = [shares[:, axis, k, None] * line(y).relu() for k, line in enumerate(lines)]
            y = sum(parts[1:], parts[0])
        return (y + x).relu()


def _line(channels: int, axis: int, length: int) -> nn.Conv3d:
    d, h, w = (length if axis == other else 1 for other in range(3))
    return nn.Conv3d(channels, channels, (d, h, w), padding=(d // 2, h // 2, w // 2))


class AnisotropicBottleneck(nn.Module):
    """1 × 1 × 1, ReLU, `Anisotropic`, 1 × 1 × 1, both without bias; the input is added, ReLU.

    Args:
        channels: in and out.
        inner: in between.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.enter = Point(channels, inner, bias=False)
        self.anisotropic = Anisotropic(inner)
        self.leave = Point(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, D, H, W) → the same."""
        out: Tensor = self.leave(self.anisotropic(self.enter(x).relu()))
        return (out + x).relu()


class AICNet(nn.Module):
    """The network above, for one modality or several.

    Args:
        channels: modality → channels of its pictures.
        positions: modality → the input that tells the voxel of each pixel.
        outputs: classes.
        volume: X, H and Y of the volume.
        sparse: see `Streams`.
        recompute: see `Streams`.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        positions: Mapping[str, str],
        outputs: int,
        *,
        volume: Sequence[int],
        sparse: bool = True,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.streams = Streams(
            channels,
            positions,
            volume=volume,
            inner=8,
            block=lambda number: AnisotropicBottleneck(WIDTH, WIDTH // 2),
            sparse=sparse,
            recompute=recompute,
        )
        self.joined = nn.Sequential(*(AnisotropicBottleneck(4 * WIDTH, WIDTH) for _ in range(2)))
        self.embedding = nn.Identity()  # a name under which features can be tapped
        self.head = head(4 * WIDTH, 128, 128, outputs)
        self.recompute = recompute
        initialise(self)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality → (batch, channels, height, width) in, answers (batch, classes, D/4, H/4, W/4) out."""
        levels = torch.cat(added(self.streams(inputs), self.streams.modalities), dim=1)
        seen = self.embedding(again(self.joined, levels, recompute=self.recompute))
        answers: Tensor = again(self.head, seen, recompute=self.recompute)
        return answers
