"""Losses of pixels against numbers of the published code: values and gradients of the functions that recipes use.

Reads every ``*kitti*.json`` of tests/golden with its arrays, or of the folder that XMODAL_GOLDEN names.
"""

import pytest
from array_golden import golden_cases

from xmodal.losses.divergence import ncjsd, tcjsd
from xmodal.losses.mask import pssm
from xmodal.losses.segmentation import focal, guidance, lovasz, normalised_entropy, perception_aware, rarity


def with_gradient(case, name="prob"):
    return case.given(name).requires_grad_()


def check_loss(case, value, answers):
    value.backward()
    assert case.check(loss=value.item(), grad=answers.grad)


def focal_value(case):
    p = case.params
    answers = with_gradient(case, "logits" if p.get("softmax") else "prob")
    target = case.given("target")
    alpha = case.given("alpha") if p.get("alpha") == "input" else p.get("alpha")
    valid = target > 0 if p.get("mask") else None
    return focal(
        answers, target, gamma=p.get("gamma", 2), alpha=alpha, valid=valid, softmax=bool(p.get("softmax"))
    ), answers


def lovasz_value(case):
    answers, p = with_gradient(case), case.params
    options = {"classes": p.get("classes", "present"), "per_image": p.get("per_image", False)}
    ignore = p["ignore"] if p.get("ignore") is not None else ()
    return lovasz(answers, case.given("target"), softmax=False, ignore=ignore, **options), answers


def test_golden_kitti_focal_loss_and_gradient():
    for case in golden_cases("kitti/focal"):
        check_loss(case, *focal_value(case))


def test_golden_kitti_lovasz_loss_and_gradient():
    for case in golden_cases("kitti/lovasz"):
        check_loss(case, *lovasz_value(case))


@pytest.mark.parametrize(("start", "compute"), [("kitti/focal", focal_value), ("kitti/lovasz", lovasz_value)])
def test_golden_kitti_losses_that_are_wrong_by_a_thousandth_fail(start, compute):
    for case in golden_cases(start):
        value, _ = compute(case)
        if case.has("loss"):
            with pytest.raises(AssertionError):
                case.check(loss=1.001 * value.item())


@pytest.mark.parametrize("detach", [True, False])
def test_golden_kitti_perception_aware_loss(detach):
    for case in golden_cases("kitti/perception"):
        lidar, camera = case.given("pcd_prob"), case.given("img_prob")
        tau = case.params.get("tau", 0.7)

        results = {
            "pcd_entropy": normalised_entropy(lidar),
            "img_entropy": normalised_entropy(camera),
            "pcd_guide_weight": guidance(lidar, camera, threshold=tau),
            "img_guide_weight": guidance(camera, lidar, threshold=tau),
            "loss": perception_aware(lidar, camera, threshold=tau, detach=detach, softmax=False),
        }

        assert case.check(**results)


def test_golden_kitti_sample_mask_of_pixels():
    for case in golden_cases("kitti/kd_terms"):
        teacher, student, target = (case.given(name) for name in ("teacher_prob", "student_prob", "target"))

        omega = pssm(student, teacher, target, threshold=case.params.get("cos_threshold", 0.996))

        wrong = (teacher.argmax(dim=1) != target).long()
        assert not (case.has("omega") or case.has("teacher_wrong")) or case.check(omega=omega, teacher_wrong=wrong)


def test_golden_kitti_divergences():
    for case in golden_cases("kitti/jsd"):
        sides = [case.given(f"{side}_logits") for side in ("student", "teacher")]
        target, tau = case.given("target"), case.params.get("temperature", 1.0)

        results = {name: loss(*sides, target, temperature=tau) for name, loss in (("tcjsd", tcjsd), ("ncjsd", ncjsd))}

        assert case.check(**results)


def test_golden_kitti_class_weights_follow_from_the_shares():
    for case in golden_cases("kitti/class_weights"):
        shares = case.arrays[f"{case.id}/out/cls_freq"].tolist()

        assert case.check(focal_alpha=rarity(shares, ignore=[0]))
