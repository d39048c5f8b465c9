"""Golden cases whose arrays stand in an .npz beside the JSON, and the hash that fills networks in them.

    h = 2654435761 n + 40503 s + 12345,  h ^= h >> 15,  h *= 2246822519,  h ^= h >> 13,  h *= 3266489917,  h ^= h >> 16

in 32 bits, and u = h / 2³² for element n of a tensor and salt s.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent / "golden"
WORD = np.uint64(0xFFFFFFFF)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass
class Case:
    """One golden case."""

    facts: dict
    arrays: dict
    offset: int

    @property
    def id(self):
        return self.facts["id"]

    @property
    def params(self):
        return self.facts.get("params", {})

    def given(self, name):
        """An input as a tensor."""
        return torch.from_numpy(self.arrays[f"{self.id}/in/{name}"])

    def has(self, name):
        return f"{self.id}/out/{name}" in self.arrays

    def check(self, **found):
        """Compare what was computed with all outputs of these names that the case holds; returns which."""
        compared = [name for name in found if self.has(name)]
        for name in compared:
            mine, expected = np.asarray(found[name], dtype=np.float64), self.arrays[f"{self.id}/out/{name}"]
            assert mine.shape == expected.shape, (self.id, name, mine.shape, expected.shape)
            limits = {"rtol": self.facts["rtol"], "atol": self.facts["atol"]}
            np.testing.assert_allclose(mine, expected, **limits, err_msg=f"{self.id} {name}")
        return compared


def golden_cases(start, *, system="kitti"):
    """Every case whose id starts so, from tests/golden or the folder that XMODAL_GOLDEN names."""
    folder, found = Path(os.environ.get("XMODAL_GOLDEN", HERE)), []
    for path in sorted(folder.glob(f"*{system}*.json")):
        golden = json.loads(path.read_text())
        arrays = dict(np.load(path.with_suffix(".npz"), allow_pickle=False))
        offset = golden.get("fill_salt_offset", 0)
        found += [Case(facts, arrays, offset) for facts in golden["cases"] if facts["id"].startswith(start)]
    return found


def parameter_counts(*, system="kitti"):
    """Name → count, of every golden file."""
    folder = Path(os.environ.get("XMODAL_GOLDEN", HERE))
    files = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*{system}*.json"))]
    return {name: count for golden in files for name, count in golden.get("param_counts", {}).items()}


def uniform(salt, shape):
    """u of every element of a tensor, float64."""
    count = int(np.prod(shape))
    h = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(40503 * salt + 12345)) & WORD
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & WORD
    h ^= h >> np.uint64(13)
    h = (h * np.uint64(3266489917)) & WORD
    h ^= h >> np.uint64(16)
    return (h.astype(np.float64) / 2**32).reshape(shape)


def filled(network, *, gain, offset):
    """The network with the weights of the golden files, in eval mode."""
    rules = {  # (layer, tensor) → salt, what u becomes
        (True, "weight"): (3, lambda u, t: 1 + 0.1 * (2 * u - 1)),
        (True, "bias"): (4, lambda u, t: 0.1 * (2 * u - 1)),
        (True, "running_mean"): (5, lambda u, t: 0.1 * (2 * u - 1)),
        (True, "running_var"): (6, lambda u, t: 1 + 0.2 * (2 * u - 1)),
        (False, "weight"): (1, lambda u, t: (2 * u - 1) * gain * np.sqrt(3 * len(t) / t.numel())),
        (False, "bias"): (2, lambda u, t: 0.1 * (2 * u - 1)),
    }
    for module in network.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if name != "num_batches_tracked":
                salt, rule = rules[isinstance(module, NORMS), name]
                values = rule(uniform(salt + offset, tuple(tensor.shape)), tensor)
                tensor.data.copy_(torch.from_numpy(values))
    return network.eval()


def hashed(salt, shape, *, signed=True):
    """An input of a golden network; its salt contains the offset."""
    u = uniform(salt, tuple(shape))
    return torch.from_numpy(2 * u - 1 if signed else u).float()
