"""Folders with a class for every pixel: what loads, what data.json says of it, and what is refused."""

import json

import numpy as np
import pytest

from xmodal.data import open_data
from xmodal.data.arrays import from_arrays
from xmodal.data.own.check import inspect
from xmodal.errors import InputError


@pytest.fixture
def write(tmp_path):
    """A folder with two views of twelve small scenes."""

    def write(labels=None, *, image=(12, 3, 16, 32), **said):
        random = np.random.default_rng(0)
        np.save(tmp_path / "image.npy", random.random(image).astype(np.float32))
        np.save(tmp_path / "lidar.npy", random.random((12, 5, 16, 32)).astype(np.float32))
        classes = random.integers(0, 3, (12, 16, 32)) if labels is None else labels
        np.save(tmp_path / "labels.npy", classes)
        (tmp_path / "data.json").write_text(json.dumps({"schema": 1, **said}))
        return tmp_path, classes

    return write


def test_maps_of_classes_make_dense_data(write):
    root, classes = write()

    data = open_data(str(root))

    rows = data.train.numbers["lidar"]
    assert data.info.dense and data.info.task == "multiclass" and data.info.classes == 3
    assert data.info.select == ("mean_iou", "max") and data.info.ignore is None
    assert np.array_equal(data.train.targets["lidar"].numpy(), classes[rows])


@pytest.mark.parametrize("value", [255, -1])
def test_a_label_that_counts_nowhere_is_no_class(write, value):
    labels = np.random.default_rng(1).integers(0, 3, (12, 16, 32))
    labels[:, 0] = value
    root, _ = write(labels, ignore=value)

    data = open_data(str(root))

    assert (data.info.classes, data.info.ignore) == (3, value)


def test_losses_and_weights_of_classes_are_those_of_the_file(write):
    losses = {"focal": 1.0, "lovasz": 0.5}
    root, _ = write(ignore=0, label_losses=losses, class_weights=[0.0, 1.0, 2.0])

    data = open_data(str(root))

    assert data.info.label_losses == losses and data.info.class_weights == (0.0, 1.0, 2.0)
    assert data.info.ignore == 0 and data.info.classes == 3


def test_data_opens_again_as_it_was(write):
    root, _ = write(ignore=0, class_names=["unlabelled", "road", "car"])

    data = open_data(str(root))

    again = open_data(data.source["data"], options=data.source["options"])
    assert again.info.ignore == 0 and again.info.class_names == data.info.class_names


def errors_of(root):
    return inspect(root).report.errors


def test_maps_must_lie_on_the_pixels_of_a_picture(write):
    root, _ = write(np.ones((12, 8, 16), dtype=np.int64) * (np.arange(12) % 2)[:, None, None])

    (error,) = errors_of(root)

    assert "maps of 8 x 16 classes" in error and "image.npy has samples of 16 x 32" in error and "lidar.npy" in error


def test_one_picture_of_another_size_is_worth_knowing(write):
    root, _ = write(image=(12, 3, 32, 64))

    report = inspect(root).report

    assert not report.errors and any("image.npy has samples of 32 x 64" in said for said in report.warnings)


def test_what_is_wrong_with_the_classes_is_said(write):
    everything = np.full((12, 16, 32), 255)

    assert "nothing but 255" in errors_of(write(everything, ignore=255)[0])[0]
    assert "class -2: classes are counted from 0" in errors_of(write(everything - 257)[0])[0]
    assert "no label in any of its 12 rows" in errors_of(write(everything - 256)[0])[0]
    everything[3, 5] = 254
    assert "A map without a label is -1 everywhere" in errors_of(write(everything - 255)[0])[0]
    assert "single class (1)" in errors_of(write(np.where(everything > 0, 1, 0), ignore=0)[0])[0]


def test_losses_that_nobody_knows_are_refused(write):
    root, _ = write(label_losses={"foccal": 1.0})

    with pytest.raises(InputError, match="Did you mean 'focal'"):
        open_data(str(root))


def test_arrays_may_ignore_a_negative_label_too():
    labels = np.random.default_rng(1).integers(-1, 3, (12, 4, 4))

    data = from_arrays({"image": np.random.rand(12, 3, 4, 4)}, labels, ignore=-1)

    assert (data.info.classes, data.info.ignore) == (3, -1)
