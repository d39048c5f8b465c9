"""Small encoders: one modality (batch, …) in, an embedding (batch, width) out.

Each `build_*` takes the shape of one sample and contains the sizes. A dropout layer exists at rate zero too, so that
parameter names do not depend on the rate.

``bias`` concerns the layers in front of a BatchNorm. BatchNorm subtracts the mean, so such a bias changes no output and
its true gradient is zero. What is left of it is rounding noise, which Adam scales up to full steps: two runs that
differ only in rounding then have different weights. New networks have no such bias (`network.build_for`); the default
is True because descriptions in files that were saved before do not mention it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from xmodal.errors import InputError


class Encoder(nn.Module):
    """A network that maps one modality to an embedding.

    Args:
        body: maps (batch, …) to (batch, width).
        width: size of the embedding.
    """

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body = body
        self.width = width

    def forward(self, samples: Tensor) -> Tensor:
        """(batch, …) → (batch, width)."""
        embedding: Tensor = self.body(samples)
        return embedding


def expect_shape(encoder: str, shape: Sequence[int], axes: Sequence[str], *, smallest: int = 1) -> None:
    """Refuse a sample shape that an encoder cannot read.

    Args:
        encoder: its name, for the error message.
        shape: of one sample.
        axes: names of the axes; the first one is that of the channels.
        smallest: minimal length of every axis except the first.
    """
    if len(shape) == len(axes) and min(shape[1:], default=smallest) >= smallest:
        return
    least = f" with at least {' x '.join([str(smallest)] * (len(axes) - 1))} positions" if smallest > 1 else ""
    raise InputError(
        f"The encoder '{encoder}' reads samples of shape ({', '.join(axes)}){least}, but this input has samples of "
        f"shape {tuple(shape)}. Choose another encoder ('mlp' reads every fixed shape), or store samples in that shape."
    )


def build_linear(shape: Sequence[int]) -> Encoder:
    """The samples themselves, flattened: with a head on top, a linear model."""
    return Encoder(nn.Flatten(), math.prod(shape))


def build_mlp(shape: Sequence[int], *, width: int = 128, dropout: float = 0.0, bias: bool = True) -> Encoder:
    """Twice Linear, BatchNorm and ReLU of this width on flattened samples, with dropout in between."""
    body = nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), width, bias=bias),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        *_embed(width, width, bias),
    )
    return Encoder(body, width)


def build_sequence_cnn(
    shape: Sequence[int],
    *,
    width: int = 128,
    channels: int = 64,
    kernel: int = 5,
    dropout: float = 0.0,
    bias: bool = True,
) -> Encoder:
    """Three 1-D convolutions over (channels, time), averaged over time: reads any length."""
    expect_shape("sequence_cnn", shape, ("channels", "time"))
    layers: list[nn.Module] = []
    for read in (shape[0], channels, channels):
        layers += [
            nn.Conv1d(read, channels, kernel, padding="same", bias=bias),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
        ]
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), *_embed(channels, width, bias))
    return Encoder(body, width)


def build_image_cnn(shape: Sequence[int], *, width: int = 128, channels: int = 16, dropout: float = 0.0) -> Encoder:
    """Two 3x3 convolutions and a linear layer, for pictures with sides of less than 20 pixels."""
    expect_shape("image_cnn", shape, ("channels", "height", "width"), smallest=4)
    body = nn.Sequential(
        nn.Conv2d(shape[0], channels, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * channels * (shape[1] // 4) * (shape[2] // 4), width),
        nn.ReLU(),
    )
    return Encoder(body, width)


def build_lenet(shape: Sequence[int], *, width: int = 512, dropout: float = 0.0) -> Encoder:
    """LeNet's two 5x5 convolutions and a linear layer, for pictures with sides of 20 to 47 pixels."""
    expect_shape("lenet", shape, ("channels", "height", "width"), smallest=12)
    # The first convolution keeps the size, the second one shortens each side by 4, and each pooling halves it. From 12
    # pixels on something is left.
    rows, columns = ((side // 2 - 4) // 2 for side in shape[1:])
    body = nn.Sequential(
        nn.Conv2d(shape[0], 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(16 * rows * columns, width),
        nn.ReLU(),
    )
    return Encoder(body, width)


def build_audio_cnn(
    shape: Sequence[int], *, width: int = 128, channels: int = 16, dropout: float = 0.0, bias: bool = True
) -> Encoder:
    """Three 3x3 convolutions over a spectrogram (channels, mel, time), averaged over both: reads any duration."""
    expect_shape("audio_cnn", shape, ("channels", "mel", "time"), smallest=8)
    layers: list[nn.Module] = []
    for read, write in ((shape[0], channels), (channels, 2 * channels), (2 * channels, 4 * channels)):
        layers += [nn.Conv2d(read, write, 3, padding=1, bias=bias), nn.BatchNorm2d(write), nn.ReLU(), nn.MaxPool2d(2)]
    body = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), *_embed(4 * channels, width, bias)
    )
    return Encoder(body, width)


def _embed(features: int, width: int, bias: bool) -> list[nn.Module]:
    return [nn.Linear(features, width, bias=bias), nn.BatchNorm1d(width), nn.ReLU()]
