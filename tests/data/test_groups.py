"""Groups of samples: integers from any values, and splits that keep each group on one side."""

import itertools

import numpy as np
import pytest
import torch

from xmodal.api.distill import distill
from xmodal.cli.main import answer
from xmodal.data import open_data, reopen
from xmodal.data.arrays import from_arrays, from_dataset
from xmodal.data.draw import stratified_split
from xmodal.data.groups import NEAR, group_numbers, rows_of_each, split_groups
from xmodal.errors import InputError

ROWS = 200
CLASSES = np.arange(ROWS) % 3
PEOPLE = np.random.default_rng(2).integers(0, 20, ROWS)  # of different numbers of samples
NAMES = np.array([f"person {number}" for number in PEOPLE])
SHARES = (0.7, 0.1, 0.2)


def inputs(rows=ROWS):
    return {"a": np.random.default_rng(0).normal(size=(rows, 3)), "b": np.random.default_rng(1).normal(size=(rows, 2))}


def people_of(data, split):
    return set(data.groups[data.split(split).numbers["a"]].tolist())


def disjoint(data):
    return all(not people_of(data, one) & people_of(data, two) for one, two in itertools.combinations(SPLITS, 2))


SPLITS = ("train", "valid", "test")


@pytest.mark.parametrize("values", [CLASSES, PEOPLE, NAMES, PEOPLE > 9, np.zeros(0, int), np.array([5])])
def test_rows_of_each_value_equal_a_loop_over_the_values(values):
    expected = [np.flatnonzero(values == value).tolist() for value in np.unique(values)]

    assert [rows.tolist() for rows in rows_of_each(values)] == expected


class Counted(np.ndarray):
    """An array that counts how often all of it is compared with something."""

    compared = 0

    def __eq__(self, other):
        Counted.compared += 1
        return np.asarray(self) == np.asarray(other)


def test_drawing_splits_of_many_classes_compares_no_row_with_each_class():
    target = (np.arange(4000) % 400).view(Counted)

    rows = stratified_split(target, SHARES, seed=0)

    assert Counted.compared < 10
    assert {split: np.bincount(target[part]).tolist() for split, part in rows.items()} == {
        "train": [7] * 400,
        "valid": [1] * 400,
        "test": [2] * 400,
    }


def test_any_hashable_values_are_groups():
    assert group_numbers("groups", np.array([7, 3, 7]), 3).tolist() == [7, 3, 7]
    assert group_numbers("groups", torch.tensor([7, 3, 7]), 3).tolist() == [7, 3, 7]
    assert group_numbers("groups", np.array(["b", "a", "b"]), 3).tolist() == [0, 1, 0]
    assert group_numbers("groups", [("x", 1), ("x", 2), ("x", 1)], 3).tolist() == [0, 1, 0]
    assert group_numbers("groups", ["x", 1, "x"], 3).dtype == np.int64


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ([1, 2], "groups has 2 values, and there are 3 samples"),
        ([1, None, 2], "Row 1 of groups has no value"),
        (np.array([0.0, np.nan, 1.0]), "Row 1 of groups has no value"),
        ([[1], [2], [3]], "integers or names were expected"),
        (np.ones((3, 1)), "groups has the shape (3, 1)"),
    ],
)
def test_what_is_no_group_is_a_sentence(groups, sentence):
    with pytest.raises(InputError) as caught:
        group_numbers("groups", groups, 3)

    assert sentence in str(caught.value)


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_near_and_no_group_is_in_two_splits(seed):
    rows = split_groups(PEOPLE, np.ones(ROWS, dtype=bool), SHARES, seed)

    assert sorted(np.concatenate(list(rows.values()))) == list(range(ROWS))
    for split, share in zip(SPLITS, SHARES, strict=True):
        assert abs(len(rows[split]) / ROWS - share) <= NEAR
    groups = [set(PEOPLE[part]) for part in rows.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_the_draw_is_seeded():
    first, again, other = (split_groups(PEOPLE, np.ones(ROWS, dtype=bool), SHARES, seed) for seed in (0, 0, 1))

    assert all(np.array_equal(first[split], again[split]) for split in SPLITS)
    assert not np.array_equal(first["test"], other["test"])


def test_few_unequal_groups_come_as_near_as_they_can():
    """Sizes 50, 30, 12, 8: of all ways, 12 or 8 for validation and the other side for testing misses 70/10/20 least."""
    sizes = [50, 30, 12, 8]
    groups = np.repeat(np.arange(4), sizes)

    rows = split_groups(groups, np.ones(100, dtype=bool), SHARES, 0)

    def miss(parts):
        return max(abs(part / 100 - share) for part, share in zip(parts, SHARES, strict=True))

    ways = itertools.product(range(3), repeat=4)
    best = min(
        miss([sum(size for size, part in zip(sizes, way, strict=True) if part == split) for split in range(3)])
        for way in ways
        if set(way) == {0, 1, 2}
    )
    assert miss([len(rows[split]) for split in SPLITS]) == pytest.approx(best)


def test_arrays_are_split_by_group():
    data = from_arrays(inputs(), CLASSES, groups=NAMES, split_by_group=True, seed=4)

    assert disjoint(data) and len(data.groups) == ROWS and data.warnings == []
    again = from_arrays(inputs(), CLASSES, groups=list(NAMES), split_by_group=True, seed=4)
    assert np.array_equal(again.test.numbers["a"], data.test.numbers["a"])
    # groups alone change no split, and people on both sides are worth a word
    plain = from_arrays(inputs(), CLASSES, groups=NAMES, seed=4)
    assert np.array_equal(plain.test.numbers["a"], from_arrays(inputs(), CLASSES, seed=4).test.numbers["a"])
    splits = [people_of(plain, split) for split in SPLITS]
    shared = splits[0] & splits[1] | splits[0] & splits[2] | splits[1] & splits[2]
    assert any(f"{len(shared)} of 20 groups are in more than one split" in said for said in plain.warnings)


def test_rows_without_a_label_stay_with_their_group():
    without = np.arange(ROWS) % 2 == 0
    target = np.where(without, -1, CLASSES)

    data = from_arrays(inputs(), target, groups=PEOPLE, split_by_group=True)

    assert disjoint(data)
    used = np.concatenate([data.split(split).numbers["a"] for split in SPLITS])
    scored = people_of(data, "valid") | people_of(data, "test")
    assert sorted(set(range(ROWS)) - set(used)) == np.flatnonzero(without & np.isin(PEOPLE, list(scored))).tolist()
    assert any(f"{ROWS - len(used)} rows without a label belong to groups" in said for said in data.warnings)


def test_further_pairs_have_groups_too():
    more = {name: array[:10] for name, array in inputs().items()}
    groups = np.concatenate([PEOPLE, np.arange(10)])

    data = from_arrays(inputs(), CLASSES, unlabelled=more, groups=groups, split_by_group=True)

    assert disjoint(data) and 0 < (data.train.numbers["a"] >= ROWS).sum() < 10
    with pytest.raises(InputError, match="groups has 200 values, and there are 210 samples"):
        from_arrays(inputs(), CLASSES, unlabelled=more, groups=PEOPLE)


def test_a_dataset_has_groups():
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return ROWS

        def __getitem__(self, row):
            return {"a": torch.ones(2) * row}, int(CLASSES[row])

    assert disjoint(from_dataset(Pairs(), groups=NAMES, split_by_group=True))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split_by_group": True}, "split_by_group keeps groups together, and there are none"),
        ({"groups": CLASSES % 2, "split_by_group": True}, "There are 2 groups with labelled rows"),
        (
            {
                "groups": PEOPLE,
                "split_by_group": True,
                "splits": dict(zip(SPLITS, np.arange(12).reshape(3, 4), strict=True)),
            },
            "splits were given. Leave one of the two out",
        ),
    ],
)
def test_splits_by_group_that_can_not_be(options, sentence):
    with pytest.raises(InputError) as caught:
        from_arrays(inputs(), CLASSES, **options)

    assert sentence in str(caught.value)


