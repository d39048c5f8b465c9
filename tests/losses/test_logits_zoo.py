"""Variants of KL, DKD, WSLD and standardised logits, and their common properties with DIST and MLKD."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.losses.correlation import batch_correlation, class_correlation, dist, mlkd
from xmodal.losses.decoupled import dkd, non_target_kl, non_target_split, target_kl, target_split
from xmodal.losses.logits import bernoulli_kl, kl, mse, standardise, standardised_kl, with_standardised, wsld

POINTWISE = [kl, standardised_kl, dkd, wsld]
MIXING = [dist, mlkd, class_correlation, batch_correlation]
every_loss = pytest.mark.parametrize("loss", POINTWISE + MIXING)
every_pointwise = pytest.mark.parametrize("loss", POINTWISE)


def draw(rows=6, classes=4, *rest, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        scale * torch.randn(rows, classes, *rest, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return student, teacher, torch.randint(0, classes, (rows, *rest), generator=generator)


def call(loss, student, teacher, target, **options):
    labels = {"target": target} if "target" in inspect.signature(loss).parameters else {}
    return loss(student, teacher, **labels, **options)


def softmax(row, temperature=1.0):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow_kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def slow_dkd(student, teacher, target, alpha, beta, temperature):
    total = 0.0
    for s, t, y in zip(student.tolist(), teacher.tolist(), target.tolist(), strict=True):
        q, p = softmax(s, temperature), softmax(t, temperature)
        total += alpha * slow_kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        rest_p, rest_q = (softmax(row[:y] + row[y + 1 :], temperature) for row in (t, s))
        total += beta * slow_kl(rest_p, rest_q)
    return temperature**2 * total / len(student)


def slow_wsld(student, teacher, target, temperature):
    total = 0.0
    for s, t, y in zip(student.tolist(), teacher.tolist(), target.tolist(), strict=True):
        ratio = math.log(softmax(s)[y]) / (math.log(softmax(t)[y]) - 1e-7)
        p, q = softmax(t, temperature), softmax(s, temperature)
        total -= (1 - math.exp(-ratio)) * sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(student)


def test_kl_without_the_squared_temperature_and_averaged_over_classes():
    student, teacher, _ = draw(classes=5)
    whole = kl(student, teacher, temperature=3.0)

    torch.testing.assert_close(kl(student, teacher, temperature=3.0, scale="none"), whole / 9)
    torch.testing.assert_close(kl(student, teacher, temperature=3.0, reduction="mean"), whole / 5)
    torch.testing.assert_close(
        bernoulli_kl(student, teacher, reduction="mean"), bernoulli_kl(student, teacher, reduction="batchmean") / 5
    )


def test_an_unknown_scale_is_named():
    with pytest.raises(ValueError, match="scale is 'T2': expected t2"):
        kl(torch.zeros(1, 2), torch.zeros(1, 2), scale="T2")


@pytest.mark.parametrize("loss", [kl, bernoulli_kl, mse, standardised_kl, dkd, wsld])
def test_weights_multiply_rows_and_the_divisor_counts_them_all(loss):
    student, teacher, target = draw()
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 0.0])

    value = call(loss, student, teacher, target, weight=weight)

    rows = call(loss, student, teacher, target, reduction="none")
    torch.testing.assert_close(value, (weight * rows).sum() / 6)
    assert call(loss, student, teacher, target, weight=torch.zeros(6)).item() == 0.0
    with pytest.raises(ValueError, match=r"weight has shape \(5,\), the rows have \(6,\)"):
        call(loss, student, teacher, target, weight=torch.ones(5))


def test_splits_are_the_probabilities_of_the_definition():
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64).log()  # p = 1/6, 2/6, 3/6

    assert target_split(logits, torch.tensor([1])).exp().tolist()[0] == pytest.approx([1 / 3, 2 / 3])
    assert non_target_split(logits, torch.tensor([1])).exp().tolist()[0] == pytest.approx([1 / 4, 3 / 4])


def test_dkd_of_a_small_case():
    teacher = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64).log()  # b = (½, ½), q = (½, ½)
    student = torch.tensor([[1.0, 3.0, 0.0]], dtype=torch.float64)
    student[0] = torch.tensor([4 / 3, 3.0, 1.0]).log()  # b = (¼, ¾), q = (¾, ¼)

    value = dkd(student, teacher, torch.tensor([0]), alpha=2.0, beta=3.0, temperature=1.0)

    part = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert value.item() == pytest.approx(5 * part, rel=1e-6)  # the student's logits are computed in float32


@pytest.mark.parametrize("temperature", [0.7, 4.0])
def test_losses_equal_slow_loops(temperature):
    student, teacher, target = draw(7, 5)

    value = dkd(student, teacher, target, alpha=2.0, beta=0.5, temperature=temperature)

    assert value.item() == pytest.approx(slow_dkd(student, teacher, target, 2.0, 0.5, temperature), rel=1e-9)
    assert wsld(student, teacher, target, temperature=temperature).item() == pytest.approx(
        slow_wsld(student, teacher, target, temperature), rel=1e-9
    )


def test_dkd_of_two_classes_has_no_non_target_part():
    student, teacher, target = draw(5, 2)

    assert non_target_kl(student, teacher, target).tolist() == [0.0] * 5
    torch.testing.assert_close(
        dkd(student, teacher, target, beta=100.0), target_kl(student, teacher, target).mean(), rtol=1e-12, atol=0
    )


def test_dkd_with_the_teachers_remaining_probability_as_weight_is_kl():
    student, teacher, target = draw(1, 5)
    remaining = 1 - teacher.softmax(1)[0, target[0]].item()

    torch.testing.assert_close(
        dkd(student, teacher, target, alpha=1.0, beta=remaining, temperature=1.0), kl(student, teacher, temperature=1.0)
    )


def test_standardised_logits_forget_offset_and_size():
    student, teacher, _ = draw()

    torch.testing.assert_close(standardise(3 * student + 7), standardise(student), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(standardise(student).std(dim=1), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-6)
    assert standardised_kl(student, 5 * student - 2).item() == pytest.approx(0.0, abs=1e-9)
    assert standardise(torch.full((2, 3), 4.0)).tolist() == [[0.0] * 3] * 2
    assert standardise(torch.tensor([[4.0]])).tolist() == [[0.0]]


def test_any_loss_can_be_wrapped():
    student, teacher, target = draw()

    wrapped = with_standardised(dkd)(student, teacher, target, beta=2.0)

    torch.testing.assert_close(wrapped, dkd(standardise(student), standardise(teacher), target, beta=2.0))
    torch.testing.assert_close(with_standardised(kl)(student, teacher), standardised_kl(student, teacher))
    assert with_standardised(dkd).__name__ == "dkd"


@every_loss
def test_gradients_agree_with_finite_differences(loss):
    student, teacher, target = draw(4, 3)
    options = {"detach": False} if loss is wsld else {}

    assert torch.autograd.gradcheck(lambda s: call(loss, s, teacher, target, **options), student.requires_grad_())


def test_wsld_weights_are_constants_by_default():
    student, teacher, target = draw(4, 3)
    student.requires_grad_()
    ratio = torch.nn.functional.cross_entropy(student, target, reduction="none").detach() / (
        torch.nn.functional.cross_entropy(teacher, target, reduction="none") + 1e-7
    )

    wsld(student, teacher, target, temperature=3.0).backward()

    gap = (student / 3).softmax(1) - (teacher / 3).softmax(1)
    torch.testing.assert_close(student.grad, (3 * (1 - (-ratio).exp()).unsqueeze(1) * gap / 4).detach())


@every_loss
def test_a_student_that_equals_its_teacher_has_no_gradient(loss):
    _, teacher, target = draw()
    student = teacher.clone().requires_grad_()

    value = call(loss, student, teacher, target)
    value.backward()

    if loss is wsld:
        entropy = -((teacher / 2).softmax(1) * (teacher / 2).log_softmax(1)).sum(1).mean()
        assert value.item() == pytest.approx(4 * (1 - math.exp(-1)) * entropy.item(), rel=1e-5)  # 1e-7 in w
    else:
        assert value.item() == pytest.approx(0.0, abs=1e-6 if loss is dist else 1e-12)  # eps over the spread
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-6 if loss is dist else 1e-12)


@every_loss
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 8), classes=st.integers(2, 6))
def test_the_order_of_the_rows_does_not_matter(loss, seed, rows, classes):
    student, teacher, target = draw(rows, classes, seed=seed)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))

    torch.testing.assert_close(
        call(loss, student[order], teacher[order], target[order]), call(loss, student, teacher, target)
    )


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 3),
    classes=st.integers(2, 4),
    values=st.lists(st.sampled_from([-1e4, -1.0, 0.0, 3.0, 1e4]), min_size=24, max_size=24),
)
def test_extreme_outputs_keep_value_and_gradient_finite(loss, dtype, rows, classes, values):
    sides = torch.tensor(values, dtype=dtype)[: 2 * rows * classes].reshape(2, rows, classes)
    student, teacher = sides[0].clone().requires_grad_(), sides[1]

    value = call(loss, student, teacher, torch.arange(rows) % classes)
    value.backward()

    rounding = (
        200 * torch.finfo(dtype).eps
    )  # a divergence of equal inputs, times τ² up to 36, is rounding noise below this
    assert value.ndim == 0 and torch.isfinite(value) and value >= -rounding and torch.isfinite(student.grad).all()


@every_loss
def test_identical_rows_keep_value_and_gradient_finite(loss):
    student, teacher, target = (side[:1].expand(4, *side.shape[1:]).clone() for side in draw())

    value = call(loss, student.requires_grad_(), teacher, target)
    value.backward()

    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


@every_pointwise
def test_pictures_have_one_value_per_pixel(loss):
    student, teacher, target = draw(2, 3, 4, 5)

    values = call(loss, student, teacher, target, reduction="none")

    assert values.shape == (2, 4, 5)
    pixel = call(loss, student[:, :, 1, 2], teacher[:, :, 1, 2], target[:, 1, 2], reduction="none")
    torch.testing.assert_close(values[:, 1, 2], pixel)
    torch.testing.assert_close(call(loss, student, teacher, target), values.mean())


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    student, teacher, target = draw(scale=40.0)
    halves = student.to(dtype), teacher.to(dtype)

    value = call(loss, *halves, target)

    assert value.dtype == torch.float32
    assert torch.equal(value, call(loss, *(half.float() for half in halves), target))


@every_loss
def test_different_shapes_are_refused_with_both_shapes(loss):
    with pytest.raises(ValueError, match=r"\(6, 4\), the teacher's \(6, 3\)"):
        call(loss, torch.zeros(6, 4), torch.zeros(6, 3), torch.zeros(6, dtype=torch.long))


@pytest.mark.parametrize("loss", [dkd, wsld])
def test_targets_that_do_not_fit_are_named(loss):
    logits = torch.zeros(3, 4)

    with pytest.raises(ValueError, match=r"target has shape \(2,\) for logits \(3, 4\): expected \(3,\)"):
        loss(logits, logits, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="target holds classes 0 to 4: expected 0 to 3"):
        loss(logits, logits, torch.tensor([0, 4, 1]))


def test_dkd_of_one_class_is_refused():
    with pytest.raises(ValueError, match="have 1 class: expected two or more"):
        dkd(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
