"""Distances along the edges of a graph: their formulas as loops, and which node gets a gradient."""

import math

import pytest
import torch

from xmodal.losses.graph import DISTANCES, edge_regularisation, graph_distance

ALL = [(student, teacher) for student in range(3) for teacher in range(3) if teacher != student]


def drawn(rows=5, nodes=3, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(rows, nodes, width, generator=generator, dtype=torch.float64)
    return outputs, torch.rand(rows, nodes * (nodes - 1), generator=generator, dtype=torch.float64)


def cosine(u, v):
    dot = sum(a * b for a, b in zip(u, v, strict=True))
    return dot / math.sqrt(sum(a * a for a in u) * sum(b * b for b in v))


ROW = {
    "l1": lambda u, v: sum(abs(a - b) for a, b in zip(u, v, strict=True)),
    "l2": lambda u, v: sum((a - b) ** 2 for a, b in zip(u, v, strict=True)),
    "cosine": lambda u, v: 1 - cosine(u, v),
}


def by_loops(outputs, weights, distance):
    outputs, weights, total = outputs.tolist(), weights.tolist(), 0.0
    for number, (student, teacher) in enumerate(ALL):
        pairs = [(row[student], row[teacher]) for row in outputs]
        column = [row[number] for row in weights]
        if distance == "min_cosine":
            alike = [max(0.0, cosine(*pair)) for pair in pairs]
            total += sum(column) / len(column) * sum(alike) / len(alike)
        else:
            values = [weight * ROW[distance](*pair) for weight, pair in zip(column, pairs, strict=True)]
            total += sum(values) / len(values)
    return total


def test_distances_of_a_small_case():
    """Student (3, 0), teacher (3, 4), weight 1/2."""
    outputs, weights, edge = torch.tensor([[[3.0, 0.0], [3.0, 4.0]]]), torch.tensor([[0.5]]), [(0, 1)]

    distances = {name: graph_distance(outputs, weights, edge, distance=name).item() for name in DISTANCES}

    assert distances == pytest.approx({"l1": 2.0, "l2": 8.0, "cosine": 0.2, "min_cosine": 0.3})
    assert graph_distance(outputs, None, edge).item() == 4.0


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_agree_with_loops(distance):
    outputs, weights = drawn()

    assert graph_distance(outputs, weights, ALL, distance=distance).item() == pytest.approx(
        by_loops(outputs, weights, distance)
    )
    unweighted = graph_distance(outputs, None, ALL, distance=distance)
    torch.testing.assert_close(unweighted, graph_distance(outputs, torch.ones_like(weights), ALL, distance=distance))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("width", [1, 4])
def test_the_gradient_at_the_teacher_of_an_edge_is_exactly_zero(distance, width):
    outputs = drawn(width=width, seed=1)[0].requires_grad_()

    graph_distance(outputs, torch.ones(5, 1, dtype=torch.float64), [(0, 2)], distance=distance).backward()

    assert not outputs.grad[:, 1].any() and not outputs.grad[:, 2].any()
    assert outputs.grad[:, 0].any() or (
        width == 1 and "cosine" in distance
    )  # the cosine of single numbers has no gradient


def test_equal_nodes_have_distance_zero_except_min_cosine():
    outputs, weights = drawn()
    same = outputs[:, :1].expand(-1, 3, -1)

    for distance in DISTANCES:
        value = graph_distance(same, weights, ALL, distance=distance).item()
        expected = weights.mean(dim=0).sum().item() if distance == "min_cosine" else 0.0
        assert value == pytest.approx(expected, abs=1e-12)


def test_min_cosine_is_zero_for_representations_of_negative_cosine():
    outputs = torch.tensor([[[1.0, 0.0], [-2.0, 0.5]]])

    assert graph_distance(outputs, None, [(0, 1), (1, 0)], distance="min_cosine") == 0.0


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gradient_is_right_also_through_the_weights(distance):
    outputs, weights = (tensor.requires_grad_() for tensor in drawn(rows=3))
    fixed = outputs.detach()  # finite differences ignore a stopped gradient, so the teacher of the edge is constant

    def of(student, weight):
        nodes = torch.stack([student, fixed[:, 1]], dim=1)
        return graph_distance(nodes, weight, [(0, 1)], distance=distance)

    assert torch.autograd.gradcheck(
        of, (outputs[:, 0].detach().requires_grad_(), weights[:, :1].detach().requires_grad_())
    )


def test_the_regularisation_uses_means_over_the_batch():
    weights, prior = torch.tensor([[0.1, 0.9], [0.5, 0.5]]), torch.tensor([0.3, 0.7])

    assert edge_regularisation(weights, prior).item() == pytest.approx(0.0, abs=1e-12)
    assert edge_regularisation(weights, torch.tensor([0.5, 0.5])).item() == pytest.approx(2 * 0.2**2)


def test_half_precision_is_computed_in_float32():
    outputs, weights = (tensor.bfloat16() for tensor in drawn())

    value = graph_distance(outputs, weights, ALL, distance="l2")

    assert value.dtype == torch.float32


def test_invalid_input_is_refused():
    outputs, weights = drawn()

    with pytest.raises(ValueError, match="distance is 'kl': expected l1, l2, cosine, min_cosine"):
        graph_distance(outputs, weights, ALL, distance="kl")
    with pytest.raises(ValueError, match=r"weights have shape \(5, 6\): expected \(5, 2\)"):
        graph_distance(outputs, weights, ALL[:2])
    with pytest.raises(ValueError, match=r"nodes have shape \(5, 3, 4\) and the edges are \[\(0, 3\)\]"):
        graph_distance(outputs, None, [(0, 3)])
