"""DDRNet: colour, depth or both become a class for each voxel of a room.

| part | parameters |
|---|---|
| `streams`: 27 500 (depth) and 27 516 (colour), three `Bottleneck3d` of 4 400 each | 40 700 and 40 716 |
| `pyramid`: four levels side by side, 256 → 5 · 64 channels | 55 184 |
| `head`: 320 → 128 → 128 → classes | 59 148 |
| both modalities | 195 748 |
| one of them (with the blocks that the published code makes for the other and never calls) | 155 032 (168 232) |

Levels of two modalities are added. Reference: Li et al.: RGBD Based Dimensional Decomposition Residual Network for 3D
Semantic Scene Completion, CVPR 2019, arXiv 1903.00620. The variants for one modality are those of the experiments on
non-target divergence, arXiv 2409.02438.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from xmodal.models.scenes.ddr import Pyramid3d, again, head, initialise
from xmodal.models.scenes.streams import WIDTH, Streams, added, further_away


class DDRNet(nn.Module):
    """The network of the table.

    Args:
        channels: modality → channels of its pictures.
        positions: modality → the input that tells the voxel of each pixel.
        outputs: classes.
        volume: X, H and Y of the volume.
        sparse: see `Streams`.
        recompute: see `Streams`.
        unused: also make the three blocks of a second modality that is not there, so that published files of the
            variants for one modality fit.
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
        unused: bool = False,
    ) -> None:
        super().__init__()
        self.streams = Streams(
            channels, positions, volume=volume, inner=4, block=further_away, sparse=sparse, recompute=recompute
        )
        self.unused = nn.ModuleList(further_away(number) for number in range(3 if unused else 0))
        self.pyramid = Pyramid3d(4 * WIDTH, 16, WIDTH, recompute=recompute)
        self.embedding = nn.Identity()  # a name under which features can be tapped
        self.head = head(5 * WIDTH, 128, 128, outputs)
        self.recompute = recompute
        initialise(self)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality → (batch, channels, height, width) in, answers (batch, classes, D/4, H/4, W/4) out."""
        levels = torch.cat(added(self.streams(inputs), self.streams.modalities), dim=1)
        seen = self.embedding(self.pyramid(levels))
        answers: Tensor = again(self.head, seen, recompute=self.recompute)
        return answers
