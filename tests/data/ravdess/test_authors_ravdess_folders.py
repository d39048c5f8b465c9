"""Prepared RAVDESS folders as they lie on disks: sub-folders, integers, overlapping lists, sound alone."""

import shutil

import numpy as np
import pytest
from PIL import Image

from xmodal.cli.main import answer
from xmodal.data import open_data
from xmodal.data.ravdess.check import check, inspect
from xmodal.data.ravdess.files import prepare
from xmodal.errors import InputError

LISTS = ("spa_dl.csv", "spa_val.csv", "spa_test.csv")


@pytest.fixture
def root(tmp_path):
    """The layout of the authors, with the folders of the archive: every actor has a clip called x of each emotion."""
    folder, random = tmp_path / "root", np.random.default_rng(0)
    (folder / "data_file").mkdir(parents=True)
    for actor, name in enumerate(LISTS, start=1):
        lines = []
        for part in ("aud_features", "vid_features"):
            (folder / part / f"Actor_0{actor}").mkdir(parents=True)
        for label in range(8):
            clip = f"Actor_0{actor}/x{label}"
            np.save(folder / "aud_features" / f"{clip}.npy", random.normal(size=(20, 24)).astype(np.float32))
            pixels = random.integers(0, 256, (10, 12, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "vid_features" / f"{clip}.png")
            lines.append(f"{clip}.npy,{clip}.png,{label}\n")
        (folder / "data_file" / name).write_text("".join(lines))
    return folder


def opened(root, **options):
    return open_data("ravdess", options={"root": str(root), **options})


def test_names_with_sub_folders_are_different_clips_of_the_actors_that_the_folders_name(root):
    data = opened(root)

    assert check(root).errors == check(root).warnings == []
    for split, actor in (("train", 1), ("valid", 2), ("test", 3)):
        rows = data.split(split).numbers["audio"]
        assert len(rows) == 8 and data.groups[rows].tolist() == [actor] * 8
    stored = np.load(root / "aud_features" / "Actor_03" / "x5.npy")
    assert np.array_equal(data.test.columns["audio"][data.test.numbers["audio"][5:6]][0, 0], stored)


@pytest.mark.parametrize("name", ["../x1.npy", "Actor_01/../../x1.npy", "/etc/x1.npy", ""])
def test_names_that_lead_out_of_the_folder_are_refused(name, root):
    path = root / "data_file" / "spa_dl.csv"
    path.write_text(path.read_text().replace("Actor_01/x1.npy", name))
    (root / "x1.npy").write_bytes((root / "aud_features" / "Actor_01" / "x1.npy").read_bytes())

    (error,) = check(root).errors

    assert f"spa_dl.csv line 2 names '{name}': a file in aud_features, without .., was expected" in error


def test_integers_are_read_as_they_are_with_a_warning_whichever_file_comes_first(root):
    whole = np.arange(20 * 24, dtype=np.int16).reshape(20, 24) - 100
    np.save(root / "aud_features" / "Actor_01" / "x0.npy", whole)

    data = opened(root)

    audio = data.train.columns["audio"][:8]
    fractions = np.load(root / "aud_features" / "Actor_01" / "x1.npy")
    assert audio.dtype == np.float32 and np.array_equal(audio[0, 0], whole) and np.array_equal(audio[1, 0], fractions)
    assert any("1 files in aud_features hold integers, x0.npy among them" in warning for warning in data.warnings)


def test_a_clip_in_two_lists_is_an_error_unless_it_is_allowed(root):
    path = root / "data_file" / "spa_test.csv"
    path.write_text(path.read_text() + "Actor_01/x2.npy,Actor_01/x2.png,2\n")

    with pytest.raises(InputError, match="Actor_01/x2 is in spa_dl.csv and in spa_test.csv.*--ravdess.allow-overlap"):
        opened(root)
    data = opened(root, allow_overlap=True)

    assert len(data.test.numbers["audio"]) == 9
    assert any("1 clips are in several lists (Actor_01/x2 is in" in warning for warning in data.warnings)


@pytest.mark.parametrize("columns", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_folder_without_pictures_is_one_of_sound_alone(columns, root, tmp_path, capsys):
    shutil.rmtree(root / "vid_features")
    for path in (root / "data_file").iterdir():
        lines = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("".join(",".join([*line[: columns - 1], line[-1]]) + "\n" for line in lines))

    data = opened(root)
    words = f"compare ravdess --ravdess.root {root} --teacher audio --student audio --methods supervised --epochs 1"
    status = answer([*words.split(), "--seeds", "1", "--out", str(tmp_path / "run")])

    assert data.info.modalities == ("audio",) and len(data.train.numbers["audio"]) == 8
    assert check(root).errors == [] and "the sound alone is read" in check(root).warnings[0]
    assert status == 0, capsys.readouterr().err
    assert "no-KD" in capsys.readouterr().out


def test_a_missing_file_is_one_sentence_that_names_it(root):
    (root / "vid_features" / "Actor_02" / "x3.png").unlink()

    with pytest.raises(InputError) as caught:
        opened(root)

    (problem,) = caught.value.problems
    assert problem == "spa_val.csv line 4 names vid_features/Actor_02/x3.png, which is missing."


def test_recordings_of_sound_alone_are_prepared_without_pictures(recordings, tmp_path):
    shutil.copytree(recordings, tmp_path / "raw", ignore=shutil.ignore_patterns("*.mp4"))

    with pytest.raises(InputError, match="Or give --sound-alone"):
        prepare(tmp_path / "raw", tmp_path / "none")
    prepared = prepare(tmp_path / "raw", tmp_path / "root", sound_alone=True)
    both = inspect(tmp_path / "root")

    assert "data prepare ravdess" in check(tmp_path / "raw").warnings[0]
    assert "--sound-alone" in check(tmp_path / "raw").warnings[0]
    assert (tmp_path / "root" / "data_file" / "spa_dl.csv").read_text().startswith("audio,label\n")
    assert both.report.errors == [] and sum(map(len, both.rows.values())) == len(prepared.names)
    assert opened(tmp_path / "root").info.modalities == ("audio",)
