import os

import numpy as np
import pytest
from kitti_bytes import POINTS, write_frame, write_root

from xmodal.data.semantic_kitti.augment import PointAugmentation
from xmodal.data.semantic_kitti.files import inspect
from xmodal.data.semantic_kitti.frames import POINT, Frames, Rules
from xmodal.errors import InputError


@pytest.fixture
def root(tmp_path):
    return write_root(tmp_path / "kitti")


def frames_of(root, rules=None, **options):
    contents = inspect(root)
    assert contents.report.errors == []
    return Frames(
        [frame for part in contents.frames.values() for frame in part], contents.matrices, rules or Rules(), **options
    )


def listed(points):
    return [tuple(int(point[name]) for name in ("number", "row", "col", "label")) for point in points]


def test_points_of_a_picture_are_drawn_from_far_to_near(root):
    points = frames_of(root).points(0)

    # Number, row, column, class: the building is drawn before the car, which then hides it.
    assert listed(points)[0] == (4, 2, 3, 13)
    assert sorted(listed(points)) == [(0, 2, 3, 1), (1, 2, 6, 9), (4, 2, 3, 13), (5, 0, 3, 15)]
    assert points["features"][-1] == pytest.approx([np.sqrt(17.0625), *POINTS[1]])


def test_the_rule_file_draws_points_in_the_order_of_the_file(root):
    points = frames_of(root, Rules(duplicates="file")).points(0)

    assert points["number"].tolist() == [0, 1, 4, 5]


def test_stored_points_have_a_pixel_a_range_and_a_class(root):
    stored = frames_of(root).stored(0)

    assert stored.seen.tolist() == [True, True, False, False, True, True]
    assert stored.row.tolist() == [2, 2, 0, 0, 2, 0] and stored.col.tolist() == [3, 6, 0, 0, 3, 3]
    assert stored.labels.tolist() == [1, 9, 17, 6, 13, 15] and stored.size == (4, 8)
    np.testing.assert_allclose(stored.range, np.linalg.norm(np.array(POINTS)[:, :3], axis=1), rtol=1e-6)


def test_frames_without_labels_are_unlabeled(tmp_path):
    root = write_root(tmp_path, labels=None)

    assert frames_of(root).stored(0).labels.tolist() == [0] * 6


def test_frames_are_kept_in_memory_up_to_the_limit(root):
    keeping, forgetting = frames_of(root), frames_of(root, keep_bytes=0)
    for frames in (keeping, forgetting):
        frames.points(0), frames.picture(0)
    (root / "sequences" / "00" / "velodyne" / "000000.bin").unlink()

    assert keeping.points(0) is keeping.points(0) and len(keeping.points(0)) == 4
    with pytest.raises(InputError, match="000000.bin cannot be read"):
        forgetting.points(0)


# ---- cache


def cached_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.npy"))


def test_cached_points_equal_projected_ones(root, tmp_path):
    fresh = frames_of(root)
    first, second = (frames_of(root, cache=tmp_path / "cache", keep_bytes=0) for _ in range(2))

    for number in range(len(fresh)):
        computed, loaded = first.points(number), second.points(number)

        assert np.array_equal(computed, fresh.points(number)) and np.array_equal(loaded, computed)
        assert isinstance(loaded, np.memmap) and loaded.dtype == POINT
    assert [name.split("-")[0] for name in cached_files(tmp_path / "cache")] == [
        *(f"00/00000{number}" for number in range(4)),
        *(f"08/00000{number}" for number in range(2)),
    ]


def test_cached_pictures_equal_those_of_the_files(root, tmp_path):
    fresh = frames_of(root)
    for _ in range(2):
        frames = frames_of(root, cache=tmp_path / "cache", cache_pictures=True, keep_bytes=0)

        assert np.array_equal(np.asarray(frames.picture(1)), np.asarray(fresh.picture(1)))
    assert len(cached_files(tmp_path / "cache")) == 1


def test_a_changed_file_is_projected_again(root, tmp_path):
    frames = frames_of(root, cache=tmp_path / "cache", keep_bytes=0)
    frames.points(0)

    write_frame(root / "sequences" / "00", "000000", POINTS[:2], [10, 10], np.zeros((4, 8, 3)))

    assert listed(frames.points(0)) == [(0, 2, 3, 1), (1, 2, 6, 1)]


def test_a_file_of_the_same_size_and_another_time_is_projected_again(root, tmp_path):
    frames = frames_of(root, cache=tmp_path / "cache", keep_bytes=0)
    frames.points(0)
    path = root / "sequences" / "00" / "labels" / "000000.label"

    path.write_bytes(b"\x0a\0\0\0" * len(POINTS))
    os.utime(path, (1, 1))

    assert set(frames.points(0)["label"].tolist()) == {1}


@pytest.mark.parametrize(
    "rules", [Rules(duplicates="file"), Rules(x_min=5.0), Rules(behind=True), Rules(view="range")], ids=repr
)
def test_other_rules_have_other_files(root, tmp_path, rules):
    for used in (Rules(), rules):
        frames = frames_of(root, used, cache=tmp_path / "cache", keep_bytes=0)

        assert np.array_equal(frames.points(0), frames_of(root, used).points(0))
    assert len(cached_files(tmp_path / "cache")) == 2


def test_another_calibration_has_other_files(root, tmp_path):
    frames_of(root, cache=tmp_path / "cache").points(0)
    calibration = root / "sequences" / "00" / "calib.txt"
    calibration.write_text(calibration.read_text().replace("P2: 8.0", "P2: 4.0"))

    points = frames_of(root, cache=tmp_path / "cache").points(0)

    assert np.array_equal(points, frames_of(root).points(0)) and len(cached_files(tmp_path / "cache")) == 2


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"text"])
def test_a_damaged_cached_file_is_computed_again(root, tmp_path, damage):
    expected = frames_of(root, cache=tmp_path / "cache").points(0)
    (path,) = (tmp_path / "cache" / "00").iterdir()
    path.write_bytes(damage)

    assert np.array_equal(frames_of(root, cache=tmp_path / "cache").points(0), expected)
    assert np.array_equal(np.load(path, allow_pickle=False), expected)


# ---- range view


RANGE = Rules(view="range", height=16, width=32, field=(30.0, -30.0, -60.0, 60.0))


def test_all_points_have_a_pixel_in_the_range_view(root):
    frames = frames_of(root, RANGE)

    assert frames.size(0) == (16, 32) and frames.stored(0).seen.all() and len(frames.points(0)) == len(POINTS)


def test_lose_first_empties_the_pixel_of_the_first_point(root):
    published = Rules(**{**vars(RANGE), "lose_first": True})
    default, published_points = (frames_of(root, rules).points(0) for rules in (RANGE, published))
    pixels = [(point["row"], point["col"]) for point in default if point["number"] == 0]

    assert pixels == [(point["row"], point["col"]) for point in default if point["number"] == 4]  # behind it
    assert len(published_points) == len(default) - 2 and pixels[0] not in [
        (point["row"], point["col"]) for point in published_points
    ]


def test_augmented_clouds_are_projected_after_the_augmentation(root):
    frames = frames_of(root, RANGE)
    mirror = PointAugmentation(flip_y=1.0, share=0.0)

    changed, plain = frames.augmented(0, mirror, np.random.default_rng(0)), frames.points(0)

    assert np.array_equal(np.sort(changed["features"][:, 2]), np.sort(-plain["features"][:, 2]))
    assert np.array_equal(frames.points(0), plain)
