"""The Gaussian recipes against the authors' code, network by network.

Reads every ``*mfh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names.
"""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from quiet_study import quiet_study

from xmodal.data.gaussian.draws import increase_alpha, increase_gamma
from xmodal.losses import LOSSES
from xmodal.recipes.mfh_gauss import gauss_alpha, gauss_gamma
from xmodal.recipes.mfh_gauss.gauss_removal import Settings
from xmodal.recipes.mfh_gauss.gauss_removal_training import trained
from xmodal.study.linear import Stream, only
from xmodal.study.settings import StudySettings

HERE = Path(__file__).parents[2] / "golden"
SWEEPS = {"increase_gamma": (gauss_gamma, increase_gamma), "increase_alpha": (gauss_alpha, increase_alpha)}
NAMES = {"teacher": "teacher", "no_kd": "no-KD", "kd": "kd"}  # the authors' → ours
COLUMNS = {"teacher": "teacher", "no_kd": "no-KD", "regular_kd": "KD", "mg_teacher": "MG teacher", "mg_kd": "MG-KD"}
STUDY = quiet_study(StudySettings())


def read(folder):
    files = sorted(Path(folder).glob("*mfh*.json"))
    if not files:
        raise FileNotFoundError(f"no *mfh*.json in {folder}: expected files with the schema of mfh.json")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


GOLDEN = read(os.environ.get("XMODAL_GOLDEN", HERE))


