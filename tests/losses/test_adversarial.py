import math

import numpy as np
import pytest
import torch

from xmodal.losses.adversarial import domain_loss, reversal_ramp, reverse_gradient

LN2 = math.log(2.0)


def tables(*rows, domains=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    domains = domains or len(rows)
    return [torch.randn(count, domains, generator=generator, dtype=torch.float64) for count in rows]


def by_loop(logits):
    """The formula in NumPy."""
    means = []
    for domain, table in enumerate(logits):
        odds = np.exp(table.numpy())
        means.append(np.mean([-math.log(row[domain] / row.sum()) for row in odds]))
    return float(np.mean(means))


def test_domain_loss_of_a_small_case():
    """p = (0.8, 0.2) for both rows: correct for domain 0, wrong for domain 1."""
    row = torch.tensor([[math.log(4.0), 0.0]], dtype=torch.float64)

    value = domain_loss([row, row]).item()

    assert value == pytest.approx((-math.log(0.8) - math.log(0.2)) / 2)


@pytest.mark.parametrize("rows", [(4, 4), (5, 2), (3, 3, 3), (1, 6, 2)])
def test_domain_loss_agrees_with_a_loop(rows):
    assert domain_loss(tables(*rows)).item() == pytest.approx(by_loop(tables(*rows)), abs=1e-12)


def test_with_equal_batches_it_is_the_mean_over_all_rows():
    logits = tables(6, 6)
    domain = torch.arange(2).repeat_interleave(6)

    expected = torch.nn.functional.cross_entropy(torch.cat(logits), domain)

    torch.testing.assert_close(domain_loss(logits), expected)


def test_a_domain_with_more_rows_has_no_larger_weight():
    few, many = tables(3, 3)

    torch.testing.assert_close(domain_loss([few, many]), domain_loss([few, many.repeat(7, 1)]))


def test_the_order_of_the_rows_does_not_matter():
    first, second = tables(5, 4)

    torch.testing.assert_close(domain_loss([first.flip(0), second.roll(1, 0)]), domain_loss([first, second]))


def test_a_head_that_predicts_one_half_has_loss_ln_2_with_both_targets():
    logits = [torch.zeros(5, 2), torch.zeros(5, 2)]

    assert domain_loss(logits).item() == pytest.approx(LN2)
    assert domain_loss(logits, targets="released").item() == pytest.approx(LN2)


def test_released_targets_are_cross_entropy_with_ones_and_zeros_as_probabilities():
    first, second = tables(4, 4)
    wrong = torch.cat([torch.ones_like(first), torch.zeros_like(second)])

    expected = torch.nn.functional.cross_entropy(torch.cat([first, second]), wrong)

    torch.testing.assert_close(domain_loss([first, second], targets="released"), expected)


def test_released_targets_give_the_second_domain_no_gradient_and_index_targets_do():
    for targets, silent in (("released", True), ("index", False)):
        first, second = (table.requires_grad_() for table in tables(4, 4))

        domain_loss([first, second], targets=targets).backward()

        assert first.grad.abs().sum() > 0
        assert (second.grad is None or not second.grad.any()) == silent


def test_released_targets_have_no_gradient_at_a_head_that_predicts_one_half():
    logits = [torch.zeros(3, 2, requires_grad=True) for _ in range(2)]

    domain_loss(logits, targets="released").backward()

    assert logits[0].grad.abs().max() < 1e-7  # rounding of softmax(0, 0)


def test_the_gradient_is_right():
    logits = [table.requires_grad_() for table in tables(2, 3, 2)]

    assert torch.autograd.gradcheck(lambda *given: domain_loss(given), logits)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 3.0])
def test_a_reversal_keeps_the_value_and_reverses_the_gradient(strength):
    below = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    head = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    plain = torch.autograd.grad(domain_loss([below[:2] @ head, below[2:] @ head]), [below, head])
    turned = reverse_gradient(below, strength)
    value = torch.autograd.grad(domain_loss([turned[:2] @ head, turned[2:] @ head]), [below, head])

    assert torch.equal(turned, below)
    torch.testing.assert_close(value[0], -strength * plain[0])
    torch.testing.assert_close(value[1], plain[1])


def test_the_ramp_rises_from_zero_to_nearly_one():
    value = [reversal_ramp(step / 10) for step in range(11)]

    assert value[0] == 0.0 and value == sorted(value) and 0.9999 < value[-1] < 1.0
    assert value[5] == pytest.approx(2 / (1 + math.exp(-5)) - 1)


@pytest.mark.parametrize(
    ("logits", "targets", "sentence"),
    [
        ([torch.zeros(2, 2)], "index", "at least two domains"),
        ([torch.zeros(2, 3), torch.zeros(2, 3)], "index", "expected .rows, 2. for each of 2 domains"),
        ([torch.zeros(2, 2), torch.zeros(0, 2)], "index", "expected .rows, 2."),
        ([torch.zeros(2, 3)] * 3, "released", "defined for two domains, got 3"),
        ([torch.zeros(2, 2)] * 2, "relased", "expected index or released"),
    ],
)
def test_invalid_input_is_refused(logits, targets, sentence):
    with pytest.raises(ValueError, match=sentence):
        domain_loss(logits, targets=targets)
