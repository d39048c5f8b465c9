"""Algorithm 1 in the linear case against the published implementation: distances, values, top channels, exact means.

Reads every ``*mfh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names.
"""

import numpy as np
import pytest
import torch
from hash_fill import formula_permutations, golden_files, uniform
from torch import nn

from xmodal.diagnostics.saliency import keep_mask, measure_saliency
from xmodal.models.network import wrap
from xmodal.types import Batch

FILES = golden_files()
LINEAR = {name: (file, file["alg1_linear"]) for name, file in FILES.items() if "alg1_linear" in file}
ROWS, WIDTH = 200, 50


def train_split(case):
    """Training set 1 of the data whose decisive columns are shared in part: both modalities, in float32."""
    random = np.random.RandomState(case["data_seed"])
    decisive = random.randn(ROWS, case["xs1"] + case["xs2"])
    x1, x2 = random.randn(ROWS, WIDTH), random.randn(ROWS, WIDTH)
    x1[:, : decisive.shape[1]] = decisive
    x2[:, : case["xs2"]] = decisive[:, : case["xs2"]]
    return Batch({"a": torch.tensor(x1, dtype=torch.float32), "b": torch.tensor(x2, dtype=torch.float32)}, {})


def linear(weight, bias, modality):
    layer = nn.Linear(len(weight) // len(bias), len(bias))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight).reshape(layer.weight.shape))
        layer.bias.copy_(torch.tensor(bias))
    return wrap(layer, [modality])


def measured(file, case, side, method, **how):
    teacher = linear(case["teacher_weight"], case["teacher_bias"], "a")
    student = linear(case["student_weight"], case["student_bias"], "b")
    place = "input:a" if side == "teacher" else "input:b"
    if "permutations" not in how:
        first = WIDTH if side == "teacher" else 0  # the published loop shuffles the student's channels first
        how["permutations"] = formula_permutations(case["M"], WIDTH, ROWS, file.get("perm_shift", 0), first)
    return measure_saliency(teacher, student, [train_split(case)], place, side=side, method=method, **how)


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if "hash_fill" in file])
def test_golden_mfh_hash_fill(name):
    for case in FILES[name]["hash_fill"]["check"]:
        assert uniform(case["k"], len(case["values"])) == pytest.approx(case["values"], rel=1e-8)


@pytest.mark.parametrize("method", ["naive", "batched", "rank_one", "closed"])
@pytest.mark.parametrize("side", ["teacher", "student"])
@pytest.mark.parametrize("name", LINEAR)
def test_golden_mfh_alg1_linear_raw(name, side, method):
    file, case = LINEAR[name]

    saliency = measured(file, case, side, method)

    assert saliency.form == method
    assert saliency.draws == pytest.approx(np.array(case[f"raw_{side}"]), rel=1e-5)
    assert saliency.value == pytest.approx(np.array(case[f"normalised_{side}"]), abs=1e-4)


@pytest.mark.parametrize("side", ["teacher", "student"])
@pytest.mark.parametrize("name", LINEAR)
def test_golden_mfh_alg1_linear_top(name, side):
    file, case = LINEAR[name]
    top = case[f"top_{side}"]

    kept = keep_mask(measured(file, case, side, "auto").value, keep=len(top))

    assert set(np.flatnonzero(kept)) == set(top)
    shared = np.mean(np.flatnonzero(kept) < case["xs2"])
    assert shared == pytest.approx(case["tag_acc"][side == "student"])


@pytest.mark.parametrize("name", LINEAR)
def test_golden_mfh_alg1_linear_exact(name):
    file, case = LINEAR[name]

    saliency = measured(file, case, "teacher", "auto", permutations="exact")

    assert saliency.exact and saliency.raw == pytest.approx(np.array(case["exact_teacher"]), rel=1e-6)
