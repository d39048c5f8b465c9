"""LiDAR alone: scans without pictures are read, scored and predicted, and what is missing is named."""

import json
import shutil

import numpy as np
import pytest
import torch
from kitti_bytes import HEIGHT, POINTS, WIDTH, WORDS, write_sequence

from xmodal.cli.main import answer
from xmodal.data import open_data
from xmodal.data.semantic_kitti.files import CAMERAS, inspect
from xmodal.errors import InputError
from xmodal.models.network import build_for
from xmodal.models.student_file import save_student
from xmodal.recipes.semantic_kitti import experiment
from xmodal.recipes.semantic_kitti.settings import Settings

# the pictures of the made camera have 4 x 8 pixels; samples are padded to the smallest that the networks read
SMALL = {
    "height": 16,
    "width": 16,
    "train_height": 16,
    "train_width": 16,
    "pad_rows": 0,
    "pad_cols": 0,
    "augment": False,
}
SIZE = {"picture_height": HEIGHT, "picture_width": WIDTH}
RANGE = {"view": "range", "range_height": 16, "range_width": 32}


@pytest.fixture
def root(tmp_path):
    """Two drives as they are published."""
    for number in (0, 8):
        write_sequence(tmp_path / "whole", number, frames=2)
    return tmp_path / "whole"


def without(root, *parts):
    """A copy of the drives that lacks these files or folders."""
    copy = root.with_name("-".join(["without", *parts]))
    shutil.copytree(root, copy)
    for folder in (copy / "sequences").iterdir():
        for part in parts:
            shutil.rmtree(folder / part) if (folder / part).is_dir() else (folder / part).unlink()
    return copy


def lidar_of(root, **options):
    data = open_data("semantic-kitti", options={"root": str(root), **SMALL, **options})
    return data, np.asarray(data.test.columns["lidar"][np.arange(4)])


def test_the_cameras_view_of_lidar_alone_needs_no_pictures(root):
    _, seen = lidar_of(root, modalities=["lidar"])

    data, alone = lidar_of(without(root, "image_2"), modalities=["lidar"], **SIZE)

    assert np.array_equal(seen, alone) and (alone != 0).any() and data.info.modalities == ("lidar",)


def test_without_any_picture_lidar_is_what_there_is(root):
    data, _ = lidar_of(without(root, "image_2"), **SIZE)

    assert data.info.modalities == ("lidar",)
    assert any("no pictures (image_2): LiDAR alone is read" in warning for warning in data.warnings)


def test_the_range_view_needs_neither_pictures_nor_calibration(root):
    _, seen = lidar_of(root, **RANGE)

    _, alone = lidar_of(without(root, "image_2", "calib.txt"), **RANGE)

    assert np.array_equal(seen, alone) and (alone != 0).any()


def test_what_is_missing_is_named_in_one_sentence(root):
    folder = without(root, "image_2")
    with pytest.raises(InputError, match="0 files in image_2: one of each .* image_2/000000.png is missing"):
        lidar_of(folder, modalities=["lidar", "image"])
    with pytest.raises(
        InputError, match="focal length of 8 pixels, which is none of KITTI's, .* --semantic-kitti.picture"
    ):
        lidar_of(folder)
    with pytest.raises(InputError, match="calib.txt cannot be read"):
        lidar_of(without(root, "calib.txt"), modalities=["lidar"])
    shutil.rmtree(root / "sequences" / "08" / "image_2")
    with pytest.raises(InputError, match="08 has 2 clouds in velodyne and 0 files in image_2"):
        lidar_of(root)


def test_pictures_of_kittis_own_cameras_have_a_known_size(tmp_path):
    for number, (focal, size) in enumerate(CAMERAS.items()):
        folder = write_sequence(tmp_path, number, p2=[focal, 0, 607.2, 0, 0, focal, 185.2, 0, 0, 0, 1, 0])
        shutil.rmtree(folder / "image_2")

        assert inspect(tmp_path, pictures=False).sizes[number] == size


def test_an_experiment_with_a_camera_says_that_pictures_are_missing(root):
    options = {"root": str(without(root, "image_2")), **SMALL, **SIZE}
    with pytest.raises(InputError, match=r"has no pictures \(image_2\), and the camera network teaches the lidar"):
        experiment.run(Settings(options={"semantic-kitti": options}))


@pytest.fixture
def student(root, tmp_path):
    """An untrained student of the camera's view, in a file."""
    data = open_data("semantic-kitti", options={"root": str(root), "modalities": ["lidar"], **SMALL})
    torch.manual_seed(0)
    network = build_for(data.info, ("lidar",), encoder="salsanext", width=2)
    return save_student(tmp_path / "student" / "student.safetensors", network, data.info)


def test_a_scan_gets_the_words_that_the_scoring_of_its_drive_writes(root, student, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drive = without(root, "image_2")
    options = [f"--semantic-kitti.{name.replace('_', '-')}={value}" for name, value in SIZE.items()]
    scan, calib = drive / "sequences/08/velodyne/000001.bin", drive / "sequences/08/calib.txt"

    assert answer(["predict", str(student), str(scan), "--calib", str(calib), *options, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    small = [
        f"--semantic-kitti.{name.replace('_', '-')}={value}" for name, value in SMALL.items() if value is not False
    ]
    scored = [
        "evaluate",
        str(student),
        "semantic-kitti",
        "--semantic-kitti.root",
        str(drive),
        *options,
        *small,
        "--semantic-kitti.no-augment",
    ]
    assert answer(scored) == 0

    (written,) = tmp_path.glob("student/preds/**/08/predictions/000001.label")
    assert (tmp_path / "000001.label").read_bytes() == written.read_bytes()
    assert result["points"] == len(POINTS) == len(WORDS) and result["outside"] == 2
    assert sum(result["classes"].values()) == len(POINTS) - 2


def test_a_scan_without_calibration_is_one_of_the_range_view(root, student, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scan = root / "sequences/08/velodyne/000001.bin"

    assert answer(["predict", str(student), str(scan), "--out", "seen.label", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["outside"] == 0
    assert (tmp_path / "seen.label").stat().st_size == 4 * len(POINTS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none.bin"], "none.bin cannot be read"),
        (["{scan}", "--calib", "none.txt"], "none.txt cannot be read"),
        (["{scan}", "--semantic-kitti.view", "perspective"], "add --calib calib.txt"),
        (["{scan}", "--out", "seen.npz"], "go into a .label file"),
        (["{root}", "--calib", "none.txt"], "--calib belongs to a LiDAR scan"),
    ],
)
def test_a_scan_that_cannot_be_predicted_is_refused(words, sentence, root, student, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"scan": root / "sequences/08/velodyne/000001.bin", "root": root}

    assert answer(["predict", str(student), *(word.format(**places) for word in words)]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
