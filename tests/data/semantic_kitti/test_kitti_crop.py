import os

import numpy as np
import pytest
from kitti_bytes import POINTS, WORDS, write_root, write_sequence

from xmodal.data import open_data
from xmodal.data.semantic_kitti.crop import prepare
from xmodal.data.semantic_kitti.files import camera_matrix, check, read_cloud, read_words
from xmodal.data.semantic_kitti.projection import camera_pixels
from xmodal.data.semantic_kitti.synthetic import make
from xmodal.errors import InputError


@pytest.fixture
def raw(tmp_path):
    root = write_root(tmp_path / "raw")
    (root / "sequences" / "00" / "poses.txt").write_text("1 0 0\n")
    return root


def files(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".prepared" not in path.parts and path.name != "skipped.json"
    }


def test_clouds_and_labels_are_cropped_and_other_files_unchanged(raw, tmp_path):
    prepared = prepare(raw, tmp_path / "fov")

    before, after = files(raw), files(tmp_path / "fov")
    assert before.keys() == after.keys() and len(prepared.done) == 6
    folder = tmp_path / "fov" / "sequences" / "00"
    np.testing.assert_allclose(read_cloud(folder / "velodyne" / "000000.bin"), [POINTS[n] for n in (0, 1, 4, 5)])
    assert read_words(folder / "labels" / "000000.label", 4).tolist() == [WORDS[n] for n in (0, 1, 4, 5)]
    assert all(after[name] == before[name] for name in before if "velodyne" not in name and "labels" not in name)


def test_all_points_of_the_copy_are_in_the_picture(tmp_path):
    raw = make(tmp_path / "raw", sequences="0,8", frames=2, width=160, height=48, beams=16, turns=128)

    prepare(raw, tmp_path / "fov")

    for path in (tmp_path / "fov").rglob("*.bin"):
        points, matrix = read_cloud(path), camera_matrix(path.parents[1] / "calib.txt")
        assert len(camera_pixels(points, matrix, height=48, width=160).number) == len(points) > 50
    assert check(tmp_path / "fov").errors == []


def test_the_copy_gives_the_same_samples_as_the_original(tmp_path):
    raw = make(tmp_path / "raw", sequences="0,8", frames=3, width=160, height=48, beams=16, turns=128)
    prepare(raw, tmp_path / "fov")
    original, copy = (open_data("semantic-kitti", options={"root": folder}) for folder in (raw, tmp_path / "fov"))

    for original_frame, copied_frame in zip(original.train.frames.frames, copy.train.frames.frames, strict=True):
        assert original_frame.id == copied_frame.id
    for number in range(len(original.train.frames)):
        for field in ("row", "col", "label", "features"):
            assert np.array_equal(original.train.frames.points(number)[field], copy.train.frames.points(number)[field])


def test_workers_give_the_same_bytes(raw, tmp_path):
    prepare(raw, tmp_path / "one")
    prepare(raw, tmp_path / "two", workers=2)

    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_second_run_writes_only_changed_and_missing_frames(raw, tmp_path):
    prepare(raw, tmp_path / "fov")
    path = raw / "sequences" / "00" / "labels" / "000002.label"
    path.write_bytes(bytes([70, 0, 0, 0]) * 6)
    (tmp_path / "fov" / "sequences" / "08" / "velodyne" / "000001.bin").unlink()

    again = prepare(raw, tmp_path / "fov")

    assert again.done == ["00_000002", "08_000001"] and len(again.reused) == 4
    assert read_words(tmp_path / "fov" / "sequences" / "00" / "labels" / "000002.label", 4).tolist() == [70] * 4


def test_pictures_are_linked_or_copied(raw, tmp_path):
    name = "sequences/00/image_2/000000.png"
    for images, same in (("link", True), ("copy", False)):
        # Twice: the second run keeps existing files.
        for _ in range(2):
            prepare(raw, tmp_path / images, images=images)

        assert os.path.samefile(raw / name, tmp_path / images / name) == same
        assert (raw / name).read_bytes() == (tmp_path / images / name).read_bytes()


def test_a_file_system_without_links_gets_copies(raw, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("not here")

    monkeypatch.setattr(os, "link", refuse)
    prepare(raw, tmp_path / "fov")

    assert files(tmp_path / "fov").keys() == files(raw).keys()


def test_sequences_can_be_chosen_and_may_be_unlabelled(raw, tmp_path):
    write_sequence(raw, 11, labels=None)

    prepare(raw, tmp_path / "fov", sequences="8-21")

    assert sorted(path.name for path in (tmp_path / "fov" / "sequences").iterdir()) == ["08", "11"]
    assert not (tmp_path / "fov" / "sequences" / "11" / "labels").exists()


def test_x_min_removes_points_near_the_scanner(raw, tmp_path):
    prepare(raw, tmp_path / "fov", x_min=6.0)

    cloud = read_cloud(tmp_path / "fov" / "sequences" / "08" / "velodyne" / "000000.bin")
    assert cloud[:, 0].tolist() == [8, 16, 8]


def test_a_frame_without_visible_points_is_skipped(tmp_path):
    raw = write_root(tmp_path / "raw", test=1)
    write_sequence(raw, 8, points=[(-1.0, 0.0, 0.0, 0.5)], labels=[10])

    prepared = prepare(raw, tmp_path / "fov")

    assert [name for name, _ in prepared.skipped] == ["08_000000"] and len(prepared.done) == 4
    assert not (tmp_path / "fov" / "sequences" / "08" / "image_2").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sequences": "5"}, "none of the sequences 5"), ({"images": "move"}, "images is 'move'")],
)
def test_wrong_options_are_refused(raw, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        prepare(raw, tmp_path / "fov", **options)


def test_the_raw_folder_is_not_written_to(raw):
    with pytest.raises(InputError, match="is the folder of the raw files"):
        prepare(raw, raw)


def test_problems_of_the_raw_files_are_reported_before_anything_is_written(raw, tmp_path):
    (raw / "sequences" / "00" / "calib.txt").unlink()

    with pytest.raises(InputError, match="calib.txt cannot be read"):
        prepare(raw, tmp_path / "fov")
    assert not (tmp_path / "fov").exists()
