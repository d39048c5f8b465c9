import numpy as np
import pytest
import torch
from torch import nn

from xmodal.diagnostics.heat_map import heat_maps, one_of_each
from xmodal.errors import InputError
from xmodal.models.network import build_for, wrap
from xmodal.types import Batch, DataInfo, InputInfo

INFO = DataInfo(
    {"image": InputInfo((2, 4, 4), layout="image"), "sound": InputInfo((3,), layout="vector")}, "multiclass", 3, rows={}
)


def batch(rows=6):
    random = torch.Generator().manual_seed(0)
    inputs = {"image": torch.randn(rows, 2, 4, 4, generator=random), "sound": torch.randn(rows, 3, generator=random)}
    return Batch(inputs, dict.fromkeys(inputs, torch.arange(rows) % 3))


def network(*modalities, seed=1, encoder="mlp"):
    torch.manual_seed(seed)
    return build_for(INFO, modalities or ("image",), encoder=encoder, width=5).module


def test_gradient_of_a_linear_network_is_predictions_minus_truth_times_weights():
    layer = nn.Linear(3, 3, bias=False)
    samples = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    target = torch.tensor([2, 0])

    maps = heat_maps(wrap(layer, ["sound"]), Batch({"sound": samples}, {"sound": target}), "sound")

    answers = layer(samples).softmax(dim=1)
    expected = (answers - nn.functional.one_hot(target, 3)) @ layer.weight
    np.testing.assert_allclose(maps.gradient, expected.detach(), rtol=1e-5)
    assert maps.value.shape == (2, 3)  # the positions of a vector are its entries
    assert maps.answer.tolist() == answers.argmax(dim=1).tolist() and maps.target.tolist() == [2, 0]


def test_every_sample_gets_the_gradient_that_it_gets_alone():
    whole = batch()

    together = heat_maps(network(), whole, "image")

    for row in range(6):
        inputs = {name: value[row : row + 1] for name, value in whole.inputs.items()}
        alone = heat_maps(network(), Batch(inputs, dict.fromkeys(inputs, whole.target[row : row + 1])), "image")
        np.testing.assert_allclose(together.gradient[row], alone.gradient[0], rtol=1e-4, atol=1e-7)


def test_gradient_agrees_with_differences_of_the_loss():
    net, whole = network(encoder="leaky_mlp").double().eval(), batch(2)
    image = whole.inputs["image"].double()

    def loss(samples):
        return nn.functional.cross_entropy(net({"image": samples}), whole.target, reduction="sum").item()

    maps = heat_maps(net, Batch({"image": image}, {"image": whole.target}), "image")

    for place in [(0, 0, 0, 0), (1, 1, 2, 3), (0, 1, 3, 1)]:
        step = torch.zeros_like(image)
        step[place] = 1e-6
        slope = (loss(image + step) - loss(image - step)) / 2e-6
        assert maps.gradient[place] == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_values_run_from_zero_to_one_over_the_largest_channel():
    maps = heat_maps(network(), batch(), "image")

    size = np.abs(maps.gradient).max(axis=1)
    low, high = size.min(axis=(1, 2), keepdims=True), size.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(maps.value, (size - low) / (high - low))
    assert maps.value.shape == (6, 4, 4) and maps.modality == "image"


def test_a_network_without_slope_gives_zeros_and_no_division_by_zero():
    net = network()
    with torch.no_grad():
        net.head.weight.zero_()

    assert (heat_maps(net, batch(), "image").value == 0).all()


def test_the_network_keeps_its_modes_and_gradients():
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}

    heat_maps(net, batch(), "image")

    assert net.training and all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_frozen_network_and_an_outer_no_grad_work():
    net = network().requires_grad_(False)

    with torch.no_grad():
        maps = heat_maps(net, batch(), "image")

    np.testing.assert_array_equal(maps.value, heat_maps(network(), batch(), "image").value)


def test_other_modalities_are_passed_to_the_network_too():
    maps = heat_maps(network("image", "sound"), batch(), "sound")

    assert maps.gradient.shape == (6, 3) and np.abs(maps.gradient).max() > 0


def test_an_unread_or_missing_modality_is_refused():
    with pytest.raises(InputError, match="do not depend on 'sound'"):
        heat_maps(network("image"), batch(), "sound")
    with pytest.raises(InputError, match="Did you mean 'sound'"):
        heat_maps(network(), batch(), "sounds")
    whole = Batch({"image": torch.zeros(2, 3, dtype=torch.int64)}, {"image": torch.zeros(2, dtype=torch.int64)})
    with pytest.raises(InputError, match="expected floats"):
        heat_maps(wrap(nn.Flatten(), ["image"]), whole, "image")


def test_one_of_each_takes_the_first_sample_of_every_class_in_order():
    inputs = [torch.arange(4.0)[:, None], 10 + torch.arange(4.0)[:, None]]
    targets = [torch.tensor([2, 2, 0, 2]), torch.tensor([0, 5, 2, 5])]

    maps = one_of_each(
        Batch({"a": values, "b": -values}, dict.fromkeys("ab", target))
        for values, target in zip(inputs, targets, strict=True)
    )

    assert maps.target.tolist() == [0, 2, 5] and maps.paired
    assert maps.inputs["a"].flatten().tolist() == [2, 0, 11] and maps.inputs["b"].flatten().tolist() == [-2, 0, -11]
    with pytest.raises(InputError, match="no samples"):
        one_of_each([])
