"""What `xmodal data check` tells about the content of data."""

import json

import numpy as np
import pytest

from xmodal.cli.main import answer
from xmodal.data import open_data
from xmodal.data.arrays import from_arrays
from xmodal.data.own import scan as scan_module
from xmodal.data.own.facts import data_facts, folder_facts
from xmodal.data.own.scan import Scan, repeated, scanned

SPLITS = {"train": np.arange(0, 12), "valid": np.arange(12, 16), "test": np.arange(16, 20)}
LABELS = np.array(["dog", "cat"])[np.array([0] * 8 + [1] * 4 + [0, 0, 1, 1] + [0, 1, 1, 1])]


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    sound = random.normal(size=(20, 5)).astype(np.float32)
    sound[:, 1] = 7
    image = random.integers(0, 255, (20, 1, 4, 4)).astype(np.uint8)
    image[:, 0, 0, :2] = 0
    # the first test row is the third training row; the second has its sound alone from there
    sound[16], image[16], sound[17] = sound[2], image[2], sound[2]
    np.save(tmp_path / "sound.npy", sound)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "labels.npy", LABELS)
    for split, rows in SPLITS.items():
        np.save(tmp_path / f"{split}_idx.npy", rows)
    return tmp_path


def checked(folder, capsys):
    assert answer(["data", "check", str(folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_rows_shapes_types_classes_and_the_majority_are_told(folder, capsys):
    found = checked(folder, capsys)

    image, sound = found["modalities"]["image"], found["modalities"]["sound"]
    assert (image["rows"], image["shape"], image["dtype"]) == (20, [1, 4, 4], "uint8")
    assert (sound["constant"], sound["positions"], image["constant"], image["positions"]) == (1, [1], 2, [0, 1])
    assert found["target"] == "Targets: 2 classes (cat, dog), from strings."
    assert found["splits"]["train"]["classes"] == {"cat": 4, "dog": 8}
    assert found["splits"]["test"]["shares"] == {"cat": 0.75, "dog": 0.25}
    # dog is the most frequent class in training, and one of four test rows is a dog
    assert found["majority"] == {"dog": 0.25} and not found["drawn"]
    answer(["data", "check", str(folder)])
    shown = capsys.readouterr().out
    assert "sound  20 rows of (5,), float32; constant: 1 of 5 values (1)" in shown
    assert "train  12 rows: cat 4 (33.3 %), dog 8 (66.7 %)" in shown
    assert "Always predicting dog, the most frequent class, is right in 25.0 % of test." in shown


def test_equal_rows_of_two_splits_are_counted_by_modality_and_for_all_of_them(folder, capsys):
    found = checked(folder, capsys)

    assert found["repeats"]["test in train"] == {"image": 1, "sound": 2, "all": 1}
    assert found["repeats"]["test in valid"] == found["repeats"]["valid in train"] == {"image": 0, "sound": 0, "all": 0}
    assert any("1 rows of test equal a row of train in all modalities" in said for said in found["warnings"])


def test_ids_and_groups_in_two_splits_are_warnings(folder, capsys):
    np.save(folder / "ids.npy", np.array([f"clip{row // 2 * 2 if row > 14 else row}" for row in range(20)]))
    np.save(folder / "groups.npy", np.arange(20) // 5)

    found = checked(folder, capsys)

    assert (found["groups"], found["shared_groups"]) == (4, 2)
    assert found["splits"]["train"]["groups"] == 3
    assert any("2 of 4 groups are in more than one split" in said for said in found["warnings"])
    assert any("ids.npy: 3 ids name several samples, the first is 'clip14'" in said for said in found["warnings"])
    np.save(folder / "ids.npy", np.arange(20) % 16)
    assert any("ids.npy: 4 ids are in train and in test" in said for said in checked(folder, capsys)["warnings"])
    assert open_data(str(folder)).ids[17] == "1"


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (np.arange(19), "ids.npy has 19 values, and there are 20 samples"),
        (np.arange(20) / 2, "ids.npy holds float64 of shape (20,): integers or text were expected"),
        (np.zeros((20, 2), int), "ids.npy holds int64 of shape (20, 2)"),
        (np.array([None, "a"] * 10, dtype=object), "ids.npy can't be read"),
    ],
)
def test_faults_of_ids_are_sentences(folder, capsys, ids, sentence):
    np.save(folder / "ids.npy", ids, allow_pickle=True)

    assert answer(["data", "check", str(folder)]) == 2
    assert sentence in capsys.readouterr().out


def test_python_data_has_ids_too():
    x = {"a": np.arange(40.0).reshape(20, 2)}

    data = from_arrays(x, LABELS, splits=SPLITS, ids=[f"clip{row}" for row in range(20)])

    assert data.ids[3] == "clip3"
    assert any("ids: 4 ids are in train and in test" in said for said in twice(x).warnings)


def twice(x):
    return from_arrays(x, LABELS, splits=SPLITS, ids=np.arange(20) % 16)


def test_a_modality_whose_samples_are_all_equal_is_a_warning(folder, capsys):
    np.save(folder / "sound.npy", np.ones((20, 3)))

    assert any("All samples of sound are equal" in said for said in checked(folder, capsys)["warnings"])


def test_splits_that_can_not_be_drawn_are_an_error_of_the_check(folder, capsys):
    for split in SPLITS:
        (folder / f"{split}_idx.npy").unlink()
    for name in ("sound", "image", "labels"):
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[[0, 19]])

    assert answer(["data", "check", str(folder)]) == 2
    assert "2 samples are too few to draw splits" in capsys.readouterr().out


def test_the_values_of_a_regression_are_described(folder, capsys):
    np.save(folder / "labels.npy", np.linspace(0.0, 1.9, 20))

    train = checked(folder, capsys)["splits"]["train"]

    assert train["mean"] == [pytest.approx(0.55)] and train["spread"] == [pytest.approx(np.arange(12).std() / 10)]


def test_arrays_are_read_once_and_in_blocks(folder, monkeypatch):
    monkeypatch.setattr(scan_module, "CHUNK_BYTES", 40)
    read = []
    original = np.memmap.__getitem__

    def counting(self, key):
        if self.shape == (20, 5):
            read.append(key)
        return original(self, key)

    monkeypatch.setattr(np.memmap, "__getitem__", counting)
    monkeypatch.setattr("xmodal.data.own.check_arrays.CHUNK_BYTES", 40)

    contents, facts = folder_facts(folder)

    assert facts is not None and facts.repeats["test in train"]["sound"] == 2
    # two rows of 20 bytes in each block
    assert [(part.start, part.stop) for part in read] == [(start, start + 2) for start in range(0, 20, 2)]
    assert len(contents.scans["sound"].digests) == 20


def test_blocks_do_not_change_what_a_scan_finds():
    column = np.random.default_rng(0).integers(0, 3, (50, 2, 2)).astype(np.float64)
    column[:, 1] = 4.0

    blocks, whole = Scan(), scanned(column)
    for start in range(0, 50, 7):
        blocks.add(column[start : start + 7])

    assert np.array_equal(blocks.digests, whole.digests) and np.array_equal(blocks.constant, whole.constant)
    assert whole.constant.tolist() == [[False, False], [True, True]]
    equal = (column[:, None] == column[None]).all(axis=(2, 3))
    assert np.array_equal(whole.digests[:, None] == whole.digests[None], equal)
    rows, others = np.arange(10), np.arange(10, 30)
    assert repeated(whole.digests, np.arange(50), rows, others) == int(equal[:10, 10:30].any(axis=1).sum())


def test_a_built_in_data_set_is_described_by_its_name(capsys):
    assert answer(["data", "check", "digits", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    data = open_data("digits")
    assert found["modalities"]["image"]["shape"] == [1, 8, 8] and found["splits"]["train"]["rows"] == len(data.train)
    assert sum(found["splits"]["test"]["classes"].values()) == len(data.test)


def test_unpaired_modalities_have_splits_of_their_own():
    x = {"a": np.arange(40.0).reshape(20, 2), "b": np.arange(20.0).reshape(20, 1)}

    facts = data_facts(from_arrays(x, {"a": LABELS, "b": LABELS}, splits=SPLITS))

    assert list(facts.splits) == [f"{split} ({name})" for name in "ab" for split in SPLITS]
    assert facts.majority == {} and "all" not in facts.repeats["test in train"]
