"""The student's distillation term of the published LiDAR trainer, through the methods that train students."""

import pytest
import torch
from array_golden import golden_cases
from distilled import distilled
from torch import nn

from xmodal.methods.kd import KD
from xmodal.methods.ntdh import NTDH
from xmodal.models.network import Reads
from xmodal.types import Batch, DataInfo, InputInfo, Student

AS_PUBLISHED = {"temperature": 1.0, "kd_weight": 1.0, "task_weight": 0.0, "pixels": "all", "reduction": "reference"}


def says(modality):
    """A network that answers with what it reads."""
    return Student(Reads(nn.Identity(), (modality,)), (modality,), modality)


def batch_of(case, student):
    """A batch whose LiDAR is what the student answers."""
    answers = {"lidar": student, "image": case.given("teacher_prob").clamp(min=1e-30).log()}
    return Batch(answers, dict.fromkeys(answers, case.given("target")))


def method_of(case, kind, **options):
    """A method whose two networks answer with what they read."""
    shape = tuple(case.given("student_prob").shape[1:])
    inputs = {name: InputInfo(shape, layout="image") for name in ("lidar", "image")}
    info = DataInfo(inputs, "multiclass", shape[0], {}, dense=True, ignore=0)
    return distilled(kind, says("lidar"), says("image").module, info, **{**AS_PUBLISHED, **options})


def value_of(case, kind, **options):
    """The term of a method whose networks answer with the logarithms of a case's probabilities."""
    method, batch = method_of(case, kind, **options), batch_of(case, case.given("student_prob").clamp(min=1e-30).log())
    return method(batch, method.teach(batch)).losses["kd"]


def found(case):
    mask = {"cosine": "probabilities", "threshold": case.params.get("cos_threshold", 0.996)}
    return {"kl_elem_mean": value_of(case, KD), "kl_elem_mean_omega": value_of(case, NTDH, **mask)}


def test_golden_kitti_distillation_terms():
    for case in golden_cases("kitti/kd_terms"):
        assert case.check(**found(case)) == [name for name in ("kl_elem_mean", "kl_elem_mean_omega") if case.has(name)]


@pytest.mark.parametrize("change", [{"pixels": "labelled"}, {"reduction": "pixel"}, {"temperature": 1.1}])
def test_golden_kitti_distillation_terms_of_other_settings_fail(change):
    for case in golden_cases("kitti/kd_terms"):
        if case.has("kl_elem_mean"):
            with pytest.raises(AssertionError):
                case.check(kl_elem_mean=value_of(case, KD, **change))


def test_golden_kitti_distillation_sends_the_gradient_of_its_formula():
    for case in golden_cases("kitti/kd_terms"):
        student, teacher = (case.given(f"{side}_prob").clamp(min=1e-30) for side in ("student", "teacher"))
        logits = student.log().requires_grad_()

        method_of(case, KD)(batch_of(case, logits), {"outputs": teacher.log()}).losses["kd"].backward()

        expected = (logits.detach().softmax(dim=1) - teacher) / teacher.numel()
        torch.testing.assert_close(logits.grad, expected, rtol=1e-3, atol=1e-8)
