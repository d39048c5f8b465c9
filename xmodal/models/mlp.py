"""The plain networks of the non-target divergence experiments: three linear layers, two of them in the encoder.

    samples ──flatten──▶ layer1 ──place1──▶ layer2 ──place2──▶ embedding ──head──▶ outputs

``flatten``, ``place1``, ``place2`` and ``head`` are the feature layers whose channels can be disturbed or removed.
Every pixel is a channel of ``flatten``. There is no batch normalisation.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from xmodal.models.small import Encoder

LEAK = 0.01  # slope of LeakyReLU below zero: PyTorch's default, which the authors' code uses


def build_relu_mlp(shape: Sequence[int], *, width: int = 16, dropout: float = 0.0) -> Encoder:
    """Two layers of this width with ReLU: with a head of four outputs the network of the classification data."""
    return _encoder(shape, width, width, nn.ReLU(), nn.ReLU(), dropout)


def build_leaky_mlp(shape: Sequence[int], *, width: int = 256, dropout: float = 0.0) -> Encoder:
    """A layer of four times this width and one of this width, with LeakyReLU: the network of MNIST."""
    return _encoder(shape, 4 * width, width, nn.LeakyReLU(LEAK), nn.LeakyReLU(LEAK), dropout)


def layer_name(number: int, modality: str) -> str:
    """Name of a feature layer in a network of one modality with one of these encoders, by the number in the paper.

    Example:
        >>> layer_name(0, "mnist"), layer_name(1, "mnist"), layer_name(3, "mnist")
        ('encoders.from_mnist.body.flatten', 'encoders.from_mnist.body.place1', 'head')
    """
    body = f"encoders.from_{modality}.body"
    return (f"{body}.flatten", f"{body}.place1", f"{body}.place2", "head")[number]


def _encoder(
    shape: Sequence[int], first: int, second: int, place1: nn.Module, place2: nn.Module, dropout: float
) -> Encoder:
    # Names instead of numbers: commands and saved rankings refer to these layers.
    layers: list[tuple[str, nn.Module]] = [
        ("flatten", nn.Flatten()),
        ("layer1", nn.Linear(math.prod(shape), first)),
        ("place1", place1),
        ("dropout1", nn.Dropout(dropout)),
        ("layer2", nn.Linear(first, second)),
        ("place2", place2),
        ("dropout2", nn.Dropout(dropout)),
    ]
    return Encoder(nn.Sequential(OrderedDict(layers)), second)
