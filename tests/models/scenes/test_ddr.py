import pytest
import torch
from torch import nn

from xmodal.models.capacity import count_parameters
from xmodal.models.scenes.ddr import (
    Bottleneck2d,
    Bottleneck3d,
    Downsample,
    Point,
    Pyramid3d,
    checkpointed,
    head,
    initialise,
)
from xmodal.models.scenes.projection import project_occupied

VOLUME = (8, 4, 12)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def scene(*, rows=2, channels=3, equal=False):
    """Pixels and their voxels; with ``equal`` many have the same features, as those of a flat picture have."""
    features = torch.randn(rows, channels, 5, 7, dtype=torch.float64)
    features = features.round() if equal else features
    return features.requires_grad_(), torch.randint(-1, 8 * 4 * 12, (rows, 5, 7))


@pytest.mark.parametrize("bias", [True, False])
def test_a_point_convolution_is_a_convolution(bias):
    point = Point(3, 5, bias=bias).double()
    x = torch.randn(2, 3, 2, 3, 4, dtype=torch.float64)

    torch.testing.assert_close(point(x), nn.functional.conv3d(x, point.weight, point.bias))


def test_a_flat_bottleneck_adds_its_input():
    block = Bottleneck2d(8, 4)
    nn.init.zeros_(block.leave.weight)
    x = torch.randn(1, 8, 3, 3)

    assert torch.equal(block(x), x.relu())
    assert count_parameters(block) == 8 * 4 + 2 * (4 * 4 * 3 + 4) + 4 * 8


def test_a_bottleneck_goes_along_w_then_h_then_d_and_keeps_what_it_found():
    """With weights of 1 in the middle taps alone, one is x, two is 2x, three is 4x + ... by hand."""
    block = Bottleneck3d(1, 1, 1)
    for part in (block.enter, block.along, block.upper, block.across, block.leave):
        nn.init.zeros_(part.weight)
        if part.bias is not None:
            nn.init.zeros_(part.bias)
        part.weight.data[0, 0, part.weight.shape[2] // 2, part.weight.shape[3] // 2, part.weight.shape[4] // 2] = 1

    # one = x, two = one + one, three = two + two + one, and the input on top
    assert block(torch.full((1, 1, 2, 2, 2), 2.0)).unique().tolist() == [2.0 * (5 + 1)]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_dilated_bottleneck_sees_along_every_axis_as_far_as_its_dilation(axis):
    block = Bottleneck3d(1, 1, 1, dilation=3, residual=False)
    for part in block.children():
        nn.init.ones_(part.weight)
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    x = torch.zeros(1, 1, 9, 9, 9)
    x[0, 0, 4, 4, 4] = 1

    reached = block(x)[0, 0].nonzero()[:, axis].unique()

    assert reached.tolist() == [1, 4, 7]


@pytest.mark.parametrize("equal", [False, True])
def test_downsampling_what_is_filled_gives_what_the_whole_volume_gives_with_its_gradients(equal):
    block = Downsample(3, 8).double()
    features, position = scene(equal=equal)
    found = {}

    for form in ("sparse", "dense"):
        block.zero_grad()
        features.grad = None
        occupied = project_occupied(features, position, VOLUME)
        out = block(occupied if form == "sparse" else occupied.volume())
        (out * torch.arange(out.numel(), dtype=torch.float64).reshape(out.shape).sin()).sum().backward()
        found[form] = (out.detach(), features.grad.clone(), block.convolution.weight.grad.clone())

    for sparse, dense in zip(found["sparse"], found["dense"], strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-12)


def test_downsampling_of_nothing_is_nothing():
    block = Downsample(3, 8)
    features = torch.randn(1, 3, 2, 2)

    out = block(project_occupied(features, torch.full((1, 2, 2), -1), VOLUME))

    assert out.shape == (1, 8, 6, 2, 4) and not out.any()


def test_a_pyramid_puts_five_views_side_by_side():
    pyramid = Pyramid3d(6, 2, 4)
    x = torch.randn(2, 6, 3, 2, 3)

    out = pyramid(x)

    assert out.shape == (2, 20, 3, 2, 3)
    torch.testing.assert_close(out[:, :4], pyramid.place(x))
    assert torch.allclose(out[:, 16:], pyramid.everywhere(x.mean((2, 3, 4), keepdim=True)).expand(-1, -1, 3, 2, 3))
    torch.testing.assert_close(out[:, 4:8], pyramid.rings[0](x))


def test_what_is_computed_again_has_the_same_gradients():
    block, x = Bottleneck3d(2, 2, 2), torch.randn(1, 2, 3, 3, 3)
    found = {}

    for recompute in (False, True):
        block.zero_grad()
        checkpointed(block, x, recompute=recompute).square().sum().backward()
        found[recompute] = [part.grad.clone() for part in block.parameters()]

    assert all(map(torch.equal, found[False], found[True]))


def test_a_head_has_a_relu_between_its_layers_and_none_behind():
    layers = head(4, 3, 2)

    assert [type(layer).__name__ for layer in layers] == ["Point", "ReLU", "Point"]


def test_initial_weights_are_those_of_the_published_code():
    network = nn.ModuleDict({"flat": nn.Conv2d(64, 64, 3), "solid": nn.Conv3d(16, 48, 3)})

    initialise(network)

    assert network["flat"].weight.std().item() == pytest.approx(0.1, rel=0.02)
    limit = (6 / ((16 + 48) * 27)) ** 0.5
    assert network["solid"].weight.abs().max().item() == pytest.approx(limit, rel=0.01)
    assert network["solid"].weight.abs().max() <= limit
