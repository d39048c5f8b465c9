"""Saliency by the non-target divergence against numbers of the published code.

Reads every ``*ntdh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names; keys that a file lacks are left
out.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodal.diagnostics.divergence import measure_divergence
from xmodal.diagnostics.saliency import measure_saliency
from xmodal.methods.mfh import stay
from xmodal.models.mlp import layer_name
from xmodal.models.network import build_network
from xmodal.types import Batch

FOLDER = Path(os.environ.get("XMODAL_GOLDEN", Path(__file__).parents[1] / "golden"))
FILES = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*ntdh*.json"))]
CASES = [
    case
    for golden in FILES
    for case in (golden["saliency"] if isinstance(golden.get("saliency"), list) else [golden.get("saliency")])
    if case
]
METHODS = ("auto", "naive", "batched", "rank_one")


def network(modality, inputs, hidden, outputs, phase, amplitude, frequency):
    result = build_network(
        inputs={modality: {"encoder": "relu_mlp", "shape": [inputs], "width": hidden}}, outputs=outputs
    ).double()
    for p, parameter in enumerate(result.parameters()):
        k = torch.arange(parameter.numel(), dtype=torch.float64)
        parameter.data.copy_((amplitude * torch.sin(frequency * k + p + phase)).reshape(parameter.shape))
    return result


def problem(case):
    inputs, facts = case["inputs"], case["networks"]
    seen = {side: torch.tensor(inputs[f"x_{side}"], dtype=torch.float64) for side in ("teacher", "student")}
    target = torch.tensor(inputs["target"])
    outputs = int(re.search(r"Linear\(H,(\d+)\)", facts["kind"]).group(1))
    rule = [float(number) for number in re.search(r"([\d.]+)\*sin\(([\d.]+)\*k", facts["fill"]).groups()]
    teacher, student = (
        network(side, seen[side].shape[1], facts["H"], outputs, facts[f"phase_{side}"], *rule) for side in seen
    )
    return teacher, student, [Batch(seen, dict.fromkeys(seen, target))]


def near(result, expected):
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-9)


def check(case, method="auto"):
    teacher, student, batches = problem(case)
    options = {"distance": "ncjsd", "method": method}
    where = layer_name(0, "teacher")
    result = measure_saliency(teacher, student, batches, where, permutations=case["inputs"]["permutations"], **options)
    frozen = measure_saliency(teacher, student, batches, where, disturb="zero", **options)
    near(result.draws, case["raw"])
    near(result.raw, case["mean"])
    near(result.value, case["normalised"])
    near(frozen.raw, case["freeze_raw"])
    near(result.baseline, case["unperturbed"]["ncjsd"])
    assert np.argsort(-result.value).tolist() == case["order_high_to_low"]
    assert np.argsort(result.value).tolist() == case["order_low_to_high"]
    for name, masks in case.items():
        if name.startswith("channel_masks_ratio_"):
            ratio = float(name.removeprefix("channel_masks_ratio_"))
            for remove in ("least", "most"):
                (removed,) = [values for key, values in masks.items() if key.endswith(f"remove_{remove}")]
                kept = stay(result, ratio, remove, seed=0)
                assert (~kept).nonzero().flatten().tolist() == sorted(removed)


@pytest.mark.parametrize("method", METHODS)
def test_golden_ntdh_saliency_of_permuted_and_frozen_inputs(method):
    for case in CASES:
        check(case, method)


def test_golden_ntdh_divergence_of_the_undisturbed_networks():
    for case in CASES:
        teacher, student, batches = problem(case)
        result = measure_divergence(student, teacher, batches, form="reference")
        near(result.target_mean, case["unperturbed"]["tcjsd"])
        near(result.non_target_mean, case["unperturbed"]["ncjsd"])


def altered(value):
    return [altered(value[0]), *value[1:]] if isinstance(value, list) else 1.01 * value + 0.001


@pytest.mark.parametrize("key", ["raw", "mean", "normalised", "freeze_raw"])
def test_golden_ntdh_saliency_that_is_wrong_by_one_percent_fails(key):
    for case in CASES:
        with pytest.raises(AssertionError):
            check({**case, key: altered(case[key])})


def test_golden_ntdh_another_order_or_mask_fails():
    for case in CASES:
        with pytest.raises(AssertionError):
            check({**case, "order_high_to_low": case["order_low_to_high"]})
        for name, masks in case.items():
            if name.startswith("channel_masks_ratio_"):
                least, most = sorted(masks)
                with pytest.raises(AssertionError):
                    check({**case, name: {least: masks[most], most: masks[least]}})
