"""What every loss of the list promises; a loss that reads more than logits adds its inputs to `MAKERS`."""

import inspect
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.losses import LOSSES

every_loss = pytest.mark.parametrize("name", LOSSES)


def logits(rows, classes, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {side: torch.randn(rows, classes, generator=generator, dtype=dtype) for side in ("student", "teacher")}


MAKERS = {("logits",): logits}  # what a card needs → its arguments by name, all of them (rows, …)


def make(name, rows=6, classes=4, **options):
    return MAKERS[LOSSES[name].needs](rows, classes, **options)


@every_loss
def test_values_are_finite_and_not_negative(name):
    values = LOSSES[name].load()(**make(name), reduction="none")

    assert len(values) == 6 and torch.isfinite(values).all() and (values >= 0).all()


@every_loss
def test_the_reduced_value_is_the_mean_of_the_rows(name):
    loss, arguments = LOSSES[name].load(), make(name)

    torch.testing.assert_close(loss(**arguments), loss(**arguments, reduction="none").mean())


@every_loss
def test_gradients_agree_with_finite_differences(name):
    loss, arguments = LOSSES[name].load(), make(name, rows=3)
    teacher = arguments["teacher"]

    assert torch.autograd.gradcheck(lambda student: loss(student, teacher), arguments["student"].requires_grad_())


@every_loss
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 9), classes=st.integers(1, 6))
def test_the_order_of_the_rows_does_not_matter(name, seed, rows, classes):
    loss, arguments = LOSSES[name].load(), make(name, rows=rows, classes=classes, seed=seed)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    shuffled = {key: value[order] for key, value in arguments.items()}

    torch.testing.assert_close(loss(**shuffled), loss(**arguments))
    torch.testing.assert_close(loss(**shuffled, reduction="none"), loss(**arguments, reduction="none")[order])


@every_loss
def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient(name):
    teacher = make(name)["teacher"]
    student = teacher.clone().requires_grad_()

    value = LOSSES[name].load()(student, teacher)
    value.backward()

    assert value.item() == 0.0
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)


@every_loss
def test_a_student_that_differs_has_a_loss(name):
    assert LOSSES[name].load()(**make(name)).item() > 1e-3


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([-1e4, -1.0, 0.0, 1e4]), st.sampled_from([-1e4, 0.0, 3.0, 1e4])),
        min_size=2,
        max_size=5,
    )
)
def test_extreme_outputs_keep_value_and_gradient_finite(name, dtype, pairs):
    student = torch.tensor([[s for s, _ in pairs]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[t for _, t in pairs]], dtype=dtype)

    value = LOSSES[name].load()(student, teacher)
    value.backward()

    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


@every_loss
@pytest.mark.parametrize(("rows", "classes"), [(1, 4), (5, 2), (1, 2)])
def test_one_row_and_two_classes_are_enough(name, rows, classes):
    values = LOSSES[name].load()(**make(name, rows=rows, classes=classes), reduction="none")

    assert len(values) == rows and torch.isfinite(values).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, dtype):
    loss = LOSSES[name].load()
    halves = {key: (40 * value).to(dtype) for key, value in make(name).items()}

    value = loss(**halves)

    assert value.dtype == torch.float32
    assert torch.equal(value, loss(**{key: half.float() for key, half in halves.items()}))


@every_loss
def test_no_gradient_flows_into_a_teacher_without_one(name):
    arguments = make(name)
    arguments["student"].requires_grad_()

    LOSSES[name].load()(**arguments).backward()

    assert arguments["teacher"].grad is None and arguments["student"].grad.any()


@every_loss
def test_unlike_shapes_are_refused_with_both_of_them(name):
    arguments = {**make(name, classes=4), "teacher": make(name, classes=3)["teacher"]}

    with pytest.raises(ValueError, match=re.escape("(6, 4)")) as error:
        LOSSES[name].load()(**arguments)

    assert "(6, 3)" in str(error.value)


@every_loss
def test_coefficients_are_given_by_name(name):
    parameters = list(inspect.signature(LOSSES[name].load()).parameters.values())

    assert [parameter.name for parameter in parameters[:2]] == ["student", "teacher"]
    assert {"temperature", "reduction"} & {parameter.name for parameter in parameters[2:]}
    assert all(
        parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters if parameter.default != inspect._empty
    )


@every_loss
def test_the_docstring_holds_an_equation_and_an_example(name):
    text = inspect.getdoc(LOSSES[name].load())

    assert "$$" in text and ">>>" in text
