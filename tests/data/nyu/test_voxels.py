import numpy as np
import pytest
from slow_rooms import slow_coarse_labels, slow_coarse_tsdf, slow_positions

from xmodal.data.nyu.raw import TABLE
from xmodal.data.nyu.synthetic import draw_scene, label, look, origin_of, pose_of
from xmodal.data.nyu.tsdf import flipped, tsdf
from xmodal.data.nyu.voxels import (
    HIDDEN,
    PUBLISHED,
    SURFACE,
    TINY,
    Grid,
    block_sums,
    coarse_labels,
    coarse_tsdf,
    positions,
    regions,
)
from xmodal.errors import InputError

SMALL = Grid((16, 12, 16), 0.3, (24, 32), (26.0, 26.0), (16.0, 12.0), 0.9)
# Looks along y, 1 m above the floor.
LEVEL = pose_of(1.0, 0.0, 0.0)
CORNER = np.array([-2.4, 0.0, 0.0], np.float32)


def view(seed, grid=SMALL):
    """Depth in metres, pose and corner of a synthetic room."""
    scene = draw_scene(np.random.default_rng(seed))
    return look(scene, grid)[0] / 1000, scene.pose, origin_of(scene.pose, grid)


def test_a_pixel_on_the_optical_axis_shows_the_voxel_straight_ahead():
    depth = np.zeros((24, 32))
    depth[12, 16] = 3.0

    position = positions(depth, LEVEL, CORNER, grid=SMALL)

    x, height, ahead = 8, 3, 10  # 2.4, 1.0 and 3.0 m of 0.3 m each, rounded
    assert position[12, 16] == (x * 12 + height) * 16 + ahead


def test_pixels_further_right_or_down_show_voxels_further_right_or_down():
    depth = np.zeros((24, 32))
    # At 2 m and a focal length of 26, 13 pixels are 1 m.
    depth[12, 16 + 13] = depth[12 + 6, 16] = 2.0

    position = positions(depth, LEVEL, CORNER, grid=SMALL)

    assert np.unravel_index(position[12, 29], SMALL.volume) == (11, 3, 7)
    assert np.unravel_index(position[18, 16], SMALL.volume) == (8, 2, 7)


def test_halves_are_rounded_to_even_numbers():
    grid = Grid((8, 4, 8), 0.5, (1, 4), (1.0, 1.0), (0.0, 0.0))
    corner = np.array([0, 0, 0.5], np.float32)
    depth = np.array([[0.75, 0.0, 0.0, 0.0]])  # 1.5 voxels ahead

    assert positions(depth, LEVEL, corner, grid=grid)[0, 0] == 1 * 8 + 2
    assert positions(depth - [0.5, 0, 0, 0], LEVEL, corner, grid=grid)[0, 0] == 1 * 8 + 0  # 0.5 voxels


@pytest.mark.parametrize("seed", range(3))
def test_positions_equal_those_of_a_loop_over_pixels(seed):
    depth, pose, origin = view(seed)
    depth[::5, ::3] = 0

    assert np.array_equal(positions(depth, pose, origin, grid=SMALL), slow_positions(depth, pose, origin, SMALL))


def test_pixels_without_a_voxel_have_zero_or_minus_one():
    depth, pose, origin = view(0)
    depth[0] = 0
    depth[1] = 50.0
    missing = np.zeros_like(depth, bool)
    missing[:2] = True

    reference = positions(depth, pose, origin, grid=SMALL)
    correct = positions(depth, pose, origin, grid=SMALL, rule="correct")

    assert (reference[missing] == 0).all() and (correct[missing] == -1).all()
    assert np.array_equal(reference[correct >= 0], correct[correct >= 0]) and (reference[correct < 0] == 0).all()


def test_by_the_published_rule_pixels_without_depth_show_the_position_of_the_camera():
    # A volume that contains the camera.
    around = np.array([-2.4, -2.4, 0.0], np.float32)

    position = {
        rule: positions(np.zeros((24, 32)), LEVEL, around, grid=SMALL, rule=rule) for rule in ("reference", "correct")
    }

    assert (position["reference"] == (8 * 12 + 3) * 16 + 8).all() and (position["correct"] == -1).all()


def test_translating_camera_and_volume_keeps_positions():
    depth, pose, origin = view(1)
    moved = pose.copy()
    moved[:3, 3] += (4, -8, 2)

    position = positions(depth, pose, origin, grid=SMALL)
    moved_position = positions(depth, moved, origin + np.array([4, -8, 2], np.float32), grid=SMALL)

    assert (position != moved_position).mean() < 0.01  # some points at borders of voxels are rounded differently


def test_mirroring_the_depth_mirrors_positions():
    grid = Grid((16, 12, 16), 0.3, (25, 33), (26.0, 26.0), (16.0, 12.0), 0.9)
    random = np.random.default_rng(0)
    depth = random.uniform(1.5, 4, grid.image)
    centred = np.array([-(16 - 1) * 0.3 / 2, 0, 0], np.float32)  # between two voxels at x = 0

    position, flipped_position = (
        positions(d, LEVEL, centred, grid=grid, rule="correct") for d in (depth, depth[:, ::-1])
    )

    inside = (position >= 0) & (flipped_position[:, ::-1] >= 0)
    # The middle column is between two voxels, and is rounded to the even one both times.
    inside[:, 16] = False
    x, mirrored = (
        np.unravel_index(numbers[inside], grid.volume)[0] for numbers in (position, flipped_position[:, ::-1])
    )
    assert inside.mean() > 0.5 and (x + mirrored == 15).mean() > 0.99


