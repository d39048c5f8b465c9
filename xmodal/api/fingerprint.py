"""Short texts that change when data or networks change, by which a run folder recognises what it was made with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from xmodal.data.base import Data
from xmodal.data.present import stored_of
from xmodal.types import SPLITS

BLOCK_BYTES = 16 * 2**20  # read at a time
COLUMN_BYTES = 256 * 2**20  # of a longer column, evenly spaced rows of this size together are read


def of_data(data: Data) -> str:
    """The fingerprint of opened data: of its name and options if it has some, else of rows, targets and columns."""
    if data.source:
        return _digest(json.dumps(data.source, sort_keys=True, default=str).encode())
    digest = hashlib.sha256()
    for name in SPLITS:
        split = data.split(name)
        for modality in sorted(split.numbers):
            digest.update(f"{name} {modality}".encode())
            digest.update(np.ascontiguousarray(split.numbers[modality]).tobytes())
            if modality in split.targets:
                digest.update(np.ascontiguousarray(split.targets[modality].numpy()).tobytes())
    for name, column in sorted(data.train.columns.items()):
        stored, numbers = stored_of(column)
        digest.update(f"{name} {stored.dtype} {tuple(stored.shape)}".encode())
        if numbers is not None:
            digest.update(numbers.tobytes())
        size = max(1, stored.dtype.itemsize * int(np.prod(stored.shape[1:])))
        step = max(1, -(-size * stored.shape[0] // COLUMN_BYTES))
        rows, block = np.arange(0, stored.shape[0], step), max(1, BLOCK_BYTES // size)
        for first in range(0, len(rows), block):
            digest.update(np.ascontiguousarray(stored[rows[first : first + block]]).tobytes())
    return digest.hexdigest()[:16]


def of_array(array: Any) -> str:
    """The fingerprint of an array or nested list of numbers."""
    values = np.ascontiguousarray(array)
    return _digest(f"{values.dtype} {values.shape}".encode() + values.tobytes())


def of_modules(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Side → fingerprint of a network: its structure and the weights from which it starts."""
    prints = {}
    for side, module in modules.items():
        digest = hashlib.sha256(str(module).encode())
        for name, tensor in module.state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
        prints[side] = digest.hexdigest()[:16]
    return prints


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
