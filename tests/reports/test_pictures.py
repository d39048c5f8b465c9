import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodal.errors import InputError
from xmodal.reports.pictures import heat_map_strips, heated
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

    found = heat_map_strips(run)

    assert [strip["name"] for strip in found["strips"]] == ["what the teacher sees (eye)", "one", "two"]
    assert (found["title"], found["caption"]) == ("Where", "How.")
    with np.load(tmp_path / "maps.npz") as arrays:
        shown = np.clip(np.round(arrays["pictures"]), 0, 255)
        maps = arrays["maps"]
    seen, _, second = (pixels(strip) for strip in found["strips"])
    assert seen.shape == (5, 14, 4) and (found["strips"][0]["width"], found["strips"][0]["height"]) == (14, 5)
    for number in range(3):
        place = slice(5 * number, 5 * number + 4)
        for channel in range(3):
            assert np.array_equal(seen[:, place, channel], shown[number, channel % channels])
        assert np.array_equal(second[:, place, :3], heated(maps[1, number]))
    assert (seen[:, [4, 9], 3] == 0).all()  # nothing between them
    assert "4, 7, 9" in found["strips"][1]["text"]


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = a_run(tmp_path)

    assert heat_map_strips(run) == heat_map_strips(run)


def test_a_brighter_value_is_a_brighter_colour():
    grey = heated(np.linspace(0, 1, 20)).astype(float).mean(axis=-1)

    assert (np.diff(grey) > 0).all()


def test_most_runs_have_none(tmp_path):
    assert heat_map_strips(a_run(tmp_path, facts=None)) is None


def test_a_missing_file_is_a_sentence(tmp_path):
    run = a_run(tmp_path)
    (tmp_path / "maps.npz").unlink()

    with pytest.raises(InputError, match=r"maps.npz is missing, which result.json names"):
        heat_map_strips(run)
