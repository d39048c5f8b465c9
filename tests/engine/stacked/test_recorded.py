"""A recorded function returns what the function returns; what doesn't depend on the state is computed beforehand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

from xmodal.engine.stacked.recorded import Recorded, record
from xmodal.engine.stacked.tracer import NotRecordable


def operations(recorded: Recorded, part: str) -> list[str]:
    graph = getattr(recorded, part).graph
    return [str(node.target).removeprefix("aten.") for node in graph.nodes if node.op == "call_function"]


def slopes(weight: Tensor, x: Tensor, target: Tensor) -> list[Tensor]:
    """Loss and gradient of softmax regressions, one per row of the first axis."""

    def loss(weight: Tensor, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        value = F.cross_entropy(x @ weight.T, target) + F.cross_entropy((x @ weight.T) / 1.0, target)
        return value, value

    return list(vmap(grad(loss, has_aux=True))(weight, x, target))


def softmax_regressions(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(5, classes, 7), torch.randn(5, 40, 7), torch.randint(0, classes, (5, 40))


def test_a_small_function_is_played_back_with_other_numbers() -> None:
    recorded = record(lambda state, given: [state * 2 + given], [torch.tensor(1.0)], [torch.tensor(10.0)])

    (result,) = recorded([torch.tensor(3.0)], recorded.prepare([torch.tensor(20.0)]))

    assert result.item() == 26.0


@pytest.mark.parametrize("classes", [2, 16, 17])  # short last axes are computed sideways
def test_gradients_of_many_are_those_of_the_function(classes: int) -> None:
    weight, x, target = softmax_regressions(classes)
    recorded = record(slopes, [weight], [x, target])
    other = torch.randn_like(weight)

    results = recorded([other], recorded.prepare([x, target]))

    for ours, theirs in zip(results, slopes(other, x, target), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_what_depends_on_the_batch_alone_is_prepared() -> None:
    recorded = record(lambda state, given: [state * (given.exp() + 1)], [torch.ones(3)], [torch.ones(3)])

    assert operations(recorded, "_before") == ["exp.default", "add.Tensor"]
    assert operations(recorded, "_after") == ["mul.Tensor"]


def test_what_changes_nothing_goes_and_what_is_computed_twice_is_computed_once() -> None:
    recorded = record(lambda state: [(state / 1.0).exp() + (state * 1).exp() + state.expand(3)], [torch.ones(3)], [])

    assert operations(recorded, "_after") == ["exp.default", "add.Tensor", "add.Tensor"]


def test_one_in_another_type_is_no_nothing() -> None:
    state = torch.tensor([1, 2])
    recorded = record(lambda state: [state / 1], [state], [])

    (result,) = recorded([state], recorded.prepare([]))

    assert result.dtype == torch.float32


def test_short_rows_are_computed_sideways() -> None:
    weight, x, target = softmax_regressions(2)

    after = operations(record(slopes, [weight], [x, target]), "_after")

    assert after.count("_log_softmax.default") == 1, "both cross-entropies share it"
    assert "scatter.value" not in after, "the targets never change"


def test_random_draws_are_drawn_anew() -> None:
    recorded = record(lambda state: [F.dropout(state, 0.5)], [torch.ones(1000)], [])

    (first,), (second,) = (recorded([torch.ones(1000)], recorded.prepare([])) for _ in range(2))

    assert not torch.equal(first, second)
    assert 400 < int((first == 2.0).sum()) < 600


def test_statistics_that_are_written_on_the_way_come_out() -> None:
    def normalised(mean: Tensor, variance: Tensor, x: Tensor) -> list[Tensor]:
        mean, variance = mean.clone(), variance.clone()
        return [F.batch_norm(x, mean, variance, training=True), mean, variance]

    torch.manual_seed(0)
    start, x = [torch.zeros(4), torch.ones(4)], torch.randn(30, 4) + 3
    recorded = record(normalised, start, [x])

    results = recorded(start, recorded.prepare([x]))

    for ours, theirs in zip(results, normalised(*start, x), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert start[0].eq(0).all(), "what was given is as it was"


def test_statistics_are_written_as_often_as_they_were_though_everything_around_is_tidied() -> None:
    """Twice the same normalisation of the same numbers is no repetition: the statistics move twice."""

    def twice(mean: Tensor, variance: Tensor, x: Tensor) -> list[Tensor]:
        mean, variance = mean.clone(), variance.clone()
        first = F.batch_norm(x / 1.0, mean, variance, training=True)
        between = mean * 1.0
        second = F.batch_norm(x / 1.0, mean, variance, training=True)
        return [first.exp() + first.exp(), second, between, mean * 1.0, variance]

    torch.manual_seed(0)
    start, x = [torch.zeros(4), torch.ones(4)], torch.randn(30, 4) + 3
    recorded = record(twice, start, [x])

    for _ in range(2):  # and again from the same start
        for ours, theirs in zip(recorded(start, recorded.prepare([x])), twice(*start, x), strict=True):
            torch.testing.assert_close(ours, theirs)
    after = operations(recorded, "_after")
    assert after.count("native_batch_norm.default") == 2 and after.count("exp.default") == 1
    assert "div.Tensor" not in after and start[0].eq(0).all()


def test_what_is_in_memory_once_counts_once() -> None:
    recorded = record(lambda a: [a.view(2, 2).t() * 2, a.expand(9, 4)], [torch.ones(4)], [])

    assert recorded.bytes == 16  # the product; views are none


def test_it_tells_which_tensors_are_read() -> None:
    recorded = record(lambda a, b, c: [a + c, a * 2], [torch.ones(1), torch.ones(1)], [torch.ones(1)])

    assert recorded.used == [True, False, True]
    assert recorded.bytes == 8


def test_a_tensor_from_elsewhere_is_refused() -> None:
    elsewhere = torch.ones(3)

    with pytest.raises(NotRecordable, match="neither a parameter nor a buffer"):
        record(lambda state: [state * elsewhere], [torch.ones(3)], [])


def test_a_branch_on_numbers_is_refused() -> None:
    with pytest.raises(NotRecordable, match="looks at the numbers"):
        record(lambda state: [state if state.sum() > 0 else -state], [torch.ones(3)], [])
