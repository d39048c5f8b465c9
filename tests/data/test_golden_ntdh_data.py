"""The data of the non-target divergence experiments against numbers of the published code.

Reads every ``*ntdh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names; keys that a file lacks are left
out. The Gaussian pairs have a test of their own.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodal.data.classification import columns_of, draw
from xmodal.data.mnist.backgrounds import compose, cut
from xmodal.data.mnist.noisy import noisy
from xmodal.losses import LOSSES

FOLDER = Path(os.environ.get("XMODAL_GOLDEN", Path(__file__).parents[1] / "golden"))
FILES = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*ntdh*.json"))]


def cases(key):
    found = [golden.get("data", {}).get(key, []) for golden in FILES]
    return [case for entry in found for case in (entry if isinstance(entry, list) else [entry])]


def check_classification(case):
    found = draw(
        shared=case["overlap_dim"],
        samples=case["shape_train"][0] + case["shape_test"][0],
        random_state=case["random_state"],
        noise_seed=case["noise_seed"],
        scale_on_all=True,
    )
    train, test = found["train"], found["test"]
    assert [list(train.a.shape), list(test.b.shape)] == [case["shape_train"], case["shape_test"]]
    assert len(columns_of("a", case["overlap_dim"])) == case["fixed_dim"]
    assert np.bincount(train.label).tolist() == case["class_counts_train"]
    assert np.bincount(test.label).tolist() == case["class_counts_test"]
    np.testing.assert_allclose(train.decisive[0, :8], case["X_train_row0_first8"], rtol=1e-9)
    sums = {
        "X_train_sum": train.decisive,
        "X_test_sum": test.decisive,
        "x1_train_sum": train.a,
        "x2_train_sum": train.b,
        "x1_test_sum": test.a,
        "x2_test_sum": test.b,
    }
    for name, values in sums.items():
        assert values.sum() == pytest.approx(case[name], rel=1e-7, abs=1e-6), name  # summed in another order
    cmd = LOSSES["cmd"].load()(*(torch.from_numpy(values).float() for values in (train.a, train.b)))
    assert float(cmd) == pytest.approx(case["cmd5_train"], rel=1e-4)  # published in single precision


def test_golden_ntdh_classification_samples():
    for case in cases("sklearn"):
        check_classification(case)


@pytest.mark.parametrize("key", ["x1_train_sum", "x2_test_sum", "cmd5_train", "X_test_sum"])
def test_golden_ntdh_classification_notices_an_altered_number(key):
    for case in cases("sklearn")[:1]:
        with pytest.raises(AssertionError):
            check_classification({**case, key: 1.01 * case[key] + 0.01})


def check_blend(case):
    height, width, channels = case["background"]["shape"]
    i, j, c = np.ogrid[:height, :width, :channels]
    a, b, d, modulus = map(int, re.findall(r"\d+", case["background"]["rule"]))  # bg[i,j,c]=(7*i+13*j+29*c) mod 256
    background = ((a * i + b * j + d * c) % modulus).astype(np.uint8)
    p, q = np.ogrid[:28, :28]
    # digit[p,q]=200 where (p-14)^2+(q-14)^2<60 else 0
    ink, y, _, x, _, radius, paper = map(int, re.findall(r"\d+", case["digit"]["rule"]))
    digit = np.where((p - y) ** 2 + (q - x) ** 2 < radius, ink, paper).astype(np.uint8)
    top, left = case["offset_rows_cols"]

    found = compose(digit[None], cut([background], np.zeros(1, int), np.array([top]), np.array([left])))

    rows = found[0].transpose(1, 2, 0).reshape(28, -1)
    assert int(found.sum(dtype=np.int64)) == case["output_sum"]
    for name in case:
        if name.startswith("output_row"):
            assert rows[int(name.removeprefix("output_row"))].tolist() == case[name], name


def check_noise(case):
    image, uniform = np.array(case["image"], np.uint8), np.array(case["uniform_noise"])
    for level, output in case["output_by_level"].items():
        assert noisy(image, uniform, float(level)).tolist() == output, level


def test_golden_ntdh_mnist_m_is_composed_as_published():
    for case in cases("mnistm_compose"):
        check_blend(case)


def test_golden_ntdh_noise_is_blended_as_published():
    for case in cases("noise_blend"):
        check_noise(case)


def test_golden_ntdh_pixels_that_are_wrong_by_one_fail():
    for case in cases("mnistm_compose"):
        with pytest.raises(AssertionError):
            check_blend({**case, "output_row0": [case["output_row0"][0] + 1, *case["output_row0"][1:]]})
    for case in cases("noise_blend"):
        altered = {level: [[row[0] - 1, *row[1:]] for row in rows] for level, rows in case["output_by_level"].items()}
        with pytest.raises(AssertionError):
            check_noise({**case, "output_by_level": altered})
