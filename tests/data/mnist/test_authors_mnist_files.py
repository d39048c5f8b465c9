"""MNIST and MNIST-M as the code of NTDH and Ganin et al. store them, in files that this test writes itself."""

import gzip
import pickle
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from xmodal.cli.main import answer
from xmodal.data import open_data, reopen
from xmodal.data.mnist.files import check
from xmodal.errors import InputError

COUNTS = {"train": 60, "val": 20}


def grey_digits(part):
    """(n, 28, 28) pictures and labels 0 to 9."""
    random = np.random.default_rng(len(part))
    pictures = random.integers(0, 256, (COUNTS[part], 28, 28)).astype(np.uint8)
    return pictures, (np.arange(COUNTS[part]) % 10).astype(np.int32)


def coloured_digits(part):
    random = np.random.default_rng(10 + len(part))
    return random.integers(0, 256, (COUNTS[part], 28, 28, 3)).astype(np.uint8)


def pickles(root, *, protocol=pickle.DEFAULT_PROTOCOL, change=None):
    """The two files of the authors: dictionaries of arrays, the grey pictures repeated three times."""
    contents = {"MNIST/mnist_data.pkl": {}, "MNIST_M/mnist_m_data.pkl": {}}
    for part in COUNTS:
        pictures, labels = grey_digits(part)
        for content, images in zip(
            contents.values(), (np.stack([pictures] * 3, 3), coloured_digits(part)), strict=True
        ):
            content[part], content[f"{part}_label"] = images, labels.copy()
    if change:
        change(*contents.values())
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return root


def ganin(root, *, size=32):
    """The four files of MNIST, and pictures of most of its digits with their lists."""
    root.mkdir(parents=True, exist_ok=True)
    for part, name, theirs in (("train", "train", "train"), ("val", "t10k", "test")):
        pictures, labels = grey_digits(part)
        head = struct.pack(">IIII", 2051, len(pictures), 28, 28)
        (root / f"{name}-images-idx3-ubyte").write_bytes(head + pictures.tobytes())
        head = struct.pack(">II", 2049, len(labels))
        (root / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels.astype(np.uint8).tobytes()))
        folder = root / "mnist_m" / f"mnist_m_{theirs}"
        folder.mkdir(parents=True)
        lines = []
        for number in range(len(labels) - 3):  # the published archive lacks the last digits of MNIST as well
            picture = np.zeros((size, size, 3), np.uint8)
            edge = (size - 28) // 2
            picture[edge : edge + 28, edge : edge + 28] = coloured_digits(part)[number]
            Image.fromarray(picture).save(folder / f"{number:08d}.png")
            lines.append(f"{number:08d}.png {labels[number]}\n")
        (root / "mnist_m" / f"mnist_m_{theirs}_labels.txt").write_text("".join(lines))
    return root


def opened(root, **options):
    return open_data("mnist", options={"root": str(root), "noise": 0.0, **options})


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_two_pickles_of_the_authors_are_read(protocol, tmp_path):
    data = opened(pickles(tmp_path, protocol=protocol))

    assert data.info.rows["train"]["mnist"] + data.info.rows["valid"]["mnist"] == 60
    assert data.info.rows["test"] == {"mnist": 20, "mnist_m": 20}
    rows = np.arange(60, 80)
    assert np.array_equal(data.test.columns["mnist"][rows][:, 0], grey_digits("val")[0])
    assert np.array_equal(data.test.columns["mnist_m"][rows], coloured_digits("val").transpose(0, 3, 1, 2))
    assert data.test.targets["mnist_m"].tolist() == [number % 10 for number in range(20)]
    assert not any("textures" in warning for warning in data.warnings)
    assert reopen(data.source).info.rows == data.info.rows and check(tmp_path).errors == []


@pytest.mark.parametrize("size", [28, 32])
def test_the_picture_folders_of_ganin_are_read_with_the_digits_of_mnist(size, tmp_path):
    data = opened(ganin(tmp_path, size=size), as_published=True)

    assert data.info.rows["train"]["mnist"] == 57 and data.info.rows["test"]["mnist_m"] == 17
    rows = np.arange(57)
    assert np.array_equal(data.train.columns["mnist"][rows][:, 0], grey_digits("train")[0][:57])
    assert np.array_equal(data.train.columns["mnist_m"][rows], coloured_digits("train")[:57].transpose(0, 3, 1, 2))
    assert data.train.targets["mnist"].tolist() == [number % 10 for number in range(57)]
    assert check(tmp_path).errors == []