def test_a_depth_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"\(480, 640\) were expected"):
        positions(np.zeros((24, 32)), LEVEL, CORNER)
    with pytest.raises(InputError, match="Did you mean 'correct'"):
        positions(np.zeros((24, 32)), LEVEL, CORNER, grid=SMALL, rule="corect")


def test_derived_sizes_of_a_grid():
    assert PUBLISHED.coarse == (60, 36, 60) and PUBLISHED.voxels == 8_294_400 and PUBLISHED.radius == 12
    assert TINY.coarse == (15, 9, 15) and TINY.radius == 3
    with pytest.raises(InputError, match="sizes above 0"):
        Grid((60, 0, 60))
    with pytest.raises(InputError, match="no blocks of 4"):
        coarse_labels(np.zeros((8, 6, 8), np.uint8))


def test_positions_and_tsdf_do_not_need_multiples_of_a_block():
    depth, pose, origin = view(4)
    grid = Grid((15, 11, 13), 0.3, SMALL.image, SMALL.focal, SMALL.centre, 0.9)

    assert np.array_equal(positions(depth, pose, origin, grid=grid), slow_positions(depth, pose, origin, grid))
    assert tsdf(depth.astype(np.float32), pose, origin, grid=grid).shape == (15, 11, 13)


def test_block_sums_count_every_block_of_any_edge():
    mask = np.random.default_rng(0).random((12, 24, 36)) < 0.5

    for factor in (2, 3, 4, 6):
        x, h, y = (size // factor for size in mask.shape)
        expected = mask.reshape(x, factor, h, factor, y, factor).sum(axis=(1, 3, 5))
        assert np.array_equal(block_sums(mask, factor), expected)
    assert block_sums(np.ones((8, 8, 8), bool), 8).item() == 512


def block(**counts):
    """A block of 64 voxels with the given number of each label."""
    values = [int(name[1:]) for name, count in counts.items() for _ in range(count)]
    return np.array(values, np.uint8).reshape(4, 4, 4)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"c0": 60, "c5": 4}, 5),  # 60 of 64 are not more than 95 %
        ({"c0": 61, "c5": 3}, 0),
        ({"c255": 40, "c0": 21, "c5": 3}, 255),
        ({"c255": 32, "c0": 32}, 255),  # as many of both
        ({"c255": 30, "c0": 31, "c2": 3}, 0),
        ({"c0": 40, "c7": 12, "c3": 12}, 3),  # the smallest of two
        ({"c0": 30, "c255": 20, "c9": 8, "c4": 6}, 9),
        ({"c254": 64}, 254),
    ],
)
def test_the_label_of_a_block(counts, expected):
    assert coarse_labels(block(**counts)).item() == expected


def test_labels_of_blocks_equal_those_of_a_loop_over_blocks():
    random = np.random.default_rng(0)
    labels = random.choice([0, 255, 2, 3, 11], p=[0.8, 0.14, 0.03, 0.02, 0.01], size=(16, 12, 20)).astype(np.uint8)
    labels[:4] = 0

    assert np.array_equal(coarse_labels(labels), slow_coarse_labels(labels))
    assert np.array_equal(coarse_labels(labels[:16, :12, :18], 2), slow_coarse_labels(labels[:16, :12, :18], 2))


def test_flipping_or_transposing_a_volume_does_the_same_to_its_blocks():
    labels = TABLE[label(draw_scene(np.random.default_rng(0)), TINY)]

    assert np.array_equal(coarse_labels(labels[::-1]), coarse_labels(labels)[::-1])
    assert np.array_equal(coarse_labels(labels.transpose(2, 1, 0)), coarse_labels(labels).transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("ones", "behind", "expected"), [(0, 0, 0.001), (1, 0, -0.001), (2, 5, -0.001), (3, 0, 1), (0, 1, -0.001)]
)
def test_the_tsdf_of_a_block(ones, behind, expected):
    values = np.array([1.0] * ones + [-0.4] * behind + [0.001] * (64 - ones - behind), np.float32)

    assert coarse_tsdf(values.reshape(4, 4, 4)).item() == np.float32(expected)


def test_the_tsdf_of_blocks_equals_that_of_a_loop_over_blocks():
    depth, pose, origin = view(2)
    sharp = flipped(tsdf(depth.astype(np.float32), pose, origin, grid=SMALL))

    assert np.array_equal(coarse_tsdf(sharp), slow_coarse_tsdf(sharp))
    assert set(np.unique(coarse_tsdf(sharp)).tolist()) == {np.float32(v).item() for v in (1, 0.001, -0.001)}


def test_scored_regions_of_each_rule():
    tsdf_lr = np.array([[1, 1, 0.001], [-0.001, -0.001, 0.001]], np.float32)
    labels = np.array([[3, 255, 0], [0, 255, 255]], np.uint8)

    assert regions(tsdf_lr, labels).tolist() == [[SURFACE, SURFACE, 0], [HIDDEN, 0, 0]]
    assert regions(tsdf_lr, labels, rule="correct").tolist() == [[SURFACE, 0, 0], [HIDDEN, 0, 0]]
    assert regions(tsdf_lr, labels, rule="box").tolist() == [[SURFACE, SURFACE, 0], [0, 0, 0]]


def test_the_box_around_no_surface_is_empty():
    assert not regions(np.full((4, 4, 4), -0.001, np.float32), np.zeros((4, 4, 4), np.uint8), rule="box").any()


def test_an_unknown_rule_of_scored_regions_is_refused():
    with pytest.raises(InputError, match="Did you mean 'correct'"):
        regions(np.zeros(1, np.float32), np.zeros(1, np.uint8), rule="correkt")
