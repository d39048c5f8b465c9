import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodal.errors import InputError
from xmodal.reports.figures.pictures import BACKGROUND, RIGHT_OR_WRONG, class_map_strips, heat_colours, heat_map_strips
from xmodal.reports.read import RunFiles

FACTS = {"file": "maps.npz", "modality": "eye", "names": ["one", "two"], "title": "Where", "caption": "How."}


def a_run(folder: Path, *, channels: int = 1, facts=FACTS) -> RunFiles:
    random = np.random.default_rng(0)
    np.savez(
        folder / "maps.npz",
        pictures=random.uniform(-20, 300, (3, channels, 5, 4)).astype(np.float32),
        labels=np.array([4, 7, 9]),
        maps=random.random((2, 3, 5, 4)),
    )
    return RunFiles(folder, "comparison", {}, {}, {"heat_maps": facts} if facts else {})


def pixels(strip):
    head, _, body = strip["source"].partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_and_maps_become_strips_of_pictures(tmp_path, channels):
    run = a_run(tmp_path, channels=channels)

    content = heat_map_strips(run)

    assert [strip["name"] for strip in content["strips"]] == ["teacher's input (eye)", "one", "two"]
    assert (content["title"], content["caption"]) == ("Where", "How.")
    with np.load(tmp_path / "maps.npz") as arrays:
        shown = np.clip(np.round(arrays["pictures"]), 0, 255)
        maps = arrays["maps"]
    seen, _, second = (pixels(strip) for strip in content["strips"])
    assert seen.shape == (5, 14, 4) and (content["strips"][0]["width"], content["strips"][0]["height"]) == (14, 5)
    for number in range(3):
        place = slice(5 * number, 5 * number + 4)
        for channel in range(3):
            assert np.array_equal(seen[:, place, channel], shown[number, channel % channels])
        assert np.array_equal(second[:, place, :3], heat_colours(maps[1, number]))
    assert (seen[:, [4, 9], 3] == 0).all()  # transparent gaps between them
    assert "4, 7, 9" in content["strips"][1]["text"]


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = a_run(tmp_path)

    assert heat_map_strips(run) == heat_map_strips(run)


def test_a_brighter_value_is_a_brighter_colour():
    grey = heat_colours(np.linspace(0, 1, 20)).astype(float).mean(axis=-1)

    assert (np.diff(grey) > 0).all()


def test_most_runs_have_none(tmp_path):
    assert heat_map_strips(a_run(tmp_path, facts=None)) is None


def test_a_missing_file_is_refused(tmp_path):
    run = a_run(tmp_path)
    (tmp_path / "maps.npz").unlink()

    with pytest.raises(InputError, match=r"maps.npz is missing, but result.json refers to it"):
        heat_map_strips(run)


CLASSES = {"file": "frames.npz", "picture": "eye", "ignore": 0, "class_names": ["none", "road", "car"]}
CLASSES |= {"title": "Frames", "caption": "How."}
PALETTE = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 255]], np.uint8)


def a_run_with_classes(folder: Path, **changes) -> RunFiles:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (2, 4, 6)).astype(np.uint8)
    content = {
        "pictures": random.integers(0, 256, (2, 3, 4, 6)).astype(np.uint8),
        "labels": labels,
        "names": np.array(["one", "two"]),
        "maps": np.stack([labels, 2 - labels]).astype(np.uint8),
        "palette": PALETTE,
        "frames": np.array(["08/000000", "08/000007"]),
    }
    np.savez(folder / "frames.npz", **content | changes)
    return RunFiles(folder, "comparison", {}, {}, {"class_maps": CLASSES})


def test_classes_of_pixels_become_strips_with_their_errors(tmp_path):
    run = a_run_with_classes(tmp_path)
    with np.load(tmp_path / "frames.npz") as arrays:
        labels = arrays["labels"]

    content = class_map_strips(run)

    names = ["eye", "labels", "one", "one, errors", "two", "two, errors"]
    assert [strip["name"] for strip in content["strips"]] == names and "08/000007" in content["strips"][1]["text"]
    shown, entry, one_errors, two, two_errors = (pixels(strip)[:, :6, :3] for strip in content["strips"][1:])
    labelled = labels[0] == 1
    assert (shown[labelled] == PALETTE[1]).all() and (shown[~labelled] == BACKGROUND).all()
    assert np.array_equal(entry, PALETTE[labels[0]]) and np.array_equal(two, PALETTE[2 - labels[0]])
    for errors, wrong in ((one_errors, 0), (two_errors, 0)):  # all labelled pixels are road, and both predict road
        assert (errors[labelled] == RIGHT_OR_WRONG[wrong]).all() and (errors[~labelled] == BACKGROUND).all()


def test_wrong_pixels_have_another_colour_than_right_ones(tmp_path):
    labels = np.ones((1, 1, 2), np.uint8)
    predictions = np.array([[[[1, 2]]]], np.uint8)
    run = a_run_with_classes(
        tmp_path,
        pictures=np.zeros((1, 3, 1, 2), np.uint8),
        labels=labels,
        names=np.array(["a"]),
        maps=predictions,
        frames=np.array(["x"]),
    )

    errors = pixels(class_map_strips(run)["strips"][-1])

    assert errors[0, :, :3].tolist() == RIGHT_OR_WRONG.tolist()


def test_the_legend_names_the_shown_classes(tmp_path):
    content = class_map_strips(a_run_with_classes(tmp_path))

    assert [entry["name"] for entry in content["legend"]] == ["none", "road", "car"]
    assert [entry["colour"] for entry in content["legend"]] == ["#000000", "#804080", "#0000ff"]


def test_a_run_without_class_maps_has_no_strips_and_a_missing_file_is_refused(tmp_path):
    assert class_map_strips(RunFiles(tmp_path, "comparison", {}, {}, {})) is None
    with pytest.raises(InputError, match="frames.npz is missing"):
        class_map_strips(RunFiles(tmp_path, "comparison", {}, {}, {"class_maps": CLASSES}))
