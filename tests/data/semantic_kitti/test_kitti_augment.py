import numpy as np
import pytest
from PIL import Image, ImageEnhance

from xmodal.data.semantic_kitti.augment import (
    Augmentation,
    Jitter,
    Move,
    PointAugmentation,
    centred,
    flipped,
    index_map,
    jittered,
    rotated,
    rotation,
    translated,
)
from xmodal.errors import InputError

SIZE = (11, 17)


def moved(picture, move, window):
    """A picture read through the table, 0 outside of it."""
    return np.append(picture.reshape(-1), 0)[index_map(move, size=picture.shape, window=window)]


def step_by_step(picture, move, window):
    """Flipped, then rotated pixel by pixel, then cropped."""
    height, width = picture.shape
    if move.flip:
        picture = picture[:, ::-1]
    rotated_picture, angle = np.zeros_like(picture), np.deg2rad(move.degrees)
    cy, cx = (height - 1) / 2, (width - 1) / 2
    for i in range(height):
        for j in range(width):
            x = round(np.cos(angle) * (j - cx) - np.sin(angle) * (i - cy) + cx)
            y = round(np.sin(angle) * (j - cx) + np.cos(angle) * (i - cy) + cy)
            if 0 <= x < width and 0 <= y < height:
                rotated_picture[i, j] = picture[y, x]
    return rotated_picture[move.top : move.top + window[0], move.left : move.left + window[1]]


def numbers(size=SIZE):
    return np.arange(1, 1 + size[0] * size[1]).reshape(size)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("degrees", [0.0, 7.3, -15.0, 90.0])
def test_the_table_equals_flip_rotation_and_crop_step_by_step(flip, degrees):
    move = Move(2, 3, flip, degrees)

    assert np.array_equal(moved(numbers(), move, (7, 12)), step_by_step(numbers(), move, (7, 12)))


def test_tables_of_random_moves_equal_the_steps():
    augmentation, random = Augmentation(), np.random.default_rng(0)

    for _ in range(20):
        move, _ = augmentation.draw(random, size=SIZE, window=(6, 10))

        assert np.array_equal(moved(numbers(), move, (6, 10)), step_by_step(numbers(), move, (6, 10)))


def test_a_table_of_many_strips_has_no_seams():
    size = (100, 30)

    actual = moved(numbers(size), Move(0, 0, True, 4.2), size)

    assert np.array_equal(actual, step_by_step(numbers(size), Move(0, 0, True, 4.2), size))


def test_a_positive_angle_turns_counter_clockwise():
    picture = np.zeros((5, 5), int)
    picture[2, 4] = 1

    # From the right to the top.
    assert np.argwhere(moved(picture, Move(0, 0, degrees=90), (5, 5))).tolist() == [[0, 2]]


def test_quarter_turns_equal_those_of_numpy():
    picture = numbers((9, 9))

    for quarters in range(4):
        actual = moved(picture, Move(0, 0, degrees=90.0 * quarters), (9, 9))

        assert np.array_equal(actual, np.rot90(picture, quarters))


def test_flipping_twice_changes_nothing():
    table = index_map(Move(0, 0, flip=True), size=SIZE, window=SIZE)

    assert np.array_equal(table.reshape(-1)[table], numbers() - 1)


def test_the_centre_of_a_large_picture_is_cropped():
    assert centred((10, 20), (6, 10)) == Move(2, 5)
    assert centred((11, 21), (6, 10)) == Move(2, 6)  # 2.5 and 5.5 are rounded half to even


def test_a_small_picture_is_in_the_centre():
    actual = moved(numbers((2, 3)), centred((2, 3), (5, 3)), (5, 3))

    assert actual.tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6], [0, 0, 0], [0, 0, 0]]


