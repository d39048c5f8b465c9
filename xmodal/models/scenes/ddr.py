"""Blocks of networks for scenes: a convolution over three axes is decomposed into one axis after another (DDR).

A 3 × 3 × 3 convolution from c to c channels has 27 c² weights; convolutions of 3 × 1 × 1, 1 × 3 × 1 and 1 × 1 × 3 have
9 c² together and the same receptive field. There is no normalisation. Convolutions have a bias unless the docstring
says otherwise.

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

from xmodal.models.scenes.projection import Occupied, largest_of

RINGS = (6, 12, 18)  # dilations of the pyramid


class Point(nn.Conv3d):
    """A 1 × 1 × 1 convolution computed as a matrix product, which needs no rearranged copy of its input."""

    def __init__(self, read: int, write: int, *, bias: bool = True) -> None:
        super().__init__(read, write, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, D, H, W) → (batch, write, D, H, W)."""
        weight, voxels = self.weight.flatten(1), x.flatten(2)
        if self.bias is None:
            product = torch.matmul(weight, voxels)
        else:
            product = torch.baddbmm(self.bias[:, None], weight.expand(x.shape[0], -1, -1), voxels)
        out: Tensor = product.unflatten(2, x.shape[2:])  # type: ignore[no-untyped-call]
        return out


class Bottleneck2d(nn.Module):
    """1 × 1 without bias, 1 × 3, 3 × 1, 1 × 1 without bias, a ReLU between each; the input is added, ReLU.

    Args:
        channels: of the input and the output.
        inner: channels between the two 1 × 1 convolutions.
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
    """One axis after another, W first; each convolution reads the sum of all earlier results.

    Args:
        read: input channels.
        inner: channels between the two 1 × 1 × 1 convolutions, which have no bias.
        write: output channels.
        dilation: of the three convolutions.
        residual: whether the input is added; input and output then have the same number of channels.
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
        return self.after_enter(self.enter(x), x if self.residual else None)

    def after_enter(self, entered: Tensor, x: Tensor | None = None) -> Tensor:
        """Everything behind the first 1 × 1 × 1 convolution.

        Args:
            entered: output of that convolution (batch, inner, D, H, W).
            x: what is added at the end; None: nothing.
        """
        first = self.along(entered.relu()).relu()
        second = self.upper(first).add(first).relu()
        third = self.across(second).add(second).add(first).relu()
        out: Tensor = self.leave(third)
        return (out if x is None else out + x).relu()


