import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from xmodal.losses.distance import cmd, cmd_softmax, diff_loss, emd, kl_distance, simse

DISTANCES = [cmd, cmd_softmax, kl_distance, emd, simse]
every_distance = pytest.mark.parametrize("loss", DISTANCES)
every_loss = pytest.mark.parametrize("loss", [*DISTANCES, diff_loss])


def draw(rows=6, width=4, *rest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, *rest, generator=generator, dtype=torch.float64) for _ in range(2)]


def slow_cmd(student, teacher, moments):
    columns = [list(zip(*side.tolist(), strict=True)) for side in (student, teacher)]
    means = [[sum(column) / len(column) for column in side] for side in columns]
    total = math.dist(*means)
    for k in range(2, moments + 1):
        total += math.dist(
            *(
                [sum((x - mean) ** k for x in column) / len(column) for column, mean in zip(side, centre, strict=True)]
                for side, centre in zip(columns, means, strict=True)
            )
        )
    return total


def slow_kl_distance(student, teacher):
    distances = []
    for s, t in zip(student.softmax(1).tolist(), teacher.softmax(1).tolist(), strict=True):
        distances.append(sum(q * math.log(q / p) for q, p in zip(s, t, strict=True)) / len(s))
    return distances


@pytest.mark.parametrize("moments", [1, 2, 5])
def test_cmd_equals_a_slow_loop(moments):
    student, teacher = draw(7, 3)

    assert cmd(student, teacher, moments=moments).item() == pytest.approx(
        slow_cmd(student, teacher, moments), rel=1e-12
    )


def test_cmd_needs_neither_pairs_nor_equal_numbers_of_rows():
    student, teacher = draw(8, 3)

    torch.testing.assert_close(cmd(student.flip(0), teacher), cmd(student, teacher))
    assert cmd(student.repeat(2, 1), student).item() == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(cmd_softmax(student, teacher), cmd(student.softmax(1), teacher.softmax(1)))


def test_kl_distance_goes_from_student_to_teacher_and_is_clipped_on_both_sides():
    student, teacher = draw()
    plain = slow_kl_distance(student, teacher)
    low, high = sorted(plain)[1] + 1e-6, sorted(plain)[4] - 1e-6

    values = kl_distance(student, teacher, lower=low, upper=high, reduction="none").tolist()

    assert values == pytest.approx([0.0 if d < low else min(1.0, d / high) for d in plain])
    assert kl_distance(student, teacher, upper=100.0).item() == pytest.approx(sum(plain) / 600)


def test_emd_equals_scipy():
    student, teacher = draw(5, 7)
    expected = [wasserstein_distance(s, t) for s, t in zip(student.numpy(), teacher.numpy(), strict=True)]

    assert emd(student, teacher, reduction="none").tolist() == pytest.approx(expected)
    squashed = emd(student, teacher, squash=True, floor=0.6, reduction="none").tolist()
    logistic = [1 / (1 + math.exp(-value)) for value in expected]
    assert squashed == pytest.approx([value if value > 0.6 else 0.0 for value in logistic])


def test_emd_does_not_depend_on_which_class_has_a_value():
    student, teacher = draw()

    torch.testing.assert_close(emd(student[:, [2, 0, 3, 1]], teacher), emd(student, teacher))


def test_simse_measures_a_common_offset_only():
    student, teacher = draw()

    assert simse(student, student + 3.0).item() == pytest.approx(9.0)
    assert simse(student, teacher).item() == pytest.approx((student.sum() - teacher.sum()).item() ** 2 / 24**2)


def test_diff_loss_is_zero_for_features_without_a_common_direction():
    student = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    teacher = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)

    assert diff_loss(student, teacher).item() == pytest.approx(0.0, abs=1e-12)
    assert diff_loss(student, student).item() == pytest.approx(16.0, rel=1e-5)  # eps of 1e-6 is added to the lengths


def test_diff_loss_equals_a_slow_loop_for_different_widths():
    student, teacher = draw(5, 3)[0], draw(5, 2, seed=1)[1]
    s, t = ((side - side.mean(0)) for side in (student, teacher))
    s, t = ([[x / (math.hypot(*row) + 1e-6) for x in row] for row in side.tolist()] for side in (s, t))

    products = [sum(s[i][a] * t[i][b] for i in range(5)) ** 2 for a in range(3) for b in range(2)]

    assert diff_loss(student, teacher).item() == pytest.approx(sum(products) / 6, rel=1e-12)


@every_loss
def test_gradients_agree_with_finite_differences(loss):
    student, teacher = draw(4, 3)
    options = {"detach_norms": False} if loss is diff_loss else {}

    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, **options), student.requires_grad_())


@every_distance
def test_it_is_zero_without_gradient_at_equality(loss):
    student, _ = draw()
    same = student.clone().requires_grad_()

    value = loss(same, student)
    value.backward()

    assert value.item() == 0.0
    torch.testing.assert_close(same.grad, torch.zeros_like(same), rtol=0, atol=1e-12)


@every_loss
def test_the_order_of_the_rows_does_not_matter(loss):
    student, teacher = draw(8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(loss(student[order], teacher[order]), loss(student, teacher))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 3),
    width=st.integers(1, 4),
    values=st.lists(st.sampled_from([-1e4, -1.0, 0.0, 3.0, 1e4]), min_size=24, max_size=24),
)
def test_extreme_features_keep_value_and_gradient_finite(loss, dtype, rows, width, values):
    sides = torch.tensor(values, dtype=dtype)[: 2 * rows * width].reshape(2, rows, width)
    student = sides[0].clone().requires_grad_()

    value = loss(student, sides[1])
    value.backward()

    assert value.ndim == 0 and torch.isfinite(value) and value >= 0 and torch.isfinite(student.grad).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    halves = [side.to(dtype) for side in draw()]

    value = loss(*halves)

    assert value.dtype == torch.float32 and torch.equal(value, loss(*(half.float() for half in halves)))


@every_distance
def test_different_widths_are_refused_with_both_shapes(loss):
    with pytest.raises(ValueError, match=r"\(6, 4\), the teacher's \(6, 3\)"):
        loss(torch.zeros(6, 4), torch.zeros(6, 3))


def test_diff_loss_of_different_row_counts_is_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(6, 4\), the teacher's \(5, 4\)"):
        diff_loss(torch.zeros(6, 4), torch.zeros(5, 4))
