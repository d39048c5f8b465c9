"""PALNet: depth as a picture and as signed distances, each with its own branch.

| part | parameters |
|---|---|
| `flat`: depth picture, 1 → 6 channels | 60 + 129 |
| `branches`: 7 × 7 × 7 convolutions | 16 472 (picture), 2 752 (distances) |
| two residual blocks in each, to 16 and, at a quarter of each side, 32 channels | 2 080 + 2 672 each |
| `context`: three residual blocks of 64 channels | 31 872, 59 552, 59 552 |
| `head`: 256 → 128 → 128 → classes | 32 896, 16 512, 1 548 |
| all | 230 849 |

Reference: Li et al.: Depth Based Semantic Scene Completion with Position Importance Aware Loss, RA-L 2020, arXiv
2001.10709. The loss in that title is neither in the authors' code nor here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from xmodal.models.network import pick_input
from xmodal.models.scenes.ddr import head
from xmodal.models.scenes.projection import project
from xmodal.models.scenes.streams import check_volume


class Residual(nn.Module):
    """The sum of some layers and a shortcut, ReLU.

    Args:
        detour: the layers.
        shortcut: one layer; None: the input itself.
    """

    def __init__(self, detour: Sequence[nn.Module], shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.detour = nn.Sequential(*detour)
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, …) in and out."""
        out: Tensor = self.detour(x) + self.shortcut(x)
        return out.relu()


class Projection(nn.Module):
    """`project` as a layer.

    torch.fx cannot trace `project`, which depends on values. A layer it can record as one step.

    Args:
        volume: X, H and Y of the volume.
    """

    def __init__(self, volume: Sequence[int]) -> None:
        super().__init__()
        self.volume = tuple(volume)

    def forward(self, features: Tensor, position: Tensor) -> Tensor:
        """(batch, channels, height, width) and (batch, height, width) → (batch, channels, Y, H, X)."""
        return project(features, position, self.volume)


def _branch(channels: int) -> nn.Sequential:
    def step(read: int, write: int, stride: int) -> Residual:
        detour = [nn.Conv3d(read, 8, 1, stride=stride), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), nn.ReLU()]
        return Residual([*detour, nn.Conv3d(8, write, 1)], nn.Conv3d(read, write, 1, stride=stride, bias=False))

    first = nn.Conv3d(channels, 8, 7, stride=2, padding=3)
    return nn.Sequential(first, nn.ReLU(), step(8, 16, 1), step(16, 32, 2))


def _context(dilations: Sequence[int]) -> Residual:
    # With two dilated convolutions there is no ReLU between them: a quirk of the authors' code.
    middle = [nn.Conv3d(32, 32, 3, padding=d, dilation=d) for d in dilations]
    return Residual([nn.Conv3d(64, 32, 1), nn.ReLU(), *middle, nn.ReLU(), nn.Conv3d(32, 64, 1)])


class PALNet(nn.Module):
    """The network of the table.

    Args:
        names: names of three inputs in this order: the depth picture (batch, 1, height, width), the voxel of each of
            its pixels, and the distances (batch, 1, D, H, W).
        outputs: number of classes.
        volume: X, H and Y of the volume.
    """

    def __init__(self, names: Sequence[str], outputs: int, *, volume: Sequence[int]) -> None:
        super().__init__()
        check_volume(volume)
        self.names, self.volume = tuple(names), tuple(volume)
        self.projection = Projection(volume)
        around = Residual([nn.Conv2d(6, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 6, 1)])
        self.flat = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), around)
        self.branches = nn.ModuleList([_branch(6), _branch(1)])
        self.context = nn.ModuleList(map(_context, ([1], [2, 2], [2, 2])))
        # An identity gives the features a layer name under which they can be read or replaced.
        self.embedding = nn.Identity()
        self.head = head(256, 128, 128, outputs)
        self._initialise()

    def _initialise(self) -> None:
        # Unlike the other networks for scenes: the flat convolutions keep PyTorch's initial values, and the head is
        # drawn a second time, from normal distributions.
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.xavier_uniform_(module.weight)
        convolutions = [layer for layer in self.head if isinstance(layer, nn.Conv3d)]
        for layer, deviation in zip(convolutions, (0.1, 0.01, 0.01), strict=True):
            nn.init.normal_(layer.weight, std=deviation)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The three inputs in, logits (batch, classes, D/4, H/4, W/4) out."""
        depth, position, distances = (pick_input(inputs, name) for name in self.names)
        volumes = self.projection(self.flat(depth), position), distances
        levels = [torch.cat([branch(x) for branch, x in zip(self.branches, volumes, strict=True)], dim=1)]
        for block in self.context:
            levels.append(block(levels[-1]))
        logits: Tensor = self.head(self.embedding(torch.cat(levels, dim=1)))
        return logits
