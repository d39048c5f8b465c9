"""Features of layers and of inputs are replaced inside a block, and only there."""

import pytest
import torch
from torch import nn

from xmodal.errors import InputError
from xmodal.models.feature_layers import check_layer, replacing
from xmodal.models.network import wrap


def tripled(features):
    return 3 * features


@pytest.fixture
def network():
    return wrap(nn.Sequential(nn.Identity(), nn.Flatten()), ["sound"])


@pytest.mark.parametrize("layer", ["module.0", "module", "input:sound"])
def test_the_network_computes_with_the_replaced_features(network, layer):
    inputs = {"sound": torch.tensor([[1.0, 2.0]])}

    with replacing(network, layer, tripled):
        inside = network(inputs)

    assert inside.tolist() == [[3.0, 6.0]]
    assert network(inputs).tolist() == [[1.0, 2.0]]
    assert inputs["sound"].tolist() == [[1.0, 2.0]]  # the caller's dictionary is unchanged


def test_blocks_add_up_and_end_after_an_error(network):
    inputs = {"sound": torch.ones(1, 1)}
    with pytest.raises(ZeroDivisionError), replacing(network, "module.0", tripled):
        with replacing(network, "input:sound", tripled):
            assert network(inputs).item() == 9.0
        raise ZeroDivisionError

    assert network(inputs).item() == 1.0
    assert not network._forward_pre_hooks and not network.module[0]._forward_hooks


def test_gradients_pass_what_was_replaced(network):
    sound = torch.ones(2, 2, requires_grad=True)

    with replacing(network, "module.0", tripled):
        network({"sound": sound}).sum().backward()

    assert sound.grad.unique().tolist() == [3.0]


def test_a_wrong_layer_lists_those_that_exist(network):
    with pytest.raises(InputError, match=r"no layer called 'module.9'.*module.0"):
        check_layer(network, "module.9", {})
    with pytest.raises(InputError, match=r"no input called 'sounds'. Did you mean 'sound'"):
        check_layer(network, "input:sounds", {"sound": torch.ones(1, 1)})


@pytest.mark.parametrize("odd", [torch.ones(3), (torch.ones(3, 2), None)])
def test_a_layer_without_channels_is_refused(odd):
    class Odd(nn.Module):
        def forward(self, x):
            return odd

    network = nn.Sequential(Odd())
    with pytest.raises(InputError, match="expected a tensor"), replacing(network, "0", tripled):
        network(torch.ones(3, 2))
