import math

import pytest
import torch

from xmodal.losses.adversarial import reverse_gradient
from xmodal.losses.learned import CTKD, ramp
from xmodal.losses.logits import kl


def pair(rows=6, classes=4):
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_the_value_is_kl_at_the_learned_temperature():
    student, teacher = pair()
    loss = CTKD(start=1.0, span=20.0, initial=0.0)

    assert loss.temperature.item() == 11.0
    torch.testing.assert_close(loss(student, teacher), kl(student, teacher, temperature=11.0))
    assert loss(student, teacher, reduction="none").shape == (6,)


@pytest.mark.parametrize("theta", [-100.0, 0.0, 100.0])
def test_the_temperature_stays_within_its_bounds(theta):
    assert 1.0 <= CTKD(initial=theta).temperature.item() <= 21.0


def test_the_strength_follows_half_a_cosine_over_five_epochs():
    loss = CTKD()
    values = []
    for epoch in range(8):
        loss.on_epoch_start(epoch, 100)
        values.append(loss.strength)

    expected = [(1 - math.cos(math.pi * min(epoch, 5) / 5)) / 2 for epoch in range(8)]
    assert values == pytest.approx(expected) and values[0] == 0.0 and values[5:] == [1.0] * 3
    assert ramp(0, 0) == 1.0


@pytest.mark.parametrize("epoch", [0, 2, 5])
def test_the_gradient_of_the_temperature_is_reversed_and_the_students_is_not(epoch):
    student, teacher = pair()
    student.requires_grad_()
    loss = CTKD(initial=0.3).double()
    loss.on_epoch_start(epoch)

    plain = kl(student, teacher, temperature=loss.temperature)
    wanted_theta, wanted_student = torch.autograd.grad(plain, [loss.theta, student])
    theta, gradient = torch.autograd.grad(loss(student, teacher), [loss.theta, student])

    torch.testing.assert_close(theta, -ramp(epoch, 5) * wanted_theta)
    torch.testing.assert_close(gradient, wanted_student)
    assert wanted_theta.abs() > 1e-3


def test_a_step_of_gradient_descent_makes_the_task_harder():
    student, teacher = pair()
    loss = CTKD(ramp_epochs=0)
    before = loss(student, teacher)

    torch.optim.SGD(loss.parameters(), lr=0.01).zero_grad()
    before.backward()
    torch.optim.SGD(loss.parameters(), lr=0.01).step()

    assert loss(student, teacher).item() > before.item()


def test_reversed_gradients_check_against_finite_differences():
    student, teacher = pair(3, 3)
    loss = CTKD().double()

    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())
    value = torch.tensor([1.5, -2.0], requires_grad=True)
    reverse_gradient(value, 0.25).sum().backward()
    assert value.grad.tolist() == [-0.25, -0.25] and torch.equal(reverse_gradient(value, 0.25), value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (4, 5)])
def test_extreme_outputs_keep_value_and_gradients_finite(dtype, rows, classes):
    student = torch.full((rows, classes), -1e4, dtype=dtype)
    student[:, 0] = 1e4
    loss = CTKD(ramp_epochs=0)

    value = loss(student.requires_grad_(), -student.detach())
    value.backward()

    assert value.dtype == (torch.float32 if dtype == torch.float16 else dtype) and torch.isfinite(value)
    assert torch.isfinite(student.grad).all() and torch.isfinite(loss.theta.grad)


def test_equal_outputs_have_no_loss_and_order_does_not_matter():
    student, teacher = pair()
    loss = CTKD()

    assert loss(teacher, teacher).item() == 0.0
    torch.testing.assert_close(loss(student.flip(0), teacher.flip(0)), loss(student, teacher))


def test_the_parameter_is_saved_and_read_back():
    other = CTKD(initial=-1.0)

    other.load_state_dict(CTKD(initial=2.0).state_dict())

    assert other.theta.item() == 2.0 and len(list(other.parameters())) == 1


def test_different_shapes_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\), the teacher's \(2, 4\)"):
        CTKD()(torch.zeros(2, 3), torch.zeros(2, 4))
