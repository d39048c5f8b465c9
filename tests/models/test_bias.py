"""Layers in front of a BatchNorm have no bias in the networks that xmodal builds, and keep it where a file had one."""

import pytest
import torch
from torch import nn

from xmodal.models import ENCODERS
from xmodal.models.network import build_encoder, build_for, build_network
from xmodal.types import DataInfo, InputInfo

SHAPES = {"mlp": (6,), "sequence_cnn": (3, 20), "audio_cnn": (1, 16, 16)}


def in_front_of_batchnorm(module):
    """The layers whose outputs a BatchNorm reads."""
    layers = [layer for layer in module.modules() if not list(layer.children())]
    return [one for one, after in zip(layers, layers[1:], strict=False) if "BatchNorm" in type(after).__name__]


@pytest.mark.parametrize("encoder", SHAPES)
def test_a_new_network_has_no_bias_in_front_of_a_batchnorm(encoder):
    info = DataInfo({"a": InputInfo(SHAPES[encoder], layout="vector")}, "multiclass", 3, {})

    student = build_for(info, ("a",), encoder=encoder)

    layers = in_front_of_batchnorm(student.module)
    assert len(layers) >= 2 and all(layer.bias is None for layer in layers)
    assert student.module.head.bias is not None
    assert student.arguments["inputs"]["a"]["bias"] is False


@pytest.mark.parametrize("encoder", SHAPES)
def test_a_description_without_the_word_means_a_bias(encoder):
    built = build_encoder("a", {"encoder": encoder, "shape": SHAPES[encoder]})

    assert all(layer.bias is not None for layer in in_front_of_batchnorm(built))


def test_every_own_encoder_with_a_batchnorm_has_the_option():
    with_option = {name for name, encoder in SHAPES.items() if "bias" in options_of(name)}
    own = {name for name, path in ENCODERS.items() if path.startswith("xmodal.models.small:")}

    assert with_option == set(SHAPES) and own >= with_option
    for name in own - with_option:
        shape = {"image_cnn": (1, 8, 8), "lenet": (1, 20, 20)}.get(name, (6,))
        assert not in_front_of_batchnorm(build_encoder("a", {"encoder": name, "shape": shape}))


def options_of(encoder):
    """The options that a description of this encoder contains."""
    info = DataInfo({"a": InputInfo(SHAPES[encoder], layout="vector")}, "multiclass", 3, {})
    return build_for(info, ("a",), encoder=encoder).arguments["inputs"]["a"]


def test_the_gradient_of_such_a_bias_is_rounding_noise_alone():
    torch.manual_seed(0)
    inputs = {"a": {"encoder": "mlp", "shape": [6], "width": 16}}
    network = build_network(inputs=inputs, outputs=3).double()

    outputs = network({"a": torch.randn(32, 6, dtype=torch.float64)})
    nn.functional.cross_entropy(outputs, torch.arange(32) % 3).backward()

    layers = in_front_of_batchnorm(network)
    assert layers and all(layer.weight.grad.abs().max() > 1e-4 for layer in layers)
    # a few times the rounding of float64, 2.2e-16, summed over 32 rows
    assert all(layer.bias.grad.abs().max() < 1e-14 for layer in layers)
