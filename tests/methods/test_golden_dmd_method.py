"""Golden numbers of DMD's whole objective: every term, totals, edges, gradients, and a training by the engine."""

from typing import get_args

import numpy as np
import pytest
import torch
from dmd_fill import (
    HERE,
    LETTERS,
    assert_golden,
    assert_gradient,
    det,
    dmd_cases,
    dmd_files,
    golden_inputs,
    golden_labels,
)
from dmd_golden import ORTHOGONALITY, PARTS, batch_of, golden_method, gradients, inputs_from

from xmodal.data.arrays import from_arrays
from xmodal.data.loader import Batches
from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.losses.graph import DISTANCES
from xmodal.methods.dmd import DMD
from xmodal.methods.settings import Repr
from xmodal.models.dmd.graph_unit import GRAPHS
from xmodal.seeding import mix

CLOSE = {"rel": 1e-4, "abs": 1e-5}
GRADIENTS = "grad_abs_sum_of_total_with_ort_batch_axis"
TRAJECTORIES = [
    pytest.param(golden, id=f"golden-dmd-{file}-train_trajectory")
    for file, golden in dmd_files().items()
    if "train_trajectory" in golden
]


def step_of(case, **terms):
    method = golden_method(case, **terms).eval()
    return method, method(batch_of(golden_inputs(case), golden_labels(case)), {})


@pytest.mark.parametrize(**dmd_cases("model"))
def test_golden_dmd_every_term_and_both_totals(case):
    _, step = step_of(case, homo_representation="l1")
    _, published = step_of(case, orthogonality="legacy_batch")
    _, ours = step_of(case)
    _, flat = step_of(case, orthogonality="flat")

    found = {name: sum(step.losses[term] for term in terms).item() / factor for name, (terms, factor) in PARTS.items()}
    found["task"] = sum(value.item() for name, value in ours.losses.items() if name.startswith("task_"))
    steps = {"legacy_batch": published, "frame": ours, "flat": flat}
    found |= {name: 100 * steps[axis].losses["orthogonality"].item() for name, axis in ORTHOGONALITY.items()}
    found["total_with_ort_batch_axis"] = sum(published.losses.values()).item()
    found["total_with_ort_per_frame"] = sum(ours.losses.values()).item()

    assert case["losses"].keys() <= found.keys()
    for name, wanted in case["losses"].items():
        assert found[name] == pytest.approx(wanted, **CLOSE), name


@pytest.mark.parametrize(**dmd_cases("model"))
def test_golden_dmd_mean_edges(case):
    method, step = step_of(case)

    for graph in GRAPHS:
        if f"edges_{graph}_mean" in case:
            logged = torch.stack([step.logs[f"edge {graph} {name}"] for name in method.units[graph].names])
            assert_golden(logged, case[f"edges_{graph}_mean"], what=graph)


@pytest.mark.parametrize(**dmd_cases("model"))
def test_golden_dmd_gradients_of_the_published_total(case):
    method, step = step_of(case, orthogonality="legacy_batch")

    sum(step.losses.values()).backward()

    found = gradients(method)
    for name, wanted in case.get(GRADIENTS, {}).items():
        assert (found[name] is None) == (wanted is None), name
        if wanted is not None:
            assert_gradient(found[name], wanted, what=name)


class Recorded(DMD):
    """The method, which remembers the total of every batch."""

    def training_step(self, batch, teacher_outputs):
        step = super().training_step(batch, teacher_outputs)
        self.totals.append(sum(step.losses.values()).item())
        return step


def trained(golden):
    """Eight batches in their order through the engine: one epoch, accumulated by sum, clipped after each backward."""
    known = [*golden.get("model", []), *dmd_files(HERE)["dmd"]["model"]]
    case, wanted = next(case for case in known if case["name"] == "tiny_equal"), golden["train_trajectory"]
    base, rows, batches = wanted["param_base_seed"] + 1000, wanted["batch"], len(wanted["batch_totals"])
    parts = [
        inputs_from(case, {"text": base + 10 * b, "audio": base + 1 + 10 * b, "vision": base + 2 + 10 * b}, rows)
        for b in range(batches)
    ]
    inputs = {name: torch.cat([part[name] for part in parts]).numpy() for name in LETTERS}
    drawn = [det((rows, 1), base + 3 + 10 * b, scale=3.0) for b in range(batches)]
    labels = (torch.cat(drawn) * 5).round() / 5
    settings = FitSettings(
        epochs=1,
        batch_size=rows,
        learning_rate=1e-3,
        accumulate=3,
        accumulate_mode="sum",
        remainder="drop",
        clip=0.6,
        clip_mode="value",
        clip_at="backward",
    )
    method = golden_method(case, bases=wanted)
    method.__class__, method.totals = Recorded, []
    data = in_this_order(inputs, labels.numpy(), settings.batch_size)
    run = fit(method, data, settings, seed=0)
    return case, wanted, method, run


def in_this_order(inputs, labels, batch_size):
    """Data whose training rows are laid out so that the loader's order of epoch 0 with seed 0 is the given one."""
    count = len(labels)
    sampler = Batches(
        dict.fromkeys(inputs, count), paired=True, batch_size=batch_size, seed=mix(0, "order"), unequal="recycle"
    )
    picked = torch.cat([next(iter(pick.rows.values())) for pick in sampler.at(0)]).numpy()
    order = np.empty(count, dtype=np.int64)
    order[picked] = np.arange(count)  # row picked[k] of the split is row k of ours
    order = np.append(order, range(8))  # and two small splits that decide nothing
    splits = {"train": range(count), "valid": range(count, count + 4), "test": range(count + 4, count + 8)}
    moved = {name: rows[order] for name, rows in inputs.items()}
    layouts = dict.fromkeys(moved, "sequence")
    return from_arrays(moved, labels[order], splits=splits, task="regression", normalise="none", layouts=layouts)


@pytest.mark.parametrize("golden", TRAJECTORIES)
def test_golden_dmd_training_by_the_engine(golden):
    case, wanted, method, run = trained(golden)

    assert method.totals == pytest.approx(wanted["batch_totals"], **CLOSE)
    seeds = dict(zip(("text", "audio", "vision"), wanted["probe_seeds"], strict=True))
    with torch.no_grad():
        probe = method.network.eval()(inputs_from(case, seeds, len(wanted["probe_output_logit"]))).fused.flatten()
    assert probe.tolist() == pytest.approx(wanted["probe_output_logit"], abs=2e-4)
    assert len(run.history) == 1 and run.history[0]["steps"] == len(wanted["batch_totals"])
    total = sum(parameter.abs().sum().item() for parameter in method.network.parameters())
    assert total == pytest.approx(wanted["param_abs_sum_after"], rel=1e-5)


def test_golden_dmd_terms_that_are_wrong_by_one_percent_are_noticed():
    case = dmd_files(HERE)["dmd"]["model"][0]
    _, step = step_of(case)

    for name, (terms, factor) in PARTS.items():
        if name != "homo_repr":
            value = sum(step.losses[term] for term in terms).item() / factor
            assert value != pytest.approx(1.01 * case["losses"][name], **CLOSE), name


def test_golden_dmd_distances_are_all_known_to_the_settings():
    assert set(get_args(Repr)) == {"off", *DISTANCES}
