import math

import pytest
import torch

from xmodal.losses.logits import bernoulli_kl, kl, mse


def softmax(logits, temperature):
    powers = [math.exp(value / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def slow_kl(student, teacher, temperature):
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        q, p = softmax(s, temperature), softmax(t, temperature)
        total += sum(p[k] * math.log(p[k] / q[k]) for k in range(len(p)))
    return temperature**2 * total / len(student)


def slow_bernoulli_kl(student, teacher, temperature):
    total = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        q, p = 1 / (1 + math.exp(-s / temperature)), 1 / (1 + math.exp(-t / temperature))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return temperature**2 * total / len(student)


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(3 * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))


def test_kl_of_three_to_one_against_even_odds():
    teacher = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)  # p = (3/4, 1/4)
    student = torch.zeros(1, 2, dtype=torch.float64)  # q = (1/2, 1/2)

    loss = kl(student, teacher, temperature=1.0)

    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-12)


def test_kl_divides_logits_by_the_temperature_and_multiplies_by_its_square():
    teacher = torch.tensor([[2 * math.log(3.0), 0.0]], dtype=torch.float64)
    student = torch.zeros(1, 2, dtype=torch.float64)

    loss = kl(student, teacher, temperature=2.0)

    assert loss.item() == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), abs=1e-12)


def test_kl_is_not_symmetric_and_the_teacher_comes_second():
    even, sure = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)

    forward, backward = kl(even, sure, temperature=1.0), kl(sure, even, temperature=1.0)

    assert forward.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-12)
    assert backward.item() == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2.0), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_equals_a_slow_loop(temperature):
    student, teacher = pair(7, 5)

    assert kl(student, teacher, temperature=temperature).item() == pytest.approx(
        slow_kl(student, teacher, temperature), rel=1e-12
    )


def test_kl_gradient_is_the_difference_of_probabilities_times_the_temperature():
    student, teacher = pair(6, 4)
    student.requires_grad_()

    kl(student, teacher, temperature=3.0).backward()

    expected = 3.0 * ((student / 3).softmax(1) - (teacher / 3).softmax(1)) / 6
    torch.testing.assert_close(student.grad, expected.detach())


def test_kl_ignores_a_constant_added_to_all_logits_of_a_row():
    student, teacher = pair(4, 3)

    torch.testing.assert_close(kl(student + 5.0, teacher - 2.0), kl(student, teacher))


def test_kl_of_pictures_has_one_value_per_pixel():
    student, teacher = pair(2, 3, 4, 5)

    values = kl(student, teacher, reduction="none")

    assert values.shape == (2, 4, 5)
    one_pixel = kl(student[1:, :, 2, 3], teacher[1:, :, 2, 3])
    torch.testing.assert_close(values[1, 2, 3], one_pixel)
    torch.testing.assert_close(kl(student, teacher), values.mean())


def test_bernoulli_kl_of_three_to_one_against_even_odds():
    teacher = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)  # p = 3/4, and an equal second label
    student = torch.zeros(1, 2, dtype=torch.float64)

    loss = bernoulli_kl(student, teacher, temperature=1.0)

    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_bernoulli_kl_equals_a_slow_loop(temperature):
    student, teacher = pair(7, 5)

    assert bernoulli_kl(student, teacher, temperature=temperature).item() == pytest.approx(
        slow_bernoulli_kl(student, teacher, temperature), rel=1e-12
    )


def test_bernoulli_kl_of_one_logit_is_kl_of_two_classes():
    student, teacher = pair(6, 1)

    two = kl(*(torch.cat([logit, torch.zeros_like(logit)], dim=1) for logit in (student, teacher)), temperature=2.0)

    torch.testing.assert_close(bernoulli_kl(student, teacher, temperature=2.0), two)


def test_mse_of_a_small_case():
    student, teacher = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])

    assert mse(student, teacher).item() == pytest.approx((1 + 4 + 0 + 4) / 4)
    assert mse(student, teacher, reduction="none").tolist() == [2.5, 2.0]


def test_mse_averages_over_everything_but_rows():
    student, teacher = pair(3, 2, 4)

    expected = [sum((s - t) ** 2 for s, t in zip(a, b, strict=True)) / 8 for a, b in rows_of(student, teacher)]

    assert mse(student, teacher, reduction="none").tolist() == pytest.approx(expected)


def rows_of(student, teacher):
    return [(a.flatten().tolist(), b.flatten().tolist()) for a, b in zip(student, teacher, strict=True)]


@pytest.mark.parametrize("loss", [kl, bernoulli_kl, mse])
def test_an_unknown_reduction_is_named(loss):
    with pytest.raises(ValueError, match="reduction is 'sum': expected mean, batchmean or none"):
        loss(torch.zeros(2, 2), torch.zeros(2, 2), reduction="sum")
