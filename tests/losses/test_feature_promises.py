"""Properties that every loss on features, maps and relations must have."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.losses.features import ab, hint, ofd, pkd, srd
from xmodal.losses.maps import at, cwd, fsp, ft, hcl, nst
from xmodal.losses.relational import cc, pkt, rkd, rkd_angle, rkd_distance, sp


def hint_bnrelu(student, teacher, **options):
    return hint(student, teacher, batchnorm_relu=True, **options)


def at_norm(student, teacher, **options):
    return at(student, teacher, distance="norm", **options)


def cc_kernel(student, teacher):
    return cc(student, teacher, form="kernel")


def fsp_twice(student, teacher, **options):
    """A map and its left half as two stages."""
    return fsp(*([side, 2 * side[..., :1]] for side in (student, teacher)), **options)


POINTWISE = [hint, ab, ofd, at, at_norm, nst, cwd, ft, fsp_twice, hcl]
MIXING = [hint_bnrelu, srd, pkd, rkd, rkd_distance, rkd_angle, pkt, sp, cc_kernel]
ORDERED = [cc]
EVERY = POINTWISE + MIXING + ORDERED
MINIMUM = {srd: 2 * math.log(1e-12)}
NOT_ZERO_AT_EQUALITY = {ab, hint_bnrelu}  # because of margins, and of a ReLU on one side only
ANY_WIDTH = [at, at_norm, nst, ft, rkd, rkd_distance, rkd_angle, pkt, sp, cc_kernel]
ONE_SHAPE = [hint, hint_bnrelu, ab, ofd, srd, pkd, cwd, hcl, cc]

every = pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.__name__)


def some(losses):
    return pytest.mark.parametrize("loss", losses, ids=lambda loss: loss.__name__)


def pair(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))


@every
def test_the_loss_is_a_finite_scalar_that_is_not_negative(loss):
    value = loss(*pair(6, 3, 2, 2))

    assert value.ndim == 0 and torch.isfinite(value) and (value > 1e-4 or loss is srd)


@every
def test_equality_is_the_minimum(loss):
    teacher = pair(6, 3, 2, 2)[1]
    student = teacher.clone().requires_grad_()

    value = loss(student, teacher)
    value.backward()

    assert torch.isfinite(student.grad).all()
    if loss not in NOT_ZERO_AT_EQUALITY:
        assert value.item() == pytest.approx(MINIMUM.get(loss, 0.0), abs=1e-12)
        assert student.grad.abs().max() < 1e-7  # pkt adds 1e-7 to its probabilities


@every
def test_gradients_agree_with_finite_differences(loss):
    student, teacher = pair(4, 3, 2, 2, seed=5)

    assert torch.autograd.gradcheck(lambda values: loss(values, teacher), student.requires_grad_())


@some([rkd, rkd_distance, rkd_angle, pkt, sp, at, nst, pkd])
def test_gradients_reach_a_teacher_that_requires_them(loss):
    student, teacher = pair(4, 3, 2, 2, seed=5)

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(), teacher.requires_grad_()))


@some(POINTWISE + MIXING)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(2, 7))
def test_the_order_of_the_rows_does_not_matter(loss, seed, rows):
    student, teacher = pair(rows, 3, 2, seed=seed)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))

    torch.testing.assert_close(loss(student[order], teacher[order]), loss(student, teacher))


@some(ORDERED)
def test_the_order_of_the_rows_counts_where_the_card_says_so(loss):
    student, teacher = pair(4, 3)
    order = torch.tensor([0, 2, 1, 3])

    assert loss(student[order], teacher[order]) != loss(student, teacher)


@some(POINTWISE)
def test_the_loss_is_the_mean_of_its_values_per_row(loss):
    student, teacher = pair(5, 3, 2, 2)

    values = loss(student, teacher, reduction="none")

    assert values.shape == (5,)
    torch.testing.assert_close(values.mean(), loss(student, teacher))
    with pytest.raises(ValueError, match="reduction is 'median': expected mean, batchmean or none"):
        loss(student, teacher, reduction="median")


extreme = st.sampled_from([-1e4, -1.0, -1e-4, 0.0, 1e-20, 3.0, 1e4])


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.tuples(extreme, extreme), min_size=24, max_size=24))
def test_extreme_values_keep_value_and_gradient_finite(loss, dtype, values):
    student, teacher = torch.tensor(values, dtype=dtype).T.reshape(2, 3, 2, 2, 2)
    student = student.clone().requires_grad_()

    value = loss(student, teacher)
    value.backward()

    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 0.3, 1e4])
@pytest.mark.parametrize("equal", ["student", "teacher", "both"])
def test_identical_rows_keep_value_and_gradient_finite(loss, dtype, size, equal):
    student, teacher = pair(4, 3, 2, 2, dtype=dtype)
    if equal in ("student", "both"):
        student = (size * student[:1]).repeat(4, 1, 1, 1)
    if equal in ("teacher", "both"):
        teacher = (size * teacher[:1]).repeat(4, 1, 1, 1)
    student.requires_grad_()

    value = loss(student, teacher)
    value.backward()

    assert torch.isfinite(value) and torch.isfinite(student.grad).all()
    if size < 1:  # at 1e4 the products of fsp are already large
        assert student.grad.abs().max() < 1e6


@every
def test_one_sample_is_enough(loss):
    student, teacher = pair(1, 3, 2, 2)
    student.requires_grad_()

    value = loss(student, teacher)
    value.backward()

    assert torch.isfinite(value) and torch.isfinite(student.grad).all()
    if loss in (rkd, rkd_distance, rkd_angle, pkt, sp, cc, cc_kernel):  # one row has no relations
        assert value.item() == pytest.approx(0.0, abs=1e-15)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    student, teacher = pair(6, 3, 2, 2, dtype=dtype)

    value = loss(100 * student, 100 * teacher)

    assert value.dtype == torch.float32
    assert torch.equal(value, loss((100 * student).float(), (100 * teacher).float()))


@every
def test_automatic_mixed_precision_does_not_change_the_value(loss):
    student, teacher = pair(6, 3, 2, 2, dtype=torch.float32)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)

    torch.testing.assert_close(value, loss(student, teacher))


@some(ANY_WIDTH)
def test_widths_and_resolutions_may_differ(loss):
    student, teacher = pair(5, 3, 4, 2)[0], pair(5, 7, 2, 2)[1]

    assert torch.isfinite(loss(student, teacher))


@some(ONE_SHAPE)
def test_different_shapes_are_refused_with_both_shapes(loss):
    with pytest.raises(ValueError, match=r"\(5, 3, 2\), the teacher's \(5, 4, 2\): expected the same"):
        loss(pair(5, 3, 2)[0], pair(5, 4, 2)[1])


@some(ANY_WIDTH)
def test_different_numbers_of_rows_are_refused_with_both_shapes(loss):
    with pytest.raises(ValueError, match=r"\(5, 3, 2\), the teacher's \(4, 3, 2\): expected the same number of rows"):
        loss(pair(5, 3, 2)[0], pair(4, 3, 2)[1])
