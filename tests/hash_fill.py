"""Numbers that MFH's golden files are computed from: the hash, what it fills, and the permutations by formula.

    h = 2654435761 i + 40503 k + 1,  h ^= h >> 16,  h *= 2246822519,  h ^= h >> 13,  h *= 3266489917,  h ^= h >> 16

in 32 bits, and u(k, i) = h / 2³² - ½ for key k and index i.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent / "golden"
STEPS = np.array([3, 7, 9, 11, 13, 17, 19, 21, 23, 27])


def golden_files(system="mfh"):
    """Every golden file of a system, from tests/golden or the folder that XMODAL_GOLDEN names."""
    folder = Path(os.environ.get("XMODAL_GOLDEN", HERE))
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob(f"*{system}*.json"))}


def uniform(key, count):
    """u(key, 0..count - 1) in float64."""
    h = np.arange(count, dtype=np.uint32)  # arrays of this type wrap around by themselves
    h *= np.uint32(2654435761)
    h += np.uint32((40503 * key + 1) % 2**32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(2246822519)
    h ^= h >> np.uint32(13)
    h *= np.uint32(3266489917)
    h ^= h >> np.uint32(16)
    return h / 2**32 - 0.5


def hash_tensor(key, shape, offset=0):
    """An input tensor of a golden file."""
    return torch.tensor(np.sqrt(12) * uniform(key + offset, int(np.prod(shape))), dtype=torch.float32).reshape(shape)


def hash_weights(module, offset=0, gain=1.0):
    """Fill the parameters of a network by the rule of the golden files, in the order of registration."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    scales = {id(part.weight) for part in module.modules() if isinstance(part, norms)}
    with torch.no_grad():
        for place, parameter in enumerate(module.parameters()):
            u = uniform(place + offset, parameter.numel())
            if parameter.ndim >= 2:
                u = gain * np.sqrt(24 * len(parameter) / parameter.numel()) * u
            else:
                u = 0.2 * u + (id(parameter) in scales)
            parameter.copy_(torch.tensor(u).reshape(parameter.shape))
    return module


def formula_permutations(draws, channels, rows, shift=0, first=0):
    """perm(j, c + first, rows) for all draws j and channels c, (draws, channels, rows)."""
    j, c, n = np.ogrid[:draws, first : first + channels, :rows]
    return (STEPS[(j + c) % 10] * n + 7 * j + 11 * c + shift) % rows
