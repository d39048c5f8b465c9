"""The Gaussian experiment on non-target divergence against the authors' code: draws, networks, losses of the modes.

Reads every ``*ntdh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names; keys that a file lacks are left
out.
"""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from quiet_study import quiet_study
from torch import nn

from xmodal.data.gaussian.draws import HYPERPLANE, draw_sweep, increase_gamma
from xmodal.losses.distance import cmd
from xmodal.methods.ntdh import NTDH
from xmodal.methods.options import DistillationOptions
from xmodal.models.network import student_of, wrap
from xmodal.recipes.ntdh_synthetic import classification, gauss
from xmodal.recipes.ntdh_synthetic.divergence import OUTPUTS
from xmodal.types import Batch, DataInfo, InputInfo

HERE = Path(__file__).parents[2] / "golden"
NAMES = {"teacher_acc": "teacher", "nokd_acc": "no-KD", "kd_acc": "kl"}  # the authors' → ours
RECIPES = {"gauss": gauss, "sklearn": classification}
MODES = {"kl_PSSM": "kl_pssm", "dkd_PSSM": "dkd_pssm"}


def read(folder):
    files = sorted(Path(folder).glob("*ntdh*.json"))
    if not files:
        raise FileNotFoundError(f"no *ntdh*.json in {folder}: expected files with the schema of ntdh.json")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


GOLDEN = read(os.environ.get("XMODAL_GOLDEN", HERE))
TRAINING = [golden.get("training", {}).get("gauss_kl", {}) for golden in GOLDEN]
SINGLE = [case for training in TRAINING for case in training.get("single_runs", [])]


# ---- draws


def check_draws(case):
    rows = {split: case[split]["n"] for split in ("train", "test")}
    found = draw_sweep(increase_gamma(case["overlap_dim"], b_width=gauss.WIDTH), case["seed"], **rows)
    plane = np.random.RandomState(case["seed"]).standard_normal(HYPERPLANE)
    np.testing.assert_allclose(plane[: len(case["a_first5"])], case["a_first5"], rtol=1e-12)
    for split in rows:
        pairs, wanted = found[split], case[split]
        for theirs, ours in (("x1", pairs.a), ("x2", pairs.b)):
            assert ours.sum(dtype=np.float64) == pytest.approx(wanted[f"{theirs}_sum"], abs=1e-3)  # cast to float32
            if f"{theirs}_row0" in wanted:
                np.testing.assert_allclose(ours[0], wanted[f"{theirs}_row0"], rtol=1e-6)
        assert pairs.label.sum() == wanted["y_sum"]
    sides = (torch.from_numpy(side).double() for side in (found["train"].b, found["train"].a))
    assert float(cmd(*sides)) == pytest.approx(case["cmd5_train"], rel=1e-4)


def test_golden_ntdh_gauss_draws():
    for case in (case for golden in GOLDEN for case in golden.get("data", {}).get("gauss", [])):
        check_draws(case)


def test_golden_ntdh_gauss_draws_notice_an_altered_number():
    for case in (case for golden in GOLDEN for case in golden.get("data", {}).get("gauss", [])[:1]):
        with pytest.raises(AssertionError):
            check_draws({**case, "cmd5_train": 1.01 * case["cmd5_train"]})


# ---- networks


def rows_of(seeds, overlaps):
    settings = gauss.Settings(as_published=True, seeds=seeds, shared=overlaps)
    return gauss.scored(gauss.fitted(settings, quiet_study(settings)))


@functools.cache
def single_runs():
    """All networks that some golden file speaks of, trained once."""
    cases = [case for case in SINGLE if case["mode"] == "KD_KL"]
    seeds, overlaps = ({case[key] for case in cases} for key in ("seed", "overlap_dim"))
    return rows_of(tuple(sorted(seeds)), tuple(sorted(overlaps))) if cases else []


def check_run(case, rows):
    gamma = increase_gamma(case["overlap_dim"]).gamma
    found = {row["name"]: row for row in rows if (row["seed"], row["gamma"]) == (case["seed"], gamma)}
    for theirs, ours in NAMES.items():
        assert found[ours]["test"]["accuracy"] == pytest.approx(case[theirs], abs=0.002 + 1e-9), (case, ours)
    assert found["teacher"]["cmd"] == pytest.approx(case["cmd5"], rel=1e-4)
    assert found["kl"]["cmd"] == pytest.approx(case["output_cmd5"], abs=5e-4)
    for side in ("student", "teacher"):
        np.testing.assert_allclose(found["kl"]["errors"][side], case[f"err_{side}"], atol=5e-4)


