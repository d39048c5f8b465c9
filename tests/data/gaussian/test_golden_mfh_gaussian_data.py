"""The draws of the published Gaussian experiments, to the bit.

Reads every ``*mfh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from xmodal.data.gaussian.dataset import GaussianSettings, design_of, draw_splits_of
from xmodal.data.gaussian.draws import draw_removal, draw_sweep, increase_alpha, increase_gamma, modify_gamma

HERE = Path(__file__).parents[2] / "golden"
DESIGNS = {"increase_gamma": increase_gamma, "increase_alpha": increase_alpha}
MODALITIES = {"x1": "a", "x2": "b"}  # the authors' names


def read(folder):
    files = sorted(Path(folder).glob("*mfh*.json"))
    if not files:
        raise FileNotFoundError(f"no *mfh*.json in {folder}: expected files with the schema of mfh.json")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


GOLDEN = read(os.environ.get("XMODAL_GOLDEN", HERE))


def cases(key):
    return [case for golden in GOLDEN for case in golden.get(key, [])]


def digest(array, kind):
    return hashlib.sha256(np.ascontiguousarray(array, dtype=kind).tobytes()).hexdigest()


def check(pairs, wanted):
    """Compare everything that a golden set holds with samples."""
    assert pairs.a.dtype == pairs.b.dtype == np.float32 and pairs.label.dtype == np.int64
    assert int(pairs.label.sum()) == wanted["positives"]
    assert pairs.label[: len(wanted["y_first20"])].tolist() == wanted["y_first20"]
    for theirs, ours in MODALITIES.items():
        array = getattr(pairs, ours)
        assert list(array.shape) == wanted[f"{theirs}_shape"]
        first = wanted[f"{theirs}_row0"]
        np.testing.assert_allclose(array[0, : len(first)], first, rtol=1e-7)  # nine digits in the file
        assert array.astype(np.float64).sum() == pytest.approx(wanted[f"{theirs}_sum"], abs=1e-8)
        assert (array.astype(np.float64) ** 2).sum() == pytest.approx(wanted[f"{theirs}_sqsum"], rel=1e-12)
        assert digest(array, "<f4") == wanted[f"{theirs}_sha256"]
    assert digest(pairs.label, "<i8") == wanted["y_sha256"]


def test_golden_mfh_generator_is_the_legacy_one():
    for golden in GOLDEN:
        wanted = golden.get("rng", {}).get("numpy_randn5_seed0", [])
        np.testing.assert_allclose(np.random.RandomState(0).standard_normal(len(wanted)), wanted, rtol=1e-8)


@pytest.mark.parametrize("experiment", DESIGNS)
def test_golden_mfh_gauss_data(experiment):
    for case in cases("gauss_data"):
        if case["experiment"] == experiment:
            samples = draw_sweep(DESIGNS[experiment](case["setting"]), case["seed"])

            check(samples["train"], case["train"])
            check(samples["test"], case["test"])


def test_golden_mfh_hyperplane_comes_first():
    for case in cases("gauss_data"):
        drawn = np.random.RandomState(case["seed"]).standard_normal(500)[:5]
        np.testing.assert_allclose(drawn, case["a_first5"], rtol=1e-8)


def test_golden_mfh_gamma_data():
    for case in cases("gamma_data"):
        samples = draw_removal(modify_gamma(case["xs1"], case["xs2"]), case["seed"])

        for name, ours in {"train": "train", "test": "test", "kd_set": "again"}.items():
            check(samples[ours], case[name])


def test_golden_mfh_data_set_draws_the_same():
    swept = {"increase_gamma": "shared", "increase_alpha": "a_only"}
    for case in cases("gauss_data"):
        name = case["experiment"]
        settings = GaussianSettings(experiment=name.replace("_", "-"), **{swept[name]: case["setting"]})

        samples = draw_splits_of(settings, case["seed"])

        assert design_of(settings) == DESIGNS[name](case["setting"])
        check(samples["train"], case["train"])
        check(samples["test"], case["test"])
