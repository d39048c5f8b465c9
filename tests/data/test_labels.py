"""Hidden labels: which rows keep theirs, and what a method then sees."""

import numpy as np
import pytest
import torch

from xmodal.data.arrays import from_arrays
from xmodal.data.labels import Labels, hide_labels, labelled_order
from xmodal.data.loader import Pick, in_order
from xmodal.errors import InputError

ROWS = 300


def data(target=None, *, rows=ROWS, **options):
    random = np.random.default_rng(0)
    inputs = {"a": random.normal(size=(rows, 3)), "b": random.normal(size=(rows, 2))}
    return from_arrays(inputs, np.arange(rows) % 3 if target is None else target, seed=2, **options)


def test_thirty_labelled_rows_are_among_the_hundred():
    full = data()

    few, many = (hide_labels(full, labelled=count).train.labelled["a"] for count in ("30", "100"))

    assert few.sum() == 30 and many.sum() == 100
    assert not (few & ~many).any()


def test_the_order_follows_the_divisor_method():
    """Sizes 60, 30 and 10: after one of each, the quotients n / (2k + 1) are 20, 12, 10, 8.57, 6.67, 6, 5.45, 4.6 …"""
    target = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)

    classes = target[labelled_order(target, task="multiclass", seed=3)].tolist()

    assert sorted(classes[:3]) == [0, 1, 2]
    # 0: 20, 12, 8.57, 6.67, 5.45; 1: 10, 6; 2: 3.33, where the values of two classes are never equal
    assert classes[3:10] == [0, 0, 1, 0, 0, 1, 0]
    assert sorted(classes[:100]) == target.tolist()


def test_the_order_is_a_function_of_the_seed():
    target = torch.arange(90) % 3

    first, again, other = (labelled_order(target, task="multiclass", seed=seed) for seed in (0, 0, 1))

    assert torch.equal(first, again) and not torch.equal(first, other)
    assert sorted(first.tolist()) == list(range(90))


def test_numbers_and_tables_are_in_random_order():
    table = torch.arange(40).reshape(20, 2) % 2

    order = labelled_order(table, task="multilabel", seed=0)

    assert sorted(order.tolist()) == list(range(20)) and order.tolist() != list(range(20))


