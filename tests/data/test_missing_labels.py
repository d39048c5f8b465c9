"""Rows that come without a label: what says so, where these rows go, and what is refused."""

import json

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from xmodal.cli.main import answer
from xmodal.data import open_data, reopen
from xmodal.data.arrays import from_arrays, from_dataset
from xmodal.data.draw import draw_splits, stratified_split
from xmodal.data.loader import in_order
from xmodal.data.targets import infer_task, read_target
from xmodal.data.unlabelled import is_missing
from xmodal.errors import InputError

ROWS = 60
SPLITS = {"train": np.arange(40), "valid": np.arange(40, 50), "test": np.arange(50, ROWS)}
CLASSES = np.arange(ROWS) % 3
WITHOUT = np.arange(ROWS) % 4 == 0  # rows 0, 4, …; only those of the training split lack a label
WITHOUT[40:] = False
TABLE = np.stack([CLASSES % 2, CLASSES // 2], axis=1)
NUMBERS = np.random.default_rng(3).normal(size=(ROWS, 2))


class NAType:
    """Like pandas' NA, whose comparisons are neither true nor false."""

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    __ne__ = __eq__
    __hash__ = None


NA = NAType()


def inputs(rows=ROWS):
    random = np.random.default_rng(0)
    return {"a": random.normal(size=(rows, 3)), "b": random.normal(size=(rows, 2))}


def column(nothing, *, without=WITHOUT):
    return [nothing if missing else int(value) for value, missing in zip(CLASSES, without, strict=True)]


TARGETS = {
    "-1": (np.where(WITHOUT, -1, CLASSES), "multiclass"),
    "int8": (np.where(WITHOUT, -1, CLASSES).astype(np.int8), "multiclass"),
    "tensor": (torch.from_numpy(np.where(WITHOUT, -1, CLASSES)), "multiclass"),
    "None": (column(None), "multiclass"),
    "NaN in a list": (column(float("nan")), "multiclass"),
    "pandas NA": (np.array(column(NA), dtype=object), "multiclass"),
    "NaN": (np.where(WITHOUT, np.nan, CLASSES), "multiclass"),
    "table of -1": (np.where(WITHOUT[:, None], -1, TABLE), "multilabel"),
    "table of NaN": (np.where(WITHOUT[:, None], np.nan, TABLE), "multilabel"),
    "table and None": ([None if w else row.tolist() for row, w in zip(TABLE, WITHOUT, strict=True)], "multilabel"),
    "numbers": (np.where(WITHOUT[:, None], np.nan, NUMBERS), "regression"),
    "numbers and None": ([None if w else v for v, w in zip(NUMBERS[:, 0], WITHOUT, strict=True)], "regression"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_training_rows_may_lack_a_label(name):
    target, task = TARGETS[name]

    data = from_arrays(inputs(), target, splits=SPLITS)

    mask = torch.from_numpy(~WITHOUT[:40])
    assert data.info.task == task and data.info.labelled == {"a": 30, "b": 30}
    assert torch.equal(data.train.labelled["a"], mask) and data.train.labelled["a"] is data.train.labelled["b"]
    batch = next(in_order(data.train, batch_size=40))
    assert torch.equal(batch.labelled["b"], mask) and batch.targets["a"] is batch.targets["b"]
    nothing = batch.target.isnan() if task == "regression" else batch.target == -1
    assert torch.equal(nothing.reshape(40, -1).all(1), ~mask) and torch.equal(nothing.reshape(40, -1).any(1), ~mask)
    full = {"multiclass": CLASSES, "multilabel": TABLE, "regression": NUMBERS[:, : batch.target.shape[-1]]}[task]
    np.testing.assert_allclose(batch.target[mask].numpy(), full[:40][mask.numpy()], rtol=1e-6)
    assert not data.test.labelled and not data.valid.labelled


def test_data_with_all_labels_has_no_mask():
    data = from_arrays(inputs(), CLASSES, splits=SPLITS)

    assert not data.train.labelled and not data.info.labelled and data.warnings == []


def test_the_number_of_a_missing_label_can_be_chosen():
    target = np.where(WITHOUT, 9, CLASSES)

    data = from_arrays(inputs(), target, splits=SPLITS, unlabelled_label=9)

    assert data.info.classes == 3 and data.info.labelled["a"] == 30
    assert data.train.targets["a"].tolist() == np.where(WITHOUT, -1, CLASSES)[:40].tolist()
    assert from_arrays(inputs(), target, splits=SPLITS).info.label_values == (0, 1, 2, 9)
    negative = from_arrays(inputs(), np.where(CLASSES == 0, -1, target), splits=SPLITS, unlabelled_label=9)
    assert negative.info.label_values == (-1, 1, 2)


def test_three_classes_from_minus_one_are_worth_a_word():
    data = from_arrays(inputs(), np.where(WITHOUT, -1, CLASSES), splits=SPLITS)

    assert any("target is -1 in 10 of 60 rows, so these have no label" in said for said in data.warnings)


def test_whole_numbers_with_nan_are_classes():
    assert infer_task(np.array([0.0, np.nan, 3.0] * 2)) == "multiclass"
    assert infer_task(np.array([0.0, np.nan, 3.5] * 2)) == infer_task(np.array([0.0, np.nan, -3.0] * 2)) == "regression"
    assert infer_task(np.array([np.nan, np.nan])) == "regression"
    assert infer_task(np.array([[0.0, 1.0], [np.nan, np.nan]] * 2)) == "multilabel"
    assert infer_task(np.array([[0.0, 2.0], [np.nan, np.nan]] * 2)) == "regression"


def test_negative_numbers_of_a_regression_are_numbers():
    data = from_arrays(inputs(), np.where(WITHOUT, -1, CLASSES), splits=SPLITS, task="regression")

    assert not data.info.labelled and data.train.targets["a"].min() == -1
    assert not from_arrays(inputs(), TABLE - 1, task="regression").info.labelled
    drawn = from_arrays(inputs(), np.where(WITHOUT, -1.0, 0.5))
    assert not drawn.info.labelled and drawn.info.rows["train"] == {"a": 42, "b": 42}


def test_maps_without_a_label_and_pixels_without_a_class():
    maps = np.random.default_rng(0).integers(0, 3, size=(ROWS, 4, 5))
    maps[WITHOUT] = -1
    picture = {"image": np.random.default_rng(0).normal(size=(ROWS, 1, 4, 5))}

    data = from_arrays(picture, maps, splits=SPLITS)

    assert data.info.labelled == {"image": 30} and data.info.classes == 3
    # where -1 is ignored, it says nothing about the sample
    assert not from_arrays(picture, maps, splits=SPLITS, ignore=-1).info.labelled
    # maps of bytes: 255 is ignored, or marks a sample if that is asked for
    small = np.where(maps == -1, 255, maps).astype(np.uint8)
    assert not from_arrays(picture, small, splits=SPLITS, ignore=255).info.labelled
    assert from_arrays(picture, small, splits=SPLITS, unlabelled_label=255).info.labelled == {"image": 30}
    maps[1, 2, 3] = -1
    with pytest.raises(InputError, match="single pixels without a class are marked by ignore"):
        from_arrays(picture, maps, splits=SPLITS)


def test_unpaired_modalities_lack_labels_of_their_own():
    random = np.random.default_rng(0)
    wave = {"a": random.normal(size=(ROWS, 3)), "b": random.normal(size=(30, 2))}
    target = {"a": np.where(WITHOUT, -1, CLASSES), "b": np.arange(30) % 3}

    data = from_arrays(wave, target)

    assert data.info.labelled["b"] == data.info.rows["train"]["b"]
    assert data.info.rows["train"]["a"] - data.info.labelled["a"] == WITHOUT.sum()
    batch = next(batch for batch in in_order(data.train, batch_size=99))
    assert torch.equal(batch.labelled["a"], batch.targets["a"] >= 0)


@pytest.mark.parametrize("target", [CLASSES, NUMBERS], ids=["classes", "numbers"])
def test_labelled_rows_are_drawn_as_if_there_were_no_others(target):
    """Further rows without a label change no split of the labelled ones, and are for training."""
    fractions = (0.7, 0.1, 0.2)
    nothing = np.full((7, *target.shape[1:]), -1 if target.dtype.kind == "i" else np.nan, dtype=target.dtype)

    longer = draw_splits({"a": np.concatenate([nothing, target])}, fractions, 5)

    expected = stratified_split(target, fractions, 5)
    assert longer["train"]["a"].tolist() == [*range(7), *(expected["train"] + 7).tolist()]
    assert all(longer[split]["a"].tolist() == (expected[split] + 7).tolist() for split in ("valid", "test"))
    plain = draw_splits({"a": target}, fractions, 5)
    assert all(np.array_equal(plain[split]["a"], expected[split]) for split in expected)


def test_further_pairs_are_training_rows_at_the_end():
    more = {name: array[:9] + 5 for name, array in inputs().items()}

    drawn, given = (from_arrays(inputs(), CLASSES, unlabelled=more, splits=splits) for splits in (None, SPLITS))

    plain = from_arrays(inputs(), CLASSES)
    for data, before in ((drawn, plain), (given, from_arrays(inputs(), CLASSES, splits=SPLITS))):
        assert data.train.numbers["a"].tolist() == [*before.train.numbers["a"], *range(60, 69)]
        assert np.array_equal(data.test.numbers["b"], before.test.numbers["b"])
        assert data.train.labelled["a"].tolist() == [True] * len(before.train) + [False] * 9
        assert data.train.numbers["a"] is data.train.numbers["b"]
    raw = next(in_order(given.train.raw(), batch_size=99))
    np.testing.assert_allclose(raw.inputs["b"][-9:].numpy(), more["b"], rtol=1e-6)
    numbers = from_arrays(inputs(), NUMBERS, unlabelled=more, splits=SPLITS)
    assert numbers.train.targets["a"][-9:].isnan().all() and numbers.info.labelled["a"] == 40


def test_further_samples_of_unpaired_modalities_and_their_auxiliary_inputs():
    wave = np.random.default_rng(0).normal(size=(ROWS, 2, 8))
    given = {"a": wave, "a.lengths": np.full(ROWS, 8), "b": inputs()["b"]}
    more = {"a": wave[:5], "a.lengths": np.arange(1, 6), "b": inputs()["b"][:2]}

    data = from_arrays(given, {"a": CLASSES, "b": CLASSES}, unlabelled=more, splits=SPLITS)

    assert data.info.rows["train"] == {"a": 45, "b": 42} and data.info.labelled == {"a": 40, "b": 40}
    batch = next(in_order(data.train, batch_size=99))
    assert batch.inputs["a.lengths"][-5:].tolist() == [1, 2, 3, 4, 5]


def test_a_dataset_may_return_no_target():
    class Pairs(Dataset):
        def __len__(self):
            return ROWS

        def __getitem__(self, row):
            return {name: array[row] for name, array in inputs().items()}, self.target(row)

        def target(self, row):
            return None if WITHOUT[row] else int(CLASSES[row])

    class Tables(Pairs):
        def target(self, row):
            return [None, float("nan")] if row == 4 else None if WITHOUT[row] else TABLE[row]

    data, tables = (from_dataset(kind(), splits=SPLITS) for kind in (Pairs, Tables))

    assert data.info.task == "multiclass" and torch.equal(data.train.labelled["a"], torch.from_numpy(~WITHOUT[:40]))
    assert tables.info.task == "multilabel" and torch.equal(tables.train.labelled["a"], data.train.labelled["a"])
    Pairs.target = lambda self, row: int(CLASSES[row]) - 1
    assert from_dataset(Pairs(), splits=SPLITS, unlabelled_label=None).info.label_values == (-1, 0, 1)


def test_what_says_that_there_is_no_label():
    missing = [None, float("nan"), np.nan, np.float32("nan"), NA]

    assert all(map(is_missing, missing))
    assert not any(map(is_missing, [0, -1, "", "a", 0.0, False, np.int64(3), [None], np.array([np.nan])]))
    assert read_target("y", [True, None]).values.tolist()[0] == 1.0
    assert read_target("y", np.array([1, 2], dtype=object)).values.dtype.kind == "i"
    assert read_target("y", ["a", None]).values.tolist() == ["a", ""]
    with pytest.raises(InputError, match="y has samples of several shapes"):
        read_target("y", [[0, 1], [0], None])


def _with(rows, value, target=CLASSES):
    changed = np.array(target, dtype=float if value != value else target.dtype)
    changed[rows] = value
    return changed


FAULTS = {
    "a validation row": (_with([45], -1), "1 of 10 rows of splits['valid'] have no label"),
    "test numbers": (_with([55, 56], np.nan, NUMBERS), "2 of 10 rows of splits['test'] have no label"),
    "all rows": (_with(slice(None), -1), "target has no label in any of its 60 rows (all are -1)"),
    "all training rows": (_with(slice(40), -1), "No row of splits['train'] has a label"),
    "all training rows but one": (_with(slice(39), np.nan, NUMBERS), "Only one row of splits['train'] has a label"),
    "a class": (
        np.where((np.arange(ROWS) < 40) & (CLASSES == 1), -1, CLASSES),
        "No labelled row of splits['train'] has the class run",
    ),
    "part of a table": (_with((3, 0), -1, TABLE), "target lacks some of the 2 values of row 3 (-1), and has others"),
    "part of the numbers": (_with((3, 1), np.nan, NUMBERS), "lacks some of the 2 values of row 3 (NaN)"),
    "one class": (np.where(WITHOUT, -1, 1), "Labels are -1 and 1; -1 means unlabelled. Use 0 and 1, or"),
    "infinite": (np.where(WITHOUT, np.inf, 0.5), "target holds NaN or infinite values; the first is in row 0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_labels_are_sentences(name):
    target, sentence = FAULTS[name]
    names = ["walk", "run", "sit"] if name == "a class" else []

    with pytest.raises(InputError) as caught:
        from_arrays(inputs(), target, splits=SPLITS, class_names=names)

    assert any(sentence in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("unlabelled", "sentence"),
    [
        ({"a": np.ones((5, 3))}, "unlabelled has the inputs a, and inputs has a, b"),
        ({"a": np.ones((5, 3)), "b": np.ones((5, 4))}, "unlabelled['b'] has the shape (5, 4)"),
        ({"a": np.ones((5, 3)), "b": np.ones((6, 2))}, "unlabelled['a'] has 5, unlabelled['b'] has 6"),
        ({"a": np.ones((5, 3)), "b": np.full((5, 2), np.nan)}, "unlabelled['b'] holds NaN"),
        ({"a": np.ones(5), "b": np.ones((5, 2))}, "unlabelled['a'] has the shape (5,)"),
    ],
)
def test_further_pairs_fit_the_inputs(unlabelled, sentence):
    with pytest.raises(InputError) as caught:
        from_arrays(inputs(), CLASSES, unlabelled=unlabelled)

    assert sentence in str(caught.value)


def write(root, target, **settings):
    root.mkdir(exist_ok=True)
    for name, array in inputs().items():
        np.save(root / f"{name}.npy", array)
    np.save(root / "labels.npy", target)
    for split, rows in SPLITS.items():
        np.save(root / f"{split}_idx.npy", rows)
    (root / "data.json").write_text(json.dumps(settings))
    return root


@pytest.mark.parametrize("name", ["-1", "int8", "NaN", "table of -1", "table of NaN", "numbers"])
def test_a_folder_equals_the_arrays(tmp_path, name):
    target, task = TARGETS[name]
    expected = from_arrays(inputs(), target, splits=SPLITS)

    data = open_data(str(write(tmp_path / "data", target)))

    for found in (data, reopen(data.source)):
        assert found.info.task == task and found.info.labelled == expected.info.labelled
        assert torch.equal(found.train.labelled["b"], expected.train.labelled["b"])
        assert torch.equal(found.train.targets["a"].nan_to_num(7), expected.train.targets["a"].nan_to_num(7))
        assert found.info.normalisation == expected.info.normalisation


def test_a_folder_draws_splits_of_the_labelled_rows(tmp_path):
    root = write(tmp_path / "data", np.where(WITHOUT, -1, CLASSES))
    for split in SPLITS:
        (root / f"{split}_idx.npy").unlink()

    data = open_data(str(root), seed=3)

    assert set(np.flatnonzero(WITHOUT)) <= set(data.train.numbers["a"])
    assert np.array_equal(data.train.numbers["a"], from_arrays(inputs(), TARGETS["-1"][0], seed=3).train.numbers["a"])


def test_the_number_of_a_missing_label_in_a_folder(tmp_path):
    root = write(tmp_path / "data", np.where(WITHOUT, 9, CLASSES), unlabelled_label=9)

    by_file = open_data(str(root))
    (root / "data.json").unlink()
    by_option = open_data(str(root), options={"unlabelled_label": 9})

    assert by_file.info.labelled == by_option.info.labelled == {"a": 30, "b": 30}
    assert reopen(by_option.source).info.labelled == by_option.info.labelled


def test_classes_with_gaps_leave_missing_labels_alone(tmp_path):
    target = np.where(WITHOUT, -1, 10 * CLASSES)
    root = write(tmp_path / "data", target)

    data = open_data(str(root))
    other = open_data(str(root), options={"unlabelled_label": None, "modalities": ["a"]})

    assert data.info.class_names == ("0", "10", "20") and data.info.labelled["a"] == 30
    assert data.train.targets["a"].tolist() == np.where(WITHOUT, -1, CLASSES)[:40].tolist()
    assert other.info.class_names == ("-1", "0", "10", "20") and not other.info.labelled


def test_the_check_counts_labels(tmp_path, capsys):
    root = write(tmp_path / "data", np.where(WITHOUT, -1, CLASSES), class_names=["x", "y", "z"])

    assert answer(["data", "check", str(root)]) == 0
    shown = capsys.readouterr().out
    assert answer(["data", "check", str(root), "--json"]) == 0
    splits = json.loads(capsys.readouterr().out)["splits"]

    known = np.bincount(CLASSES[:40][~WITHOUT[:40]]).tolist()
    assert "train  40 rows, 30 labelled, 10 unlabelled: x " in shown
    assert "valid  10 rows: x 3 (30.0 %), y 4 (40.0 %), z 3 (30.0 %)" in shown
    assert splits["train"]["classes"] == dict(zip("xyz", known, strict=True)) and splits["train"]["labelled"] == 30
    assert splits["valid"]["shares"] == {"x": 0.3, "y": 0.4, "z": 0.3}
    for split in SPLITS:
        (root / f"{split}_idx.npy").unlink()
    answer(["data", "check", str(root)])
    shown = capsys.readouterr().out
    assert "they are drawn, here with seed 0" in shown and "35 labelled, 10 unlabelled" in shown
    np.save(root / "labels.npy", CLASSES)
    answer(["data", "check", str(root)])
    assert "labelled" not in capsys.readouterr().out
