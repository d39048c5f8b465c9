import itertools

import pytest
import torch

from xmodal.errors import InputError
from xmodal.models.scenes.projection import Occupied, largest_of, project, project_occupied

VOLUME = (3, 2, 4)  # X, H, Y


def picture(seed=0, *, rows=2, channels=3, height=4, width=5, none=0.2):
    """Features above and below zero, and voxels of which several pixels share some."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, channels, height, width, generator=generator, dtype=torch.float64)
    position = torch.randint(24, (rows, height, width), generator=generator)
    return features, position.masked_fill(torch.rand(rows, height, width, generator=generator) < none, -1)


def pixel_by_pixel(features, position, volume):
    width, height, depth = volume
    found = torch.zeros(*features.shape[:2], depth, height, width, dtype=features.dtype)
    for row, y, x in itertools.product(*map(range, position.shape)):
        voxel = int(position[row, y, x])
        if voxel >= 0:
            at = (row, slice(None), voxel % depth, voxel // depth % height, voxel // (height * depth))
            found[at] = torch.maximum(found[at], features[row, :, y, x])
    return found


def test_a_voxel_keeps_the_largest_of_its_pixels_and_zero():
    features = torch.tensor([[[[5.0, 1.0, 2.0, 9.0, -1.0]]]])
    position = torch.tensor([[[0, 3, 3, -1, 1]]])  # the last one has a negative feature, the one before no voxel

    volume = project(features, position, (2, 1, 2))

    # (D, H, W) are (Y, H, X): voxel 3 is x 1, y 1
    assert volume.tolist() == [[[[[5.0, 0.0]], [[0.0, 2.0]]]]]


@pytest.mark.parametrize("seed", range(3))
def test_all_pixels_at_once_give_what_one_after_the_other_gives(seed):
    features, position = picture(seed)

    expected = pixel_by_pixel(features, position, VOLUME)

    assert torch.equal(project(features, position, VOLUME), expected)
    assert torch.equal(project_occupied(features, position, VOLUME).volume(), expected)


def test_the_gradient_is_that_of_the_winners_alone():
    features, position = picture()
    features.requires_grad_()

    project(features, position, VOLUME).sum().backward()

    winners, values = torch.zeros_like(features), features.tolist()
    for row, channel in itertools.product(range(2), range(3)):
        for voxel in range(24):
            pixels = [(values[row][channel][y][x], y, x) for y, x in (position[row] == voxel).nonzero().tolist()]
            largest, y, x = max(pixels, default=(0.0, 0, 0))
            winners[row, channel, y, x] += largest > 0
    assert torch.equal(features.grad, winners)


def test_of_equal_pixels_the_first_one_gets_the_gradient():
    features = torch.tensor([[[[2.0, 2.0, 1.0]]]], requires_grad=True)

    project(features, torch.zeros(1, 1, 3, dtype=torch.long), (1, 1, 1)).sum().backward()

    assert features.grad.flatten().tolist() == [1.0, 0.0, 0.0]


def test_the_gradient_is_that_of_small_differences():
    features, position = picture(rows=1, channels=2, height=2, width=3)
    features.requires_grad_()

    assert torch.autograd.gradcheck(lambda x: project(x, position, VOLUME), features)


def test_nothing_within_a_volume_is_a_volume_of_zeros():
    features, position = picture()

    volume = project(features, torch.full_like(position, -1), VOLUME)

    assert volume.shape == (2, 3, 4, 2, 3) and not volume.any()


@pytest.mark.slow
def test_the_form_for_export_gives_the_same_numbers():
    class Projection(torch.nn.Module):
        def forward(self, features, position):
            return project(features, position, VOLUME)

    features, position = picture()

    exported = torch.export.export(Projection(), (features, position)).module()

    assert torch.equal(exported(features, position), project(features, position, VOLUME))


def test_occupied_places_rise_and_become_a_volume():
    found = Occupied(torch.tensor([[1.0, 2.0]]), torch.tensor([1, 7]), (2, 2, 1, 2)).volume()

    assert found.flatten().tolist() == [0, 1, 0, 0, 0, 0, 0, 2]


def test_slots_of_negative_things_hold_nothing_and_give_no_gradient():
    things = torch.tensor([[-1.0, -2.0]], requires_grad=True)

    found = largest_of(things, torch.tensor([0, 0]), 1)
    found.sum().backward()

    assert found.tolist() == [[0.0]] and not things.grad.any()


def test_positions_of_another_picture_or_volume_are_refused():
    features, position = picture()

    with pytest.raises(InputError, match=r"positions have shape \(2, 3, 5\).*one voxel per pixel"):
        project(features, position[:, :3], VOLUME)
    with pytest.raises(InputError, match=r"has voxel 24, and the volume \(3, 2, 4\) has 24"):
        project(features, position.clamp(min=24), VOLUME)
