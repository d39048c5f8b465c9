"""The graph unit: order and number of edges, additive scores against the concatenation, priors of every kind."""

import math

import pytest
import torch

from xmodal.errors import InputError
from xmodal.losses.graph import edge_regularisation
from xmodal.models.dmd.graph_unit import SHARPNESS, GraphUnit, edge_names, edges_between, prior_of, values_of

LVA = ("L", "V", "A")
FOUR = ("text", "vision", "audio", "touch")


def unit_of(nodes=LVA, **settings):
    torch.manual_seed(0)
    return GraphUnit(nodes, 6, **{"hidden": 5, **settings}).double()


def said(nodes=3, rows=4, outputs=1, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, nodes, size, generator=generator, dtype=torch.float64) for size in (outputs, width)]


@pytest.mark.parametrize(
    ("width", "hidden", "count"), [(50, 64, 3649), (100, 32, 3425), (30, 64, 2369), (60, 32, 2145)]
)
def test_units_have_the_published_numbers_of_parameters(width, hidden, count):
    assert sum(parameter.numel() for parameter in GraphUnit(LVA, width, hidden=hidden).parameters()) == count


def test_edges_are_listed_by_student_then_by_teacher():
    assert edge_names(LVA) == ("V>L", "A>L", "L>V", "A>V", "L>A", "V>A")
    assert edges_between(2) == [(0, 1), (1, 0)]
    assert len(unit_of(FOUR).edges) == 12 and edge_names(FOUR)[3:5] == ("text>vision", "audio>vision")


@pytest.mark.parametrize("nodes", [LVA[:2], LVA, FOUR])
def test_scores_are_those_of_a_linear_layer_on_both_ends(nodes):
    unit = unit_of(nodes, outputs=2)
    logits, representations = said(len(nodes), outputs=2)

    found = unit.scores(logits, representations)

    z = torch.cat([unit.W_logit(logits), unit.W_repr(representations)], dim=2)
    for number, (student, teacher) in enumerate(unit.edges):
        expected = unit.W_edge(torch.cat([z[:, student], z[:, teacher]], dim=1))[:, 0]
        torch.testing.assert_close(found[:, number], expected)


def test_edges_of_a_sample_sum_to_one_and_with_the_prior_to_two():
    for nodes in (LVA, FOUR):
        unit = unit_of(nodes)
        edges = unit(*said(len(nodes)))

        torch.testing.assert_close(edges.sum(dim=1), torch.ones(4, dtype=torch.float64))
        torch.testing.assert_close((edges + unit.prior).sum(dim=1), torch.full((4,), 2.0, dtype=torch.float64))
        assert (edges > 0).all()


def test_edges_are_a_softmax_of_an_eighth_of_the_scores():
    unit = unit_of()
    row = unit.scores(*said())[0].tolist()

    expected = [math.exp(score / 8) for score in row]

    assert SHARPNESS == 1 / 8
    assert unit(*said())[0].tolist() == pytest.approx([value / sum(expected) for value in expected])


def test_biases_have_no_influence():
    unit = unit_of()
    logits, representations = said()

    loss = edge_regularisation(unit(logits, representations), unit.prior)
    biases = [layer.bias for layer in (unit.W_logit, unit.W_repr, unit.W_edge)]

    assert all(gradient.abs().max() < 1e-15 for gradient in torch.autograd.grad(loss, biases))


def test_a_node_that_is_renamed_and_moved_takes_its_edges_along():
    unit, other = unit_of(("a", "b", "c"), prior="uniform"), unit_of(("c", "a", "b"), prior="uniform")
    logits, representations = said()
    order = [2, 0, 1]

    found = dict(zip(unit.names, unit(logits, representations).T, strict=True))
    moved = dict(zip(other.names, other(logits[:, order], representations[:, order]).T, strict=True))

    assert all(torch.allclose(found[name], moved[name]) for name in found)


# ---- priors


def test_the_reference_prior_of_three_nodes_is_the_published_one():
    homo, hetero = (unit_of(graph=graph).prior.tolist() for graph in ("homo", "hetero"))

    assert homo == pytest.approx([0.008834, 0.008834, 0.482332, 0.008834, 0.482332, 0.008834], abs=1e-6)
    assert hetero == pytest.approx([0.005995, 0.005995, 0.327338, 0.005995, 0.327338, 0.327338], abs=1e-6)


