"""Removed channels say the same for every row, kept ones are untouched."""

import pytest
import torch
from torch import nn

from xmodal.errors import InputError
from xmodal.models.masking import layer_means, masked
from xmodal.models.network import wrap
from xmodal.types import Batch

KEEP = torch.tensor([True, False])


@pytest.fixture
def maps():
    """A network whose layer '0' has two maps of 1 x 2, and three samples."""
    return nn.Sequential(nn.Identity(), nn.Flatten()), torch.arange(12.0).reshape(3, 2, 1, 2)


@pytest.mark.parametrize(
    ("how", "removed"),
    [
        ({"fill": "zero"}, [[0.0, 0.0]] * 3),
        ({"fill": "batch_mean"}, [[6.0, 7.0]] * 3),  # (2, 6, 10) and (3, 7, 11)
        ({"fill": "mean", "values": torch.tensor([8.0, 9.0])}, [[9.0, 9.0]] * 3),
        ({"fill": "mean", "values": torch.tensor([[[0.0, 0.0]], [[4.0, 5.0]]])}, [[4.0, 5.0]] * 3),
    ],
)
def test_each_fill_by_hand(maps, how, removed):
    network, samples = maps

    with masked(network, "0", KEEP, **how):
        out = network(samples).reshape(3, 2, 2)

    assert torch.equal(out[:, 0], samples[:, 0, 0])
    assert out[:, 1].tolist() == removed


def test_keeping_everything_changes_nothing(maps):
    network, samples = maps

    with masked(network, "0", torch.tensor([True, True]), fill="batch_mean"):
        assert torch.equal(network(samples), samples.flatten(1))


def test_with_the_mean_of_the_batch_an_answer_depends_on_its_neighbours_and_with_values_not(maps):
    network, samples = maps
    means = samples.mean(dim=0)

    with masked(network, "0", KEEP, fill="batch_mean"):
        assert not torch.equal(network(samples[:1]), network(samples)[:1])
    with masked(network, "0", KEEP, values=means):
        assert torch.equal(network(samples[:1]), network(samples)[:1])


def test_gradients_reach_kept_channels_alone(maps):
    network, samples = maps
    samples.requires_grad_()

    with masked(network, "0", KEEP, fill="zero"):
        network(samples).sum().backward()

    assert samples.grad[:, 0].unique().tolist() == [1.0] and samples.grad[:, 1].unique().tolist() == [0.0]


def test_an_input_can_be_masked():
    network = wrap(nn.Identity(), ["sound"])

    with masked(network, "input:sound", KEEP, fill="zero"):
        assert network({"sound": torch.ones(1, 2)}).tolist() == [[1.0, 0.0]]


def test_layer_means_count_rows_not_batches_and_leave_modes():
    network = wrap(nn.Sequential(nn.BatchNorm1d(1), nn.Dropout(0.5)), ["sound"]).train()
    batches = [Batch({"sound": torch.tensor(values)}, {}) for values in ([[1.0], [2.0]], [[6.0]])]

    means = layer_means(network, "input:sound", batches)

    assert means.tolist() == [3.0]
    assert network.training and network.module[0].training and network.module[0].num_batches_tracked == 0


def test_layer_means_of_maps_are_taken_pixel_by_pixel():
    network = wrap(nn.Conv2d(1, 2, 1), ["image"])
    image = torch.randn(5, 1, 2, 3, generator=torch.Generator().manual_seed(0))

    means = layer_means(network, "module", [Batch({"image": image}, {})])

    assert means.shape == (2, 2, 3)
    torch.testing.assert_close(means, network.module(image).detach().mean(dim=0))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"keep": KEEP, "fill": "zeros"}, "no fill called 'zeros'. Did you mean 'zero'"),
        ({"keep": KEEP}, "'mean' needs values"),
        ({"keep": KEEP, "fill": "zero", "values": torch.ones(2)}, "'zero' takes no values"),
        ({"keep": torch.tensor([1, 0]), "fill": "zero"}, "expected booleans"),
        ({"keep": torch.ones(3, dtype=torch.bool), "fill": "zero"}, "keep has 3 channels, and '0' has 2"),
        ({"keep": KEEP, "values": torch.ones(3)}, r"values have shape \(3,\)"),
    ],
)
def test_wrong_masks_are_refused(maps, how, sentence):
    network, samples = maps
    keep = how.pop("keep")

    with pytest.raises(InputError, match=sentence), masked(network, "0", keep, **how):
        network(samples)


def test_means_of_unlike_shapes_or_of_nothing_are_refused():
    network = wrap(nn.Identity(), ["sound"])
    batches = [Batch({"sound": torch.ones(1, 2, length)}, {}) for length in (3, 4)]

    with pytest.raises(InputError, match=r"\(2, 3\) and \(2, 4\)"):
        layer_means(network, "input:sound", batches)
    with pytest.raises(InputError, match="no batch"):
        layer_means(network, "input:sound", [])
