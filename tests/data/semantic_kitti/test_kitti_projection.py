import numpy as np
import pytest
from kitti_bytes import HEIGHT, P2, POINTS, TR, WIDTH
from range_view import range_maps

from xmodal.data.semantic_kitti.projection import (
    camera_pixels,
    draw,
    drawing_order,
    features_of,
    range_pixels,
    ranges,
    to_camera,
)

MATRIX = np.array(P2, float).reshape(3, 4) @ np.vstack([np.reshape(TR, (3, 4)), [0, 0, 0, 1]])
CLOUD = np.array(POINTS, np.float32)
SIZE = {"height": HEIGHT, "width": WIDTH}


def camera(seed):
    """A camera that is rotated and translated relative to the scanner, as real ones are."""
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(np.eye(3) + 0.02 * random.normal(size=(3, 3)))
    turn *= np.sign(np.diag(turn))
    tr = np.eye(4)
    tr[:3, :3], tr[:3, 3] = turn @ [[0, -1, 0], [0, 0, -1], [1, 0, 0]], [0, -0.08, -0.27]
    return np.array([[70, 0, 60, 4], [0, 70, 20, 0.2], [0, 0, 1, 0.003]]) @ tr


def cloud(seed, count=4000):
    return np.random.default_rng(seed).normal(0, 4, (count, 4)).astype(np.float32)


def slow_pixels(points, matrix, height, width, *, x_min=0.0, behind=False):
    """The projection, point by point."""
    pixels = []
    for number, point in enumerate(points.astype(float)):
        a, b, d = matrix @ [*point[:3], 1.0]
        if point[0] > x_min and (behind or d > 0) and d != 0 and 0 < a / d < width and 0 < b / d < height:
            pixels.append((number, int(b / d), int(a / d)))
    return pixels


def listed(pixels):
    return list(zip(pixels.number.tolist(), pixels.row.tolist(), pixels.col.tolist(), strict=True))


def test_points_are_projected_to_the_expected_pixels():
    pixels = camera_pixels(CLOUD, MATRIX, **SIZE)

    assert listed(pixels) == [(0, 2, 3), (1, 2, 6), (4, 2, 3), (5, 0, 3)]


def test_the_depth_of_points_behind_the_scanner_is_zero():
    _, keep, depth = to_camera(CLOUD, MATRIX, **SIZE)

    assert depth.tolist() == [8, 4, 2, 0, 16, 8]
    assert keep.tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize("x_min", [0.0, 0.5])
@pytest.mark.parametrize("behind", [False, True])
def test_points_together_have_the_same_pixels_as_one_by_one(x_min, behind):
    for seed in range(3):
        points, matrix = cloud(seed), camera(seed)

        pixels = camera_pixels(points, matrix, height=40, width=120, x_min=x_min, behind=behind)

        assert listed(pixels) == slow_pixels(points, matrix, 40, 120, x_min=x_min, behind=behind)
        assert len(pixels.number) > 50


def test_only_the_published_rule_keeps_points_behind_the_camera():
    points = np.array([[0.1, -0.02, -0.02, 1]], np.float32)
    # A camera 25 cm ahead of the scanner: u = 4 - 8 y / d.
    ahead = MATRIX - 0.25 * MATRIX[:, :1] * [0, 0, 0, 1]

    default, published = (camera_pixels(points, ahead, **SIZE, behind=behind) for behind in (False, True))
    depth = to_camera(points, ahead, **SIZE)[2]

    assert depth == pytest.approx([-0.15])
    assert listed(default) == [] and listed(published) == [(0, 0, 2)]  # v = 0.93, u = 2.93


def test_the_order_of_the_file_does_not_change_pixels():
    points, matrix = cloud(5), camera(5)
    order = np.random.default_rng(0).permutation(len(points))

    pixels, mixed = (camera_pixels(some, matrix, height=40, width=120) for some in (points, points[order]))

    assert sorted(listed(pixels)) == sorted((int(order[n]), row, col) for n, row, col in listed(mixed))


