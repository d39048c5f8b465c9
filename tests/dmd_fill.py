"""Numbers that DMD's golden files are computed from: the hash, what it fills, the inputs, and summaries of tensors.

With 32-bit wrap-around arithmetic, for the flat row-major index n = 0, 1, …:

    x = 747796405 n + 2891336453 seed + 1,  x ^= x >> 16,  x *= 2246822519,  x ^= x >> 13,  x *= 3266489917,
    x ^= x >> 16,  det = shift + scale (2 x / 2³² - 1) in float64

Modalities are called text, vision and audio here, in the order of the graphs' nodes; the files say l, v and a.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from xmodal.models.dmd.authors_weights import load_published, published_places, read_published

HERE = Path(__file__).parent / "golden"
WORD = np.uint64(0xFFFFFFFF)
LETTERS = {"text": "l", "vision": "v", "audio": "a"}  # modality → its letter, in the order of the nodes
LAV = ("text", "audio", "vision")  # the order of triples in the files
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def dmd_files(folder=None):
    """Every golden file of DMD, from tests/golden or the folder that XMODAL_GOLDEN names."""
    folder = Path(folder or os.environ.get("XMODAL_GOLDEN", HERE))
    files = sorted(folder.glob("*dmd*.json"))
    if not files:
        raise FileNotFoundError(f"no *dmd*.json in {folder}: expected files with the schema of dmd.json")
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def dmd_cases(key):
    """All cases of a list in the golden files, and a name for each."""
    found = [
        (f"golden-dmd-{file}-{key}-{case.get('name', number)}", case)
        for file, golden in dmd_files().items()
        for number, case in enumerate(golden.get(key, []))
    ]
    return {"argnames": "case", "argvalues": [case for _, case in found], "ids": [name for name, _ in found]}


def det64(shape, seed, scale=1.0, shift=0.0):
    """The formula of the files, in float64."""
    n = np.arange(int(np.prod(shape)), dtype=np.uint64)
    x = (n * np.uint64(747796405) + np.uint64((seed * 2891336453 + 1) % 2**32)) & WORD
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(2246822519)) & WORD
    x ^= x >> np.uint64(13)
    x = (x * np.uint64(3266489917)) & WORD
    x ^= x >> np.uint64(16)
    return (shift + scale * (2 * (x.astype(np.float64) / 2**32) - 1)).reshape(shape)


def det(shape, seed, scale=1.0, shift=0.0):
    """A float32 tensor by the formula of the files."""
    return torch.from_numpy(det64(shape, seed, scale, shift).astype(np.float32))


def rule_of(name, shape):
    """``w`` for matrices, ``g`` for the scale of a LayerNorm, ``b`` for everything else with one axis."""
    if len(shape) > 1:
        return "w"
    return "g" if "norm" in name and name.endswith("weight") else "b"


def parameter(shape, seed, rule):
    """One parameter of a golden module."""
    if rule == "w":
        return det(shape, seed, scale=1 / np.sqrt(np.prod(shape[1:])))
    return det(shape, seed, scale=0.1, shift=1.0) if rule == "g" else det(shape, seed, scale=0.1)


def given_state(params):
    """Name → parameter from a file's list of (name, shape, seed, rule)."""
    return {name: parameter(shape, seed, rule) for name, shape, seed, rule in params}


def filled_state(shapes, base):
    """Name → parameter, the k-th of them from the seed ``base + k``."""
    return {
        name: parameter(tuple(shape), base + k, rule_of(name, shape)) for k, (name, shape) in enumerate(shapes.items())
    }


def fill_module(module, order, base):
    """Fill the parameters named in ``order`` from the seeds ``base``, ``base + 1``, …"""
    parameters = dict(module.named_parameters())
    state = filled_state({name: parameters[name].shape for name in order}, base)
    with torch.no_grad():
        for name, value in state.items():
            parameters[name].copy_(value)
    return module


def published_state(net):
    """The weights of a network under their published names, without the buffers and without a text encoder."""
    return {name: place.tensor.clone() for name, place in published_places(net).items()}


def load_as_file(net, state):
    """Load weights as a command does: from a file in the published format, by its reader."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dmd.pth"
        torch.save(state, path)
        load_published(net, read_published(path), str(path))


def lav(case, key):
    """A triple of a case as modality → value."""
    return dict(zip(LAV, case[key], strict=True))


def golden_inputs(case):
    """Modality → (batch, width, time) as the network reads it, padding included, in the order of the nodes."""
    widths, lengths, batch = lav(case, "dims_LAV"), lav(case, "lens_LAV"), case["batch"]
    found = {
        name: det((batch, lengths[name], widths[name]), case[f"{name}_seed"]) for name in ("text", "vision", "audio")
    }
    found["text"][0, lengths["text"] // 2 :] = 0
    found["audio"][1, lengths["audio"] // 2 :] = 0
    found["vision"][0, :2] = 0
    return {name: sequence.transpose(1, 2) for name, sequence in found.items()}


def golden_labels(case):
    """Targets (batch, 1)."""
    values = np.round(det((case["batch"], 1), case["label_seed"], scale=3.0).numpy() * 5) / 5
    return torch.from_numpy(values.astype(np.float32))


def summary(tensor):
    """What the files keep of a large tensor."""
    x = tensor.detach().double().reshape(-1)
    wave = torch.cos(torch.arange(1, len(x) + 1, dtype=torch.float64))
    return {
        "shape": list(tensor.shape),
        "sum": x.sum().item(),
        "abs_sum": x.abs().sum().item(),
        "wsum": (x * wave).sum().item(),
        "first": x[:4].tolist(),
    }


def assert_golden(found, wanted, *, what=""):
    """Compare a tensor with its values, or with their summary."""
    if isinstance(wanted, dict):
        assert list(found.shape) == wanted["shape"], what
        mine = summary(found)
        # a sum of n numbers may be off by the tolerance of each, so it is given that of the sum of their sizes
        room = TOLERANCE["atol"] + TOLERANCE["rtol"] * wanted["abs_sum"]
        for key in ("sum", "abs_sum", "wsum"):
            assert abs(mine[key] - wanted[key]) <= room, (what, key, mine[key], wanted[key])
        found, wanted = torch.tensor(mine["first"]), wanted["first"]
    expected = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(found.detach().double().reshape(expected.shape), expected, **TOLERANCE, msg=None)


def assert_gradient(found, wanted, *, what=""):
    """Compare the absolute sum of a gradient; what is below 1e-6 is rounding."""
    mine = 0.0 if found is None else found.detach().double().abs().sum().item()
    assert abs(mine - wanted) <= max(1e-3 * abs(wanted), 1e-6), (what, mine, wanted)
