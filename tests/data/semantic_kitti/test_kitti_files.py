import struct

import numpy as np
import pytest
from kitti_bytes import P2, POINTS, TR, WORDS, calibration, words, write_root, write_sequence
from PIL import Image

from xmodal.data.semantic_kitti.files import (
    camera_matrix,
    check,
    inspect,
    open_picture,
    parse_sequences,
    read_calibration,
    read_classes,
    read_cloud,
)
from xmodal.errors import InputError


@pytest.fixture
def root(tmp_path):
    return write_root(tmp_path / "kitti")


def test_bytes_are_read_as_points(tmp_path):
    path = tmp_path / "one.bin"
    path.write_bytes(struct.pack("<8f", 1.5, -2, 3, 0.25, 4, 5, -6, 1))

    assert read_cloud(path).tolist() == [[1.5, -2, 3, 0.25], [4, 5, -6, 1]]


def test_bytes_are_read_as_classes(tmp_path):
    path = tmp_path / "one.label"
    path.write_bytes(bytes([10, 0, 9, 0, 252, 0, 0, 0]))

    assert read_classes(path, 2).tolist() == [1, 1]


def test_the_matrix_of_a_camera_is_p2_times_tr(tmp_path):
    path = tmp_path / "calib.txt"
    path.write_text(calibration())

    # u = 4 - 8 y / x and v = 2 - 8 z / x.
    assert camera_matrix(path).tolist() == [[4, -8, 0, 0], [2, 0, -8, 0], [1, 0, 0, 0]]


def test_the_matrix_includes_the_translations_of_tr_and_p2(tmp_path):
    tr, p2 = [[0, -1, 0, 0.5], [0, 0, -1, 0.25], [1, 0, 0, -0.27]], np.array(P2, float).reshape(3, 4)
    p2[:, 3] = [0.1, 0.2, 0.003]
    path = tmp_path / "calib.txt"
    path.write_text(calibration(p2, tr))

    point = np.array([3.0, 2.0, 1.0])
    in_camera = np.array([-2 + 0.5, -1 + 0.25, 3 - 0.27])
    expected = p2[:, :3] @ in_camera + p2[:, 3]

    np.testing.assert_allclose(camera_matrix(path) @ [*point, 1], expected)


def test_lines_after_an_empty_line_are_not_read(tmp_path):
    path = tmp_path / "calib.txt"
    path.write_text(f"P2: {words(P2)}\n\nTr: not read\n")

    assert list(read_calibration(path)) == ["P2"]


@pytest.mark.parametrize("key", ["P2", "Tr"])
def test_a_calibration_without_p2_or_tr_is_refused(tmp_path, key):
    path = tmp_path / "calib.txt"
    path.write_text("".join(line for line in calibration().splitlines(True) if not line.startswith(key)))

    with pytest.raises(InputError, match=f"has no line '{key}:', and points cannot be projected without it"):
        camera_matrix(path)


@pytest.mark.parametrize("line", ["P2: 1 2 3", "P2: a b c", "nothing"])
def test_a_line_without_twelve_numbers_is_refused(tmp_path, line):
    path = tmp_path / "calib.txt"
    path.write_text(f"P0: {words(P2)}\n{line}\n")

    with pytest.raises(InputError, match="line 2 is '.*': a key, a colon and twelve numbers"):
        camera_matrix(path)


def test_a_calibration_with_infinite_numbers_is_refused(tmp_path):
    path = tmp_path / "calib.txt"
    path.write_text(calibration([float("inf"), *P2[1:]]))

    with pytest.raises(InputError, match="'P2' holds non-finite numbers"):
        camera_matrix(path)


@pytest.mark.parametrize("count", [0, 15, 17])
def test_a_cut_cloud_is_refused(tmp_path, count):
    path = tmp_path / "cut.bin"
    path.write_bytes(b"\0" * count)

    with pytest.raises(InputError, match=f"has {count} bytes: points of 16 bytes each were expected"):
        read_cloud(path)


def test_labels_of_another_length_are_refused(tmp_path):
    path = tmp_path / "odd.label"
    path.write_bytes(b"\0" * 7)

    with pytest.raises(InputError, match="has 7 bytes: 8 were expected, 4 for each of 2 points"):
        read_classes(path, 2)


def test_nonfinite_points_are_refused(tmp_path):
    path = tmp_path / "nan.bin"
    path.write_bytes(struct.pack("<4f", 1, float("nan"), 0, 0))

    with pytest.raises(InputError, match="non-finite points"):
        read_cloud(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="gone.bin cannot be read"):
        read_cloud(tmp_path / "gone.bin")


def test_a_grey_picture_has_three_equal_colours(tmp_path):
    Image.fromarray(np.array([[7, 9]], np.uint8)).save(tmp_path / "grey.png")

    assert np.asarray(open_picture(tmp_path / "grey.png")).tolist() == [[[7, 7, 7], [9, 9, 9]]]


def test_a_file_that_is_not_a_picture_is_refused(tmp_path):
    (tmp_path / "no.png").write_bytes(b"text")

    with pytest.raises(InputError, match="no.png cannot be read as a picture"):
        open_picture(tmp_path / "no.png")


