"""Dropout from random bytes: the same in the mean as any other, and as repeatable."""

import pytest
import torch

from xmodal.models.dropout import draw_kept, dropout, kept_share


def test_what_is_kept_is_scaled_and_the_rest_is_zero():
    torch.manual_seed(0)

    y = dropout(torch.full((50, 40), 3.0), 0.3)

    assert y.unique().tolist() == [0.0, pytest.approx(3.0 * 256 / 179)]


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.3, 0.5, 0.9])
def test_share_and_mean_are_those_of_dropout(rate):
    torch.manual_seed(1)
    count = 200_000

    y = dropout(torch.ones(count), rate)

    share = kept_share(rate)
    assert abs(share - (1 - rate)) <= 0.5 / 256
    sigma = (share * (1 - share) / count) ** 0.5  # of the share that was kept
    assert abs((y != 0).float().mean().item() - share) < 5 * sigma
    assert abs(y.mean().item() - 1.0) < 5 * sigma / share


def test_neighbours_are_independent():
    torch.manual_seed(2)

    kept = draw_kept((100_000,), 0.5).float() - 0.5

    for step in (1, 2, 7, 8, 64):  # eight of them come from one random word
        assert abs((kept[step:] * kept[:-step]).mean().item()) < 0.25 * 5 / 100_000**0.5


def test_a_seed_gives_the_same_mask_twice_and_another_seed_another():
    torch.manual_seed(3)
    first = dropout(torch.ones(1000), 0.5)
    torch.manual_seed(3)
    again, other = dropout(torch.ones(1000), 0.5), dropout(torch.ones(1000), 0.5)

    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_generator_of_its_own_leaves_the_one_of_torch_alone():
    state = torch.get_rng_state()

    masks = [draw_kept((64,), 0.5, torch.Generator().manual_seed(5)) for _ in range(2)]

    assert torch.equal(masks[0], masks[1]) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.5, False)])
def test_without_a_rate_or_training_nothing_happens_and_nothing_is_drawn(rate, training):
    state, x = torch.get_rng_state(), torch.randn(3)
    before = torch.get_rng_state()

    assert dropout(x, rate, training) is x
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)


def test_a_rate_near_zero_keeps_everything():
    assert torch.equal(dropout(torch.ones(100), 0.001), torch.ones(100))


def test_a_rate_near_one_gives_no_infinity():
    torch.manual_seed(0)

    y = dropout(torch.ones(10_000), 0.9999)

    assert y.unique().tolist() == [0.0, 256.0] and 10 < (y != 0).sum() < 100


def test_the_gradient_passes_where_numbers_were_kept():
    torch.manual_seed(4)
    x = torch.randn(200, requires_grad=True)

    y = dropout(x, 0.4)
    y.sum().backward()

    torch.testing.assert_close(x.grad, (y != 0).float() / kept_share(0.4))
