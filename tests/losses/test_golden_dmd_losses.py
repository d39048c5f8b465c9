"""Golden numbers of DMD's margin loss, its distances and their gradients."""

import pytest
import torch
from dmd_fill import det, dmd_cases

from xmodal.losses.graph import DISTANCES, graph_distance
from xmodal.losses.margin import ordinal_margin

CLOSE = {"rel": 1e-4, "abs": 1e-5}


@pytest.mark.parametrize(**dmd_cases("margin_loss"))
def test_golden_dmd_margin_loss(case):
    features = det(case["feat_shape"], case["feat_seed"], scale=case["feat_scale"]).requires_grad_()
    labels = torch.tensor(case["labels"])
    of_rows = labels.repeat_interleave(len(features) // len(labels))

    for decimals in (4, None):  # labels are rounded to 0.2, so both give the same
        value = ordinal_margin(features, of_rows, decimals=decimals)
        (gradient,) = torch.autograd.grad(value, features)

        assert value.item() == pytest.approx(case["loss"], **CLOSE)
        expected = case.get("grad_abs_sum", 0.0 if case["loss"] == 0.0 else None)
        if expected is not None:
            assert gradient.abs().sum().item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
        if "grad_first" in case:
            assert gradient.flatten()[:6].tolist() == pytest.approx(case["grad_first"], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(**dmd_cases("distances"))
def test_golden_dmd_distances(case):
    student = det(case["shape"], case["student_seed"], scale=case["scale"]).requires_grad_()
    teacher = det(case["shape"], case["teacher_seed"], scale=case["scale"]).requires_grad_()
    weights = det(case["shape"][:1], case["weight_seed"], scale=case["weight_scale"], shift=case["weight_shift"])
    nodes = torch.stack([student, teacher], dim=1)

    for distance in DISTANCES:
        weighted = graph_distance(nodes, weights[:, None], [(0, 1)], distance=distance)
        mean = graph_distance(nodes, None, [(0, 1)], distance=distance)
        student_gradient, teacher_gradient = torch.autograd.grad(weighted, (student, teacher), retain_graph=True)

        for kind, value in (("weighted", weighted), ("mean", mean)):
            if f"{distance}_{kind}" in case:
                assert value.item() == pytest.approx(case[f"{distance}_{kind}"], **CLOSE), (distance, kind)
        if f"{distance}_weighted_grad_student_abs_sum" in case:
            expected = case[f"{distance}_weighted_grad_student_abs_sum"]
            assert student_gradient.abs().sum().item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert bool(teacher_gradient.any()) == case.get("teacher_gets_gradient", False)