def test_a_cloud_behind_the_camera_has_no_pixels():
    assert listed(camera_pixels(-np.abs(CLOUD), MATRIX, **SIZE)) == []


def test_features_are_range_position_and_remission():
    np.testing.assert_allclose(features_of(np.array([[3, 4, 12, 0.5]], np.float32)), [[13, 3, 4, 12, 0.5]])


def test_the_nearest_point_is_drawn_last():
    distance = np.array([5, 1, 5, 0.5, 7], np.float32)

    assert drawing_order(distance, "nearest").tolist() == [4, 0, 2, 1, 3]
    assert drawing_order(distance, "file").tolist() == [0, 1, 2, 3, 4]


def test_the_drawing_order_is_that_of_a_stable_sort():
    distance = np.random.default_rng(0).integers(0, 40, 3000).astype(np.float32) / 7

    assert np.array_equal(drawing_order(distance, "nearest"), np.argsort(-distance, kind="stable"))


def test_the_last_point_of_a_pixel_remains():
    maps = draw(np.array([0, 1, 0]), np.array([1, 0, 1]), np.array([[1, 10], [2, 20], [3, 30]]), height=2, width=2)

    assert maps.tolist() == [[[0, 3], [2, 0]], [[0, 30], [20, 0]]]


# ---- range view


def slow_range_maps(points, height, width, field):
    up, down, left, right = (abs(np.deg2rad(side)) for side in field)
    nearest = {}
    for number, (x, y, z, _) in enumerate(points.astype(float)):
        r = np.sqrt(x * x + y * y + z * z)
        col = np.floor((-np.arctan2(y, x) + left) / (left + right) * width)
        row = np.floor((1 - (np.arcsin(z / r) + down) / (up + down)) * height)
        pixel = int(min(max(row, 0), height - 1)), int(min(max(col, 0), width - 1))
        if pixel not in nearest or r < nearest[pixel][0]:
            nearest[pixel] = (r, number)
    return nearest


def test_directions_have_the_expected_pixels():
    points = np.array([[1, 0, 0, 1], [1, 1, 0, 1], [1, -0.999, 0, 1], [2, 0, -5, 1], [-1, 0.01, 3, 1]], np.float32)

    pixels = range_pixels(points, height=28, width=90, field=(3, -25, -45, 45))

    # A row per degree down from 3, a column per degree to the right from -45; the last two points are outside.
    assert listed(pixels) == [(0, 3, 45), (1, 3, 0), (2, 3, 89), (3, 27, 45), (4, 0, 0)]


def test_the_nearest_point_of_a_direction_remains(tmp_path):
    points, field = cloud(3), (10.0, -20.0, -60.0, 50.0)

    maps = range_maps(tmp_path, points, height=12, width=30, field=field)

    slow = slow_range_maps(points, 12, 30, field)
    assert {tuple(place): int(maps["idx"][tuple(place)]) for place in np.argwhere(maps["mask"])} == {
        place: number for place, (_, number) in slow.items()
    }
    assert np.array_equal(maps["idx"] == -1, maps["range"] == -1)


def test_only_the_published_rule_drops_the_first_point(tmp_path):
    points = np.array([[1, 0, 0, 1], [1, 0.5, 0, 1]], np.float32)
    size = {"height": 8, "width": 16, "field": (3.0, -25.0, -45.0, 45.0)}

    default, published = (
        range_maps(tmp_path, points, **size, lose_first=lose_first)["mask"] for lose_first in (False, True)
    )

    assert default.sum() == 2 and published.sum() == 1


def test_a_point_at_the_scanner_has_a_pixel():
    assert len(range_pixels(np.zeros((1, 4), np.float32), height=8, width=16).number) == 1
    assert ranges(np.zeros((1, 4), np.float32)).tolist() == [0]
