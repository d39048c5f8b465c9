"""The ordinal margin against its definition as loops, and its invariances."""

import math
import time

import pytest
import torch

from xmodal.losses.margin import ordinal_margin


def drawn(rows, width=6, seed=0, dtype=torch.float64, levels=3):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, width, generator=generator, dtype=dtype)
    return features, torch.randint(levels, (rows,), generator=generator).to(dtype) - 1


def by_loops(features, targets, *, margin=0.15, positives=None, negatives=None):
    """The definition, anchor by anchor and pair by pair; also how the reference counts anchors."""
    lengths = (features.square().sum(1) + 1e-8).sqrt()
    terms = []
    for a in range(len(features)):
        others = [n for n in range(len(features)) if n != a]
        near = [p for p in others if targets[p] == targets[a] and (positives is None or positives(a, p))]
        far = [n for n in others if targets[n] != targets[a] and (negatives is None or negatives(a, n))]

        def cosine(row, a=a):
            return features[a] @ features[row] / (lengths[a] * lengths[row])

        pairs = [(margin * (targets[a] - targets[n]).abs() - cosine(p) + cosine(n)).relu() for p in near for n in far]
        if pairs:
            terms.append(torch.stack(pairs).mean())
    return torch.stack(terms).mean() if terms else features.sum() * 0.0


def test_margin_of_a_small_case():
    """Anchors 0 and 1 have one pair each: 0.3 - 0 + 1 and 0.3 - 0 + 0; row 2 has no other row with its target."""
    features = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])

    assert ordinal_margin(features, torch.tensor([1.0, 1.0, -1.0])).item() == pytest.approx((1.3 + 0.3) / 2)
    assert ordinal_margin(features, torch.tensor([1.0, 1.0, -1.0]), margin=0.0).item() == pytest.approx(0.5)


@pytest.mark.parametrize("rows", [2, 5, 16])
@pytest.mark.parametrize("margin", [0.0, 0.15, 1.0])
def test_value_and_gradient_are_those_of_the_loops(rows, margin):
    features, targets = drawn(rows, seed=rows)
    features.requires_grad_()

    value, expected = ordinal_margin(features, targets, margin=margin), by_loops(features, targets, margin=margin)

    torch.testing.assert_close(value, expected)
    ours, reference = (torch.autograd.grad(loss, features)[0] for loss in (value, expected))
    torch.testing.assert_close(ours, reference)


def test_pairs_of_the_paper_depend_on_modalities():
    features, targets = drawn(18, seed=3)
    groups = torch.arange(18) % 3
    features.requires_grad_()

    value = ordinal_margin(features, targets, pairs="paper", groups=groups)

    expected = by_loops(
        features,
        targets,
        positives=lambda a, p: groups[a] != groups[p],
        negatives=lambda a, n: groups[a] == groups[n],
    )
    torch.testing.assert_close(value, expected)
    ours, reference = (torch.autograd.grad(loss, features)[0] for loss in (value, expected))
    torch.testing.assert_close(ours, reference)
    assert value != ordinal_margin(features, targets)


def test_targets_of_several_values_are_compared_by_the_sum_of_their_differences():
    features, first = drawn(12, seed=1)
    second = drawn(12, seed=2)[1]
    both = torch.stack([first, second], dim=1)

    value = ordinal_margin(features, both)

    ids = 10 * first + second  # equal where both targets are equal
    expected = []
    lengths = features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()
    cosines = lengths @ lengths.T
    for a in range(12):
        pairs = [
            (0.15 * (both[a] - both[n]).abs().sum() - cosines[a, p] + cosines[a, n]).relu()
            for p in range(12)
            for n in range(12)
            if p != a and ids[p] == ids[a] and ids[n] != ids[a]
        ]
        expected += [torch.stack(pairs).mean()] if pairs else []
    torch.testing.assert_close(value, torch.stack(expected).mean())


