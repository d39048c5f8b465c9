import pytest
import torch
from torch import nn

from xmodal.errors import InputError
from xmodal.losses.adaptors import adaptor_for, pointwise

FITTING = [
    ((6,), (4,)),
    ((3, 10), (5, 10)),
    ((3, 10), (5, 4)),
    ((3, 4), (5, 10)),
    ((16, 8, 8), (32, 8, 8)),
    ((16, 8, 8), (32, 4, 4)),
    ((16, 4, 4), (32, 8, 6)),
    ((16, 8, 3), (32, 4, 6)),
    ((4, 8, 8), (4, 4, 4)),
    ((2, 4, 4, 4), (3, 2, 4, 8)),
]


@pytest.mark.parametrize(("student", "teacher"), FITTING)
def test_features_come_out_in_the_teachers_shape_and_train_the_adaptor(student, teacher):
    adaptor = adaptor_for(student, teacher)

    out = adaptor(torch.randn(2, *student))
    out.sum().backward()

    assert out.shape == (2, *teacher)
    assert list(adaptor.parameters()) and all(parameter.grad is not None for parameter in adaptor.parameters())


@pytest.mark.parametrize("shape", [(6,), (3, 10), (16, 8, 8), (1, 2, 3, 4, 5)])
def test_equal_shapes_get_the_identity(shape):
    adaptor, values = adaptor_for(shape, list(shape)), torch.randn(2, *shape)

    assert isinstance(adaptor, nn.Identity) and adaptor(values) is values


@pytest.mark.parametrize(
    ("student", "teacher"), [((16, 8, 8), (32,)), ((6,), (3, 4)), ((3, 10), (3, 4, 4)), ((), (3,)), ((0,), (3,))]
)
def test_an_impossible_pair_is_refused_with_both_shapes(student, teacher):
    with pytest.raises(InputError) as error:
        adaptor_for(student, teacher)

    (sentence,) = error.value.problems
    assert str(student) in sentence and str(teacher) in sentence and "Choose layers whose features" in sentence


def test_a_map_is_projected_position_by_position():
    adaptor, values = adaptor_for((3, 4, 4), (5, 4, 4)), torch.randn(2, 3, 4, 4)

    weight, bias = adaptor.convolution.weight[:, :, 0, 0], adaptor.convolution.bias
    by_hand = torch.einsum("oc,rchw->rohw", weight, values) + bias[:, None, None]
    torch.testing.assert_close(adaptor(values), by_hand)


def test_a_larger_map_is_averaged_down():
    adaptor = adaptor_for((1, 4), (1, 2))
    nn.init.ones_(adaptor.convolution.weight)
    nn.init.zeros_(adaptor.convolution.bias)

    assert adaptor(torch.tensor([[[1.0, 3.0, 5.0, 9.0]]])).tolist() == [[[2.0, 7.0]]]


def test_a_layer_without_bias_has_one_parameter():
    assert len(list(pointwise((3, 2), (5, 2), bias=False).parameters())) == 1