def test_the_reference_prior_of_more_nodes_follows_the_rule():
    names = edge_names(FOUR)
    homo, hetero = (values_of(FOUR, graph, "reference").tolist() for graph in ("homo", "hetero"))

    assert {name for name, value in zip(names, homo, strict=True) if value} == {f"text>{other}" for other in FOUR[1:]}
    forward = {f"{FOUR[i]}>{FOUR[j]}" for i in range(4) for j in range(i + 1, 4)}
    assert {name for name, value in zip(names, hetero, strict=True) if value} == forward


def test_uniform_and_given_priors():
    assert unit_of(prior="uniform").prior.tolist() == pytest.approx([1 / 6] * 6)
    unit = unit_of(prior="given", given=("A>L:1", "A > V:0.5"))

    values = {"A>L": 1.0, "A>V": 0.5}
    powers = [math.exp(4 * values.get(name, 0.0)) for name in unit.names]
    assert unit.prior.tolist() == pytest.approx([power / sum(powers) for power in powers], abs=1e-6)


def test_the_prior_auto_starts_uniform_and_points_from_better_to_worse():
    unit = unit_of(prior="auto")
    assert unit.prior.tolist() == pytest.approx([1 / 6] * 6)

    unit.observe(torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64))

    lead = {"V>L": -1.0, "A>L": -0.5, "L>V": 1.0, "A>V": 0.5, "L>A": 0.5, "V>A": -0.5}
    expected = prior_of(torch.tensor([lead[name] for name in unit.names], dtype=torch.float64))
    torch.testing.assert_close(unit.prior, expected)


def test_the_prior_auto_follows_a_running_mean():
    unit = unit_of(prior="auto")
    seen = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 2.5, 1.0]], dtype=torch.float64)
    for errors in seen:
        unit.observe(errors)

    weights = torch.tensor([0.95**2, 0.95, 1.0], dtype=torch.float64)
    mean = (weights[:, None] * seen).sum(0) / weights.sum()

    torch.testing.assert_close(unit.errors[:-1] / unit.errors[-1], mean)
    lead = torch.stack([mean[student] - mean[teacher] for student, teacher in unit.edges])
    torch.testing.assert_close(unit.prior, prior_of(lead / lead.abs().max()))


def test_the_running_mean_is_saved_and_taken_back():
    unit, again = unit_of(prior="auto"), unit_of(prior="auto")
    unit.observe(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))

    again.load_state_dict(unit.state_dict())
    for one in (unit, again):
        one.observe(torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64))

    assert torch.equal(unit.prior, again.prior) and torch.equal(unit.errors, again.errors)


@pytest.mark.parametrize("prior", ["reference", "uniform"])
def test_fixed_priors_stay_as_they_are(prior):
    unit = unit_of(prior=prior)
    before = unit.prior.clone()

    unit.observe(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))

    assert torch.equal(unit.prior, before) and not unit.errors.any()


def test_nodes_that_are_equally_good_leave_the_prior_uniform():
    unit = unit_of(prior="auto")

    unit.observe(torch.ones(3, dtype=torch.float64))

    assert unit.prior.tolist() == pytest.approx([1 / 6] * 6)


# ---- errors


def test_what_can_not_be_is_a_sentence():
    with pytest.raises(InputError, match="nodes of a graph are L: expected two or more"):
        GraphUnit(("L",), 4)
    with pytest.raises(InputError, match="expected two or more, each once"):
        GraphUnit(("L", "L"), 4)
    with pytest.raises(InputError, match=r"no prior called 'unifrom'.*uniform"):
        GraphUnit(LVA, 4, prior="unifrom")
    with pytest.raises(InputError, match="no graph called 'hettero'"):
        GraphUnit(LVA, 4, graph="hettero")
    with pytest.raises(ValueError, match="have 3 and 4 nodes: expected 3"):
        unit_of().scores(torch.zeros(2, 3, 1).double(), torch.zeros(2, 4, 6).double())


def test_all_wrong_edges_of_a_given_prior_are_told_together():
    with pytest.raises(InputError) as error:
        GraphUnit(LVA, 4, prior="given", given=("L>B:1", "L>V", "L>V:much", "L>A:1", "L>A:2"))

    assert len(error.value.problems) == 4
    assert "no edge between L, V, A" in str(error.value) and "L>A is given twice" in str(error.value)


@pytest.mark.parametrize(("prior", "given"), [("given", ()), ("uniform", ("L>V:1",))])
def test_edges_are_given_with_the_prior_given_alone(prior, given):
    with pytest.raises(InputError, match="expected edges, as text>audio:1"):
        GraphUnit(LVA, 4, prior=prior, given=given)
