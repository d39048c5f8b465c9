"""The networks of the non-target divergence experiments against numbers of the published code.

Reads every ``*ntdh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names; keys that a file lacks are left
out.
"""

import json
import math
import os
import re
from pathlib import Path

import pytest
import torch

from xmodal.models.masking import masked
from xmodal.models.mlp import layer_name
from xmodal.models.network import build_network

FOLDER = Path(os.environ.get("XMODAL_GOLDEN", Path(__file__).parents[1] / "golden"))
FILES = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*ntdh*.json"))]
LIMITS = {"float64": {"rtol": 1e-6, "atol": 1e-9}, "float32": {"rtol": 2e-4, "atol": 1e-6}}
PARTS = {"logits": None, "logits_freeze_place1": 1, "logits_freeze_place2": 2}


def cases(key):
    found = [golden.get("networks", {}).get(key, []) for golden in FILES]
    return [case for entry in found for case in (entry if isinstance(entry, list) else [entry])]


def mlp(inputs, /, *, encoder="leaky_mlp", outputs=10, leak=0.01, **numbers):
    return build_network(inputs={"x": {"encoder": encoder, "shape": [inputs], **numbers}}, outputs=outputs, leak=leak)


def count(name):
    """Parameters of the network that a name stands for; None for networks of other experiments."""
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    if name.startswith("mnist_mlp"):
        found = mlp(numbers[0])
    elif name.startswith("sklearn_two_layer"):
        found = mlp(numbers[0], encoder="relu_mlp", width=numbers[1], outputs=4, leak=None)
    elif name.startswith("gauss_linear"):
        found = mlp(numbers[0], encoder="linear", outputs=numbers[1], leak=None)
    else:
        return None
    # the published network of the classification data has one more layer, which nothing reads
    unused = numbers[1] * (numbers[1] + 1) if name.startswith("sklearn") and "without_unused" not in name else 0
    return unused + sum(parameter.numel() for parameter in found.parameters())


def filled(network, rule):
    for p, parameter in enumerate(network.parameters()):
        k = torch.arange(parameter.numel(), dtype=torch.float64)
        values = rule["amplitude"] * torch.sin(rule["frequency"] * k + p + rule["phase"])
        parameter.data.copy_(values.reshape(parameter.shape))
    return network.eval()


def check(case, dtype):
    """Compare the answers that a case holds; returns which."""
    rows = len(case["logits"])
    width = int(re.search(r"k=0\.\.(\d+)", case["input"]["rule"]).group(1)) + 1
    network = filled(mlp(width).double(), case["fill"]).to(getattr(torch, dtype))
    b, k = torch.arange(rows, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    step = float(re.search(r"cos\(([\d.]+)\*k", case["input"]["rule"]).group(1))
    samples = {"x": torch.cos(step * k + b + case["input"]["shift"]).to(getattr(torch, dtype))}
    for part, number in PARTS.items():
        if part not in case:
            continue
        if number is None:
            answers = network(samples)
        else:
            keep = torch.ones({1: 1024, 2: 256}[number], dtype=torch.bool)
            keep[case[f"freeze_place{number}_index"]] = False
            with masked(network, layer_name(number, "x"), keep, fill="zero"):
                answers = network(samples)
        expected = torch.tensor(case[part], dtype=torch.float64)
        torch.testing.assert_close(answers.detach().double(), expected, **LIMITS[dtype])
    return [part for part in PARTS if part in case]


def test_golden_ntdh_networks_have_as_many_parameters():
    for golden in FILES:
        counts = golden.get("networks", {}).get("param_counts", {})
        mine = {name: count(name) for name in counts if count(name) is not None}
        assert mine == {name: counts[name] for name in mine}


@pytest.mark.parametrize("dtype", LIMITS)
def test_golden_ntdh_mnist_network_answers_whole_and_with_removed_channels(dtype):
    for case in cases("mnist_mlp_forward"):
        assert "logits" in check(case, dtype)


@pytest.mark.parametrize("part", PARTS)
def test_golden_ntdh_answers_that_are_wrong_by_one_percent_fail(part):
    for case in cases("mnist_mlp_forward"):
        if part in case:
            rows = [[1.01 * value for value in row] for row in case[part]]
            assert all(math.isfinite(value) for row in rows for value in row)
            with pytest.raises(AssertionError):
                check({**case, part: rows}, "float64")
