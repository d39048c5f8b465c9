"""Blocks of networks for scenes: convolutions over three axes taken apart into one axis after the other (DDR).

A 3 × 3 × 3 convolution from c to c channels has 27 c² weights; three of 3 × 1 × 1, 1 × 3 × 1 and 1 × 1 × 3 have 9 c²,
and reach as far. There is no normalisation; where a convolution has no bias, the docstring says so.

Reference: Li et al.: RGBD Based Dimensional Decomposition Residual Network for 3D Semantic Scene Completion, CVPR 2019,
arXiv 1903.00620; sizes as in the code of those authors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xmodal.models.dmd.projection import Occupied, largest_of

RINGS = (6, 12, 18)  # how far the pyramid looks


class Point(nn.Conv3d):
    """A 1 × 1 × 1 convolution as a product of matrices, which rearranges nothing and so needs no memory for copies."""

    def __init__(self, read: int, write: int, *, bias: bool = True) -> None:
        super().__init__(read, write, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, D, H, W) → (batch, write, D, H, W)."""
        weight, places = self.weight.flatten(1), x.flatten(2)
        if self.bias is None:
            found = torch.matmul(weight, places)
        else:
            found = torch.baddbmm(self.bias[:, None], weight.expand(x.shape[0], -1, -1), places)
        out: Tensor = found.unflatten(2, x.shape[2:])  # type: ignore[no-untyped-call]
        return out


class Bottleneck2d(nn.Module):
    """1 × 1 without bias, 1 × 3, 3 × 1, 1 × 1 without bias, a ReLU between each; the input is added, ReLU.

    Args:
        channels: in and out.
        inner: between the two 1 × 1.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, inner, 1, bias=False)
        self.along = nn.Conv2d(inner, inner, (1, 3), padding=(0, 1))
        self.down = nn.Conv2d(inner, inner, (3, 1), padding=(1, 0))
        self.leave = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, H, W) → the same."""
        y = self.down(self.along(self.enter(x).relu()).relu()).relu()
        out: Tensor = self.leave(y).add(x).relu()
        return out