def hash_fill(key, shape):
    """The inputs that the golden files describe by a formula instead of numbers."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64)
    h = (2654435761 * index + 40503 * key + 1) % 2**32
    for shift, factor in ((16, 2246822519), (13, 3266489917), (16, 1)):
        h = (h ^ (h >> np.uint64(shift))) * factor % 2**32
    return (np.sqrt(12) * (h / 2**32 - 0.5)).astype(np.float32).reshape(shape)


def test_golden_mfh_hash_fill_is_the_formula():
    for golden in GOLDEN:
        for case in golden.get("hash_fill", {}).get("check", []):
            found = hash_fill(case["k"], (len(case["values"]),)) / np.sqrt(12)
            np.testing.assert_allclose(found, case["values"], atol=1e-7)


def test_golden_mfh_kl():
    for golden in GOLDEN:
        if case := golden.get("kl"):
            offset = golden.get("key_offset", 0)
            student, teacher = (
                torch.from_numpy(hash_fill(case[f"{side}_key"] + offset, case["shape"]))
                for side in ("student", "teacher")
            )
            for reduction in ("mean", "batchmean"):
                found = LOSSES["kl"].load()(student, teacher, temperature=1.0, scale="none", reduction=reduction)
                assert found.item() == pytest.approx(case[reduction], rel=1e-6)
            assert LOSSES["mse"].load()(student, teacher).item() == pytest.approx(case["mse"], rel=1e-6)


def test_golden_mfh_torch_permutation():
    for golden in GOLDEN:
        wanted = golden.get("rng", {}).get("torch_randperm8_seed0", [])
        with Stream(0).continued():
            assert torch.randperm(8).tolist()[: len(wanted)] == wanted


def layer(student):
    head = student.module.head
    return {"weight": head.weight.detach().double(), "bias": head.bias.detach().double()}


@functools.cache
def fitted(experiment):
    """All networks of an experiment that some golden file speaks of, trained once."""
    recipe, design_of = SWEEPS[experiment]
    tables = [golden.get("gauss_accuracy", {}) for golden in GOLDEN]
    single = [
        case for golden in GOLDEN for case in golden.get("gauss_training", []) if case["experiment"] == experiment
    ]
    settings = {int(setting) for table in tables for setting in table.get(experiment, {})}
    settings |= {case["setting"] for case in single}
    seeds = {seed for table in tables if experiment in table for seed in table["seeds"]}
    seeds |= {case["seed"] for case in single}
    designs = [design_of(setting) for setting in sorted(settings)]
    return gauss_gamma.fitted(recipe.Settings(seeds=tuple(sorted(seeds))), designs, STUDY)


def test_golden_mfh_gauss_training():
    for case in (case for golden in GOLDEN for case in golden.get("gauss_training", [])):
        design, seed = SWEEPS[case["experiment"]][1](case["setting"]), case["seed"]
        stream, fresh = Stream(seed + 1), {}
        for name, modality in (("teacher", "a"), ("kd", "b"), ("no_kd", "b")):
            fresh[name] = stream.linear(modality, design.view(modality).width)

        _, runs = fitted(case["experiment"])

        for name, wanted in case["nets"].items():
            first, last = layer(fresh[name]), layer(only(runs[NAMES[name]][design, seed]))
            row = wanted["init_weight_row0_first5"]
            np.testing.assert_allclose(first["weight"][0, : len(row)], row, atol=1e-8)
            np.testing.assert_allclose(first["bias"], wanted["init_bias"], atol=1e-8)
            np.testing.assert_allclose(last["weight"].flatten(), wanted["final_weight"], atol=1e-4)
            np.testing.assert_allclose(last["bias"], wanted["final_bias"], atol=1e-4)


@pytest.mark.parametrize("experiment", SWEEPS)
def test_golden_mfh_gauss_accuracy(experiment):
    rows = gauss_gamma.scored(*fitted(experiment))

    found = {(row["gamma"], row["seed"], row["name"]): 1000 * row["test"]["accuracy"] for row in rows}
    for golden in (golden["gauss_accuracy"] for golden in GOLDEN if experiment in golden.get("gauss_accuracy", {})):
        wanted = {
            (SWEEPS[experiment][1](int(setting)).gamma, seed, NAMES[column]): value
            for setting, lines in golden[experiment].items()
            for seed, line in zip(golden["seeds"], lines, strict=True)
            for column, value in zip(golden["columns"], line, strict=True)
        }
        apart = np.array([abs(found[key] - value) for key, value in wanted.items()])
        assert apart.max() <= 2 + 1e-6 and (apart < 0.5).mean() >= 0.95


def removal(case, *, dims, modes, **options):
    """Rows of the recipe by (mode, shared, seed, name) in per cent, and of the shares found."""
    dims = tuple(f"{case['xs1']}:{shared}" for shared in dims)
    settings = Settings(seeds=tuple(case["seeds"]), dims=dims, mode=modes, **options)
    rows = trained(settings, settings.seeds, STUDY)
    scores = {(row["mode"], row["shared"], row["seed"], row["name"]): 100 * row["test"]["accuracy"] for row in rows}
    shares = {
        (row["shared"], row["seed"], name): row[f"found_{name}"]
        for row in rows
        for name in ("a", "b")
        if f"found_{name}" in row
    }
    return scores, shares


def check_published(case, dims):
    modes = tuple(case["res"])
    scores, shares = removal(case, dims=dims, modes=modes, as_published=True)
    for mode in modes:
        allowed = 1.0 if mode == "alg1" else 0.2
        for shared in dims:
            for seed, line in zip(case["seeds"], case["res"][mode][str(shared)], strict=True):
                values = dict(zip(case["columns"], line, strict=True))
                for column, name in COLUMNS.items():
                    assert scores[mode, shared, seed, name] == pytest.approx(values[column], abs=allowed + 1e-6), (
                        mode,
                        shared,
                        seed,
                        column,
                    )
        if mode == "alg1":
            for theirs, ours in (("x1_tag_acc", "a"), ("x2_tag_acc", "b")):
                place = case["columns"].index(theirs)
                for shared in dims:
                    mean = np.mean([line[place] for line in case["res"][mode][str(shared)]])
                    found = np.mean([shares[shared, seed, ours] for seed in case["seeds"]])
                    assert found == pytest.approx(mean, abs=0.02)  # two decimals, and a swap of two channels


def check_corrected(case, dims):
    scores, _ = removal(case, dims=dims, modes=("gt",))
    for shared in dims:
        for seed, value in zip(case["seeds"], case["res"][str(shared)], strict=True):
            assert scores["gt", shared, seed, "KD"] == pytest.approx(value, abs=0.2 + 1e-6)


def dims_of(case):
    """All numbers of shared channels that a case holds."""
    by_mode = next(iter(case["res"].values()))
    return sorted(map(int, by_mode if isinstance(by_mode, dict) else case["res"]))


CHECKS = {"modify_gamma_published": check_published, "modify_gamma_corrected_regular_kd": check_corrected}
every_check = pytest.mark.parametrize("key", CHECKS)


@every_check
def test_golden_mfh_modify_gamma(key):
    for case in (golden[key] for golden in GOLDEN if key in golden):
        dims = dims_of(case)

        CHECKS[key](case, dims[len(dims) // 2 : len(dims) // 2 + 1])


@pytest.mark.claim
@pytest.mark.timeout(7200)
@every_check
def test_golden_mfh_modify_gamma_everywhere(key):
    for case in (golden[key] for golden in GOLDEN if key in golden):
        CHECKS[key](case, dims_of(case))