TARGETS = {
    "multiclass": np.arange(ROWS) % 3,
    "binary": np.arange(ROWS) % 2,
    "multilabel": np.stack([np.arange(ROWS) % 2, np.arange(ROWS) // 2 % 2], axis=1),
    "regression": np.random.default_rng(1).normal(size=(ROWS, 2)),
}


@pytest.mark.parametrize("task", TARGETS)
def test_hidden_targets_are_no_number_that_counts(task):
    full = data(TARGETS[task], task=task)

    hidden = hide_labels(full, labelled="20", seed=1)

    mask = hidden.train.labelled["a"]
    assert mask is hidden.train.labelled["b"] and mask.sum() == 20
    assert hidden.info.labelled == {"a": 20, "b": 20} and hidden.revealed is full
    for targets in (hidden.train.targets["a"], hidden.info.train_targets["b"]):
        nothing = targets.isnan() if task == "regression" else targets == -1
        assert torch.equal(nothing.reshape(len(mask), -1).all(1), ~mask)
        assert torch.equal(targets[mask], full.train.targets["a"][mask])
    assert not full.train.labelled and not full.info.labelled


def test_a_batch_carries_the_mask_and_shares_its_targets():
    hidden = hide_labels(data(), labelled="20")
    rows = torch.tensor([5, 2, 9])

    batch = hidden.train[Pick({"a": rows, "b": rows}, None)]

    assert torch.equal(batch.labelled["a"], hidden.train.labelled["a"][rows])
    assert torch.equal(batch.target == -1, ~batch.labelled["a"])
    assert batch.targets["a"] is batch.targets["b"] and batch.labelled["a"] is batch.labelled["b"]


def test_batches_in_order_carry_the_masks():
    hidden = hide_labels(data(), labelled="20")

    masks = torch.cat([batch.labelled["b"] for batch in in_order(hidden.train, batch_size=64)])

    assert torch.equal(masks, hidden.train.labelled["b"])
    assert not next(in_order(hidden.valid, batch_size=64)).labelled


def test_maps_of_bytes_are_255_in_the_split_and_minus_one_in_a_batch():
    random = np.random.default_rng(0)
    maps = random.integers(0, 3, size=(40, 4, 5)).astype(np.uint8)
    full = from_arrays({"image": random.normal(size=(40, 1, 4, 5))}, maps)

    hidden = hide_labels(full, labelled="5")

    mask, targets = hidden.train.labelled["image"], hidden.train.targets["image"]
    assert targets.dtype == torch.uint8 and (targets[~mask] == 255).all() and (targets[mask] < 3).all()
    batch = next(in_order(hidden.train, batch_size=64))
    assert (batch.target[~mask] == -1).all() and torch.equal(
        batch.target[mask], full.train.targets["image"][mask].long()
    )


def test_unpaired_modalities_keep_labels_of_their_own():
    random = np.random.default_rng(0)
    inputs = {"a": random.normal(size=(100, 3)), "b": random.normal(size=(60, 2))}
    full = from_arrays(inputs, {"a": np.arange(100) % 2, "b": np.arange(60) % 2})

    hidden = hide_labels(full, labelled="0.5")

    assert hidden.info.labelled == {"a": 35, "b": 21}
    assert hidden.info.rows["valid"] == full.info.rows["valid"]
    # modalities with equally many samples of equal classes keep different ones
    same = from_arrays({"a": inputs["a"], "b": inputs["a"]}, {"a": np.arange(100) % 2, "b": np.arange(100) % 2})
    masks = hide_labels(same, labelled="20").train.labelled
    assert masks["a"].sum() == masks["b"].sum() == 20 and not torch.equal(masks["a"], masks["b"])


def test_a_file_of_rows(tmp_path):
    full = data()
    rows = full.train.numbers["a"][[1, 5, 6, 20, 30, 40, 41]]
    np.save(tmp_path / "rows.npy", rows)

    hidden = hide_labels(full, labelled=str(tmp_path / "rows.npy"))

    assert full.train.numbers["a"][hidden.train.labelled["a"].numpy()].tolist() == rows.tolist()
    assert hidden.info.rows["valid"]["a"] == 7


def test_whole_groups_keep_their_labels():
    full = data(groups=np.arange(ROWS) // 30)

    hidden = hide_labels(full, groups=2, seed=1)

    groups = full.groups[full.train.numbers["a"]]
    kept = np.unique(groups[hidden.train.labelled["a"].numpy()])
    assert len(kept) == 2
    assert np.array_equal(np.isin(groups, kept), hidden.train.labelled["a"].numpy())
    assert not torch.equal(hide_labels(full, groups=2, seed=0).train.labelled["a"], hidden.train.labelled["a"])


def test_validation_rows_are_as_many_as_labels_by_default():
    full = data()
    everything = next(in_order(full.valid, batch_size=99))

    default, all_rows, seven = (hide_labels(full, labelled="12", valid_labels=choice) for choice in ("", "all", "7"))

    counts = [part.info.rows["valid"]["a"] for part in (default, all_rows, seven)]
    assert counts == [12, 30, 7] and [len(part.valid) for part in (default, all_rows, seven)] == counts
    assert default.valid.targets["a"].bincount().tolist() == [4, 4, 4]
    assert set(seven.valid.numbers["a"]) < set(default.valid.numbers["a"]) < set(full.valid.numbers["a"])
    kept = np.isin(full.valid.numbers["a"], default.valid.numbers["a"])
    batch = next(in_order(default.valid, batch_size=99))
    assert torch.equal(batch.inputs["b"], everything.inputs["b"][kept]) and len(batch.target) == 12
    assert hide_labels(full, valid_labels="7").info.labelled == {}


def test_all_labels_leave_the_data_alone():
    full = data()

    assert hide_labels(full) is full and hide_labels(full, labelled="1.0") is full


def test_unpaired_and_doubled_copies_reveal_the_same_kind():
    hidden = hide_labels(data(), labelled="30")

    apart, doubled = hidden.apart(), hidden.doubled()

    assert not apart.revealed.info.paired and hidden.revealed.info.paired
    assert doubled.revealed.info.doubled and not hidden.revealed.info.doubled
    # the same rows keep their labels, whichever comes first
    other = hide_labels(data().apart(), labelled="30")
    assert torch.equal(other.train.labelled["b"], apart.train.labelled["b"])


def test_a_flag_is_a_count_a_share_or_a_file():
    assert (Labels.parse("1").of(50), Labels.parse("1.0").of(50), Labels.parse(".1").of(50)) == (1, 50, 5)
    assert Labels.parse(" all ") == Labels() == Labels.parse("")
    for text in ("0", "-1", "1.5", "ten", "0.0", "1e2", "nan"):
        with pytest.raises(InputError, match="with a decimal point"):
            Labels.parse(text)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labelled": "2"}, "--labelled keeps 2 labels: the training rows have 3 classes"),
        ({"labelled": "0.005"}, "--labelled keeps 1 label: the training rows have 3 classes"),
        ({"labelled": "900"}, "there are 210 training rows"),
        ({"groups": 2}, "this data has no groups"),
        ({"groups": 2, "labelled": "30"}, "Leave one of them out"),
        ({"labelled": "nowhere.npy"}, "can't be read"),
        ({"labelled": "30", "valid_labels": "31"}, "--valid-labels keeps 31 labels, and there are 30"),
        ({"labelled": "30", "valid_labels": "x.npy"}, "a number of rows, a share or all was expected"),
    ],
)
def test_what_can_not_be_hidden_is_a_sentence(options, sentence):
    with pytest.raises(InputError) as caught:
        hide_labels(data(), **options)

    assert sentence in str(caught.value)


def test_files_and_groups_that_leave_a_class_without_a_label(tmp_path):
    target = np.arange(ROWS) // 100
    full = data(target, groups=np.arange(ROWS) // 50, class_names=["x", "y", "z"])
    np.save(tmp_path / "two.npy", full.train.numbers["a"][:100])
    np.save(tmp_path / "one.npy", full.train.numbers["a"][:1])
    np.save(tmp_path / "test.npy", full.test.numbers["a"])
    np.save(tmp_path / "mask.npy", np.ones(ROWS, dtype=bool))

    for options, sentence in (
        ({"labelled": str(tmp_path / "two.npy")}, "keeps no label of the class z of the training rows"),
        ({"labelled": str(tmp_path / "one.npy")}, "keeps the label of 1 training row"),
        ({"labelled": str(tmp_path / "test.npy")}, "which is not in the training split"),
        ({"labelled": str(tmp_path / "mask.npy")}, "Use numpy.flatnonzero"),
        ({"groups": 1}, "keeps no label of the classes"),
        ({"groups": 7}, "the training rows have 6 groups"),
        ({"groups": 0}, "1 to 6 were expected"),
    ):
        with pytest.raises(InputError) as caught:
            hide_labels(full, **options)
        assert sentence in str(caught.value)


def test_labels_that_are_missing_can_not_be_hidden_again():
    target = np.where(np.arange(ROWS) % 2, -1, np.arange(ROWS) // 2 % 3)

    with pytest.raises(InputError, match="Some training rows have no label already"):
        hide_labels(data(target), labelled="30")
