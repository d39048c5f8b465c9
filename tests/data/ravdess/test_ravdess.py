import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from test_ravdess_check import edit, write_root

from xmodal.cli.main import answer
from xmodal.data import DATA, open_data, reopen
from xmodal.data.loader import Pick
from xmodal.data.ravdess.names import EMOTIONS
from xmodal.errors import InputError
from xmodal.models.clips.audio_video import build_ravdess


@pytest.fixture
def root(tmp_path):
    return write_root(tmp_path / "root")


def opened(root, **options):
    return open_data("ravdess", options={"root": str(root), **options})


def batch(split, *rows):
    return split[Pick(dict.fromkeys(("audio", "image"), torch.tensor(rows)), None)]


def test_the_info_describes_modalities_classes_and_sizes(root):
    data = opened(root)

    info = data.info
    assert info.modalities == DATA["ravdess"].modalities == ("audio", "image")
    assert {name: (part.shape, part.layout) for name, part in info.inputs.items()} == {
        "audio": ((1, 20, 24), "image"),
        "image": ((3, 10, 12), "image"),
    }
    assert (info.task, info.classes, info.class_names, info.paired) == ("multiclass", 8, EMOTIONS, True)
    assert dict(info.rows["train"]) == {"audio": 8, "image": 8}
    assert data.valid.targets["audio"] is data.valid.targets["image"]
    assert reopen(data.source).info.normalisation == info.normalisation


def test_a_batch_holds_what_is_in_the_files(root):
    data = opened(root)

    picked = batch(data.test, 5, 2)

    mean, std = data.info.normalisation["audio"].tensors()
    raw = torch.from_numpy(np.load(root / "aud_features" / "test_5.npy"))
    torch.testing.assert_close(picked.inputs["audio"][0], (raw[None] - mean) / std)
    with Image.open(root / "vid_features" / "test_2.jpg") as picture:
        pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1) / 255
    colours = [torch.tensor(part)[:, None, None] for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    torch.testing.assert_close(picked.inputs["image"][1], (pixels - colours[0]) / colours[1], atol=1e-5, rtol=1e-5)
    assert picked.target.tolist() == [5, 2]


def test_statistics_are_those_of_the_training_split_or_the_published_ones(root):
    computed, published = opened(root).info.normalisation, opened(root, statistics="published").info.normalisation

    values = np.concatenate([np.load(root / "aud_features" / f"train_{label}.npy").ravel() for label in range(8)])
    assert computed["audio"].mean == [[[pytest.approx(values.mean(), abs=1e-6)]]]
    assert computed["audio"].std == [[[pytest.approx(values.std(), abs=1e-6)]]]
    assert (published["audio"].mean, published["audio"].std) == ([[[-10.59]]], [[[85.66]]])


def test_as_published_drops_the_first_line_and_swaps_frames(tmp_path):
    root = write_root(tmp_path / "root", header=False)

    default, as_published = opened(root), opened(root, as_published=True)

    assert dict(as_published.info.rows["train"])["audio"] == 7 and dict(default.info.rows["train"])["audio"] == 8
    kept = default.train.columns["audio"][np.array([1])][0, 0]
    swapped = as_published.train.columns["audio"][np.array([0])][0, 0]
    assert np.array_equal(kept[:, [2, 1, 0]], swapped[:, :3]) and np.array_equal(kept[:, 3:], swapped[:, 3:])
    assert as_published.info.normalisation["audio"].std == [[[85.66]]]


@pytest.mark.parametrize(
    ("header", "warning"), [(True, "begin with a header line"), (False, "no header line; the authors' code would drop")]
)
def test_a_warning_says_whether_the_lists_have_a_header(tmp_path, header, warning):
    root = write_root(tmp_path / "root", header=header)

    assert warning in opened(root).warnings[0]
    assert "dropped, as the option header requests" in opened(root, header="yes").warnings[0]


def test_the_warning_names_the_lists_with_and_without_header(root):
    edit(root / "data_file" / "spa_val.csv", "file,picture,emotion\n", "")

    assert opened(root).warnings[0] == "spa_dl.csv, spa_test.csv begin with a header line, spa_val.csv do not."


def test_groups_are_the_actors_in_the_file_names(root, prepared):
    data = opened(prepared)

    of_split = {name: set(data.groups[data.split(name).numbers["audio"]].tolist()) for name in ("train", "test")}
    assert of_split["train"] | of_split["test"] < {1, 2, 3, 4} and not of_split["train"] & of_split["test"]
    names = [path.stem for path in data.train.columns["audio"].column.files]
    assert data.groups.tolist() == [int(name[-2:]) for name in names]
    assert set(opened(root).groups.tolist()) == {0}


def test_files_are_read_when_a_batch_needs_them(root, monkeypatch):
    monkeypatch.setattr("xmodal.data.split.READY_BYTES", 0)
    data = opened(root)
    (root / "vid_features" / "train_0.jpg").unlink()
    np.save(root / "aud_features" / "train_1.npy", np.zeros((20, 9), np.float32))

    assert batch(data.train, 4, 5).inputs["image"].shape == (2, 3, 10, 12)
    with pytest.raises(InputError, match="train_0.jpg cannot be read as a picture"):
        batch(data.train, 0)
    with pytest.raises(InputError, match=r"train_1.npy has the shape \(20, 9\)"):
        data.train.columns["audio"][np.array([1])]


def test_columns_are_pickled_as_paths(root):
    columns = opened(root).train.columns

    for column in columns.values():
        sent = pickle.loads(pickle.dumps(column))
        assert np.array_equal(sent[np.arange(3)], column[np.arange(3)]) and len(pickle.dumps(column)) < 20_000


def test_grey_pictures_become_three_colours(root):
    for path in (root / "vid_features").iterdir():
        with Image.open(path) as file:
            grey = file.convert("L")
        grey.save(path)

    picture = opened(root).train.columns["image"][np.array([0])][0]

    assert picture.shape == (3, 10, 12) and np.array_equal(picture[0], picture[2])


def test_the_published_networks_take_a_batch(prepared):
    data = opened(prepared)
    picked = batch(data.train, 0, 1, 2)

    for name in ("audio", "image"):
        network = build_ravdess(name, shape=data.info.inputs[name].shape, width=8, hidden=16)
        assert network.module(picked.inputs).shape == (3, 8)


def test_wrong_folders_tasks_and_options_are_refused(root, tmp_path, capsys):
    (root / "data_file" / "spa_dl.csv").unlink()

    with pytest.raises(InputError, match="spa_dl.csv is missing"):
        opened(root)
    with pytest.raises(InputError, match="task multiclass; regression was asked for"):
        open_data("ravdess", options={"root": str(root)}, task="regression")
    with pytest.raises(InputError, match="'statistics' is 'own'. Known: published, training"):
        opened(root, statistics="own")
    with pytest.raises(InputError, match="read from files, and no folder was named.*data make ravdess DIR"):
        open_data("ravdess")


@pytest.mark.slow
def test_a_student_is_trained_on_synthetic_recordings_by_a_command(prepared, tmp_path):
    words = "distill ravdess --teacher audio --student image --epochs 1 --threads 1 --batch-size 16"

    assert answer([*words.split(), "--ravdess.root", str(prepared), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "result.json").is_file()