def test_golden_ntdh_gauss_single_runs():
    for case in SINGLE:
        if case["mode"] == "KD_KL":
            check_run(case, single_runs())


@pytest.mark.parametrize("key", ["teacher_acc", "kd_acc", "cmd5", "output_cmd5"])
def test_golden_ntdh_gauss_single_runs_notice_an_altered_number(key):
    for case in SINGLE[:1]:
        with pytest.raises(AssertionError):
            check_run({**case, key: 1.02 * case[key]}, single_runs())


@pytest.mark.claim
@pytest.mark.timeout(7200)
def test_golden_ntdh_gauss_means():
    for key, table in ((key, table) for training in TRAINING for key, table in training.items()):
        if key.startswith("aggregate_seeds_"):
            first, last = map(int, key.removeprefix("aggregate_seeds_").split("_"))
            rows = rows_of(tuple(range(first, last + 1)), tuple(line["overlap_dim"] for line in table))
            for line in table:
                check_means(line, [row for row in rows if row["gamma"] == pytest.approx(line["gamma"])])


def check_means(line, rows):
    named = {name: [row for row in rows if row["name"] == name] for name in NAMES.values()}
    accuracy = {name: np.array([row["test"]["accuracy"] for row in own]) for name, own in named.items()}
    assert len(accuracy["kl"]) == line["n_runs"]
    for theirs, ours in NAMES.items():
        assert accuracy[ours].mean() == pytest.approx(line[theirs], abs=5e-4)
    gain = (100 * (accuracy["kl"] - accuracy["no-KD"])).round(2)
    assert (gain.mean(), gain.std()) == pytest.approx((line["delta_mean"], line["delta_std"]), abs=0.05)
    assert np.mean([row["cmd"] for row in named["teacher"]]) == pytest.approx(line["cmd5"], rel=1e-3)
    assert np.mean([row["cmd"] for row in named["kl"]]) == pytest.approx(line["output_cmd5"], abs=1e-3)
    for side in ("student", "teacher"):
        mean = np.mean([row["errors"][side] for row in named["kl"] if row["errors"]], axis=0)
        np.testing.assert_allclose(mean, line[f"err_{side}"], atol=1e-3)


# ---- the term of each mode, as the method of the recipe computes it


def check_mode(name, case):
    recipe, _, mode = name.partition("/")
    mode = MODES.get(mode, mode)
    inputs = {side: torch.tensor(case["inputs"][side], dtype=torch.float64) for side in ("student", "teacher")}
    target = torch.tensor(case["inputs"]["target"])
    vector = InputInfo((inputs["student"].shape[1],), layout="vector")
    info = DataInfo({"a": vector, "b": vector}, "multiclass", vector.shape[0], rows={"train": {"b": len(target)}})
    settings = RECIPES[recipe].Settings(as_published=True)
    method = NTDH(
        student_of(nn.Identity(), info, ["b"]),
        wrap(nn.Identity(), ["a"]),
        info,
        DistillationOptions(
            losses=settings.losses(mode),
            kd_weight=1.0,
            task_weight=0.0,
            student_layer=OUTPUTS,
            teacher_layer=OUTPUTS,
        ),
        samples=mode.endswith("_pssm"),
        detach=settings.detach,
        scale_logits=settings.scale_logits,
    )
    student = inputs["student"].requires_grad_()
    batch = Batch(
        {"a": inputs["teacher"], "b": student}, {"b": target, "a": target}, index={"b": torch.arange(len(target))}
    )

    total = sum(method.training_step(batch, method.teach(batch)).losses.values())

    assert total.item() == pytest.approx(case["output"], rel=1e-6, abs=1e-9)
    (slope,) = torch.autograd.grad(total, student)
    np.testing.assert_allclose(slope, case["grad_student"], rtol=1e-5, atol=1e-8)


CASES = [
    (name, case)
    for golden in GOLDEN
    for name, cases in golden.get("modes", {}).items()
    for case in cases
    if name.partition("/")[0] in RECIPES
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_golden_ntdh_gauss_and_classification_modes(recipe):
    for name, case in CASES:
        if name.startswith(f"{recipe}/"):
            check_mode(name, case)


def test_golden_ntdh_gauss_modes_notice_an_altered_number():
    for name, case in CASES[:1]:
        with pytest.raises(AssertionError):
            check_mode(name, {**case, "output": case["output"] + 1e-3})