def test_draws_stay_within_their_limits():
    augmentation = Augmentation(flip=0.25, degrees=15, brightness=0.4, contrast=0.2, saturation=0)
    random = np.random.default_rng(0)

    drawn = [augmentation.draw(random, size=(12, 30), window=(10, 30)) for _ in range(400)]

    moves, jitters = zip(*drawn, strict=True)
    assert 0.18 < np.mean([move.flip for move in moves]) < 0.32
    assert {move.top for move in moves} == {0, 1, 2} and {move.left for move in moves} == {0}
    assert max(abs(move.degrees) for move in moves) <= 15 and np.std([move.degrees for move in moves]) > 7
    assert len({jitter.order for jitter in jitters}) == 6
    assert all(0.6 <= jitter.factors[0] <= 1.4 and 0.8 <= jitter.factors[1] <= 1.2 for jitter in jitters)
    assert {jitter.factors[2] for jitter in jitters} == {1.0}


def test_the_same_generator_draws_the_same():
    drawn = [Augmentation().draw(np.random.default_rng(3), size=(12, 30), window=(8, 16)) for _ in range(2)]

    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("window", [(13, 30), (12, 31)])
def test_a_crop_larger_than_the_picture_is_refused(window):
    with pytest.raises(InputError, match=f"crop has {window[0]}x{window[1]} pixels, .* has only 12x30"):
        Augmentation().draw(np.random.default_rng(0), size=(12, 30), window=window)


# ---- colours


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3)).astype(np.uint8))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_colours_equal_those_of_pillow_in_any_order(order):
    factors = (1.3, 0.7, 1.4)
    expected = picture()
    for number in order:
        change = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[number]
        expected = change(expected).enhance(factors[number])

    assert np.array_equal(np.asarray(jittered(picture(), Jitter(order, factors))), np.asarray(expected))


def test_factors_of_1_change_no_colour():
    assert np.array_equal(np.asarray(jittered(picture(), Jitter((2, 0, 1), (1.0, 1.0, 1.0)))), np.asarray(picture()))


def test_a_brighter_colour():
    pixel = Image.fromarray(np.array([[[100, 200, 250]]], np.uint8))

    brighter = jittered(pixel, Jitter((0, 1, 2), (1.2, 1.0, 1.0)))

    assert np.asarray(brighter).tolist() == [[[120, 240, 255]]]


# ---- points


def test_quarter_turns_are_right_handed():
    x, y, z = np.eye(3)

    np.testing.assert_allclose(rotation(90, 0, 0) @ y, z, atol=1e-12)
    np.testing.assert_allclose(rotation(0, 90, 0) @ z, x, atol=1e-12)
    np.testing.assert_allclose(rotation(0, 0, 90) @ x, y, atol=1e-12)


def test_yaw_comes_first_and_roll_last():
    np.testing.assert_allclose(rotation(90, 0, 90) @ [1, 0, 0], [0, 0, 1], atol=1e-12)


def test_changes_of_points_keep_remission_and_the_given_array():
    points = np.array([[1, 2, 3, 0.5]], np.float32)

    assert flipped(points, 1).tolist() == [[1, -2, 3, 0.5]]
    assert translated(points, (1, 0, -1)).tolist() == [[2, 2, 2, 0.5]]
    assert rotated(points, rotation(0, 0, 180)) == pytest.approx(np.array([[-1, -2, 3, 0.5]]), abs=1e-6)
    assert points.tolist() == [[1, 2, 3, 0.5]]


def test_augmented_clouds_keep_distances_between_points():
    points = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    distances = np.linalg.norm(points[:, None, :3] - points[None, :, :3], axis=2)

    for seed in range(8):
        augmented = PointAugmentation()(points, np.random.default_rng(seed))

        np.testing.assert_allclose(
            np.linalg.norm(augmented[:, None, :3] - augmented[None, :, :3], axis=2), distances, atol=1e-5
        )
        assert np.array_equal(augmented[:, 3], points[:, 3]) and augmented.dtype == np.float32


def test_shares_of_zero_and_one_always_hold():
    points = np.array([[1, 2, 3, 0.5]], np.float32)

    never = PointAugmentation(flip_y=0, share=0)(points, np.random.default_rng(0))
    always = PointAugmentation(flip_x=1, flip_y=1, share=0)(points, np.random.default_rng(0))

    assert never.tolist() == points.tolist() and always.tolist() == [[-1, -2, 3, 0.5]]
