import numpy as np
import pytest
from PIL import Image

from xmodal.data.mnist.backgrounds import GRIDS, MAX_SIDE, blend, compose, cut, find_pictures, read_pictures, textures
from xmodal.errors import InputError

RANDOM = np.random.default_rng(0)


def digits(count):
    return RANDOM.integers(0, 3, (count, 28, 28)).astype(np.uint8)


def pictures():
    return [RANDOM.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((29, 40), (64, 30), (100, 100))]


def test_blended_digits_are_absolute_differences_of_patch_and_ink():
    ink, patches = digits(20), RANDOM.integers(0, 256, (20, 3, 28, 28)).astype(np.uint8)

    found = compose(ink, patches)

    slow = np.abs(patches.astype(float) - 255.0 * (ink[:, None] > 0)).astype(np.uint8)
    assert np.array_equal(found, slow)


def test_a_patch_is_cut_at_its_corner_with_channels_first():
    some = pictures()

    found = cut(some, np.array([2, 0, 2]), np.array([5, 0, 71]), np.array([7, 11, 71]))

    for patch, (number, top, left) in zip(found, [(2, 5, 7), (0, 0, 11), (2, 71, 71)], strict=True):
        expected = some[number][top : top + 28, left : left + 28].transpose(2, 0, 1)
        assert np.array_equal(patch, expected)


def test_what_a_digit_gets_depends_on_seed_part_and_number_alone():
    ink, some = np.zeros((40, 28, 28), np.uint8), pictures()

    whole = blend(ink, some, seed=1, part=0)

    assert np.array_equal(blend(ink[:10], some, seed=1, part=0, first=25), whole[25:35])
    assert not np.array_equal(blend(ink, some, seed=2, part=0), whole)
    assert not np.array_equal(blend(ink, some, seed=1, part=1), whole)


def test_all_pictures_and_places_are_used_alike():
    some = [np.full((60, 60, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    some.append(np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None] + 100, (60, 60, 3)))

    found = blend(np.zeros((4000, 28, 28), np.uint8), some, seed=0, part=0)[:, 0, 0, 0]

    tops = found[found >= 100] - 100
    assert np.bincount(np.minimum(found, 100) // 10, minlength=11)[[1, 2, 3, 4, 10]] == pytest.approx(800, abs=110)
    assert tops.min() == 0 and tops.max() == 31  # 0 to height - 29, as published


def test_textures_use_the_whole_range_and_are_smooth():
    found = np.stack(textures(3, count=6, side=50))

    assert found.shape == (6, 50, 50, 3) and found.dtype == np.uint8
    assert (found.min(axis=(1, 2)) == 0).all() and (found.max(axis=(1, 2)) == 255).all()
    assert np.abs(np.diff(found.astype(int), axis=1)).max() < 128
    assert not np.array_equal(found[..., 0], found[..., 1])
    assert np.array_equal(np.stack(textures(3, count=6, side=50)), found)
    assert not np.array_equal(np.stack(textures(4, count=6, side=50)), found)


def test_a_texture_is_a_sum_of_interpolated_grids():
    random = np.random.default_rng([9, 2, 40])
    grids = [(random.random((2, 3, points, points)), weight) for points, weight in GRIDS]

    total = np.zeros((40, 40))
    for grid, weight in grids:  # point by point, for the second channel of the first picture
        points = grid.shape[-1]
        for y in range(40):
            for x in range(40):
                v, u = y * (points - 1) / 39, x * (points - 1) / 39
                i, j = min(int(v), points - 2), min(int(u), points - 2)
                corner = grid[0, 1, i : i + 2, j : j + 2]
                total[y, x] += weight * (np.array([1 - v + i, v - i]) @ corner @ np.array([1 - u + j, u - j]))
    stretched = np.round(255 * (total - total.min()) / (total.max() - total.min()))

    assert np.abs(textures(9, count=2, side=40)[0][..., 1] - stretched).max() <= 1  # rounding at halves


def test_pictures_come_in_the_order_of_their_names_and_bad_ones_are_named(tmp_path):
    for name, size in (("b.png", (40, 30)), ("a.jpg", (50, 50)), ("small.png", (28, 60)), ("wide.png", (2000, 300))):
        Image.new("RGB", size, (1, 2, 3)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("mine")

    paths = find_pictures(tmp_path)
    found, problems = read_pictures(paths)

    assert [path.name for path in paths] == ["a.jpg", "b.png", "broken.png", "small.png", "wide.png"]
    assert [picture.shape for picture in found] == [(50, 50, 3), (30, 40, 3), (77, MAX_SIDE, 3)]
    assert len(problems) == 2 and "29x29" in problems[1] and "28x60" in problems[1]


def test_a_folder_without_use_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        find_pictures(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        find_pictures(tmp_path / "nowhere")
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="None of the backgrounds") as caught:
        read_pictures(find_pictures(tmp_path))
    assert "a.png is left out" in caught.value.problems[1]