def test_targets_that_differ_by_rounding_are_equal_unless_decimals_is_none():
    features, targets = drawn(8, seed=5, dtype=torch.float32)
    shaken = targets + torch.tensor([0.0, 1e-6] * 4)

    assert ordinal_margin(features, shaken) == ordinal_margin(features, targets)
    assert ordinal_margin(features, shaken, decimals=None) != ordinal_margin(features, targets, decimals=None)
    assert ordinal_margin(features, targets, decimals=None) == ordinal_margin(features, targets)


@pytest.mark.parametrize("targets", [[1.0, 1.0, 1.0], [0.0, 1.0, 2.0], [1.0]])
def test_without_an_anchor_there_is_no_loss_and_no_gradient(targets):
    features = torch.randn(len(targets), 4, requires_grad=True)

    value = ordinal_margin(features, torch.tensor(targets))
    value.backward()

    assert value == 0.0 and not features.grad.any()


def test_invalid_rows_do_not_change_the_loss():
    features, targets = drawn(12, seed=7)
    valid = torch.arange(12) % 4 != 0
    spoilt = torch.where(valid[:, None], features, features + 5.0)

    value = ordinal_margin(spoilt, targets, valid=valid)

    torch.testing.assert_close(value, ordinal_margin(features[valid], targets[valid]))


def test_the_order_of_rows_and_their_lengths_do_not_matter():
    features, targets = drawn(15, seed=8)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(ordinal_margin(features[order], targets[order]), ordinal_margin(features, targets))
    torch.testing.assert_close(ordinal_margin(7 * features, targets), ordinal_margin(features, targets))


def test_the_gradient_is_right_and_finite_at_zero():
    features, targets = drawn(7, seed=9)
    assert torch.autograd.gradcheck(lambda x: ordinal_margin(x, targets), features.requires_grad_())

    nothing = torch.zeros(4, 3, requires_grad=True)
    ordinal_margin(nothing, torch.tensor([0.0, 0.0, 1.0, 1.0])).backward()
    assert nothing.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    features, targets = drawn(9, seed=4, dtype=torch.float32)

    value = ordinal_margin(features.bfloat16(), targets)

    assert value.dtype == torch.float32
    assert torch.equal(value, ordinal_margin(features.bfloat16().float(), targets))


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and targets \(4,\)"):
        ordinal_margin(torch.zeros(2, 3), torch.zeros(4))
    with pytest.raises(ValueError, match="pairs is 'all'"):
        ordinal_margin(torch.zeros(2, 3), torch.zeros(2), pairs="all")
    with pytest.raises(ValueError, match="expected groups"):
        ordinal_margin(torch.zeros(2, 3), torch.zeros(2), pairs="paper")


def anchor_by_anchor(features, targets, margin=0.15):
    """A loop over anchors with tensor operations inside, the usual form of this loss."""
    directions = features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()
    terms = []
    for a in range(len(features)):
        same = targets == targets[a]
        near, far = same.clone(), ~same
        near[a] = False
        if not near.any() or not far.any():
            continue
        cosines = directions @ directions[a]
        gaps = margin * (targets[a] - targets[far]).abs()[None] - cosines[near][:, None] + cosines[far][None]
        terms.append(gaps.relu().mean())
    return torch.stack(terms).mean()


def seconds(loss, features, targets):
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        features.grad = None
        loss(features, targets).backward()
        best = min(best, time.perf_counter() - began)
    return best


def test_a_loop_over_anchors_gives_the_same_at_the_published_batch(capsys):
    """16 samples of three modalities; the times are printed, and checked in the benchmark."""
    features, targets = drawn(48, 50, seed=11, dtype=torch.float32, levels=12)
    features.requires_grad_()

    torch.testing.assert_close(ordinal_margin(features, targets), anchor_by_anchor(features, targets))

    print(f"{seconds(anchor_by_anchor, features, targets) / seconds(ordinal_margin, features, targets):.1f} x")
