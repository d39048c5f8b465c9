import pytest
from torch import nn

from xmodal.models.capacity import count_parameters, width_for
from xmodal.models.network import build_for, student_of
from xmodal.types import DataInfo, InputInfo

SHAPES = {"vector": (64,), "sequence": (3, 30), "image": (1, 28, 28)}


def info():
    inputs = {name: InputInfo(shape, layout=name) for name, shape in SHAPES.items()}
    return DataInfo(inputs, "multiclass", 10, {})


def test_parameters_worked_out_by_hand():
    """64 w + 2 w, then w² + 2 w, then 10 w + 10, at w = 64; batch statistics do not count."""
    student = build_for(info(), ["vector"], encoder="mlp", width=64)

    assert count_parameters(student.module) == 66 * 64 + 64 * 64 + 2 * 64 + 650


@pytest.mark.parametrize("parameters", [1, 9_098, 19_946, 1_000_000])
def test_the_width_is_the_smallest_that_is_large_enough(parameters):
    """w² + 78 w + 10 parameters for 64 numbers and 10 classes."""
    student = build_for(info(), ["vector"], encoder="mlp", width=64)

    width = width_for(student, parameters)

    sizes = [
        count_parameters(build_for(info(), ["vector"], encoder="mlp", width=w).module) for w in (width, width - 1) if w
    ]
    assert sizes[0] == width**2 + 78 * width + 10 >= parameters
    assert width == 1 or sizes[1] < parameters


@pytest.mark.parametrize(
    ("modality", "encoder"), [("sequence", "sequence_cnn"), ("image", "image_cnn"), ("image", "lenet")]
)
def test_other_encoders_with_a_width_can_be_matched_too(modality, encoder):
    student = build_for(info(), [modality], encoder=encoder)
    wanted = 2 * count_parameters(student.module)

    width = width_for(student, wanted)

    assert count_parameters(build_for(info(), [modality], encoder=encoder, width=width).module) >= wanted


def test_networks_without_a_width_have_no_match():
    assert width_for(build_for(info(), ["vector"], encoder="linear"), 10**6) is None
    assert width_for(student_of(nn.Linear(64, 10), info(), ["vector"]), 10**6) is None
