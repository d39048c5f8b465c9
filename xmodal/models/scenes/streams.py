"""Streams: each modality's picture becomes a volume at a quarter of each side, read with growing dilation.

| step | result, 480 × 640 into 240 × 144 × 240 |
|---|---|
| `flat`: 1 × 1 convolution, two `Bottleneck2d` of 8 channels | 8, 480, 640 |
| projection | 8, 240, 144, 240 |
| `solid`: `Downsample` to 16, `Bottleneck3d`, `Downsample` to 64, `Bottleneck3d` | 64, 60, 36, 60: level 0 |
| `further`: three blocks, each reads the output of the previous block | levels 1, 2, 3 |

DDRNet, AICNet and GRFNet begin with these steps and differ in the blocks and in the fusion of the modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.network import PREFIX, is_count, pick_input
from xmodal.models.scenes.ddr import Bottleneck2d, Bottleneck3d, Downsample, checkpointed
from xmodal.models.scenes.projection import project, project_occupied

FLAT, WIDTH = 8, 64  # channels before and after the projection
LEVELS = 4
FINEST = 4  # the sides of a volume are multiples of this, since `solid` halves them twice


class Stream(nn.Module):
    """All steps of one modality.

    Args:
        channels: of the picture.
        inner: channels inside the first `Bottleneck3d`.
        further: the three later blocks.
    """

    def __init__(self, channels: int, *, inner: int, further: Sequence[nn.Module]) -> None:
        super().__init__()
        self.flat = nn.Sequential(nn.Conv2d(channels, FLAT, 1), Bottleneck2d(FLAT, 4), Bottleneck2d(FLAT, 4))
        self.solid = nn.Sequential(
            Downsample(FLAT, 16), Bottleneck3d(16, inner, 16), Downsample(16, WIDTH), Bottleneck3d(WIDTH, 16, WIDTH)
        )
        self.further = nn.ModuleList(further)

    def forward(
        self, picture: Tensor, position: Tensor, volume: Sequence[int], *, sparse: bool, recompute: bool
    ) -> list[Tensor]:
        """(batch, channels, height, width) and (batch, height, width) → four levels (batch, 64, D/4, H/4, W/4)."""
        features = self.flat(picture)
        # The sparse form has as many rows as voxels are filled. An exported graph cannot depend on values.
        sparse = sparse and not torch.compiler.is_exporting()
        filled = project_occupied(features, position, volume) if sparse else project(features, position, volume)
        levels = [checkpointed(self.solid, filled, recompute=recompute)]
        for block in self.further:
            levels.append(checkpointed(block, levels[-1], recompute=recompute))
        return levels


class Streams(nn.Module):
    """A `Stream` per modality.

    Args:
        channels: modality → channels of its pictures.
        positions: modality → name of the input with the voxel of each pixel.
        volume: X, H and Y of the volume, multiples of 4.
        inner: see `Stream`.
        block: builds one of the three later blocks from its number, 0 to 2.
        sparse: whether the first `Downsample` reads the filled voxels alone: equal up to rounding, with less memory.
        recompute: whether activations are computed again in the backward pass instead of stored: the same values, less
            memory, slower.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        positions: Mapping[str, str],
        *,
        volume: Sequence[int],
        inner: int,
        block: Callable[[int], nn.Module],
        sparse: bool = True,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        check_volume(volume)
        self.modalities, self.positions = tuple(channels), dict(positions)
        self.volume, self.sparse, self.recompute = tuple(volume), sparse, recompute
        # The later blocks of a stream are built before the stream, so their random draws come first. Golden files and
        # seeds depend on this order.
        self.streams = nn.ModuleDict(
            {
                PREFIX + name: Stream(count, inner=inner, further=[block(number) for number in range(LEVELS - 1)])
                for name, count in channels.items()
            }
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Modality → its four levels."""
        return {
            name: self.streams[PREFIX + name](
                pick_input(inputs, name),
                pick_input(inputs, self.positions[name]),
                self.volume,
                sparse=self.sparse,
                recompute=self.recompute,
            )
            for name in self.modalities
        }


def level_of(levels: Mapping[str, Sequence[Tensor]], modalities: Sequence[str], number: int) -> list[Tensor]:
    """One level of each modality."""
    # Names and numbers are given from outside: where torch.fx records the streams as one step, their result is a proxy,
    # and a proxy can be indexed but not iterated.
    return [levels[name][number] for name in modalities]


def summed_levels(levels: Mapping[str, Sequence[Tensor]], modalities: Sequence[str]) -> Tensor:
    """Each level summed over the modalities, concatenated to (batch, 4 · 64, D/4, H/4, W/4)."""
    parts = [level_of(levels, modalities, number) for number in range(LEVELS)]
    return torch.cat([sum(part[1:], part[0]) for part in parts], dim=1)


def check_volume(volume: Sequence[int]) -> None:
    """Refuse sides that cannot be halved twice."""
    if len(volume) != 3 or not all(is_count(side) and side % FINEST == 0 for side in volume):
        raise InputError(
            f"The volume is {tuple(volume)}: three multiples of {FINEST} were expected, voxels along X, H (up) and Y."
        )
