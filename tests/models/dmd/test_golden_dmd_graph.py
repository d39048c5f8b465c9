"""Golden numbers of DMD's graph units: priors, edges, raw scores, the three losses and all their gradients."""

import pytest
import torch
from dmd_fill import assert_golden, assert_gradient, det, dmd_cases, dmd_files, given_state

from xmodal.losses.graph import edge_regularisation, graph_distance
from xmodal.models.dmd.graph_unit import GraphUnit

NODES = ("L", "V", "A")
REPRESENTATIONS = {"homo": "l1", "hetero": "min_cosine"}
CLOSE = {"rel": 1e-4, "abs": 1e-5}
PRIORS = [
    pytest.param(name, values, id=f"golden-dmd-{file}-prior-{name.partition(' ')[0]}")
    for file, golden in dmd_files().items()
    for name, values in golden.get("gd_prior", {}).items()
]


@pytest.mark.parametrize(("name", "values"), PRIORS)
def test_golden_dmd_priors(name, values):
    unit = GraphUnit(NODES, 4, graph=name.partition(" ")[0])

    assert unit.prior.tolist() == pytest.approx(values, rel=1e-5, abs=1e-7)  # a softmax in float32


def unit_of(case):
    state = given_state(case["params"])
    hidden, width = state["W_repr.weight"].shape
    unit = GraphUnit(NODES, width, hidden=hidden, graph=case["kind"])
    unit.load_state_dict(state, strict=False)  # the prior and its errors are no parameters
    assert {name for name, _ in unit.named_parameters()} == state.keys()
    return unit


@pytest.mark.parametrize(**dmd_cases("graph_kernel"))
def test_golden_dmd_graph_kernel(case):
    unit = unit_of(case)
    # the files stack nodes first
    logits = det((3, case["batch"], 1), case["logit_seed"], scale=case["logit_scale"]).transpose(0, 1)
    said = det((3, case["batch"], case["hidden"]), case["repr_seed"], scale=case["repr_scale"]).transpose(0, 1)
    said = said.clamp(min=0) if case["repr_clamped_at_zero"] else said
    logits, said = logits.clone().requires_grad_(), said.clone().requires_grad_()

    edges = unit(logits, said)
    weights = edges + unit.prior
    regularisation = 10 * edge_regularisation(edges, unit.prior)
    logit = graph_distance(logits, weights, unit.edges)
    representation = 10 * graph_distance(said, weights, unit.edges, distance=REPRESENTATIONS[case["kind"]])
    (regularisation + logit + representation).backward()

    assert list(unit.names) == case["edge_order"]
    assert_golden(edges.T, case["edges"], what="edges")
    assert_golden(edges.mean(dim=0), case["edges_mean"], what="means")
    assert_golden(unit.scores(logits, said).sum(dim=0), case["raw_edge_score_sum_over_batch"], what="scores")
    found = (regularisation.item(), logit.item(), representation.item())
    assert found == pytest.approx(tuple(case[f"loss_{name}"] for name in ("reg", "logit", "repr")), **CLOSE)
    torch.testing.assert_close(logits.grad[:, :, 0].T, torch.tensor(case["sum_grad_logits"]), rtol=1e-3, atol=1e-5)
    for number, wanted in enumerate(case["grad_reprs_abs_sum_per_node"]):
        assert_gradient(said.grad[:, number], wanted, what=f"node {number}")
    assert_gradient(unit.W_edge.weight.grad, case["grad_W_edge_weight_abs_sum"], what="W_edge")
    # a bias that cancels: both are rounding, of sums of a size of some ten
    assert unit.W_edge.bias.grad.abs().item() < 1e-5 and abs(case["grad_W_edge_bias"][0]) < 1e-5
