r"""GRFNet: one recurrent cell reads the levels of all modalities, one after the other.

$$[r, z] = \sigma(\mathrm{conv}[x, h]), \quad \tilde h = \tanh(\mathrm{conv}[x, r h]), \quad
h' = z h + (1 - z) \tilde h$$

It reads level 0 of each modality, then level 1 and so on. What it starts with is level 0 of the first modality, twice,
as in the authors' code, which reads as if the sum of both was meant. 820 988 parameters: streams of 41 272 (depth) and
41 288, cell 663 744, pyramid 21 392, head 53 292.

Reference: Liu et al.: 3D Gated Recurrent Fusion for Semantic Scene Completion, 2020, arXiv 2002.07269.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from xmodal.models.scenes.ddr import Pyramid3d, again, head, initialise
from xmodal.models.scenes.streams import LEVELS, WIDTH, Streams, further_away, level_of


class Cell(nn.Module):
    """A gated recurrent unit of 3 × 3 × 3 convolutions.

    Args:
        channels: of what it reads and of what it remembers.
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


class GRFNet(nn.Module):
    """The network above, for one modality or several; the first of ``channels`` is read first.

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
            channels, positions, volume=volume, inner=8, block=further_away, sparse=sparse, recompute=recompute
        )
        self.cell = Cell(WIDTH)
        self.pyramid = Pyramid3d(WIDTH, 16, WIDTH, recompute=recompute)
        self.embedding = nn.Identity()  # a name under which features can be tapped
        self.head = head(5 * WIDTH, 160, outputs)
        self.recompute = recompute
        initialise(self)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality → (batch, channels, height, width) in, answers (batch, classes, D/4, H/4, W/4) out."""
        levels, names = self.streams(inputs), self.streams.modalities
        memory = 2 * levels[names[0]][0]
        for number in range(LEVELS):
            for level in level_of(levels, names, number):
                memory = self.cell(level, memory)
        seen = self.embedding(self.pyramid(memory))
        answers: Tensor = again(self.head, seen, recompute=self.recompute)
        return answers
