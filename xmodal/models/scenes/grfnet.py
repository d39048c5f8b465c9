r"""GRFNet: one recurrent cell reads the levels of all modalities, one after another.

$$[r, z] = \sigma(\mathrm{conv}[x, h]), \quad \tilde h = \tanh(\mathrm{conv}[x, r h]), \quad
h' = z h + (1 - z) \tilde h$$

It reads level 0 of each modality, then level 1 and so on. Its initial memory is twice level 0 of the first modality, as
in the authors' code (presumably the sum of depth and colour was intended). 820 988 parameters: streams of 41 272
(depth) and 41 288, cell 663 744, pyramid 21 392, head 53 292.

Reference: Liu et al.: 3D Gated Recurrent Fusion for Semantic Scene Completion, 2020, arXiv 2002.07269.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from xmodal.models.scenes.ddr import Pyramid3d
from xmodal.models.scenes.stream_network import StreamNetwork
from xmodal.models.scenes.streams import LEVELS, WIDTH, level_of


class Cell(nn.Module):
    """A gated recurrent unit with 3 × 3 × 3 convolutions.

    Args:
        channels: of the input and of the memory.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv3d(2 * channels, 2 * channels, 3, padding=1)
        self.candidate = nn.Conv3d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(batch, channels, D, H, W) twice → the new memory."""
        reset, keep = self.gates(torch.cat([x, memory], dim=1)).sigmoid().chunk(2, dim=1)
        candidate = self.candidate(torch.cat([x, reset * memory], dim=1)).tanh()
        out: Tensor = keep * memory + (1 - keep) * candidate
        return out


class GRFNet(StreamNetwork):
    """The network above, for one modality or several; see `StreamNetwork` for the arguments.

    The cell reads the modalities in the order of ``channels``.
    """

    inner = 8
    hidden = (160,)

    def add_fusion(self) -> int:
        """Create the cell and the pyramid."""
        self.cell = Cell(WIDTH)
        self.pyramid = Pyramid3d(WIDTH, 16, WIDTH, recompute=self.recompute)
        return 5 * WIDTH

    def fuse(self, levels: Mapping[str, Sequence[Tensor]]) -> Tensor:
        """Apply the cell to all levels in turn, and the pyramid to its last memory."""
        names = self.streams.modalities
        memory = 2 * levels[names[0]][0]
        for number in range(LEVELS):
            for level in level_of(levels, names, number):
                memory = self.cell(level, memory)
        features: Tensor = self.pyramid(memory)
        return features
