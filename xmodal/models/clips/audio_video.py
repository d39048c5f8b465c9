"""The two networks of the RAVDESS experiments: three convolutions and two linear layers, for sound and for pictures.

| layer | ``ravdess_audio``, (1, 40, 256) | ``ravdess_image``, (3, 256, 512) | published number |
|---|---|---|---|
| conv1, ReLU, pool1 | 32 of 7x7, padding 1 → (32, 18, 126) | 32 of 3x3, padding 1 → (32, 128, 256) | 1 |
| conv2, ReLU, pool2 | 64 of 5x5, padding 1 → (64, 8, 62) | 64 of 3x3, padding 1 → (64, 64, 128) | 2 |
| conv3, ReLU, pool3 | 128 of 5x5, padding 1 → (128, 7, 14) | 128 of 3x3, padding 1 → (128, 7, 14) | 3 |
| fc1, fc1_relu | 12544 → 1024 | the same | 4 |
| fc2, fc2_relu | 1024 → 128 | the same | 5 |
| head | 128 → 8 | the same | 6 |
| parameters | 13 236 104 | 13 071 560 | |

pool1 and pool2 take the maximum of 2x2; pool3 adapts any size to 7x14, so samples may have any size (audio has only 6
rows there, which become 7). No BatchNorm, no dropout. The published number 0 is the input. The channels of layers 0 to
3 are maps; the authors' code counts every number of a map instead, and fails at these four.

Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; read from the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.models.feature_layers import INPUT
from xmodal.models.network import PREFIX, build_network
from xmodal.models.small import expect_shape
from xmodal.types import Student

LAYERS = {1: "pool1", 2: "pool2", 3: "pool3", 4: "fc1_relu", 5: "fc2_relu"}  # published number → layer
SHAPES = {"audio": (1, 40, 256), "image": (3, 256, 512)}
POOLED = (7, 14)


class ThreeConvolutions(nn.Module):
    """The network of the table above, without its head.

    Args:
        read: channels of a sample.
        kernels: sides of the three convolutions.
        channels: of the first convolution; the second has twice as many, the third four times as many.
        hidden: width of ``fc1``.
        width: width of ``fc2``, the embedding.
    """

    def __init__(self, read: int, kernels: Sequence[int], *, channels: int, hidden: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.conv1 = nn.Conv2d(read, channels, kernels[0], padding=1)
        self.conv1_relu = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(channels, 2 * channels, kernels[1], padding=1)
        self.conv2_relu = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(2 * channels, 4 * channels, kernels[2], padding=1)
        self.conv3_relu = nn.ReLU()
        self.pool3 = nn.AdaptiveMaxPool2d(POOLED)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(4 * channels * POOLED[0] * POOLED[1], hidden)
        self.fc1_relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden, width)
        self.fc2_relu = nn.ReLU()

    def forward(self, samples: Tensor) -> Tensor:
        """(batch, channels, H, W) → (batch, width)."""
        x = self.pool1(self.conv1_relu(self.conv1(samples)))
        x = self.pool2(self.conv2_relu(self.conv2(x)))
        x = self.flatten(self.pool3(self.conv3_relu(self.conv3(x))))
        embedding: Tensor = self.fc2_relu(self.fc2(self.fc1_relu(self.fc1(x))))
        return embedding


def build_ravdess_audio(
    shape: Sequence[int], *, width: int = 128, hidden: int = 1024, channels: int = 32
) -> ThreeConvolutions:
    """The encoder of spectrograms (channels, coefficients, frames); published for (1, 40, 256)."""
    # The smallest side of which the last convolution leaves something: 20 → 16 → 8 → 6 → 3 → 1.
    expect_shape("ravdess_audio", shape, ("channels", "coefficients", "frames"), smallest=20)
    return ThreeConvolutions(shape[0], (7, 5, 5), channels=channels, hidden=hidden, width=width)


def build_ravdess_image(
    shape: Sequence[int], *, width: int = 128, hidden: int = 1024, channels: int = 32
) -> ThreeConvolutions:
    """The encoder of pictures (channels, height, width); published for (3, 256, 512)."""
    expect_shape("ravdess_image", shape, ("channels", "height", "width"), smallest=8)
    return ThreeConvolutions(shape[0], (3, 3, 3), channels=channels, hidden=hidden, width=width)


def build_ravdess(
    modality: str, *, classes: int = 8, shape: Sequence[int] | None = None, width: int = 128, hidden: int = 1024
) -> Student:
    """The complete published network of a modality as a student that can be rebuilt from its file.

    Args:
        modality: ``audio`` or ``image``.
        classes: width of the head.
        shape: of a sample; None: the published shape.
        width: of the embedding.
        hidden: width of the layer before the embedding.

    Example:
        >>> student = build_ravdess("audio", classes=4, width=8, hidden=16)
        >>> student.module.head
        Linear(in_features=8, out_features=4, bias=True)
    """
    if modality not in SHAPES:
        raise InputError(f"The networks of RAVDESS read audio or image, not '{modality}'.")
    numbers = {"shape": list(shape or SHAPES[modality]), "width": width, "hidden": hidden}
    arguments: dict[str, Any] = {
        "inputs": {modality: {"encoder": f"ravdess_{modality}", **numbers}},
        "outputs": classes,
    }
    return Student(build_network(**arguments), (modality,), modality, "network", arguments)


def ravdess_layer(number: int, modality: str) -> str:
    """Name of a feature layer in the network of a modality, by its published number, 0 to 6.

    Example:
        >>> [ravdess_layer(number, "audio") for number in (0, 5, 6)]
        ['input:audio', 'encoders.from_audio.fc2_relu', 'head']
    """
    names = {0: f"{INPUT}{modality}", **{key: f"encoders.{PREFIX}{modality}.{name}" for key, name in LAYERS.items()}}
    names[len(names)] = "head"
    if number not in names:
        raise InputError(f"The layer is {number}: expected a number from 0 (the input) to 6 (the outputs).")
    return names[number]
