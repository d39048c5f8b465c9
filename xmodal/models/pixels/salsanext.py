"""SalsaNext: maps for every pixel of a LiDAR picture, from which a head predicts classes.

| stage | channels, width b | resolution |
|---|---|---|
| context1 to context3 | in → b → b → b | 1 |
| res1, res2, res3, res4, each with its pool | b → 2b → 4b → 8b → 8b | 1/2, 1/4, 1/8, 1/16 |
| res5 | 8b → 8b | 1/16 |
| up1, up2, up3, up4, each with the skip connection of res4 to res1 | 8b → 4b → 4b → 2b → b | 1/8, 1/4, 1/2, 1 |
| head (of the `Network` around it) | b → classes | 1 |

Each convolution is followed first by LeakyReLU and then by BatchNorm; convolutions have a bias. 6 711 572 parameters
at the published width of 32 with five channels and 20 classes. Height and width are multiples of 16.

Reference: Cortinhal, Tzelepis, Aksoy: SalsaNext, 2020, arXiv 2003.03653; sizes as in the code of Perception-Aware
Multi-Sensor Fusion (Zhuang et al., ICCV 2021), which the experiments on non-target divergence use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.small import expect_shape

FINEST = 16  # the sides of a picture are multiples of this, since four stages halve them
Fuse = Callable[[int, Tensor], Tensor]  # (number of the stage, its maps) → the maps that the next stage reads


def layer(read: int, write: int, side: int, *, dilation: int = 1) -> nn.Sequential:
    """Convolution, LeakyReLU, BatchNorm; height and width are kept."""
    # A kernel of side 2 keeps them too, but only with dilation 2: it then covers three pixels.
    padding = dilation * (side - 1) // 2
    convolution = nn.Conv2d(read, write, side, padding=padding, dilation=dilation)
    return nn.Sequential(convolution, nn.LeakyReLU(), nn.BatchNorm2d(write))


class ContextBlock(nn.Module):
    """Two convolutions around each pixel, added to a shortcut."""

    def __init__(self, read: int, write: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(nn.Conv2d(read, write, 1), nn.LeakyReLU())
        self.near = layer(write, write, 3)
        self.far = layer(write, write, 3, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, H, W) → (batch, write, H, W)."""
        shortcut = self.shortcut(x)
        out: Tensor = shortcut + self.far(self.near(shortcut))
        return out


class Scales(nn.Module):
    """Three convolutions one after another, and a 1 × 1 convolution of all three outputs."""

    def __init__(self, read: int, write: int) -> None:
        super().__init__()
        self.near = layer(read, write, 3)
        self.far = layer(write, write, 3, dilation=2)
        self.even = layer(write, write, 2, dilation=2)
        self.join = layer(3 * write, write, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, H, W) → (batch, write, H, W)."""
        near = self.near(x)
        far = self.far(near)
        out: Tensor = self.join(torch.cat([near, far, self.even(far)], dim=1))
        return out


class ResBlock(nn.Module):
    """`Scales` and a shortcut."""

    def __init__(self, read: int, write: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(nn.Conv2d(read, write, 1), nn.LeakyReLU())
        self.scales = Scales(read, write)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, read, H, W) → (batch, write, H, W)."""
        out: Tensor = self.shortcut(x) + self.scales(x)
        return out