def drop(key):
    return lambda grey, coloured: coloured.pop(key)


def put(key, value):
    return lambda grey, coloured: coloured.__setitem__(key, value)


def exchange(grey, coloured):
    coloured["val_label"][[0, 1]] = coloured["val_label"][[1, 0]]


def colour(grey, coloured):
    grey["train"][0, 0, 0, 1] ^= 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (drop("val_label"), "mnist_m_data.pkl has no val_label: the keys train, train_label, val, val_label"),
        (put("train", np.zeros((60, 28, 28), np.uint8)), r"train is \(60, 28, 28\) of uint8: \(n, 28, 28, 3\)"),
        (put("train", [1, 2]), r"train is a list: \(n, 28, 28, 3\) of uint8"),
        (
            put("val_label", np.full(20, 10)),
            r"val_label is \(20,\) of int64 from 10 to 10: \(20,\) integers from 0 to 9",
        ),
        (exchange, "have the labels 0 and 1 in row 0 under val_label: the same digits in the same order"),
        (colour, "mnist_data.pkl has coloured pictures under train: three equal channels"),
        (put("val", print), "asks for .*print, which neither numbers nor text need"),
    ],
)
def test_a_pickle_with_other_content_is_refused(change, expected, tmp_path):
    pickles(tmp_path, change=change)

    with pytest.raises(InputError, match=expected):
        opened(tmp_path)
    with pytest.raises(InputError, match=expected):
        check(tmp_path).stop_on_errors()


@pytest.mark.parametrize("name", ["MNIST/mnist_data.pkl", "MNIST_M/mnist_m_data.pkl"])
def test_a_pickle_that_is_missing_is_named(name, tmp_path, capsys):
    pickles(tmp_path)
    (tmp_path / name).unlink()

    assert answer(["data", "check", str(tmp_path)]) == 2
    assert f"{name} is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist_m/mnist_m_test_labels.txt", "mnist_m_test_labels.txt is missing: lines such as '00000000.png 5'"),
        ("mnist_m/mnist_m_train/00000007.png", "00000007.png is missing: mnist_m_train_labels.txt names it"),
        ("t10k-images-idx3-ubyte", "has no t10k-images-idx3-ubyte"),
    ],
)
def test_a_file_of_ganin_that_is_missing_is_named(name, expected, tmp_path):
    ganin(tmp_path)
    (tmp_path / name).unlink()

    with pytest.raises(InputError, match=expected):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("00000000.png 7", "gives 1 pictures another label than MNIST .* 00000000.png among them .7 and 0."),
        ("00000099.png 9", "names the digit 99, and MNIST has 60"),
        ("00000001.png 1", "names a picture twice"),
        ("first.png 0", "line 1 is 'first.png 0': a line such as"),
    ],
)
def test_a_list_of_other_digits_is_refused(line, expected, tmp_path):
    path = ganin(tmp_path) / "mnist_m/mnist_m_train_labels.txt"
    path.write_text("\n".join([line, *path.read_text().splitlines()[1:]]))

    with pytest.raises(InputError, match=expected):
        opened(tmp_path)


@pytest.mark.parametrize("content", [b"no picture", None])
def test_a_picture_that_cannot_be_used_is_named(content, tmp_path):
    path = ganin(tmp_path) / "mnist_m/mnist_m_train/00000003.png"
    if content:
        path.write_bytes(content)
    else:
        Image.new("RGB", (30, 32)).save(path)

    with pytest.raises(InputError, match=r"00000003.png (can't be read as a picture|has 30x32 pixels)"):
        opened(tmp_path)


def test_backgrounds_of_stored_digits_cannot_be_chosen(tmp_path):
    pickles(tmp_path)

    with pytest.raises(InputError, match="are the pickle of MNIST-M, and the background seed 3 was asked for"):
        opened(tmp_path, background_seed=3)


def test_pickles_beside_the_four_files_are_read(tmp_path):
    ganin(tmp_path)
    shutil.rmtree(tmp_path / "mnist_m")
    pickles(tmp_path)

    assert np.array_equal(
        opened(tmp_path).test.columns["mnist_m"][np.arange(60, 80)], coloured_digits("val").transpose(0, 3, 1, 2)
    )
