import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.losses.divergence import divergence, jsd, ncjsd, tcjsd

PARTS, FORMS = ["target", "non_target"], ["reference", "js"]
every_part = pytest.mark.parametrize("part", PARTS)
every_form = pytest.mark.parametrize("form", FORMS)


def draw(rows=6, classes=4, *rest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        2 * torch.randn(rows, classes, *rest, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return student, teacher, torch.randint(0, classes, (rows, *rest), generator=generator)


def softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def slow_form(u, v, form):
    m = [(a + b) / 2 for a, b in zip(u, v, strict=True)]
    if form == "reference":
        return sum(c * math.log(c / math.sqrt(a * b)) for a, b, c in zip(u, v, m, strict=True))
    return sum(a * math.log(a / c) + b * math.log(b / c) for a, b, c in zip(u, v, m, strict=True)) / 2


def slow(student, teacher, target, part, form, temperature=1.0):
    total = 0.0
    for s, t, y in zip(
        (student / temperature).tolist(), (teacher / temperature).tolist(), target.tolist(), strict=True
    ):
        if part == "target":
            u, v = ([softmax(row)[y], 1 - softmax(row)[y]] for row in (s, t))
        else:
            u, v = (softmax(row[:y] + row[y + 1 :]) for row in (s, t))
        total += slow_form(u, v, form)
    return temperature**2 * total / len(student)


def test_both_forms_of_a_small_case():
    student = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()  # u = (¾, ¼)
    teacher = torch.tensor([[1.0, 3.0]], dtype=torch.float64).log()  # v = (¼, ¾), m = (½, ½)

    js, reference = (jsd(student, teacher, form=form).item() for form in ("js", "reference"))

    assert js == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert reference == pytest.approx(math.log(0.5 / math.sqrt(0.75 * 0.25)))


@every_part
@every_form
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_equals_a_slow_loop(part, form, temperature):
    student, teacher, target = draw(7, 5)

    value = divergence(student, teacher, target, part=part, form=form, temperature=temperature)

    assert value.item() == pytest.approx(slow(student, teacher, target, part, form, temperature), rel=1e-10)


@every_form
def test_named_functions_are_the_same_measure(form):
    student, teacher, target = draw()

    assert torch.equal(
        tcjsd(student, teacher, target, form=form), divergence(student, teacher, target, part="target", form=form)
    )
    assert torch.equal(
        ncjsd(student, teacher, target, form=form), divergence(student, teacher, target, part="non_target", form=form)
    )
    slow_rows = [
        slow_form(softmax(s), softmax(t), form) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    assert jsd(student, teacher, form=form, reduction="none").tolist() == pytest.approx(slow_rows, rel=1e-10)


@every_part
@every_form
def test_it_is_symmetric_and_zero_without_gradient_at_equality(part, form):
    student, teacher, target = draw()

    forward = divergence(student, teacher, target, part=part, form=form)
    backward = divergence(teacher, student, target, part=part, form=form)
    same = teacher.clone().requires_grad_()
    value = divergence(same, teacher, target, part=part, form=form)
    value.backward()

    torch.testing.assert_close(forward, backward)
    assert value.item() == 0.0 and not same.grad.any()


@every_form
def test_two_classes_have_no_non_target_divergence(form):
    student, teacher, target = draw(5, 2)

    value = ncjsd(student.requires_grad_(), teacher, target, form=form, reduction="none")
    value.sum().backward()

    assert value.tolist() == [0.0] * 5 and not student.grad.any()


@every_part
@every_form
def test_gradients_agree_with_finite_differences(part, form):
    student, teacher, target = draw(4, 3)

    assert torch.autograd.gradcheck(
        lambda s: divergence(s, teacher, target, part=part, form=form, temperature=1.5), student.requires_grad_()
    )


@every_form
def test_both_branches_of_the_stable_form_meet(form):
    gaps = torch.linspace(1.9, 2.1, 9, dtype=torch.float64).unsqueeze(1)  # the branch changes where x is 1
    student = torch.cat([gaps, torch.zeros_like(gaps)], dim=1)

    values = jsd(student, -student, form=form, reduction="none")

    for value, (s, _) in zip(values.tolist(), student.tolist(), strict=True):
        assert value == pytest.approx(slow_form(softmax([s, 0.0]), softmax([-s, 0.0]), form), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e4), classes=st.integers(2, 6))
def test_the_textbook_form_lies_between_zero_and_ln_two(seed, scale, classes):
    student, teacher, target = draw(5, classes, seed=seed)

    for part in PARTS:
        values = divergence(scale * student, scale * teacher, target, part=part, reduction="none")
        assert (values >= 0).all() and (values <= math.log(2) + 1e-12).all()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 3),
    classes=st.integers(2, 4),
    values=st.lists(st.sampled_from([-1e4, -1.0, 0.0, 3.0, 1e4]), min_size=24, max_size=24),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    part=st.sampled_from(PARTS),
    form=st.sampled_from(FORMS),
)
def test_extreme_outputs_keep_value_and_gradient_finite(rows, classes, values, dtype, part, form):
    sides = torch.tensor(values, dtype=dtype)[: 2 * rows * classes].reshape(2, rows, classes)
    student = sides[0].clone().requires_grad_()

    value = divergence(student, sides[1], torch.arange(rows) % classes, part=part, form=form)
    value.backward()

    assert torch.isfinite(value) and value >= 0 and torch.isfinite(student.grad).all()


@every_part
@every_form
def test_rows_may_be_weighted_and_permuted(part, form):
    student, teacher, target = draw()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0, 0.0])

    rows = divergence(student, teacher, target, part=part, form=form, reduction="none")

    moved = divergence(student[order], teacher[order], target[order], part=part, form=form, reduction="none")
    torch.testing.assert_close(moved, rows[order])
    torch.testing.assert_close(
        divergence(student, teacher, target, part=part, form=form, weight=weight), (weight * rows).sum() / 6
    )


@every_part
def test_pictures_have_one_value_per_pixel(part):
    student, teacher, target = draw(2, 3, 4, 5)

    values = divergence(student, teacher, target, part=part, reduction="none")

    assert values.shape == jsd(student, teacher, reduction="none").shape == (2, 4, 5)
    pixel = divergence(student[:, :, 2, 1], teacher[:, :, 2, 1], target[:, 2, 1], part=part, reduction="none")
    torch.testing.assert_close(values[:, 2, 1], pixel)


@pytest.mark.parametrize("loss", [tcjsd, ncjsd, lambda s, t, y: jsd(s, t)])
def test_half_precision_is_computed_in_float32(loss):
    student, teacher, target = draw()
    halves = student.half(), teacher.half()

    value = loss(*halves, target)

    assert value.dtype == torch.float32 and torch.equal(value, loss(*(half.float() for half in halves), target))


def test_unknown_options_and_different_shapes_are_refused():
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])

    with pytest.raises(ValueError, match="part is 'other': expected target or non_target"):
        divergence(logits, logits, target, part="other")
    with pytest.raises(ValueError, match="form is 'jsd': expected js or reference"):
        divergence(logits, logits, target, form="jsd")
    with pytest.raises(ValueError, match=r"\(2, 3\), the teacher's \(2, 4\)"):
        divergence(logits, torch.zeros(2, 4), target)
    with pytest.raises(ValueError, match="have 1 class: expected two or more"):
        divergence(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))
