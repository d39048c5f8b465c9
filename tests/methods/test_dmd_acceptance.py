"""What DMD does on made data: where its edges go and why, what distillation gains, how well it predicts.

`pytest -m claim -s tests/methods/test_dmd_acceptance.py` prints the figures of docs/methods/dmd.md.
"""

import numpy as np
import pytest
from made_dmd import LARGER, NODES, SMALLER, as_row, edges, made, scores, train

pytestmark = [pytest.mark.claim, pytest.mark.timeout(7200)]

SWAPPED = {"homo_prior": "given", "homo_edges": ("audio>text:1", "audio>vision:1")}
UNIFORM = {"homo_prior": "uniform", "hetero_prior": "uniform"}
WEIGHTS = (0.0, 0.05, 0.5, 1.0)  # of both graphs


def measured(what, **options):
    data = made(0, noise=0.5, **options.pop("data", {}))
    run, _ = train(data, **LARGER, **options)
    found = edges(run)
    print(f"\n{what}: {as_row(found)}")
    return run, found


@pytest.mark.parametrize("dominant", ["text", "audio"])
def test_with_the_reference_prior_edges_leave_text_whatever_modality_is_informative(dominant):
    run, found = measured(f"reference prior, {dominant} dominant", data={"dominant": dominant})

    print(f"hetero: {as_row(edges(run, 'hetero'))}")
    into_text = [found["vision>text"], found["audio>text"]]
    top = sorted(found, key=found.get)[-2:]
    assert set(top) == {"text>vision", "text>audio"}
    if dominant == "text":
        assert min(found[name] for name in top) >= max(0.25, 2 * max(into_text))


def test_with_a_uniform_prior_edges_stay_uniform():
    for weight in (10.0, 0.0):
        _, found = measured(f"uniform prior, regularisation {weight:g}", **UNIFORM, regularisation_weight=weight)

        assert max(abs(value - 1 / 6) for value in found.values()) <= 0.03


def test_with_another_prior_other_edges_are_on_top():
    _, found = measured("audio>text and audio>vision favoured", **SWAPPED)

    assert set(sorted(found, key=found.get)[-2:]) == {"audio>text", "audio>vision"}


@pytest.mark.parametrize("dominant", NODES)
def test_the_top_edge_of_the_prior_auto_leaves_the_dominant_modality(dominant):
    data = made(0, noise=0.5, dominant=dominant, steps=12)
    run, _ = train(data, **SMALLER, homo_prior="auto", hetero_prior="auto")
    found = edges(run)

    print(f"\nauto, {dominant} dominant: {as_row(found)}")
    assert max(found, key=found.get).startswith(f"{dominant}>")


def test_distillation_helps_the_head_of_vision_and_harms_that_of_text():
    """Six paired seeds; differences to no distillation on the test split, after the last epoch."""
    found, seconds = {weight: [] for weight in WEIGHTS}, 0.0
    for seed in range(6):
        data = made(200 + seed, noise=1.5, other_sigma=2.0, steps=12, samples=(128, 96, 192))
        for weight in WEIGHTS:
            run, spent = train(data, seed=seed, **SMALLER, distil_weight=weight)
            found[weight].append(scores(run, data))
            seconds += spent

    gains = {}
    for weight in WEIGHTS:
        print(f"\ndistil_weight {weight:g}")
        for name in ("fused", *NODES):
            for metric in ("mae", "corr"):
                mine, plain = (
                    np.array([scored[name][metric] for scored in found[each]]) for each in (weight, WEIGHTS[0])
                )
                better = (mine - plain) * (1 if metric == "corr" else -1) > 0
                gains[weight, name, metric] = (mine - plain).mean(), better.sum()
                print(f"  {name} {metric} {mine.mean():.3f} ({(mine - plain).mean():+.3f}, {better.sum()} of 6)")
    print(f"{seconds:.0f} s of one processor")

    # what holds whichever way the initial weights are drawn; audio and the fused model gained with one draw only
    gain, wins = gains[1.0, "vision", "corr"]
    assert gain >= 0.02 and wins >= 4
    loss, wins = gains[1.0, "text", "mae"]
    assert loss >= 0.2 and wins == 0


def test_the_fused_model_predicts_well_within_a_minute():
    data = made(0, noise=0.5)
    run, seconds = train(data, **LARGER)
    found = scores(run, data)

    print("\n" + "\n".join(f"{name}: {as_row(scored)}" for name, scored in found.items()) + f"\n{seconds:.1f} s")
    assert found["fused"]["corr"] >= 0.90 and found["fused"]["acc2"] >= 0.90
