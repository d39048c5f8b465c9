"""Data and networks that the tests of the engine share: small, but with everything that makes bits hard to keep."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from xmodal.data.base import Data, assemble
from xmodal.data.request import DataRequest
from xmodal.types import Student

ROWS = 131  # nothing divides it


def pictures(*, rows: int = ROWS, augment: str = "", seed: int = 0) -> Data:
    """Two modalities of the same three-class samples: a picture, and a clearer vector."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 3, rows)
    label[:3] = [0, 1, 2]
    image = random.normal(size=(rows, 1, 6, 6)).astype(np.float32)
    image[np.arange(rows), 0, label, label] += 3.0
    vector = random.normal(size=(rows, 5)).astype(np.float32)
    vector[np.arange(rows), label] += 3.0
    whole = np.arange(rows)
    splits = {"train": whole, "valid": whole[: rows // 3], "test": whole[rows // 2 :]}
    names = ("vector", "image")
    return assemble(
        {"vector": vector, "image": image},
        dict.fromkeys(names, label),
        {split: dict.fromkeys(names, target) for split, target in splits.items()},
        request=DataRequest(augment=augment, seed=seed),
    )


class Pictures(nn.Module):
    """A CNN with BatchNorm and dropout on the modality ``image``."""

    def __init__(self, *, dropout: float = 0.3, outputs: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(64, outputs),
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        out: Tensor = self.net(inputs["image"])
        return out


class Vectors(nn.Module):
    """A small MLP with BatchNorm on the modality ``vector``."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        out: Tensor = self.net(inputs["vector"])
        return out


def image_student(*, dropout: float = 0.3, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    return Student(Pictures(dropout=dropout), ("image",), "image")


def vector_student(*, seed: int = 1) -> Student:
    torch.manual_seed(seed)
    return Student(Vectors(), ("vector",), "vector")