class UpBlock(nn.Module):
    """Twice the resolution with a quarter of the channels, concatenated with the maps of an earlier stage.

    Args:
        read: input channels.
        skip: channels of the earlier stage.
        write: output channels.
        dropout: of whole maps, at three points.
    """

    def __init__(self, read: int, skip: int, write: int, *, dropout: float) -> None:
        super().__init__()
        # Pixel shuffle turns four channels into 2 × 2 pixels, so a quarter of the channels remains.
        self.grow = nn.PixelShuffle(2)
        self.drop_grown = nn.Dropout2d(dropout)
        self.drop_joined = nn.Dropout2d(dropout)
        self.scales = Scales(read // 4 + skip, write)
        self.drop = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(batch, read, H, W) and (batch, skip, 2H, 2W) → (batch, write, 2H, 2W)."""
        joined = torch.cat([self.drop_grown(self.grow(x)), skip], dim=1)
        out: Tensor = self.drop(self.scales(self.drop_joined(joined)))
        return out


class SalsaNext(nn.Module):
    """The network of the table, without its head.

    Args:
        channels: of the pictures.
        width: b, the channels at full resolution; a multiple of 2.
        dropout: of whole maps; none in the first stage down and the last stage up.
    """

    reach = 1  # side of the convolution in the head

    def __init__(self, channels: int, *, width: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        if width % 2:
            raise InputError(f"The width of SalsaNext is {width}: a multiple of 2 was expected.")
        self.width = width
        self.context1 = ContextBlock(channels, width)
        self.context2 = ContextBlock(width, width)
        self.context3 = ContextBlock(width, width)
        down = [width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        self.res1, self.res2, self.res3, self.res4, self.res5 = (
            ResBlock(read, write) for read, write in zip(down[:-1], down[1:], strict=True)
        )
        self.drop1, self.drop2, self.drop3, self.drop4, self.drop5 = (
            nn.Dropout2d(rate) for rate in (0.0, dropout, dropout, dropout, dropout)
        )
        self.pool1, self.pool2, self.pool3, self.pool4 = (nn.AvgPool2d(3, stride=2, padding=1) for _ in range(4))
        self.up1 = UpBlock(8 * width, 8 * width, 4 * width, dropout=dropout)
        self.up2 = UpBlock(4 * width, 8 * width, 4 * width, dropout=dropout)
        self.up3 = UpBlock(4 * width, 4 * width, 2 * width, dropout=dropout)
        self.up4 = UpBlock(2 * width, 2 * width, width, dropout=0.0)

    def forward(self, samples: Tensor) -> Tensor:
        """(batch, channels, H, W) → (batch, width, H, W)."""
        deepest, skips = self.descend(samples)
        return self.ascend(deepest, skips)

    def descend(self, samples: Tensor, fuse: Fuse | None = None) -> tuple[Tensor, list[Tensor]]:
        """The deepest maps (batch, 8b, H / 16, W / 16), and the maps of each of the four stages before its pool.

        Args:
            samples: (batch, channels, H, W).
            fuse: replaces the pooled maps of a stage, 0 to 3; None: they are kept.
        """
        x = self.context3(self.context2(self.context1(samples)))
        stages = (
            (self.res1, self.drop1, self.pool1),
            (self.res2, self.drop2, self.pool2),
            (self.res3, self.drop3, self.pool3),
            (self.res4, self.drop4, self.pool4),
        )
        skips = []
        for number, (block, drop, pool) in enumerate(stages):
            maps = block(x)
            # The skip connection takes the maps before dropout and before any fusion.
            skips.append(maps)
            x = pool(drop(maps))
            x = x if fuse is None else fuse(number, x)
        return self.drop5(self.res5(x)), skips

    def ascend(self, deepest: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """The outputs of `descend` → maps at full resolution (batch, width, H, W)."""
        x = self.up1(deepest, skips[3])
        x = self.up2(x, skips[2])
        x = self.up3(x, skips[1])
        out: Tensor = self.up4(x, skips[0])
        return out


def expect_picture(encoder: str, shape: Sequence[int]) -> None:
    """Refuse a shape other than (channels, height, width) with sides that can be halved four times."""
    expect_shape(encoder, shape, ("channels", "height", "width"), smallest=FINEST)
    if any(side % FINEST for side in shape[1:]):
        raise InputError(
            f"The encoder '{encoder}' halves height and width four times, so both must be multiples of {FINEST}, and "
            f"this input has samples of shape {tuple(shape)}. Pad or crop them."
        )


def build_salsanext(shape: Sequence[int], *, width: int = 32, dropout: float = 0.2) -> SalsaNext:
    """The network for pictures (channels, height, width); published for (5, 256, 1024)."""
    expect_picture("salsanext", shape)
    return SalsaNext(shape[0], width=width, dropout=dropout)
