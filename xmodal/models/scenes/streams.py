"""Streams: a picture per modality becomes a volume of a quarter of each side, and is looked at from ever further away.

| step | result, 480 × 640 into 240 × 144 × 240 |
|---|---|
| `flat`: 1 × 1 convolution, two `Bottleneck2d` of 8 channels | 8, 480, 640 |
| projection | 8, 240, 144, 240 |
| `solid`: `Downsample` to 16, `Bottleneck3d`, `Downsample` to 64, `Bottleneck3d` | 64, 60, 36, 60: level 0 |
| `further`: three blocks, each reads what the one before wrote | levels 1, 2, 3 |

DDRNet, AICNet and GRFNet begin like this and differ in their blocks and in how they join the modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.dmd.projection import project, project_occupied
from xmodal.models.network import is_count, pick_input
from xmodal.models.scenes.ddr import Bottleneck2d, Bottleneck3d, Downsample, again

FLAT, WIDTH = 8, 64  # channels before and behind the projection
LEVELS = 4
FINEST = 4  # sides of a volume are multiples of this
DILATIONS = (2, 3, 5)


class Stream(nn.Module):
    """All steps of one modality.

    Args:
        channels: of the picture.
        inner: channels within the first `Bottleneck3d`.
        further: the three blocks.
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
        sparse = sparse and not torch.compiler.is_exporting()
        filled = project_occupied(features, position, volume) if sparse else project(features, position, volume)
        levels = [again(self.solid, filled, recompute=recompute)]
        for block in self.further:
            levels.append(again(block, levels[-1], recompute=recompute))
        return levels


class Streams(nn.Module):
    """A `Stream` per modality.

    Args:
        channels: modality → channels of its pictures.
        positions: modality → the input that tells the voxel of each pixel.
        volume: X, H and Y of the volume, multiples of 4.
        inner: see `Stream`.
        block: makes one of the three blocks from its number, 0 to 2.
        sparse: whether no whole volume is made before the first `Downsample`: the same numbers in less memory.
        recompute: whether most of what the gradient needs is computed once more: the same numbers, less memory, slower.
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
        self.streams = nn.ModuleDict(
            {
                f"from_{name}": Stream(count, inner=inner, further=[block(number) for number in range(LEVELS - 1)])
                for name, count in channels.items()
            }
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Modality → its four levels."""
        return {
            name: self.streams[f"from_{name}"](
                pick_input(inputs, name),
                pick_input(inputs, self.positions[name]),
                self.volume,
                sparse=self.sparse,
                recompute=self.recompute,
            )
            for name in self.modalities
        }


def further_away(number: int) -> Bottleneck3d:
    """The blocks of DDRNet and GRFNet."""
    return Bottleneck3d(WIDTH, 16, WIDTH, dilation=DILATIONS[number])


def level_of(levels: Mapping[str, Sequence[Tensor]], modalities: Sequence[str], number: int) -> list[Tensor]:
    """One level of each modality; asked for by name and number, so that torch.fx can write down what follows."""
    return [levels[name][number] for name in modalities]


def added(levels: Mapping[str, Sequence[Tensor]], modalities: Sequence[str]) -> list[Tensor]:
    """Level by level the sum over the modalities."""
    parts = [level_of(levels, modalities, number) for number in range(LEVELS)]
    return [sum(part[1:], part[0]) for part in parts]


def check_volume(volume: Sequence[int]) -> None:
    """Refuse sides that do not halve twice."""
    if len(volume) != 3 or not all(is_count(side) and side % FINEST == 0 for side in volume):
        raise InputError(
            f"The volume is {tuple(volume)}: three multiples of {FINEST} were expected, voxels along X, H (up) and Y."
        )
