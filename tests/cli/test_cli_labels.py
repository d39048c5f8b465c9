"""Labels that are text: from a folder through a training to predictions, and to the evaluation on new data."""

import json
from pathlib import Path

import numpy as np
import pytest

from xmodal.cli.main import answer

NUMBERS = np.arange(90) % 3


def write(folder: Path, labels: object, numbers: object = NUMBERS) -> Path:
    """Two modalities in which the classes are far apart."""
    random = np.random.default_rng(0)
    folder.mkdir()
    np.save(folder / "sound.npy", numbers[:, None] + 0.1 * random.normal(size=(len(numbers), 4)))
    np.save(folder / "image.npy", 3.0 * np.eye(3)[numbers] + 0.1 * random.normal(size=(len(numbers), 3)))
    np.save(folder / "labels.npy", labels)
    np.save(folder / "ids.npy", np.array([f"clip{row}" for row in range(len(numbers))]))
    return folder


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run on it."""
    root = tmp_path_factory.mktemp("animals")
    data = write(root / "data", np.array(["dog", "ape", "cat"])[NUMBERS])
    words = "--teacher sound,image --student image --epochs 6 --learning-rate 0.02 --batch-size 16 --no-shuffled"
    assert answer(["distill", str(data), *words.split(), "--threads", "1", "--out", str(root / "run")]) == 0
    return root


def test_labels_of_a_folder_come_back_in_the_predictions(animals, call, read) -> None:
    status, said, _ = call(f"predict {animals}/run {animals}/data --out found.csv --json")

    lines = json.loads(said)["predictions"]
    assert status == 0 and [line["label"] for line in lines] == np.load(animals / "data" / "labels.npy").tolist()
    assert all(line["name"] == line["label"] and line["id"] == f"clip{line['row']}" for line in lines)
    assert Path("found.csv").read_text().splitlines()[1].endswith(",dog")
    assert read(animals / "run" / "result.json")["target"]["labels"] == ["ape", "cat", "dog"]


def test_new_data_without_a_class_is_scored_by_its_labels(animals, call) -> None:
    # by their order in this data, cat and dog would be the classes 0 and 1, which are ape and cat for the student
    numbers = np.array([0, 2])[np.arange(40) % 2]
    write(Path("new"), np.array(["dog", "ape", "cat"])[numbers], numbers)

    status, said, _ = call(f"evaluate {animals}/run new --json")

    rows = json.loads(said)["rows"]
    assert status == 0 and {row["scores"]["accuracy"] for row in rows} == {1.0}


def test_new_data_with_an_unknown_label_is_refused(animals, call) -> None:
    write(Path("new"), np.array(["dog", "emu", "cat"])[NUMBERS])

    status, _, said = call(f"evaluate {animals}/run new")

    assert status == 2 and "knows the classes ape, cat, dog, and this data has emu." in said


def test_class_numbers_of_new_data_that_lacks_the_first_class_are_kept(call) -> None:
    write(Path("data"), NUMBERS)
    words = "--student image --method supervised --epochs 6 --learning-rate 0.02 --batch-size 16 --threads 1"
    assert call(f"distill data {words} --out run")[0] == 0
    numbers = np.array([1, 2])[np.arange(40) % 2]
    write(Path("new"), numbers, numbers)

    status, said, _ = call("evaluate run new --json")

    assert status == 0 and {row["scores"]["accuracy"] for row in json.loads(said)["rows"]} == {1.0}