class Bottleneck3d(nn.Module):
    """One axis after the other, W first; each goes on with the sum of what it found and what it was given.

    Args:
        read: channels in.
        inner: between the two 1 × 1 × 1, which have no bias.
        write: channels out.
        dilation: of the three convolutions.
        residual: whether the input is added; then channels in and out are as many.
    """

    def __init__(self, read: int, inner: int, write: int, *, dilation: int = 1, residual: bool = True) -> None:
        super().__init__()
        self.residual, d = residual, dilation
        self.enter = Point(read, inner, bias=False)
        self.along = nn.Conv3d(inner, inner, (1, 1, 3), padding=(0, 0, d), dilation=(1, 1, d))
        self.upper = nn.Conv3d(inner, inner, (1, 3, 1), padding=(0, d, 0), dilation=(1, d, 1))
        self.across = nn.Conv3d(inner, inner, (3, 1, 1), padding=(d, 0, 0), dilation=(d, 1, 1))
        self.leave = Point(inner, write, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, D, H, W) → (batch, write, D, H, W)."""
        return self.behind(self.enter(x), x if self.residual else None)

    def behind(self, entered: Tensor, x: Tensor | None = None) -> Tensor:
        """All but the first 1 × 1 × 1, from what that found (batch, inner, D, H, W) and what is added, if anything."""
        one = self.along(entered.relu()).relu()
        two = self.upper(one).add(one).relu()
        three = self.across(two).add(two).add(one).relu()
        out: Tensor = self.leave(three)
        return (out if x is None else out + x).relu()


class Downsample(nn.Module):
    """Half of each side: a 3 × 3 × 3 convolution without bias beside the largest of each 2 × 2 × 2, ReLU.

    It reads a volume, or an `Occupied` without making a volume of it: only places that something filled lies near are
    computed, all others are 0 in both cases. The sums are the same up to their order.

    Args:
        read: channels in.
        write: channels out, more than in.
    """

    def __init__(self, read: int, write: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(read, write - read, 3, stride=2, padding=1, bias=False)
        self.pool = nn.MaxPool3d(2)

    def forward(self, x: Tensor | Occupied) -> Tensor:
        """(batch, read, D, H, W) → (batch, write, D / 2, H / 2, W / 2)."""
        if isinstance(x, Occupied):
            return self._near(x).volume()
        return torch.cat([self.convolution(x), self.pool(x)], dim=1).relu()

    def _near(self, x: Occupied) -> Occupied:
        rows, *sides = x.shape
        halves = [side // 2 for side in sides]
        numbers = [x.places // (sides[1] * sides[2]), x.places // sides[2] % sides[1], x.places % sides[2]]
        row, numbers[0] = numbers[0] // sides[0], numbers[0] % sides[0]

        def place(z: Tensor, y: Tensor, w: Tensor) -> Tensor:
            return ((row * halves[0] + z) * halves[1] + y) * halves[2] + w

        # a voxel at i is read by the outputs o with 2 o + tap - 1 = i, for taps 0 to 2 on each axis
        reads: list[tuple[tuple[int, ...], Tensor, Tensor]] = []
        for taps in itertools.product(range(3), repeat=3):
            doubled = [number + 1 - tap for number, tap in zip(numbers, taps, strict=True)]
            meets = [(d % 2 == 0) & (d // 2 < half) for d, half in zip(doubled, halves, strict=True)]
            voxel = (meets[0] & meets[1] & meets[2]).nonzero().flatten()
            reads.append((taps, voxel, place(*(d // 2 for d in doubled))[voxel]))
        places = torch.unique(torch.cat([found for _, _, found in reads]))
        values = x.values.T
        summed = values.new_zeros(len(places), self.convolution.out_channels)
        for taps, voxel, found in reads:
            weight = self.convolution.weight[:, :, taps[0], taps[1], taps[2]]
            part = values[voxel] @ weight.T
            summed = summed.index_add(0, torch.searchsorted(places, found), part.to(summed.dtype))
        pools = torch.searchsorted(places, place(*(number // 2 for number in numbers)))
        pooled = largest_of(x.values, pools, len(places))
        joined = torch.cat([summed.T.to(pooled.dtype), pooled]).relu()
        return Occupied(joined, places, (rows, halves[0], halves[1], halves[2]))


class Pyramid3d(nn.Module):
    """Each place as seen from itself, from three distances and from everywhere (ASPP), side by side.

    Args:
        read: channels in.
        inner: of the `Bottleneck3d` of each distance.
        write: channels of each of the five views.
        recompute: see `again`.
    """

    def __init__(self, read: int, inner: int, write: int, *, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.place = Point(read, write, bias=False)
        self.rings = nn.ModuleList(
            Bottleneck3d(read, inner, write, dilation=distance, residual=False) for distance in RINGS
        )
        self.everywhere = Point(read, write, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, D, H, W) → (batch, 5 · write, D, H, W)."""
        # all that reads x does so in one product: its gradient, the largest tensor here, is made once, not five times
        rings = [ring for ring in self.rings if isinstance(ring, Bottleneck3d)]
        readers = [self.place, *(ring.enter for ring in rings), self.everywhere]
        weight = torch.cat([reader.weight.flatten(1) for reader in readers])
        found: Tensor = torch.matmul(weight, x.flatten(2)).unflatten(2, x.shape[2:])  # type: ignore[no-untyped-call]
        place, *entered, everywhere = found.split([reader.out_channels for reader in readers], dim=1)  # type: ignore[no-untyped-call]
        # copies, so that what is kept for the rings is not all that was found
        views = [
            again(ring.behind, each.clone(), recompute=self.recompute)
            for ring, each in zip(rings, entered, strict=True)
        ]
        # one value per channel: any interpolation repeats it
        everywhere = everywhere.mean(dim=(2, 3, 4), keepdim=True).expand_as(place)
        return torch.cat([place, *views, everywhere], dim=1)


def again(part: Callable[[Any], Any], x: Any, *, recompute: bool) -> Any:
    """What a part makes of x; with ``recompute`` nothing within it is kept for the gradient, but computed once more."""
    if not recompute or not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return part(x)
    return checkpoint(part, x, use_reentrant=False)


def head(*channels: int) -> nn.Sequential:
    """1 × 1 × 1 convolutions from each number of channels to the next, a ReLU between them."""
    layers: list[nn.Module] = []
    for read, write in itertools.pairwise(channels):
        layers += [Point(read, write), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def initialise(network: nn.Module) -> None:
    """Initial weights of the published networks: Xavier (uniform) over three axes, normal(0, 0.1) over two."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