def test_sequences_are_listed_once_and_in_the_given_order():
    assert parse_sequences("8,0-2, 1", "train") == (8, 0, 1, 2)
    assert parse_sequences("", "valid") == ()


def test_malformed_sequences_are_refused():
    with pytest.raises(InputError, match="test is 'all': numbers of sequences were expected"):
        parse_sequences("all", "test")


# ---- a whole folder


def test_the_frames_of_a_complete_folder_are_listed_in_order(root):
    contents = inspect(root)

    assert contents.report.errors == contents.report.warnings == []
    assert [frame.id for frame in contents.frames[0]] == ["00/000000", "00/000001", "00/000002", "00/000003"]
    assert contents.sizes == {0: (4, 8), 8: (4, 8)}
    assert list(contents.matrices) == [0, 8]


def test_the_root_may_be_the_folder_sequences(root):
    assert list(inspect(root / "sequences").frames) == [0, 8]


def test_only_requested_sequences_are_inspected(root):
    (root / "sequences" / "08" / "calib.txt").unlink()

    assert inspect(root, [0]).report.errors == []


def test_frames_of_an_unlabelled_sequence_have_no_labels(root):
    write_sequence(root, 11, labels=None)

    contents = inspect(root)

    assert contents.report.errors == []
    assert [frame.labels for frame in contents.frames[11]] == [None]


@pytest.mark.parametrize(("part", "suffix"), [("labels", "label"), ("image_2", "png")])
def test_different_counts_are_reported_with_a_missing_file(root, part, suffix):
    (root / "sequences" / "00" / part / f"000002.{suffix}").unlink()

    (problem,) = inspect(root).report.errors

    assert f"has 4 clouds in velodyne and 3 files in {part}" in problem and f"{part}/000002.{suffix} is" in problem


def test_a_picture_without_a_cloud_is_reported(root):
    (root / "sequences" / "00" / "velodyne" / "000003.bin").unlink()
    (root / "sequences" / "00" / "labels" / "000003.label").unlink()

    (problem,) = inspect(root).report.errors

    assert "3 clouds in velodyne and 4 files in image_2" in problem and "velodyne/000003.bin is missing" in problem


def test_all_problems_of_a_folder_are_reported_together(root):
    first, second = root / "sequences" / "00", root / "sequences" / "08"
    (first / "velodyne" / "000001.bin").write_bytes(b"\0" * 30)
    (first / "labels" / "000002.label").write_bytes(b"\0" * 5)
    (first / "image_2" / "000003.png").unlink()
    (second / "calib.txt").write_text("P2: 1\n")
    (second / "image_2" / "000000.png").write_bytes(b"no picture")

    errors = "\n".join(check(root).errors)

    for message in (
        "000001.bin has 30 bytes",
        "000002.label has 5 bytes",
        "image_2/000003.png is missing",
        "calib.txt line 1 is 'P2: 1'",
        "image_2/000000.png cannot be read as a picture",
    ):
        assert errors.count(message) == 1


def test_only_the_check_reads_the_content_of_files(root):
    folder = root / "sequences" / "08"
    (folder / "labels" / "000001.label").write_bytes(struct.pack("<6I", 10, 10, 10, 7, 10, 10))
    (folder / "velodyne" / "000000.bin").write_bytes(struct.pack("<24f", *[float("inf")] * 24))

    assert inspect(root).report.errors == []
    errors = "\n".join(check(root).errors)

    assert "holds the class 7 that SemanticKITTI does not have" in errors and "non-finite points" in errors


def test_many_problems_of_a_sequence_are_counted(tmp_path):
    root = write_root(tmp_path, train=9)
    for path in sorted((root / "sequences" / "00" / "velodyne").iterdir()):
        path.write_bytes(b"\0")

    errors = inspect(root).report.errors

    assert len(errors) == 4 and errors[3].startswith("… and 6 more problems in ")


def test_the_check_reads_a_sample_of_a_large_folder(root, monkeypatch):
    monkeypatch.setattr("xmodal.data.semantic_kitti.files.DECODED", 3)

    report = check(root)

    assert report.errors == [] and report.warnings == ["3 of 6 frames, evenly spread, were read to their end."]


def test_an_empty_sequence_is_reported(root):
    (root / "sequences" / "03" / "velodyne").mkdir(parents=True)

    errors = "\n".join(check(root).errors)

    assert "03/calib.txt cannot be read" in errors and "03/velodyne holds no .bin file" in errors


def test_other_folders_are_ignored(tmp_path):
    assert check(tmp_path) is None
    assert "holds no sequence with points. Expected: sequences/00" in inspect(tmp_path).report.errors[0]


def test_the_points_of_kitti_bytes_are_read(root):
    path = root / "sequences" / "00" / "velodyne" / "000000.bin"

    np.testing.assert_allclose(read_cloud(path), POINTS)
    assert len(WORDS) == len(POINTS) and len(TR) == 12


def test_a_picture_of_another_size_than_its_sequence_is_reported(root):
    Image.fromarray(np.zeros((5, 8, 3), np.uint8)).save(root / "sequences" / "00" / "image_2" / "000002.png")

    (problem,) = check(root).errors

    assert "000002.png has 5x8 pixels, the first picture of its sequence 4x8" in problem