def test_unpaired_data_has_no_groups():
    with pytest.raises(InputError, match="this data is unpaired"):
        from_arrays(inputs(), {"a": CLASSES, "b": CLASSES}, groups=PEOPLE)


def write(root, groups):
    root.mkdir()
    for name, array in inputs().items():
        np.save(root / f"{name}.npy", array)
    np.save(root / "labels.npy", CLASSES)
    np.save(root / "groups.npy", groups)
    return root


@pytest.mark.parametrize("groups", [PEOPLE, NAMES, NAMES.astype("S")], ids=["integers", "text", "bytes"])
def test_a_folder_is_split_by_group(tmp_path, groups):
    root = write(tmp_path / "data", groups)

    data = open_data(str(root), options={"split_by_group": True}, seed=2)

    assert data.info.modalities == ("a", "b") and disjoint(data)
    expected = from_arrays(inputs(), CLASSES, groups=list(groups), split_by_group=True, seed=2)
    assert np.array_equal(data.groups, expected.groups)
    for split in SPLITS:
        assert np.array_equal(data.split(split).numbers["a"], expected.split(split).numbers["a"])
        assert np.array_equal(reopen(data.source).split(split).numbers["a"], data.split(split).numbers["a"])


def test_index_files_that_divide_a_group_are_worth_a_word(tmp_path, capsys):
    root = write(tmp_path / "data", np.arange(ROWS) // 20)
    for split, rows in {"train": range(130), "valid": range(130, 160), "test": range(160, 200)}.items():
        np.save(root / f"{split}_idx.npy", np.array(rows))

    status = answer(["data", "check", str(root)])

    shown = capsys.readouterr().out
    assert status == 0 and "1 of 10 groups are in more than one split" in shown
    assert "test   40 rows, 2 groups: 0 13 (32.5 %), 1 14 (35.0 %), 2 13 (32.5 %)" in shown
    with pytest.raises(InputError, match="index files, which say what the splits are"):
        open_data(str(root), options={"split_by_group": True})


def test_groups_of_unpaired_folders_are_refused(tmp_path):
    root = write(tmp_path / "data", PEOPLE)
    for name in ("a", "b"):
        np.save(root / f"{name}_labels.npy", CLASSES)

    with pytest.raises(InputError, match="groups.npy has a group for each sample of all modalities"):
        open_data(str(root))


def test_distill_takes_groups_and_further_pairs():
    """Refused before any training, by the data that the arguments reach."""
    choices = {"teacher": "a", "student": "b"}

    for options, sentence in (
        ({"groups": PEOPLE[:9]}, "groups has 9 values"),
        ({"split_by_group": True}, "split_by_group keeps groups together, and there are none"),
        ({"unlabelled": {"a": np.ones((5, 3))}}, "unlabelled has the inputs a"),
        ({"unlabelled_label": 0}, "Labels are 0 and 1; 0 means unlabelled"),
    ):
        with pytest.raises(InputError, match=sentence):
            distill(inputs(), CLASSES % 2, **choices, **options)
    with pytest.raises(InputError, match="unlabelled goes with inputs"):
        distill(dataset=[], unlabelled=inputs(), **choices)
