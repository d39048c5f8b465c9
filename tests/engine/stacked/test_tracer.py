"""A trace is every operation of a function, in its order, with constants for what comes from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, fx
from torch.func import grad, vmap

from xmodal.engine.stacked.tracer import NotRecordable, trace


def names(graph: fx.GraphModule) -> list[str]:
    calls = [node for node in graph.graph.nodes if node.op == "call_function"]
    return [str(node.target).removeprefix("aten.") for node in calls]


def test_operations_come_in_their_order_and_play_back() -> None:
    graph = trace(lambda a, b: [(a + b) * a, b.exp()], [torch.ones(2), torch.ones(2)])

    assert names(graph) == ["add.Tensor", "mul.Tensor", "exp.default"]
    product, power = graph(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.0]))
    assert product.tolist() == [6.0, 9.0] and power.tolist() == pytest.approx([2.71828, 1.0])


def test_parts_of_a_result_and_tensors_in_lists_are_followed() -> None:
    def halves(a: Tensor) -> Sequence[Tensor]:
        left, right = a.split(2)
        return [torch.cat([right, left])]

    graph = trace(halves, [torch.arange(4.0)])

    assert graph(torch.tensor([5.0, 6.0, 7.0, 8.0]))[0].tolist() == [7.0, 8.0, 5.0, 6.0]


def test_what_is_beneath_transforms_is_seen_with_its_axis_of_models() -> None:
    def slopes(weight: Tensor, x: Tensor) -> Sequence[Tensor]:
        return [vmap(grad(lambda weight, x: (weight * x).square().sum()))(weight, x)]

    graph = trace(slopes, [torch.ones(3, 2), torch.ones(3, 2)])

    weight, x = torch.randn(3, 2), torch.randn(3, 2)
    torch.testing.assert_close(graph(weight, x)[0], 2 * weight * x.square())


def test_an_input_that_is_returned_and_one_that_is_not_read_are_fine() -> None:
    graph = trace(lambda a, b: [b], [torch.ones(1), torch.ones(1)])

    assert graph(torch.tensor([1.0]), torch.tensor([7.0]))[0].item() == 7.0


def test_a_tensor_from_elsewhere_is_a_constant() -> None:
    elsewhere = torch.tensor([10.0, 20.0])

    graph = trace(lambda a: [a + elsewhere, a * elsewhere], [torch.ones(2)])

    constants = [node for node in graph.graph.nodes if node.op == "get_attr"]
    assert len(constants) == 1 and getattr(graph, str(constants[0].target)) is elsewhere


def test_numbers_may_be_looked_at_where_no_input_decides_them() -> None:
    graph = trace(lambda a: [a * float(torch.tensor(3.0).sum())], [torch.ones(2)])

    assert graph(torch.tensor([2.0, 4.0]))[0].tolist() == [6.0, 12.0]


@pytest.mark.parametrize(
    "function",
    [
        lambda a: [a * a.sum().item()],
        lambda a: [a if bool(a.sum() > 0) else -a],
        lambda a: [a[a > 0]],
        lambda a: [a * torch.equal(a, a + 1)],
    ],
    ids=["item", "branch", "choice of rows", "comparison"],
)
def test_numbers_of_inputs_may_not(function: object) -> None:
    with pytest.raises(NotRecordable, match="looks at the numbers"):
        trace(function, [torch.ones(3)])  # type: ignore[arg-type]
