"""Folds of a cross-validation: every labelled row is tested once, by class or by group."""

import numpy as np
import pytest

from xmodal.data import open_data, reopen
from xmodal.data.arrays import from_arrays
from xmodal.data.draw import fold_rows
from xmodal.data.request import DataRequest
from xmodal.errors import InputError

ROWS = 60
CLASSES = np.arange(ROWS) % 3
SPEAKERS = np.arange(ROWS) // 5


def inputs():
    random = np.random.default_rng(0)
    return {"a": random.normal(size=(ROWS, 3)), "b": random.normal(size=(ROWS, 2))}


def every(folds, target=CLASSES, **options):
    return [from_arrays(inputs(), target, folds=folds, seed=fold, **options) for fold in range(folds)]


def rows(data, split, name="a"):
    return data.split(split).numbers[name].tolist()


@pytest.mark.parametrize("folds", [2, 5])
def test_each_row_is_tested_once_and_every_fold_has_the_shares_of_the_classes(folds):
    found = every(folds)

    assert sorted(row for data in found for row in rows(data, "test")) == list(range(ROWS))
    for data in found:
        parts = [rows(data, split) for split in ("train", "valid", "test")]
        assert sorted(sum(parts, [])) == list(range(ROWS))
        # a tenth of all rows chooses the epoch
        assert len(parts[1]) == ROWS // 10 and len(parts[2]) == ROWS // folds
        assert set(np.bincount(CLASSES[parts[2]]).tolist()) == {ROWS // folds // 3}
        assert data.train.numbers["a"] is data.train.numbers["b"]


def test_classes_of_odd_sizes_make_folds_of_equal_sizes():
    # 7, 9 and 12 rows: without care, the first folds would get the remainders of all classes
    target = np.repeat([0, 1, 2], [7, 9, 12])
    splits = {"train": np.arange(28), "valid": np.arange(0), "test": np.arange(0)}
    shared = {split: {"a": part} for split, part in splits.items()}

    sizes = [len(fold_rows({"a": target}, shared, folds=5, fold=fold)[0]["test"]["a"]) for fold in range(5)]

    assert sorted(sizes) == [5, 5, 6, 6, 6]


def test_the_division_is_the_same_for_all_folds_and_every_fold_has_other_validation_rows():
    first, again, other = every(5)[0], every(5)[0], every(5)[1]

    assert rows(first, "test") == rows(again, "test") and rows(first, "valid") == rows(again, "valid")
    assert not set(rows(first, "test")) & set(rows(other, "test")) and rows(first, "valid") != rows(other, "valid")


def test_given_splits_are_put_together_and_rows_outside_stay_outside():
    splits = {"train": np.arange(20), "valid": np.arange(20, 25), "test": np.arange(25, 50)}

    found = every(5, splits=splits)

    assert sorted(row for data in found for row in rows(data, "test")) == list(range(50))
    assert "50 labelled rows of all splits are divided into 5 folds, class by class." in found[0].warnings


def test_rows_without_a_label_or_a_modality_stay_in_training():
    target = np.where(np.arange(ROWS) < 6, -1, CLASSES)
    x = inputs() | {"a": [None if row in (6, 7) else sample for row, sample in enumerate(inputs()["a"])]}

    found = [from_arrays(x, target, folds=3, seed=fold) for fold in range(3)]

    assert all(set(range(8)) <= set(rows(data, "train")) for data in found)
    assert sorted(row for data in found for row in rows(data, "test")) == list(range(8, ROWS))
    assert found[0].info.labelled["a"] == len(rows(found[0], "train")) - 6


@pytest.mark.parametrize("folds", [2, 4, 12])
def test_groups_are_in_one_split_of_each_fold(folds):
    # the speakers are three times as many as the classes, and each has all of them
    found = every(folds, groups=SPEAKERS)

    assert sorted(row for data in found for row in rows(data, "test")) == list(range(ROWS))
    for data in found:
        members = [set(SPEAKERS[rows(data, split)].tolist()) for split in ("train", "valid", "test")]
        assert all(members) and sum(map(len, members)) == 12
        assert len(members[2]) == 12 // folds
        assert data.warnings == [f"60 labelled rows of all splits are divided into {folds} folds, by group."]


def test_groups_of_unequal_sizes_are_spread_and_unlabelled_rows_of_scored_people_are_left_out():
    groups = np.repeat(np.arange(8), [20, 12, 8, 6, 5, 4, 3, 2])
    target = np.where(np.arange(ROWS) % 10 == 9, -1, CLASSES)

    found = every(3, target, groups=groups)

    sizes = [len(rows(data, "test")) for data in found]
    # 20 + … against 12 + … + … : no fold can be smaller than the largest person
    assert sum(sizes) == (target >= 0).sum() and max(sizes) - min(sizes) <= 3
    for data in found:
        scored = set(groups[rows(data, "test") + rows(data, "valid")].tolist())
        assert not scored & set(groups[rows(data, "train")].tolist())
        left_out = set(range(ROWS)) - set(sum((rows(data, split) for split in ("train", "valid", "test")), []))
        assert all(target[row] == -1 and groups[row] in scored for row in left_out)


def test_large_groups_are_placed_first():
    # one person with six rows against six with one: placed last, the large group would make a fold of 7 or 8
    groups, target = np.repeat(np.arange(7), [1, 1, 1, 1, 1, 1, 6]), np.linspace(0, 1, 12)
    splits = {"train": {"a": np.arange(12)}, "valid": {"a": np.arange(0)}, "test": {"a": np.arange(0)}}

    drawn = [fold_rows({"a": target}, splits, folds=3, fold=fold, groups=groups)[0] for fold in range(3)]

    assert [len(parts["test"]["a"]) for parts in drawn] == [6, 3, 3]


def test_unpaired_modalities_are_divided_each_by_itself():
    found = [from_arrays(inputs(), {"a": CLASSES, "b": CLASSES[::-1].copy()}, folds=4, seed=fold) for fold in range(4)]

    for name in "ab":
        assert sorted(row for data in found for row in rows(data, "test", name)) == list(range(ROWS))


def test_regression_and_tables_are_divided_as_one_class():
    for target in (np.linspace(0.1, 1, ROWS), np.stack([CLASSES == 0, CLASSES == 1], axis=1)):
        assert [len(rows(data, "test")) for data in every(7, target)] == [9, 9, 9, 9, 8, 8, 8]


def test_statistics_are_those_of_the_training_rows_of_the_fold():
    x = inputs()["a"]

    first, second = every(3)[:2]

    for data in (first, second):
        expected = x[rows(data, "train")].astype(np.float32).mean(axis=0)
        np.testing.assert_allclose(data.info.normalisation["a"].mean, expected, rtol=1e-4)


WRONG = {
    "one fold": ({"folds": 1}, "folds is 1: 2 or more were expected"),
    "a fold that is not there": ({"folds": 3, "seed": 3}, "Fold 3 was asked for, and there are 3: 0 to 2"),
    "a class with too few rows": (
        {"folds": 5, "target": np.where(np.arange(ROWS) < 4, "rare", "common")},
        "The class rare has 4 labelled rows, and each of 5 folds needs one",
    ),
    "too few rows": ({"folds": 40, "target": np.linspace(0.1, 1, ROWS)}, "60 labelled rows are too few for 40 folds"),
    "fewer groups than folds": ({"folds": 13, "groups": SPEAKERS}, "There are 12 groups with labelled rows, and 13"),
    "two groups": ({"folds": 2, "groups": CLASSES % 2}, "There are 2 groups with labelled rows, and 2 folds need 3"),
    "one group in all other folds": (
        {"folds": 2, "groups": np.minimum(np.arange(ROWS) // 6, 5), "target": np.linspace(0.1, 1, ROWS)},
        "has no validation row: the other folds hold a single group",
    ),
    "a class of one group": (
        {"folds": 3, "groups": SPEAKERS, "target": np.where(SPEAKERS == 7, "rare", "common")},
        "leaves no training row of the class rare: its rows belong to few groups",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_folds_that_can_not_be_are_sentences(name):
    options, sentence = WRONG[name]
    options = {"target": CLASSES, "seed": 0} | options

    with pytest.raises(InputError, match=sentence):
        from_arrays(inputs(), options.pop("target"), **options)


def test_data_of_the_list_and_folders_have_folds_and_are_opened_again(tmp_path):
    for name, array in inputs().items():
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "labels.npy", CLASSES)
    np.save(tmp_path / "groups.npy", SPEAKERS)
    for split, part in {"train": range(42), "valid": range(42, 52), "test": range(52, 60)}.items():
        np.save(tmp_path / f"{split}_idx.npy", np.array(part))

    folder = [open_data(str(tmp_path), folds=4, seed=fold) for fold in range(4)]
    digits = [open_data("digits", folds=3, seed=fold) for fold in range(3)]

    assert sorted(row for data in folder for row in rows(data, "test")) == list(range(ROWS))
    assert not any("more than one split" in said for data in folder for said in data.warnings)
    assert sorted(row for data in digits for row in rows(data, "test", "image")) == list(range(1797))
    # noise of the digits is drawn from the seed: it is that of seed 0 in all folds
    noise = [data.train.columns["noisy"][:9] for data in digits]
    assert np.array_equal(noise[0], noise[1]) and np.array_equal(noise[0], noise[2])
    again = reopen(folder[2].source)
    assert rows(again, "test") == rows(folder[2], "test") and rows(again, "valid") == rows(folder[2], "valid")
    # `xmodal export` replaces the seed by that of the student
    assert rows(reopen({**folder[2].source, "seed": 1}), "test") == rows(folder[1], "test")


def test_samples_with_nan_are_left_out_of_folds_too(tmp_path):
    x = inputs()
    x["a"][7, 1] = np.nan
    for name, array in x.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "labels.npy", CLASSES)

    found = [open_data(str(tmp_path), folds=3, seed=fold, options={"nan": "drop"}) for fold in range(3)]

    assert sorted(row for data in found for row in rows(data, "test")) == [row for row in range(ROWS) if row != 7]


def test_a_request_of_a_fold_draws_everything_else_from_one_seed():
    assert DataRequest.drawn(4, 5) == {"seed": 0, "folds": 5, "fold": 4} and DataRequest.drawn(4, 0) == {"seed": 4}
