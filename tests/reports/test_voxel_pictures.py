import json

import numpy as np
import pytest

from xmodal.errors import InputError
from xmodal.reports.figures.pictures import BACKGROUND
from xmodal.reports.figures.voxels import EDGE, FRONT, depth_greys, draw_room, scene_strips
from xmodal.reports.read import RunFiles

PALETTE = np.array([(0, 0, 0), (10, 10, 10), (100, 200, 50), (200, 0, 0)], np.uint8)
NAMES = ["empty", "ceiling", "floor", "chair"]


def test_a_voxel_has_a_bright_top_above_a_darker_front():
    picture = draw_room(np.full((1, 1, 1), 2), PALETTE, side=2)

    top, front = [100, 200, 50], [82, 164, 41]
    assert picture.tolist() == [[top, top], [front, front], [front, front]]
    assert round(FRONT * 100) == 82


def test_a_nearer_voxel_hides_a_farther_one_and_an_upper_one_the_top_below():
    room = np.zeros((2, 2, 1), int)
    room[0, 0] = 2  # near, below
    room[1, :] = 3  # far, both
    picture = draw_room(room, PALETTE, side=2)

    # from the bottom: front and top of the near voxel, then the visible part of the far ones
    assert [pixel.tolist() for pixel in picture[::-1, 0]] == [
        [82, 164, 41],
        [82, 164, 41],
        [100, 200, 50],
        [164, 0, 0],
        [164, 0, 0],
        [200, 0, 0],
    ]


def test_rows_to_the_right_stand_to_the_right():
    room = np.zeros((1, 1, 3), int)
    room[0, 0, 2] = 3

    picture = draw_room(room, PALETTE, side=2)

    assert (picture[:, :4] == BACKGROUND).all() and (picture[:, 4:] != BACKGROUND).all()


def test_hidden_classes_are_not_drawn_and_large_voxels_have_edges():
    room = np.full((1, 1, 1), 1)

    assert (draw_room(room, PALETTE, hidden=[0, 1]) == BACKGROUND).all()
    large = draw_room(np.full((1, 1, 1), 2), PALETTE, side=6)
    assert large[-1, 0].tolist() == np.round(EDGE * PALETTE[2]).tolist()


def test_near_is_bright_and_missing_is_dark():
    assert depth_greys(np.array([[[1.0, 4.0, 0.0]]]))[0, 0].tolist() == [[255] * 3, [128] * 3, [0] * 3]


def written(folder, *, depths=True):
    rooms = np.random.default_rng(0).integers(0, 4, (2, 3, 2, 4)).astype(np.uint8)
    rooms[0, 0, 0, 0] = 255
    arrays = {"depths": np.ones((2, 4, 6))} if depths else {}
    np.savez(
        folder / "scenes.npz",
        pictures=np.zeros((2, 3, 4, 6), np.uint8),
        labels=rooms,
        names=np.array(["teacher", "kd"]),
        maps=np.stack([rooms % 4, rooms % 3]),
        palette=PALETTE,
        frames=np.array(["NYU0001_0000", "NYU0002_0000"]),
        **arrays,
    )
    result = {"scenes": {"file": "scenes.npz", "title": "Rooms", "caption": "Seen.", "class_names": NAMES}}
    (folder / "result.json").write_text(json.dumps(result))
    return RunFiles(folder, "comparison", {}, {}, result)


def test_a_run_with_rooms_has_strips_of_pictures_labels_and_predictions(tmp_path):
    content = scene_strips(written(tmp_path))

    assert [strip["name"] for strip in content["strips"]] == [
        "colours",
        "depth, near is bright",
        "ground truth",
        "teacher",
        "kd",
    ]
    assert [entry["name"] for entry in content["legend"]] == ["floor", "chair"]
    assert all(strip["source"].startswith("data:image/png;base64,") for strip in content["strips"])
    assert "NYU0002_0000" in content["strips"][0]["text"]


def test_without_depths_there_is_no_strip_of_them_and_without_rooms_there_are_none(tmp_path):
    run = written(tmp_path, depths=False)

    assert [strip["name"] for strip in scene_strips(run)["strips"]][1] == "ground truth"
    run.result.clear()
    assert scene_strips(run) is None


def test_a_missing_file_is_named(tmp_path):
    run = written(tmp_path)
    (tmp_path / "scenes.npz").unlink()

    with pytest.raises(InputError, match="scenes.npz is missing"):
        scene_strips(run)
