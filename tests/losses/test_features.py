import math

import pytest
import torch

from xmodal.losses.features import ab, hint, ofd, ofd_margin, pkd, srd
from xmodal.losses.information import VID, gaussian_nll


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))


def test_hint_is_the_mean_square_over_everything():
    assert hint(rows([1.0, 3.0], [0.0, 0.0]), rows([0.0, 1.0], [0.0, 0.0])).item() == 1.25


def test_hint_with_batch_norm_and_relu_of_a_small_case():
    student, teacher = rows([1.0], [3.0]), rows([0.0], [0.0])  # standardised: -1 and 1, after the ReLU 0 and 1

    assert hint(student, teacher, batchnorm_relu=True).item() == pytest.approx(0.5 / (1 + 1e-5), rel=1e-12)


def test_hint_with_batch_norm_needs_more_than_one_value_per_column():
    with pytest.raises(ValueError, match=r"Features of shape \(1, 4\) have one value per column"):
        hint(torch.zeros(1, 4), torch.zeros(1, 4), batchnorm_relu=True)


@pytest.mark.parametrize(
    ("student", "teacher", "value"),
    [(0.5, -1.0, 2.25), (-1.0, -1.0, 0.0), (0.5, 0.0, 2.25), (0.25, 3.0, 0.5625), (1.0, 3.0, 0.0), (2.0, 3.0, 0.0)],
)
def test_ab_depends_on_the_side_and_the_margin(student, teacher, value):
    assert ab(rows([student]), rows([teacher]), scale=1.0).item() == value


def test_ab_sums_over_a_row_and_scales():
    assert ab(rows([0.0, 0.0], [5.0, -5.0]), rows([1.0, -1.0], [1.0, -1.0])).item() == pytest.approx(3e-3)


@pytest.mark.parametrize(
    ("student", "teacher", "value"),
    [
        (1.0, 3.0, 4.0),  # the teacher is active: match it
        (5.0, 3.0, 4.0),
        (-1.0, -0.5, 0.0),  # inactive, and the student is below: no loss
        (0.5, -0.5, 1.0),  # inactive, and the student is above: distance to the teacher
        (0.5, -9.0, 6.25),  # at most the distance to the margin
        (-3.0, -9.0, 0.0),
    ],
)
def test_ofd_of_one_value_with_margin_minus_two(student, teacher, value):
    assert ofd(rows([student]), rows([teacher]), margin=torch.tensor([-2.0])).item() == value


def test_ofd_equals_a_slow_loop():
    (student, teacher), margin = pair(3, 2, 4), torch.tensor([-0.3, -0.8], dtype=torch.float64)

    total = 0.0
    for i in range(3):
        for c in range(2):
            for s, t in zip(student[i, c].tolist(), teacher[i, c].tolist(), strict=True):
                m = margin[c].item()
                if s > m and t <= m:
                    total += (s - m) ** 2
                elif s > t > m and t <= 0:
                    total += (s - t) ** 2
                elif t > 0:
                    total += (s - t) ** 2
    assert ofd(student, teacher, margin=margin).item() == pytest.approx(total / 3, rel=1e-12)


def test_ofd_uses_the_mean_of_each_channels_negative_values_as_margin():
    teacher = rows([-1.0, 2.0], [-3.0, 1.0])  # means -2 and, without negative values, 0
    student = rows([4.0, 2.0], [4.0, 1.0])

    assert ofd(student, teacher).item() == pytest.approx(((4 + 1) ** 2 + (4 + 2) ** 2) / 2)


def test_the_margin_is_the_mean_of_the_negative_part_of_a_gaussian():
    generator = torch.Generator().manual_seed(0)
    draws = 0.5 + 2.0 * torch.randn(400_000, generator=generator, dtype=torch.float64)

    margin = ofd_margin(rows(0.5), rows(2.0))

    assert margin.item() == pytest.approx(draws[draws < 0].mean().item(), abs=0.02)  # 0.02: five standard errors


def test_a_channel_that_is_hardly_ever_negative_gets_three_deviations():
    assert ofd_margin(rows(10.0, 5.0), rows(2.0, 0.0)).tolist() == [-6.0, 0.0]


def test_srd_is_twice_the_logarithm_of_the_sum():
    student, teacher = rows([1.0, -2.0], [0.0, 1.0]), torch.zeros(2, 2, dtype=torch.float64)

    assert srd(student, teacher).item() == pytest.approx(2 * math.log(4))
    assert srd(student, teacher, exponent=4.0).item() == pytest.approx(2 * math.log(18))


def test_pkd_is_one_minus_the_correlation_of_each_channel():
    student, teacher = pair(5, 2, 3)
    n = 15

    correlations = [
        torch.corrcoef(torch.stack([student[:, c].flatten(), teacher[:, c].flatten()]))[0, 1].item() for c in range(2)
    ]
    expected = sum(1 - r for r in correlations) / 2 * (n - 1) / n
    assert pkd(student, teacher, eps=0.0).item() == pytest.approx(expected, rel=1e-12)


def test_pkd_ignores_shift_and_scale_of_a_channel():
    student, teacher = pair(5, 2, 3)

    torch.testing.assert_close(pkd(student, 40 * teacher - 7), pkd(student, teacher), rtol=1e-5, atol=0)


def test_gaussian_nll_of_a_small_case():
    value = gaussian_nll(rows([1.0, 0.0]), rows([0.0, 3.0]), rows(1.0, 4.0))

    assert value.item() == pytest.approx(0.5 * ((1 + 0) + (9 / 4 + math.log(4))) / 2)


@pytest.mark.parametrize(
    ("student", "teacher"), [((6,), (4,)), ((3, 8), (5, 4)), ((3, 8, 8), (5, 4, 4)), ((3, 4, 4), (5, 8, 8))]
)
def test_vid_accepts_vectors_sequences_and_maps_of_any_size(student, teacher):
    vid = VID(student, teacher)

    values = vid(torch.randn(3, *student), torch.randn(3, *teacher), reduction="none")

    assert values.shape == (3,) and torch.isfinite(values).all()


def test_vid_starts_at_the_initial_variance_and_learns():
    torch.manual_seed(0)
    vid = VID((6,), (4,), layers=1, initial_variance=5.0)
    student = torch.randn(64, 6)
    teacher = student @ torch.randn(6, 4)
    optimiser = torch.optim.Adam(vid.parameters(), lr=0.02)
    torch.testing.assert_close(vid.variance, torch.full((4,), 5.0))

    before = vid(student, teacher).item()
    for _ in range(200):
        optimiser.zero_grad()
        vid(student, teacher).backward()
        optimiser.step()

    assert vid(student, teacher).item() < before - 0.5 and (vid.variance < 5.0).all()
    assert all(parameter.grad.any() for parameter in vid.parameters())


def test_vid_computes_half_precision_in_float32_and_stays_finite():
    vid = VID((2,), (2,))

    value = vid(torch.full((1, 2), 1e4, dtype=torch.float16), torch.full((1, 2), -1e4, dtype=torch.float16))
    value.backward()

    assert value.dtype == torch.float32 and torch.isfinite(value)
    assert all(torch.isfinite(parameter.grad).all() for parameter in vid.parameters())
