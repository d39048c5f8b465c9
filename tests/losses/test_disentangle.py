import math

import pytest
import torch

from xmodal.losses.disentangle import AXES, PERPS, orthogonality, sequence_orthogonality

FORMS = {
    "abs": abs,
    "signed": lambda cosine: cosine,
    "squared": lambda cosine: cosine**2,
    "positive": lambda c: max(0.0, c),
}


def parts(rows=5, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(2)]


def cosine_by_loop(u, v):
    dot = sum(a * b for a, b in zip(u, v, strict=True))
    return dot / (math.sqrt(sum(a * a for a in u)) * math.sqrt(sum(b * b for b in v)))


def test_orthogonality_of_a_small_case():
    """(3, 4) and (4, 3) have the cosine 24/25."""
    first, second = torch.tensor([[3.0, 4.0]]), torch.tensor([[-4.0, -3.0]])

    assert orthogonality(first, second).item() == pytest.approx(0.96)
    assert orthogonality(first, second, perp="signed").item() == pytest.approx(-0.96)
    assert orthogonality(first, second, perp="squared").item() == pytest.approx(0.9216)


@pytest.mark.parametrize("perp", PERPS)
def test_orthogonality_agrees_with_a_loop(perp):
    first, second = parts()

    cosines = [cosine_by_loop(u, v) for u, v in zip(first.tolist(), second.tolist(), strict=True)]
    expected = [FORMS[perp](cosine) for cosine in cosines]

    assert orthogonality(first, second, perp=perp, reduction="none").tolist() == pytest.approx(expected)
    assert orthogonality(first, second, perp=perp).item() == pytest.approx(sum(expected) / len(expected))


@pytest.mark.parametrize("perp", PERPS)
def test_orthogonal_rows_have_loss_zero_and_lengths_do_not_matter(perp):
    first, second = torch.tensor([[2.0, 0.0], [0.0, 5.0]]), torch.tensor([[0.0, 0.1], [7.0, 0.0]])

    assert orthogonality(first, second, perp=perp).item() == 0.0
    first, second = parts()
    scaled = orthogonality(9 * first, 0.1 * second, perp=perp)
    torch.testing.assert_close(scaled, orthogonality(first, second, perp=perp))


def test_after_a_relu_signed_and_abs_have_the_same_value_and_gradient():
    gradients = []
    for perp in ("abs", "signed"):
        given = [part.requires_grad_() for part in parts(rows=8, width=6)]
        value = orthogonality(*(part.relu() for part in given), perp=perp)
        gradients.append((value, *torch.autograd.grad(value, given)))

    for of_abs, of_signed in zip(*gradients, strict=True):
        assert torch.equal(of_abs, of_signed)


def test_opposite_parts_have_no_lower_loss_by_default():
    first, _ = parts()

    assert orthogonality(first, -first).item() == pytest.approx(1.0)
    assert orthogonality(first, -first, perp="signed").item() == pytest.approx(-1.0)
    assert orthogonality(first, -first, perp="positive").item() == 0.0


def test_a_row_of_zeros_gives_zero_and_a_finite_gradient():
    first, second = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3)

    value = orthogonality(first, second)
    value.backward()

    assert value.item() == 0.0 and first.grad.isfinite().all()


@pytest.mark.parametrize("perp", PERPS)
def test_the_gradient_is_right(perp):
    given = [part.requires_grad_() for part in parts(rows=3)]

    assert torch.autograd.gradcheck(lambda first, second: orthogonality(first, second, perp=perp), given)


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(2, 4\)"):
        orthogonality(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="perp is 'cos'"):
        orthogonality(torch.zeros(2, 3), torch.zeros(2, 3), perp="cos")
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        orthogonality(torch.zeros(2, 3), torch.zeros(2, 3), reduction="sum")


def sequences(rows=3, channels=4, steps=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, channels, steps, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("perp", ["positive", "abs"])
@pytest.mark.parametrize("axis", AXES)
def test_sequences_are_compared_by_frame_by_sample_or_over_the_batch(axis, perp):
    first, second = sequences()
    rows, channels, steps = first.shape
    lines = {
        "frame": [[part[b, :, t] for part in (first, second)] for b in range(rows) for t in range(steps)],
        "flat": [[part[b].flatten() for part in (first, second)] for b in range(rows)],
        "legacy_batch": [[part[:, c, t] for part in (first, second)] for c in range(channels) for t in range(steps)],
    }[axis]

    values = [FORMS[perp](cosine_by_loop(*(part.tolist() for part in line))) for line in lines]

    assert sequence_orthogonality(first, second, axis=axis, perp=perp).item() == pytest.approx(
        sum(values) / len(values)
    )


def test_only_the_axis_of_the_released_code_mixes_samples():
    first, second = sequences()
    turned = torch.stack([second[0], -second[1], second[2]])  # of another sample

    for axis in AXES:
        given = first.clone().requires_grad_()
        others = [second, turned]
        grads = [
            torch.autograd.grad(sequence_orthogonality(given, other, axis=axis, perp="signed"), given)[0][0]
            for other in others
        ]
        assert torch.equal(*grads) == (axis != "legacy_batch")


def test_invalid_sequences_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(2, 3, 4\) and \(2, 3\)"):
        sequence_orthogonality(torch.zeros(2, 3, 4), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="axis is 'time': expected frame, flat or legacy_batch"):
        sequence_orthogonality(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), axis="time")
