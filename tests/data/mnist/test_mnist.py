import gzip
import json
import struct

import numpy as np
import pytest
import torch

from xmodal.cli.main import answer
from xmodal.data import open_data, reopen
from xmodal.data.loader import Pick
from xmodal.data.mnist.backgrounds import blend, textures
from xmodal.data.mnist.files import check, make, prepare, stand_in
from xmodal.errors import InputError

NAMES = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]


def pictures(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28)).astype(np.uint8)


def write_by_hand(root, *, train=60, test=20):
    """The four files byte by byte, as the published ones are: two plain, two gzipped."""
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        images = struct.pack(">IIII", 2051, count, 28, 28) + pictures(count, count).tobytes()
        labels = struct.pack(">II", 2049, count) + bytes(i % 10 for i in range(count))
        (root / f"{part}-images-idx3-ubyte").write_bytes(images)
        (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return root


@pytest.fixture
def root(tmp_path):
    return write_by_hand(tmp_path / "mnist")


def opened(root, **options):
    return open_data("mnist", options={"root": str(root), "noise": 0.0, **options})


def test_files_written_by_hand_are_read_and_blended(root):
    data = opened(root)

    assert data.info.rows["train"]["mnist"] + data.info.rows["valid"]["mnist"] == 60
    assert data.info.rows["test"] == {"mnist": 20, "mnist_m": 20}
    expected = np.concatenate([pictures(60, 60), pictures(20, 20)])
    assert np.array_equal(data.test.columns["mnist"][np.arange(80)][:, 0], expected)
    for part, rows in enumerate((slice(0, 60), slice(60, 80))):
        colours = blend(expected[rows], textures(42), seed=42, part=part)
        assert np.array_equal(data.test.columns["mnist_m"][rows], colours)
    assert data.test.targets["mnist"].tolist() == [i % 10 for i in range(20)]


def test_a_batch_holds_both_modalities_scaled_to_plus_and_minus_one(root):
    data = opened(root)

    batch = data.test[Pick({"mnist": torch.tensor([3]), "mnist_m": torch.tensor([3])}, None)]

    assert batch.inputs["mnist"].shape == (1, 1, 28, 28) and batch.inputs["mnist_m"].shape == (1, 3, 28, 28)
    raw = torch.from_numpy(pictures(20, 20)[3]).float()
    torch.testing.assert_close(batch.inputs["mnist"][0, 0], (raw / 255 - 0.5) / 0.5)
    assert data.info.normalisation["mnist_m"].mean == [[[127.5]]]  # travels with the student


def test_noise_on_mnist_is_four_times_as_strong_unless_told(root):
    usual, own = opened(root, noise=0.25), opened(root, noise=0.25, mnist_noise=0.5)

    assert usual.train.columns["mnist"].level == 1.0 and usual.train.columns["mnist_m"].level == 0.25
    assert own.train.columns["mnist"].level == 0.5
    assert usual.train.augmented and not opened(root, fresh=False, noise=1.0).train.augmented


def test_seed_draws_noise_and_validation_rows_and_leaves_the_backgrounds(root):
    first, again, other = (
        open_data("mnist", options={"root": str(root), "noise": 0.5}, seed=seed) for seed in (0, 0, 1)
    )

    noisy = [data.test.columns["mnist_m"][np.arange(20)] for data in (first, again, other)]
    clean = [data.test.columns["mnist_m"].pixels[np.arange(20)] for data in (first, other)]

    assert np.array_equal(noisy[0], noisy[1]) and not np.array_equal(noisy[0], noisy[2])
    assert np.array_equal(*clean)
    assert not np.array_equal(first.valid.numbers["mnist"], other.valid.numbers["mnist"])


def test_validation_is_held_out_of_training_unless_published(root):
    ours, theirs = opened(root, valid_share=0.2), opened(root, as_published=True)

    assert not set(ours.valid.numbers["mnist"]) & {*ours.train.numbers["mnist"], *ours.test.numbers["mnist"]}
    assert ours.info.rows["valid"]["mnist"] == 10  # 20 % of six per class, to the nearest whole one
    assert np.array_equal(theirs.valid.numbers["mnist"], theirs.test.numbers["mnist"])
    assert theirs.info.rows["train"]["mnist"] == 60
    assert any("too good" in warning for warning in theirs.warnings)


def test_prepared_digits_are_the_bytes_that_opening_makes(root, tmp_path):
    plain = opened(root)

    done = prepare(root, tmp_path / "out")
    data = opened(tmp_path / "out")

    assert [done.done, done.reused] == [["t10k-00000", "train-00000"], []]
    for rows in (np.arange(80), np.array([79, 0, 61, 60, 59])):
        assert np.array_equal(data.train.columns["mnist_m"][rows], plain.train.columns["mnist_m"][rows])
    assert isinstance(data.train.columns["mnist_m"].pixels.files[0].array, np.memmap)
    assert check(tmp_path / "out").errors == []


def test_preparing_again_makes_nothing_anew_and_an_interrupted_one_goes_on(root, monkeypatch):
    monkeypatch.setattr("xmodal.data.mnist.files.BLOCK", 25)
    first = prepare(root, root)
    (root / "mnist_m" / "train-00025.npy").unlink()
    (root / "mnist_m.json").unlink()

    again = prepare(root, root)

    assert len(first.done) == 4 and again.done == ["train-00025"] and len(again.reused) == 3
    expected = blend(pictures(60, 60), textures(42), seed=42, part=0)
    assert np.array_equal(opened(root).train.columns["mnist_m"][np.arange(60)], expected)


def test_two_workers_write_the_same_bytes(root, tmp_path):
    told = []

    prepare(root, tmp_path / "one")
    prepare(root, tmp_path / "two", workers=2, progress=lambda done, total: told.append((done, total)))

    for name in ("train-00000.npy", "t10k-00000.npy"):
        assert (tmp_path / "one" / "mnist_m" / name).read_bytes() == (tmp_path / "two" / "mnist_m" / name).read_bytes()
    assert told == [(1, 2), (2, 2)]


def test_own_pictures_can_be_backgrounds(root, tmp_path):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40), (10, 20, 30)).save(tmp_path / "photos" / "grey.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"")

    data = opened(root, backgrounds=str(tmp_path / "photos"))
    prepare(root, tmp_path / "out", backgrounds=str(tmp_path / "photos"))

    found = data.test.columns["mnist_m"][np.arange(80)]
    assert set(np.unique(found)) == {10, 20, 30, 225, 235, 245}
    assert np.array_equal(opened(tmp_path / "out").test.columns["mnist_m"][np.arange(80)], found)
    assert "broken.png" in data.warnings[0]
    assert json.loads((tmp_path / "out" / "mnist_m.json").read_text())["pictures"] == ["broken.png", "grey.png"]


def test_prepared_files_that_were_prepared_otherwise_are_refused(root):
    prepare(root, root, seed=7)

    assert opened(root, background_seed=7).info.classes == 10
    with pytest.raises(InputError, match="background seed 7, and 8 was asked for"):
        opened(root, background_seed=8)
    with pytest.raises(InputError, match="backgrounds textures"):
        opened(root, backgrounds="photos")
    (root / "mnist_m" / "train-00000.npy").unlink()
    with pytest.raises(InputError, match="1 of 2 files are missing, train-00000.npy"):
        opened(root)
    (root / "mnist_m.json").write_text('{"schema": 1, "seed": "many"}')
    assert len(check(root).errors) == 3  # no number, no backgrounds, no digits


def test_everything_wrong_with_the_files_is_said_at_once(root):
    (root / "train-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 5, 28, 28))
    (root / "t10k-images-idx3-ubyte").unlink()
    (root / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")

    with pytest.raises(InputError) as caught:
        opened(root)

    first, second, third = caught.value.problems
    assert "has no t10k-images-idx3-ubyte (or t10k-images-idx3-ubyte.gz)" in first
    assert "train-images-idx3-ubyte is cut off" in second and "3920 bytes, and 0 follow" in second
    assert "t10k-labels-idx1-ubyte.gz is a damaged gzip file" in third
    assert check(root).errors == caught.value.problems


def test_labels_and_sizes_are_compared(root):
    (root / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">II", 2049, 3) + bytes([1, 2, 77])))
    (root / "train-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 60, 5, 5) + bytes(60 * 25))

    with pytest.raises(InputError) as caught:
        opened(root)

    said = str(caught.value)
    assert "pictures of 5x5: 28x28 was expected" in said and "holds the label 77" in said
    assert "t10k-images-idx3-ubyte has 20 digits and t10k-labels-idx1-ubyte.gz has 3 labels" in said


def test_names_with_a_dot_are_found(root):
    for name in NAMES:
        for suffix in ("", ".gz"):
            if (root / f"{name}{suffix}").exists():
                (root / f"{name}{suffix}").rename(root / f"{name.replace('-idx', '.idx')}{suffix}")

    assert opened(root).info.rows["test"]["mnist"] == 20


def test_no_folder_is_a_sentence_that_names_the_files(tmp_path):
    with pytest.raises(InputError, match=r"no folder was named. Give --mnist.root DIR .*train-images-idx3-ubyte"):
        open_data("mnist")
    with pytest.raises(InputError, match="nowhere is no folder. mnist expects one with train-images"):
        open_data("mnist", options={"root": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match="multiclass"):
        open_data("mnist", options={"stand_in": True}, task="regression")


def test_stand_in_holds_no_digit_twice_and_has_a_black_ground():
    found = stand_in(180, 2, 0)

    train, test = found["train"], found["t10k"]
    assert len(train.labels) == 300 and len(test.labels) == 30
    assert set(train.labels) == set(range(10)) and train.labels[0] == train.labels[1]
    assert (train.images == 0).mean() > 0.5 and train.images.max() > 250
    middle = {picture.tobytes() for picture in test.images}
    assert not middle & {picture.tobytes() for picture in train.images} and len(middle) == 30


def test_written_files_open_as_the_stand_in_does(tmp_path):
    folder = make(tmp_path / "written")

    files, memory = opened(folder), open_data("mnist", options={"stand_in": True, "noise": 0.0})

    for name in ("mnist", "mnist_m"):
        rows = np.arange(0, 4700, 97)
        assert np.array_equal(files.train.columns[name][rows], memory.train.columns[name][rows])
    assert memory.warnings[0].startswith("Stand-in data") and not files.warnings[0].startswith("Stand-in")
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.gz" for name in NAMES)


def test_source_opens_the_same_data_again_from_elsewhere(root, monkeypatch, tmp_path):
    monkeypatch.chdir(root.parent)
    data = open_data("mnist", options={"root": "mnist", "noise": 0.3}, seed=4)
    monkeypatch.chdir(tmp_path.parent)

    again = reopen(json.loads(json.dumps(data.source)))

    assert np.array_equal(again.test.columns["mnist_m"][np.arange(5)], data.test.columns["mnist_m"][np.arange(5)])


def test_what_can_not_be_written_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(InputError, match="there already"):
        make(tmp_path)
    with pytest.raises(InputError, match="Did you mean 'raw'"):
        make(tmp_path / "new", format="rw")
    with pytest.raises(InputError, match="samples is 5"):
        make(tmp_path / "new", samples=5)
    with pytest.raises(InputError, match="has no train-images-idx3-ubyte"):
        prepare(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_commands_make_prepare_check(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    assert answer(["data", "make", "mnist", str(raw), "--samples", "90"]) == 0
    assert answer(["data", "prepare", "mnist", str(raw), str(out)]) == 0
    assert "2 made, 0 reused, 0 skipped" in capsys.readouterr().out

    assert answer(["data", "check", str(out)]) == 0
    (out / "train-labels-idx1-ubyte.gz").write_bytes(b"")
    assert answer(["data", "check", str(out)]) == 2
    assert "error: train-labels-idx1-ubyte.gz" in capsys.readouterr().out


def test_a_folder_of_something_else_is_not_taken_for_mnist(tmp_path):
    np.save(tmp_path / "audio.npy", np.zeros((3, 4)))

    assert check(tmp_path) is None
