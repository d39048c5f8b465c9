"""Networks of the authors' code: names and shapes of their tensors, and outputs when each tensor is filled by its name.

`authors_keys.json` lists the tensors in the order in which the authors' networks register them. `authors_weights.json`
holds outputs in float64 and eval mode for these tensors, where k is the name of a tensor, s the salt and i the flat
index from 0:

    h = crc32(k + s) / 2³²,  v = sin(0.7 + 12.9898 (i + 1) (0.1 + h))

    tensors of two or more axes   v √(2 / fan_in), fan_in is the product of all axes but the first
    running_var                   1 + 0.2 v
    running_mean, bias            0.1 v
    weight of one axis            1 + 0.1 v
    num_batches_tracked           0
    input number n                sin(0.37 (i + 1) + n)

A rule of the name, not of the order: a test that reads these tensors notices two exchanged tensors of one shape.

    for golden in authors_networks("vggsound/AudioModel"):
        torch.save(golden.state(), path)  # a checkpoint in the authors' names, to be read by the tested function
        golden.check(network.double().eval()(*golden.inputs()))
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent / "golden"
TOLERANCE = 1e-8


@dataclass
class AuthorsNetwork:
    """A network of `authors_weights.json`.

    Attributes:
        name: in the golden files.
        shapes: name of each tensor → shape, in the order of the authors' code.
        salt: of the file.
        given: shapes of the inputs.
        expected: one description of each output.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    salt: str
    given: list[list[int]]
    expected: list[dict]

    def state(self, **shapes):
        """Tensors by their names in float64; ``shapes`` replaces shapes, for a smaller network of the same names."""
        sizes = self.shapes | {name: tuple(shape) for name, shape in shapes.items()}
        return {name: filled(name, shape, self.salt) for name, shape in sizes.items()}

    def inputs(self):
        """The inputs, in the order of the authors' network."""
        return [given(number, shape) for number, shape in enumerate(self.given)]

    def check(self, *outputs):
        """Compare the outputs of a network with those of the file, in their order."""
        assert len(outputs) == len(self.expected), (self.name, len(outputs), len(self.expected))
        for output, expected in zip(outputs, self.expected, strict=True):
            assert output.dtype == torch.float64, (self.name, output.dtype)
            values = output.detach().numpy()
            assert list(values.shape) == expected["shape"], (self.name, values.shape, expected["shape"])
            limits = {"rtol": TOLERANCE, "atol": TOLERANCE, "err_msg": self.name}
            np.testing.assert_allclose(values.ravel()[expected["at"]], expected["samples"], **limits)
            # Sums over a whole picture: the tolerance is that of one element, relative to the size of the sum.
            for total, key in ((values.sum(), "sum"), (np.abs(values).sum(), "abs_sum")):
                np.testing.assert_allclose(
                    total, expected[key], rtol=TOLERANCE, atol=TOLERANCE * expected["abs_sum"], err_msg=self.name
                )


def authors_networks(part):
    """All networks whose name contains ``part``, from tests/golden or the folder that XMODAL_GOLDEN names.

    Several files of one kind may lie in that folder, with other salts or inputs; each network of each is returned.
    Names and shapes that the folder does not list are taken from tests/golden.
    """
    folder = Path(os.environ.get("XMODAL_GOLDEN", HERE))
    names = {}
    for path in [HERE / "authors_keys.json", *sorted(folder.glob("*authors_keys*.json"))]:
        names |= json.loads(path.read_text())
    found = []
    for path in sorted(folder.glob("*authors_weights*.json")) or [HERE / "authors_weights.json"]:
        golden = json.loads(path.read_text())
        for name, network in golden["networks"].items():
            if part in name:
                shapes = {key: tuple(shape) for key, shape in names[name]["keys"]}
                found.append(AuthorsNetwork(name, shapes, golden["salt"], network["inputs"], network["outputs"]))
    assert found, f"No golden network is called {part}."
    return found


def filled(name, shape, salt=""):
    """The tensor of a name, by the rule above."""
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.long)
    h = zlib.crc32((name + salt).encode()) / 2**32
    i = np.arange(int(np.prod(shape)))
    v = np.sin(0.7 + 12.9898 * (i + 1) * (0.1 + h)).reshape(shape)
    if len(shape) >= 2:
        v = v * np.sqrt(2 / np.prod(shape[1:]))
    elif kind == "running_var":
        v = 1 + 0.2 * v
    elif kind in ("running_mean", "bias"):
        v = 0.1 * v
    else:
        v = 1 + 0.1 * v
    return torch.from_numpy(v)


def given(number, shape):
    """Input number ``number`` of a network, from 0."""
    i = np.arange(int(np.prod(shape)))
    return torch.from_numpy(np.sin(0.37 * (i + 1) + number).reshape(shape))


def swaps(state):
    """Pairs of names of equal shapes and different values: each tensor and the next of its shape."""
    last, pairs = {}, []
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        shape = tuple(tensor.shape)
        if shape in last:
            pairs.append((last[shape], name))
        last[shape] = name
    return pairs
