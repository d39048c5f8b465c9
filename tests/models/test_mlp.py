import pytest
import torch
from torch import nn

from xmodal.models.masking import masked
from xmodal.models.mlp import build_leaky_mlp, build_relu_mlp, layer_name
from xmodal.models.network import build_for, build_network, rebuild
from xmodal.types import DataInfo, InputInfo


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def mnist(side=28, **numbers):
    return build_network(
        inputs={"mnist": {"encoder": "leaky_mlp", "shape": [1, side, side], **numbers}}, outputs=10, leak=0.01
    )


@pytest.mark.parametrize(
    ("encoder", "shape", "outputs", "parameters"),
    [
        ("leaky_mlp", (1, 28, 28), 10, 784 * 1024 + 1024 + 1024 * 256 + 256 + 256 * 10 + 10),
        ("leaky_mlp", (3, 28, 28), 10, 2352 * 1024 + 1024 + 1024 * 256 + 256 + 256 * 10 + 10),
        ("relu_mlp", (50,), 4, 50 * 16 + 16 + 16 * 16 + 16 + 16 * 4 + 4),
    ],
)
def test_networks_have_the_published_layers(encoder, shape, outputs, parameters):
    network = build_network(inputs={"x": {"encoder": encoder, "shape": list(shape)}}, outputs=outputs)

    assert count(network) == parameters


def test_forward_is_three_linear_layers_with_leaky_relu_also_behind_the_last():
    network = mnist(side=4, width=3).double()
    body, head = network.encoders["from_mnist"].body, network.head[0]
    samples = torch.randn(5, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    slow = samples.flatten(1)
    for layer in (body.layer1, body.layer2, head):
        slow = slow @ layer.weight.T + layer.bias
        slow = torch.where(slow > 0, slow, 0.01 * slow)

    torch.testing.assert_close(network({"mnist": samples}), slow)
    assert (slow < 0).any() and body.layer1.out_features == 12


def test_relu_network_cuts_below_zero():
    encoder = build_relu_mlp((2,), width=2)
    with torch.no_grad():
        encoder.body.layer1.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        encoder.body.layer2.weight.copy_(torch.eye(2))
        encoder.body.layer1.bias.zero_()
        encoder.body.layer2.bias.zero_()

    assert encoder(torch.tensor([[3.0, 9.0]])).tolist() == [[3.0, 0.0]]


@pytest.mark.parametrize(("number", "channels"), [(0, 16), (1, 12), (2, 3)])
def test_channels_can_be_removed_at_the_named_layers(number, channels):
    network = mnist(side=4, width=3)
    samples = {"mnist": torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))}

    with masked(network, layer_name(number, "mnist"), torch.zeros(channels, dtype=torch.bool), fill="zero"):
        empty = network(samples)

    torch.testing.assert_close(empty, empty[:1].expand(5, -1))  # equal rows may be rounded apart
    assert not torch.allclose(network(samples), empty, atol=1e-3)


def test_every_named_layer_exists_in_the_networks():
    layers = dict(mnist(side=4).named_modules())

    assert all(layer_name(number, "mnist") in layers for number in range(4))
    assert len({layer_name(number, "mnist") for number in range(4)}) == 4


def test_dropout_acts_in_training_alone_and_behind_both_layers():
    encoder = build_leaky_mlp((6,), width=4, dropout=0.5)
    samples = torch.ones(2, 6)

    assert sum(isinstance(part, nn.Dropout) and part.p == 0.5 for part in encoder.modules()) == 2
    assert torch.equal(encoder.eval()(samples), encoder(samples))


@pytest.mark.parametrize("leak", [None, 0.01])
def test_a_student_is_rebuilt_with_or_without_the_activation_behind_its_head(leak):
    info = DataInfo({"x": InputInfo((6,), layout="vector")}, "multiclass", 3, rows={})
    student = build_for(info, ["x"], encoder="leaky_mlp", width=4, leak=leak)

    again = rebuild({"builder": student.builder, "arguments": student.arguments, "needs": ["x"], "target": "x"})
    again.module.load_state_dict(student.module.state_dict())

    samples = {"x": torch.randn(9, 6, generator=torch.Generator().manual_seed(0))}
    assert torch.equal(again.module(samples), student.module(samples))
    assert isinstance(student.module.head, nn.Linear if leak is None else nn.Sequential)
    assert ("leak" in student.arguments) == (leak is not None)
