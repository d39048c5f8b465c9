import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.losses.reduce import at_least_float32, masked_mean, same_shape


def test_masked_mean_uses_valid_values_only():
    mean, count = masked_mean(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False]))

    assert (mean.item(), int(count)) == (1.5, 2)


def test_without_a_mask_all_values_are_used():
    mean, count = masked_mean(torch.arange(6.0).reshape(2, 3))

    assert (mean.item(), int(count)) == (2.5, 6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.booleans()), min_size=1, max_size=12))
def test_masked_mean_equals_a_slow_loop(entries):
    values = torch.tensor([value for value, _ in entries], dtype=torch.float64)
    valid = torch.tensor([kept for _, kept in entries])

    mean, count = masked_mean(values, valid)

    kept = [value for value, keep in entries if keep]
    assert int(count) == len(kept)
    assert mean.item() == pytest.approx(sum(kept) / max(len(kept), 1), abs=1e-9)


def test_the_mean_of_nothing_is_zero_with_a_zero_gradient():
    values = torch.tensor([1.0, 2.0], requires_grad=True)

    mean, count = masked_mean(values, torch.tensor([False, False]))
    mean.backward()

    assert (mean.item(), int(count), values.grad.tolist()) == (0.0, 0, [0.0, 0.0])


def test_the_mean_of_no_values_is_zero_too():
    mean, count = masked_mean(torch.zeros(0))

    assert (mean.item(), int(count)) == (0.0, 0)


def test_an_infinite_masked_value_changes_nothing():
    values = torch.tensor([1.0, float("inf"), float("nan")], requires_grad=True)

    mean, _ = masked_mean(values, torch.tensor([True, False, False]))
    mean.backward()

    assert mean.item() == 1.0 and values.grad.tolist() == [1.0, 0.0, 0.0]


def test_a_mask_of_another_shape_is_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"mask of shape \(2,\) for values of shape \(2, 3\)"):
        masked_mean(torch.zeros(2, 3), torch.ones(2, dtype=torch.bool))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_only_half_precision_is_widened(given, expected):
    assert at_least_float32(torch.zeros(1, dtype=given)).dtype == expected


def test_outputs_of_different_shape_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"student's output has shape \(2, 3\), the teacher's \(2, 4\)"):
        same_shape(torch.zeros(2, 3), torch.zeros(2, 4))