class Downsample(nn.Module):
    """Half of each side: a 3 × 3 × 3 convolution without bias, concatenated with the maximum of each 2 × 2 × 2, ReLU.

    It reads a volume, or an `Occupied` without turning it into a volume: only outputs near a filled voxel are computed,
    all others are 0 in both cases. The two ways add the same products in another order.

    Args:
        read: input channels.
        write: output channels, more than ``read``.
    """

    def __init__(self, read: int, write: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(read, write - read, 3, stride=2, padding=1, bias=False)
        self.pool = nn.MaxPool3d(2)

    def forward(self, x: Tensor | Occupied) -> Tensor:
        """(batch, read, D, H, W) → (batch, write, D / 2, H / 2, W / 2)."""
        if isinstance(x, Occupied):
            return self._sparse(x).volume()
        return torch.cat([self.convolution(x), self.pool(x)], dim=1).relu()

    def _sparse(self, x: Occupied) -> Occupied:
        rows, *sides = x.shape
        halves = [side // 2 for side in sides]
        indices = [x.places // (sides[1] * sides[2]), x.places // sides[2] % sides[1], x.places % sides[2]]
        row, indices[0] = indices[0] // sides[0], indices[0] % sides[0]

        def flat_index(d: Tensor, h: Tensor, w: Tensor) -> Tensor:
            return ((row * halves[0] + d) * halves[1] + h) * halves[2] + w

        # The convolution has stride 2 and padding 1: output o reads input i with tap t = i + 1 - 2 o, t from 0 to 2.
        # Solved for o: each of the 27 taps gives an output only for the voxels where i + 1 - t is even. The only
        # negative value, -1, is odd and drops out.
        reads: list[tuple[tuple[int, ...], Tensor, Tensor]] = []
        for taps in itertools.product(range(3), repeat=3):
            doubled = [index + 1 - tap for index, tap in zip(indices, taps, strict=True)]
            inside = [(d % 2 == 0) & (d // 2 < half) for d, half in zip(doubled, halves, strict=True)]
            voxels = (inside[0] & inside[1] & inside[2]).nonzero().flatten()
            reads.append((taps, voxels, flat_index(*(d // 2 for d in doubled))[voxels]))
        places = torch.unique(torch.cat([outputs for _, _, outputs in reads]))
        values = x.values.T
        sums = values.new_zeros(len(places), self.convolution.out_channels)
        for taps, voxels, outputs in reads:
            weight = self.convolution.weight[:, :, taps[0], taps[1], taps[2]]
            products = values[voxels] @ weight.T
            # Under autocast the product is in half precision, the sums are not.
            sums = sums.index_add(0, torch.searchsorted(places, outputs), products.to(sums.dtype))
        pools = torch.searchsorted(places, flat_index(*(index // 2 for index in indices)))
        pooled = largest_of(x.values, pools, len(places))
        joined = torch.cat([sums.T.to(pooled.dtype), pooled]).relu()
        return Occupied(joined, places, (rows, halves[0], halves[1], halves[2]))


class Pyramid3d(nn.Module):
    """Atrous spatial pyramid pooling (ASPP): 1 × 1 × 1, three dilated blocks and the global mean, concatenated.

    Args:
        read: input channels.
        inner: channels inside the `Bottleneck3d` of each dilation.
        write: output channels of each of the five branches.
        recompute: see `checkpointed`.
    """

    def __init__(self, read: int, inner: int, write: int, *, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.place = Point(read, write, bias=False)
        self.rings = nn.ModuleList(
            Bottleneck3d(read, inner, write, dilation=dilation, residual=False) for dilation in RINGS
        )
        self.everywhere = Point(read, write, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, D, H, W) → (batch, 5 · write, D, H, W)."""
        # All layers that read x share one matrix product. The gradient with respect to x, the largest tensor here, is
        # then allocated once and not five times.
        rings = [ring for ring in self.rings if isinstance(ring, Bottleneck3d)]
        readers = [self.place, *(ring.enter for ring in rings), self.everywhere]
        weight = torch.cat([reader.weight.flatten(1) for reader in readers])
        product: Tensor = torch.matmul(weight, x.flatten(2)).unflatten(2, x.shape[2:])  # type: ignore[no-untyped-call]
        place, *entered, everywhere = product.split([reader.out_channels for reader in readers], dim=1)  # type: ignore[no-untyped-call]
        # Clones, because autograd stores the inputs of the rings: a view would keep the whole product alive.
        branches = [
            checkpointed(ring.after_enter, part.clone(), recompute=self.recompute)
            for ring, part in zip(rings, entered, strict=True)
        ]
        # The authors interpolate one value per channel to the size of the volume, which only repeats it. The mean and
        # the 1 × 1 × 1 convolution are both linear, so their order does not matter.
        everywhere = everywhere.mean(dim=(2, 3, 4), keepdim=True).expand_as(place)
        return torch.cat([place, *branches, everywhere], dim=1)


def checkpointed(part: Callable[[Any], Any], x: Any, *, recompute: bool) -> Any:
    """The output of a part; with ``recompute`` its activations are not stored but computed again for the gradient."""
    if not recompute or not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return part(x)
    return checkpoint(part, x, use_reentrant=False)


def head(*channels: int) -> nn.Sequential:
    """1 × 1 × 1 convolutions from each number of channels to the next, with a ReLU between them."""
    layers: list[nn.Module] = []
    for read, write in itertools.pairwise(channels):
        layers += [Point(read, write), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def initialise(network: nn.Module) -> None:
    """Initial weights of the published networks: Xavier (uniform) over three axes, normal(0, 0.1) over two."""
    # Biases keep PyTorch's initial values, as in the published code.
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
