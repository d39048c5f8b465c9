r"""AICNet: convolutions whose length along each axis is chosen at every voxel.

$$y = \sum_k m_k(x) \, \mathrm{ReLU}\bigl(\mathrm{conv}_k(x)\bigr), \qquad m(x) = \mathrm{softmax}_k(\text{1 × 1 × 1})$$

with the lengths k = 3, 5, 7 along W, then on the result along H, then along D. 848 108 parameters: streams of 28 072
(depth) and 28 088, six blocks of 50 752, two of 218 240, head 50 956.

Reference: Li et al.: Anisotropic Convolutional Networks for 3D Semantic Scene Completion, CVPR 2020, arXiv 2004.02122.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from xmodal.models.scenes.ddr import Point, checkpointed
from xmodal.models.scenes.stream_network import StreamNetwork
from xmodal.models.scenes.streams import LEVELS, WIDTH, summed_levels

LENGTHS = (3, 5, 7)


class Anisotropic(nn.Module):
    """Convolutions of three lengths along each of three axes, weighted at every voxel; the input is added, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.choice = Point(channels, 3 * len(LENGTHS), bias=False)
        # Axes from the last (W) to the first (D), in the order in which the authors' code applies them.
        self.axes = nn.ModuleList(
            nn.ModuleList(_line(channels, axis, length) for length in LENGTHS) for axis in (2, 1, 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, D, H, W) → the same."""
        # The nine channels are three lengths for each axis D, H, W: `axes` runs backwards, the weights do not.
        weights = self.choice(x).unflatten(1, (3, len(LENGTHS))).softmax(dim=2)
        y = x
        for position, axis in enumerate((2, 1, 0)):
            lines = self.axes.get_submodule(str(position)).children()
            parts = [weights[:, axis, k, None] * line(y).relu() for k, line in enumerate(lines)]
            y = sum(parts[1:], parts[0])
        return (y + x).relu()


def _line(channels: int, axis: int, length: int) -> nn.Conv3d:
    d, h, w = (length if axis == other else 1 for other in range(3))
    return nn.Conv3d(channels, channels, (d, h, w), padding=(d // 2, h // 2, w // 2))


class AnisotropicBottleneck(nn.Module):
    """1 × 1 × 1, ReLU, `Anisotropic`, 1 × 1 × 1, both without bias; the input is added, ReLU.

    Args:
        channels: of the input and the output.
        inner: channels between the two 1 × 1 × 1 convolutions.
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


class AICNet(StreamNetwork):
    """The network above, for one modality or several; see `StreamNetwork` for the arguments."""

    inner = 8
    hidden = (128, 128)

    def block(self, number: int) -> nn.Module:
        """Build one of the three later blocks of a stream; all three are alike."""
        return AnisotropicBottleneck(WIDTH, WIDTH // 2)

    def add_fusion(self) -> int:
        """Create the two blocks behind the concatenated levels."""
        self.joined = nn.Sequential(*(AnisotropicBottleneck(LEVELS * WIDTH, WIDTH) for _ in range(2)))
        return LEVELS * WIDTH

    def fuse(self, levels: Mapping[str, Sequence[Tensor]]) -> Tensor:
        """Apply the two blocks to the levels, summed over the modalities."""
        x = summed_levels(levels, self.streams.modalities)
        features: Tensor = checkpointed(self.joined, x, recompute=self.recompute)
        return features
