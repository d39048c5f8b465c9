import pytest
import torch

from xmodal.losses.decoupled import dkd
from xmodal.losses.logits import kl
from xmodal.losses.mask import dkd_pssm, kl_pssm, prediction_similarity, pssm


def mixed():
    """Teacher right; wrong and far from the student; wrong and close to it."""
    teacher = torch.tensor([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, 2.0, 1.0]], dtype=torch.float64)
    student = torch.tensor([[-1.0, 3.0, 0.0], [2.0, 0.0, 1.0], [0.1, 4.0, 2.1]], dtype=torch.float64)
    return student, teacher, torch.tensor([0, 0, 0])


def draw(rows=6, classes=4, *rest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        2 * torch.randn(rows, classes, *rest, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return student, teacher, torch.randint(0, classes, (rows, *rest), generator=generator)


def test_weights_are_one_zero_or_nearly_one():
    student, teacher, target = mixed()
    cosine = 10.1 / (5**0.5 * (0.1**2 + 16 + 2.1**2) ** 0.5)

    omega = pssm(student, teacher, target)

    assert omega.tolist() == pytest.approx([1.0, 0.0, (1 + cosine) / 2])
    assert prediction_similarity(student, teacher)[2].item() == pytest.approx(cosine)


def test_the_threshold_decides_which_wrong_predictions_are_used():
    student, teacher, target = mixed()

    assert pssm(student, teacher, target, threshold=1.0).tolist() == [1.0, 0.0, 0.0]
    assert (pssm(student, teacher, target, threshold=-1.0) > 0).all()


def test_a_gradient_flows_through_the_weight_only_without_detach():
    student, teacher, target = mixed()
    student.requires_grad_()

    assert not pssm(student, teacher, target).requires_grad
    pssm(student, teacher, target, detach=False).sum().backward()
    assert student.grad[2].abs().max() > 1e-4 and not student.grad[:2].any()


def test_kl_drops_a_sample_of_weight_zero_and_still_counts_it():
    student, teacher, target = mixed()
    omega = pssm(student, teacher, target)

    value = kl_pssm(student, teacher, target, temperature=0.7)

    scaled = kl(omega[:, None] * student, omega[:, None] * teacher, temperature=0.7, scale="none", reduction="none")
    assert scaled[1].item() == pytest.approx(0.0, abs=1e-15)
    torch.testing.assert_close(value, scaled[[0, 2]].sum() / 3)


def test_kl_with_the_squared_temperature():
    student, teacher, target = mixed()

    torch.testing.assert_close(
        kl_pssm(student, teacher, target, temperature=3.0, scale="t2"),
        9 * kl_pssm(student, teacher, target, temperature=3.0),
    )


def test_dkd_multiplies_contributions():
    student, teacher, target = mixed()

    rows = dkd_pssm(student, teacher, target, alpha=2.0, beta=3.0, temperature=2.0, reduction="none")

    plain = dkd(student, teacher, target, alpha=2.0, beta=3.0, temperature=2.0, reduction="none")
    torch.testing.assert_close(rows, pssm(student, teacher, target) * plain)


def test_where_the_teacher_is_right_both_equal_the_unmasked_losses():
    student, teacher, _ = draw()
    target = teacher.argmax(dim=1)

    torch.testing.assert_close(
        kl_pssm(student, teacher, target, temperature=0.7), kl(student, teacher, temperature=0.7, scale="none")
    )
    torch.testing.assert_close(
        dkd_pssm(student, teacher, target), dkd(student, teacher, target, alpha=1.0, beta=1.0, temperature=0.7)
    )


@pytest.mark.parametrize("loss", [kl_pssm, dkd_pssm])
def test_gradients_agree_with_finite_differences(loss):
    student, teacher, target = mixed()

    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, target, detach=False), student.requires_grad_())


@pytest.mark.parametrize("loss", [kl_pssm, dkd_pssm])
def test_the_order_of_the_rows_does_not_matter(loss):
    student, teacher, target = draw(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(
        loss(student[order], teacher[order], target[order], reduction="none"),
        loss(student, teacher, target, reduction="none")[order],
    )


@pytest.mark.parametrize("loss", [kl_pssm, dkd_pssm])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (4, 2), (4, 5)])
def test_extreme_and_zero_logits_keep_value_and_gradient_finite(loss, detach, rows, classes):
    for size in (0.0, 1e4):
        student = torch.full((rows, classes), -size)
        student[:, 0] = size
        student.requires_grad_()

        value = loss(student, student.detach().clone(), torch.ones(rows, dtype=torch.long), detach=detach)
        value.backward()

        assert value.item() == pytest.approx(0.0, abs=1e-6) and torch.isfinite(student.grad).all()


def test_pictures_have_one_weight_per_pixel():
    student, teacher, target = draw(2, 3, 4, 5)

    omega = pssm(student, teacher, target)

    assert omega.shape == (2, 4, 5)
    torch.testing.assert_close(
        omega[:, 3, 1], pssm(student[:, :, 3, 1], teacher[:, :, 3, 1], target[:, 3, 1]), rtol=1e-12, atol=0
    )
    assert kl_pssm(student, teacher, target, reduction="none").shape == (2, 4, 5)


def test_half_precision_is_computed_in_float32():
    student, teacher, target = (side if side.dtype == torch.long else side.half() for side in mixed())

    assert pssm(student, teacher, target).dtype == torch.float32
    assert kl_pssm(student, teacher, target).dtype == torch.float32


def test_targets_and_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"target has shape \(3,\) for logits \(2, 4\): expected \(2,\)"):
        pssm(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\(2, 4\), the teacher's \(2, 3\)"):
        pssm(torch.zeros(2, 4), torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))


def test_without_a_label_the_cosine_alone_decides():
    teacher = torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    student = torch.tensor([[0.0, 1.0], [0.0, 1.0], [4.0, 3.0], [4.0, 3.0]])  # cosines 0, 0, 4/5 and 3/5
    target, labelled = torch.tensor([0, -1, -1, 0]), torch.tensor([True, False, False, True])

    omega = pssm(student, teacher, target, threshold=0.7, labelled=labelled)

    # right; unknown and other directions; unknown and nearly one direction; wrong and other directions
    assert omega.tolist() == pytest.approx([1.0, 0.0, 0.9, 0.0])


def test_the_target_of_a_row_without_a_label_is_not_read():
    teacher = torch.tensor([[3.0, 0.0]])

    omega = pssm(torch.tensor([[0.0, 1.0]]), teacher, torch.tensor([0]), labelled=torch.tensor([False]))

    assert omega.tolist() == [0.0]  # it would be 1, as the teacher predicts class 0


def test_pixels_of_an_unlabelled_picture_are_weighted_by_the_cosine():
    teacher = torch.tensor([[[3.0, 3.0], [0.0, 0.0]]]).expand(2, 2, 2)
    student = torch.tensor([[[4.0, 0.0], [3.0, 1.0]]]).expand(2, 2, 2)
    target, labelled = torch.tensor([[0, 255], [-1, -1]]), torch.tensor([True, False])

    omega = pssm(student, teacher, target, threshold=0.7, ignore=255, labelled=labelled)

    torch.testing.assert_close(omega, torch.tensor([[1.0, 0.0], [0.9, 0.0]]))
