"""The losses that the recipe trains with on RAVDESS against the authors' code: values, and gradients to the student.

Reads every ``*ntdh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names. The loss hint is theirs with
``as_published`` alone: they standardise the student's logits and cut them off at 0.
"""

import pytest
import torch
from hash_fill import golden_files
from torch import nn

from xmodal.methods.mfh import MFH
from xmodal.methods.options import DistillationOptions
from xmodal.models.network import student_of, wrap
from xmodal.recipes.ravdess.experiment import Settings
from xmodal.types import Batch, DataInfo, InputInfo

NAMES = ("kl", "hint", "rkd", "pkt", "similarity", "dkd")
CASES = [
    pytest.param(name, case, id=f"golden-ntdh-ravdess-{file}-{name}-{number}")
    for file, content in golden_files("ntdh").items()
    for name in NAMES
    for number, case in enumerate(content.get("modes", {}).get(f"mnist_ravdess/{name}", []))
]


def distilled(name, case, *, as_published=True):
    """The loss of one step in double precision, and its gradient to the student's logits."""
    student, teacher = (torch.tensor(case["inputs"][key], dtype=torch.float64) for key in ("student", "teacher"))
    student.requires_grad_()
    shape = InputInfo(tuple(student.shape[1:]), layout="vector")
    info = DataInfo({"audio": shape, "image": shape}, "multiclass", student.shape[1], {})
    settings = Settings(preset="ntdh", loss=(name,), mode="none", as_published=as_published)
    options = settings.comparison().entries[0].options
    method = MFH(
        student_of(nn.Identity(), info, ["image"]),
        wrap(nn.Identity(), ["audio"]),
        info,
        DistillationOptions(
            losses=options["loss"],
            temperature=options["temperature"],
            kd_weight=options["kd_weight"],
            task_weight=options["task_weight"],
        ),
    )
    target = torch.tensor(case["inputs"]["target"])
    batch = Batch({"audio": teacher, "image": student}, dict.fromkeys(("audio", "image"), target))
    loss = sum(method(batch, method.teach(batch)).losses.values())
    loss.backward()
    return loss.item(), student.grad


@pytest.mark.parametrize(("name", "case"), CASES)
def test_golden_ntdh_ravdess_losses(name, case):
    value, gradient = distilled(name, case)

    assert value == pytest.approx(case["output"], rel=1e-6)
    expected = torch.tensor(case["grad_student"], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)


def test_golden_ntdh_ravdess_losses_notice_an_altered_number():
    name, case = CASES[0].values

    assert distilled(name, case)[0] != pytest.approx(1.001 * case["output"], rel=1e-6)


def test_golden_ntdh_ravdess_hint_differs_from_ours():
    name, case = next(each.values for each in CASES if each.values[0] == "hint")

    assert distilled(name, case, as_published=False)[0] != pytest.approx(case["output"], rel=1e-3)
