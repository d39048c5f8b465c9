"""Rows of predictions for every kind of target, and maps where every pixel has one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodal.cli.inputs import Samples
from xmodal.cli.predictions import maps_summary, summary, table, write_csv, write_maps
from xmodal.data import open_data
from xmodal.data.arrays import from_arrays
from xmodal.deploy import Predictions, open_student
from xmodal.models.network import build_for
from xmodal.models.student_file import save_student
from xmodal.types import BLOCK_BYTES, DataInfo, InputInfo


def test_binary_gives_the_probability_of_the_predicted_class() -> None:
    parts = [Predictions(np.array([[0.9], [0.2]]), np.array([1, 0]), ("no", "yes"))]

    rows = table(parts, np.array([4, 7]), {"task": "binary", "class_names": ["no", "yes"]})

    assert rows == [
        {"row": 4, "class": 1, "name": "yes", "probability": 0.9},
        {"row": 7, "class": 0, "name": "no", "probability": 0.8},
    ]


def test_several_labels_have_a_probability_each() -> None:
    parts = [Predictions(np.array([[0.9, 0.7], [0.1, 0.2]]), np.array([[1, 1], [0, 0]]), ("a", "b"))]

    rows = table(parts, np.array([0, 1]), {"task": "multilabel", "class_names": ["a", "b"]})

    assert rows[0] == {"row": 0, "class": "0 1", "name": "a, b", "p_a": 0.9, "p_b": 0.7}
    assert summary(rows, "multilabel") == ["2 samples: a, b: 1, none: 1"]


def test_regression_gives_values(tmp_path: Path) -> None:
    rows = table([Predictions(np.array([[1.5, 2.0], [0.5, 3.0]]), None)], np.array([3, 1]), {"task": "regression"})

    write_csv(tmp_path / "p.csv", rows)

    assert (tmp_path / "p.csv").read_text() == "row,value0,value1\n3,1.5,2.0\n1,0.5,3.0\n"
    assert summary(rows, "regression") == ["2 samples: the first value runs from 0.5 to 1.5, its mean is 1"]


def pictures(rows=5):
    random = np.random.default_rng(0)
    return random.random((rows, 2, 16, 32)).astype(np.float32), random.integers(0, 3, (rows, 16, 32))


@pytest.fixture
def dense_student(tmp_path):
    """An untrained student that tells a class of every pixel."""
    lidar, classes = pictures(20)
    data = from_arrays({"lidar": lidar}, classes, class_names=("road", "car", "person"))
    torch.manual_seed(0)
    return save_student(tmp_path / "student.safetensors", build_for(data.info, ["lidar"], width=2), data.info)


def test_a_class_of_every_pixel_goes_into_one_file(dense_student, call) -> None:
    np.save("lidar.npy", pictures()[0])

    status, said, _ = call(f"predict {dense_student} lidar.npy")
    _, answer, _ = call(f"predict {dense_student} lidar.npy --out deep/told.npz --json")

    found, again = np.load("predictions.npz"), np.load("deep/told.npz")
    expected = open_student(dense_student).predict({"lidar": pictures()[0]}).classes
    assert status == 0 and "5 samples of 16 x 32: " in said and said.endswith("Written: predictions.npz\n")
    assert found["classes"].dtype == np.uint8 and np.array_equal(found["classes"], expected)
    assert found["rows"].tolist() == [0, 1, 2, 3, 4] and found["class_names"].tolist() == ["road", "car", "person"]
    result = json.loads(answer)
    assert result["shape"] == [5, 16, 32] and sum(result["pixels"].values()) == 5 * 16 * 32
    assert result["file"] == "deep/told.npz" and np.array_equal(again["classes"], found["classes"])


def test_maps_of_a_split_keep_the_numbers_of_their_rows(dense_student, call) -> None:
    Path("own").mkdir()
    lidar, classes = pictures(12)
    np.save("own/lidar.npy", lidar)
    np.save("own/labels.npy", classes)

    status, _, _ = call(f"predict {dense_student} own --split test")

    found, everything = np.load("predictions.npz"), open_student(dense_student).predict({"lidar": lidar}).classes
    assert status == 0 and 0 < len(found["rows"]) < 12
    assert np.array_equal(found["classes"], everything[found["rows"]])


def test_maps_do_not_fit_into_a_table(dense_student, call) -> None:
    np.save("lidar.npy", pictures()[0])
    Path("there").mkdir()

    status, _, complained = call(f"predict {dense_student} lidar.npy --out told.csv")
    _, _, folder = call(f"predict {dense_student} lidar.npy --out there")

    assert status == 2 and "goes into an .npz file" in complained and "is a folder" in folder
    assert sorted(path.name for path in Path().iterdir()) == ["lidar.npy", "there"]


def test_large_pictures_are_predicted_a_few_at_a_time() -> None:
    info = DataInfo({"lidar": InputInfo((5, 384, 1232))}, "multiclass", 20, {}, dense=True)

    assert 1 <= info.block(1024) <= BLOCK_BYTES // (4 * 20 * 384 * 1232)


def test_maps_of_parts_are_joined_and_counted(tmp_path: Path) -> None:
    info = DataInfo({"lidar": InputInfo((1, 2, 2))}, "multiclass", 300, {}, dense=True)
    parts = [Predictions(np.zeros((1, 1)), np.array([[[0, 299], [299, 7]]])) for _ in range(2)]
    samples = Samples({}, np.array([4, 2]), ["a", "b", "c", "d", "e"])

    counts, shape = write_maps(tmp_path / "m.npz", iter(parts), samples, info)

    found = np.load(tmp_path / "m.npz")
    assert counts == {"299": 4, "0": 2, "7": 2} and shape == [2, 2, 2] and found["classes"].dtype == np.uint16
    assert found["rows"].tolist() == [4, 2] and found["ids"].tolist() == ["e", "c"] and "class_names" not in found


def test_a_summary_names_the_most_frequent_classes() -> None:
    said = maps_summary({f"class {number}": 20 - number for number in range(15)}, [3, 8, 8])

    assert said.startswith("3 samples of 8 x 8: class 0 10.3 %") and said.endswith(" of the pixels and 3 more")


def test_a_run_predicts_the_test_rows_of_its_own_split(call, tmp_path):
    words = "distill digits --teacher rows --student fourier --epochs 1 --threads 1 --seed 3 --no-shuffled"
    assert call(f"{words} --digits.views rows,fourier --out", tmp_path / "run")[0] == 0

    status, said, _ = call(f"predict {tmp_path / 'run'} digits --split test --json --digits.views fourier")

    assert status == 0
    rows = [line["row"] for line in json.loads(said)["predictions"]]
    assert rows == open_data("digits", seed=3).test.numbers["fourier"].tolist()
