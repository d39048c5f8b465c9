import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from slow_rooms import slow_flipped, slow_occupied, slow_tsdf

from xmodal.data.nyu.synthetic import draw_scene, look, origin_of, pose_of
from xmodal.data.nyu.tsdf import flipped, nearest, occupied_voxels, squared_distances, tsdf
from xmodal.data.nyu.voxels import TINY, Grid

SMALL = Grid((16, 12, 16), 0.3, (24, 32), (26.0, 26.0), (16.0, 12.0), 0.9)
LEVEL = pose_of(1.0, 0.0, 0.0)


def view(seed, grid=SMALL):
    scene = draw_scene(np.random.default_rng(seed))
    return (look(scene, grid)[0] / 1000).astype(np.float32), scene.pose, origin_of(scene.pose, grid)


def test_a_wall_straight_ahead_has_the_expected_signs_and_distances():
    grid = Grid((4, 4, 12), 0.1, (21, 21), (100.0, 100.0), (10.0, 10.0), 0.3)
    depth = np.full((21, 21), 2.05, np.float32)
    corner = np.array([-0.2, 1.5, 0.8], np.float32)

    values = tsdf(depth, LEVEL, corner, grid=grid)

    # Voxel 5 along Y is from 2.0 to 2.1 m; the optical axis passes through the corner (2, 2) of X and H.
    assert values[2, 2].tolist() == pytest.approx([1, 1, 1, 2 / 3, 1 / 3, 0, -1 / 3, -2 / 3, -1, -1, -1, -1], abs=1e-6)
    flipped_values = flipped(values)[2, 2]
    assert flipped_values.tolist() == pytest.approx(
        [0.001, 0.001, 0.001, 1 / 3, 2 / 3, 1, -2 / 3, -1 / 3, -0.001, -0.001, -0.001, -0.001], abs=1e-6
    )


@pytest.mark.parametrize("depth", [0.0, 0.4, 8.5])
def test_without_a_valid_depth_all_voxels_are_free(depth):
    grid = Grid((4, 4, 12), 0.1, (3, 3), (10.0, 10.0), (1.0, 1.0), 0.3)

    values = tsdf(np.full((3, 3), depth, np.float32), LEVEL, np.array([-0.2, 1.5, 0.8], np.float32), grid=grid)

    assert (values == 1).all()


def test_voxels_outside_of_the_image_are_free():
    behind = tsdf(*view(0)[:2], np.array([-2, -6, 0], np.float32), grid=SMALL)
    beside = tsdf(*view(0)[:2], np.array([40, 0, 0], np.float32), grid=SMALL)

    assert (behind == 1).all() and (beside == 1).all()


@pytest.mark.parametrize("seed", range(2))
def test_distances_equal_those_of_a_loop_over_voxels(seed):
    depth, pose, origin = view(seed)
    depth[::4] = 0

    assert np.array_equal(occupied_voxels(depth, pose, origin, grid=SMALL), slow_occupied(depth, pose, origin, SMALL))
    fast, slow = tsdf(depth, pose, origin, grid=SMALL), slow_tsdf(depth, pose, origin, SMALL)
    np.testing.assert_allclose(fast, slow, atol=1e-6)
    assert np.array_equal(flipped(fast), slow_flipped(fast)) and len(np.unique(fast)) > 10


def test_squared_distances_are_euclidean_up_to_the_radius():
    random = np.random.default_rng(0)
    for radius, share in ((3, 0.02), (5, 0.002), (1, 0.1), (12, 0.0005)):
        occupied = random.random((20, 13, 17)) < share
        occupied[4, 5, 6] = True

        squared = squared_distances(occupied, radius)

        exact = np.rint(distance_transform_edt(~occupied) ** 2)
        assert np.array_equal(squared, np.minimum(exact, radius**2))


def test_without_occupied_voxels_the_distance_is_the_radius():
    assert (squared_distances(np.zeros((5, 6, 7), bool), 4) == 16).all()


def test_mirroring_a_room_mirrors_its_distances():
    occupied = np.random.default_rng(1).random((9, 8, 10)) < 0.01

    squared = squared_distances(occupied, 4)

    for axis in range(3):
        assert np.array_equal(squared_distances(np.flip(occupied, axis).copy(), 4), np.flip(squared, axis))
    assert np.array_equal(squared_distances(occupied.transpose(2, 0, 1).copy(), 4), squared.transpose(2, 0, 1))


def test_given_distances_are_used():
    depth, pose, origin = view(0)
    squared = squared_distances(occupied_voxels(depth, pose, origin, grid=SMALL), SMALL.radius)

    assert np.array_equal(tsdf(depth, pose, origin, grid=SMALL), tsdf(depth, pose, origin, grid=SMALL, squared=squared))


def test_a_damaged_pose_gives_no_warning_and_no_crash():
    depth, pose, origin = view(0)
    damaged = pose.copy()
    damaged[0] = 1e38

    assert np.isfinite(tsdf(depth, damaged, origin, grid=SMALL)).all()


def test_halves_are_rounded_away_from_zero():
    values = np.array([2.5, -2.5, 3.49, 0.49999997, -0.49999997, 1e9, -0.0], np.float32)

    assert nearest(values).tolist() == [3, -3, 3, 0, 0, 1e9, 0]


def test_a_room_at_the_tiny_size_has_surfaces_hidden_and_free_voxels():
    values = flipped(tsdf(*view(3, TINY), grid=TINY))

    assert (values == 1).sum() > 500 and (values == np.float32(-0.001)).sum() > 5000
    assert set(np.sign(values).ravel().tolist()) == {1.0, -1.0} and np.abs(values).min() == np.float32(0.001)
