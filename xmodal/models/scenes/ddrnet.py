"""DDRNet: colour, depth or both predict a class for each voxel of a room.

| part | parameters |
|---|---|
| `streams`: 27 500 (depth) and 27 516 (colour), three `Bottleneck3d` of 4 400 each | 40 700 and 40 716 |
| `pyramid`: the four levels concatenated, 256 → 5 · 64 channels | 55 184 |
| `head`: 320 → 128 → 128 → classes | 59 148 |
| both modalities | 195 748 |
| depth alone (with the unused blocks of colour, which the published code creates too) | 155 032 (168 232) |

The levels of two modalities are added. Reference: Li et al.: RGBD Based Dimensional Decomposition Residual Network for
3D Semantic Scene Completion, CVPR 2019, arXiv 1903.00620. The variants for one modality are those of the experiments on
non-target divergence, arXiv 2409.02438.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from xmodal.models.scenes.ddr import Pyramid3d
from xmodal.models.scenes.stream_network import StreamNetwork
from xmodal.models.scenes.streams import LEVELS, WIDTH, summed_levels


class DDRNet(StreamNetwork):
    """The network of the table; see `StreamNetwork` for the arguments."""

    inner = 4
    hidden = (128, 128)

    def add_fusion(self) -> int:
        """Create the pyramid."""
        self.pyramid = Pyramid3d(LEVELS * WIDTH, 16, WIDTH, recompute=self.recompute)
        return 5 * WIDTH

    def fuse(self, levels: Mapping[str, Sequence[Tensor]]) -> Tensor:
        """Apply the pyramid to the levels, summed over the modalities."""
        features: Tensor = self.pyramid(summed_levels(levels, self.streams.modalities))
        return features
