"""Rows that lack a modality: what says so in Python and in a folder, what batches hold, and what is refused."""

import json
import tracemalloc

import numpy as np
import pytest
import torch

from xmodal.cli.main import answer
from xmodal.data.arrays import from_arrays, from_batches
from xmodal.data.loader import Pick, in_order
from xmodal.data.own.folder import FolderSettings, load_folder, read_inputs
from xmodal.data.present import PartialColumn
from xmodal.data.streams import Needs, batches_for, divided
from xmodal.errors import InputError

ROWS = 60
SPLITS = {"train": np.arange(40), "valid": np.arange(40, 50), "test": np.arange(50, ROWS)}
CLASSES = np.arange(ROWS) % 3
HAS = {"a": np.arange(ROWS) % 4 != 0, "b": np.arange(ROWS) % 8 != 1}  # rows 0, 4, … lack a; rows 1, 9, … lack b
for mask in HAS.values():
    mask[40:] = True


class NAType:
    """Like pandas' NA."""


def inputs():
    random = np.random.default_rng(0)
    return {"a": random.normal(size=(ROWS, 3)).astype("float32"), "b": random.normal(size=(ROWS, 2, 9))}


def lacking(values, has, nothing=None):
    return [value if there else nothing for value, there in zip(values, has, strict=True)]


def with_nan(values, has):
    filled = values.copy()
    filled[~has] = np.nan
    return filled


def objects(values, has):
    array = np.empty(len(values), dtype=object)
    array[:] = lacking(values, has)
    return array


KNOWN = (np.arange(ROWS) % 7 != 2) | (np.arange(ROWS) >= 40)
FORMS = {
    "None": lacking,
    "nan": lambda values, has: lacking(values, has, float("nan")),
    "NA": lambda values, has: lacking(values, has, NAType()),
    "rows of NaN": with_nan,
    "a list with rows of NaN": lambda values, has: list(with_nan(values, has)),
    "both": lambda values, has: lacking(with_nan(values, has), has | (np.arange(ROWS) > 10)),
    "objects": objects,
    "nested lists": lambda values, has: [None if value is None else value.tolist() for value in lacking(values, has)],
    "a tensor": lambda values, has: torch.from_numpy(with_nan(values, has)),
}


def assert_gaps(data, *, normalised=True):
    """The training split of ``inputs`` with the gaps of ``HAS``."""
    train = {name: torch.from_numpy(mask[:40]) for name, mask in HAS.items()}
    assert data.info.present == {"a": 30, "b": 35} and not data.valid.present and not data.test.present
    batch = next(in_order(data.train, batch_size=40))
    for name, values in inputs().items():
        mask = train[name]
        assert torch.equal(data.train.present[name], mask) and torch.equal(batch.present[name], mask)
        assert batch.inputs[name][~mask].isnan().all()
        axes = (0,) if values.ndim == 2 else (0, 2)
        there = values[:40][mask.numpy()].astype(float)
        mean, std = there.mean(axes, keepdims=True), there.std(axes, keepdims=True)
        expected = (there - mean) / std if normalised else there
        np.testing.assert_allclose(batch.inputs[name][mask].numpy(), expected, rtol=1e-4, atol=1e-5)
    test = next(in_order(data.test, batch_size=10))
    assert not test.present and all(values.isfinite().all() for values in test.inputs.values())


@pytest.mark.parametrize("form", FORMS)
def test_training_rows_may_lack_a_modality(form):
    given = {name: FORMS[form](values, HAS[name]) for name, values in inputs().items()}

    assert_gaps(from_arrays(given, CLASSES, splits=SPLITS))


def test_data_with_all_modalities_has_no_masks():
    data = from_arrays(inputs(), CLASSES, splits=SPLITS)

    assert not data.train.present and not data.info.present
    assert not any(isinstance(column, PartialColumn) for column in data.train.columns.values())
    assert not next(in_order(data.train, batch_size=4)).present


def test_a_column_of_some_samples_reads_like_a_column_of_all():
    values = inputs()["b"]
    rows = np.flatnonzero(HAS["b"])[::-1]

    column = PartialColumn(values[rows], rows, ROWS)

    for asked in (np.array([12, 3, 0]), np.array([9, 12, 1, 3]), slice(0, 12, 2), slice(0, 4)):
        np.testing.assert_array_equal(column[asked], with_nan(values, HAS["b"])[asked])
    assert column[3].shape == (2, 9) and np.isnan(column[1]).all() and len(column) == ROWS


def test_a_column_of_bytes_reads_as_floats_and_lengths_as_integers():
    bytes_of = np.arange(ROWS * 4, dtype=np.uint8).reshape(ROWS, 1, 2, 2)
    waves = {"a": lacking(inputs()["b"], HAS["a"]), "b": lacking(bytes_of, HAS["b"])}
    lengths = [0 if not there else 1 + row % 9 for row, there in enumerate(HAS["a"])]

    data = from_arrays(waves | {"a.lengths": lengths}, CLASSES, splits=SPLITS, normalise="none")

    batch = data.train[Pick(dict.fromkeys("ab", torch.tensor([3, 4, 9])), None)]
    assert batch.inputs["a.lengths"].tolist() == [4, -1, 1] and batch.inputs["a.lengths"].dtype == torch.int64
    assert batch.inputs["b"][:2].flatten().tolist() == [*range(12, 20)] and batch.inputs["b"][2].isnan().all()
    assert data.info.inputs["b"].dtype == "float32" and data.info.inputs["a.lengths"].dtype == "int64"


@pytest.mark.parametrize("ready", [True, False])
def test_augmentation_and_rows_read_anew_are_those_of_whole_data(ready, monkeypatch):
    monkeypatch.setattr("xmodal.data.split.READY_BYTES", 2**28 if ready else 0)
    whole = from_arrays(inputs(), CLASSES, splits=SPLITS, augment="noise:0.1", normalise="none")
    given = {name: lacking(values, HAS[name]) for name, values in inputs().items()}
    data = from_arrays(given, CLASSES, splits=SPLITS, augment="noise:0.1", normalise="none")
    rows = torch.tensor([7, 0, 1, 39, 6])

    batch, expected = (each.train[Pick(dict.fromkeys("ab", rows), 2)] for each in (data, whole))

    for name, values in batch.inputs.items():
        there = torch.from_numpy(HAS[name])[rows]
        assert torch.equal(values[there], expected.inputs[name][there]) and values[~there].isnan().all()


def test_parts_of_a_split_keep_their_masks():
    given = {name: lacking(values, HAS[name]) for name, values in inputs().items()}
    data = from_arrays(given, lacking(CLASSES.tolist(), KNOWN), splits=SPLITS)
    rows = torch.tensor([0, 5, 6, 9])
    whole = data.train[Pick(dict.fromkeys("ab", rows), None)]

    part = data.train.subset(dict.fromkeys("ab", rows))

    assert part.present["a"].tolist() == [False, True, True, True]
    batch = part[Pick(dict.fromkeys("ab", torch.arange(4)), None)]
    assert batch.present["b"].tolist() == [True, True, True, False]
    assert all(torch.equal(batch.inputs[name].nan_to_num(), whole.inputs[name].nan_to_num()) for name in "ab")
    assert not data.train.subset(dict.fromkeys("ab", torch.tensor([3, 5]))).present
    raw = data.train.raw()
    assert torch.equal(raw.present["a"], data.train.present["a"]) and raw.labelled is data.train.labelled
    kept = [row for row in range(40) if HAS["a"][row] and HAS["b"][row] and row % 7 != 2]
    assert data.train.complete().numbers["a"].tolist() == kept and not data.train.complete().present


def test_modalities_that_are_shuffled_apart_keep_the_rows_that_have_them():
    given = {name: lacking(values, HAS[name]) for name, values in inputs().items()}

    data = from_arrays(given, lacking(CLASSES.tolist(), KNOWN), splits=SPLITS).apart()

    assert not data.info.paired and not data.info.present and not data.train.present
    assert data.info.rows["train"] == data.train.rows == {"a": 30, "b": 35} and data.info.rows["test"]["a"] == 10
    for name, rows in data.train.numbers.items():
        assert rows.tolist() == np.flatnonzero(HAS[name][:40]).tolist()
        assert data.info.labelled[name] == sum(row % 7 != 2 for row in rows)
        assert len(data.info.train_targets[name]) == len(rows)


def test_further_pairs_may_lack_a_modality_too():
    more = {"a": lacking(np.ones((4, 3)), [True, False, True, True]), "b": np.ones((4, 2, 9))}

    data = from_arrays({**inputs(), "a": lacking(inputs()["a"], HAS["a"])}, CLASSES, splits=SPLITS, unlabelled=more)

    assert data.info.present == {"a": 33, "b": 44} and data.info.labelled == {"a": 40, "b": 40}
    assert data.train.present["a"][40:].tolist() == [True, False, True, True]


def test_drawn_splits_score_complete_rows():
    given = {"a": lacking(inputs()["a"], np.arange(ROWS) % 2 == 0), "b": inputs()["b"]}

    data = from_arrays(given, CLASSES)

    assert data.info.rows["train"]["a"] == 30 + 21 and data.info.present == {"a": 21, "b": 51}
    by_group = from_arrays(given, CLASSES, groups=np.arange(ROWS) // 4, split_by_group=True)
    assert not by_group.test.present and by_group.info.present["a"] < by_group.info.rows["train"]["a"]
    assert any("belong to groups of the validation or test split" in said for said in by_group.warnings)


def test_batches_of_such_rows_are_data_again():
    given = {name: lacking(values, HAS[name]) for name, values in inputs().items()}
    data = from_arrays(given, CLASSES, splits=SPLITS, normalise="none")

    again = from_batches(*(in_order(data.split(name), batch_size=7) for name in SPLITS))

    assert_gaps(again, normalised=False)


FAULTS = {
    "a test row": ({"a": [None if row == 55 else value for row, value in enumerate(inputs()["a"])]}, "1 of 10 rows"),
    "a validation row": ({"a": [None if row in (41, 43) else v for row, v in enumerate(inputs()["a"])]}, "row 41, and"),
    "no training row": ({"a": lacking(inputs()["a"], np.arange(ROWS) >= 40)}, "has a, so nothing is learned of it"),
    "no row": ({"a": [None] * ROWS}, "inputs['a'] has no sample: all 60 are None or NaN. Leave it out."),
    "nothing in a row": (
        {name: lacking(values, np.arange(ROWS) != 9) for name, values in inputs().items()},
        "1 rows of splits['train'] have none of the modalities a, b; the first is row 9",
    ),
    "some NaN": ({"a": np.where(np.arange(3) == 1, np.nan, inputs()["a"])}, "NaN or infinite values in 60 of 60"),
    "some NaN besides rows of NaN": (
        {"a": [np.full(3, np.nan) if row == 3 else np.array([1, np.nan, 2]) for row in range(ROWS)]},
        "NaN or infinite values in 59 of 59 samples; the first is sample 0",
    ),
    "a length": (
        {"b": lacking(inputs()["b"], HAS["b"]), "b.lengths": [None if row == 2 else 3 for row in range(ROWS)]},
        "inputs['b.lengths'] lacks sample 2, and b has it",
    ),
    "a long length": (
        {"b": lacking(inputs()["b"], HAS["b"]), "b.lengths": [10 if row == 2 else 3 for row in range(ROWS)]},
        "inputs['b.lengths'] holds 10 for sample 2",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_sentences(name):
    changes, sentence = FAULTS[name]
    with pytest.raises(InputError) as caught:
        from_arrays({**inputs(), **changes}, CLASSES, splits=SPLITS)

    assert sentence in str(caught.value)


def test_unpaired_modalities_have_samples_of_their_own():
    given = {"a": lacking(inputs()["a"], HAS["a"]), "b": inputs()["b"]}

    with pytest.raises(InputError, match="Some samples lack a, and this data is unpaired"):
        from_arrays(given, {"a": CLASSES, "b": CLASSES})


# ---- folders


def write(root, *, order=1, **settings):
    """The data of ``inputs`` as a folder in which the files hold the rows that are there, in any order."""
    for name, values in inputs().items():
        rows = np.flatnonzero(HAS[name])[::order]
        np.save(root / f"{name}.npy", values[rows])
        np.save(root / f"{name}_rows.npy", rows)
    np.save(root / "labels.npy", CLASSES)
    for split, rows in SPLITS.items():
        np.save(root / f"{split}_idx.npy", rows)
    (root / "data.json").write_text(json.dumps(settings))
    return root


@pytest.mark.parametrize("order", [1, -1])
def test_a_folder_names_the_samples_that_a_modality_holds(tmp_path, order):
    data = load_folder(write(tmp_path, order=order))

    assert_gaps(data)
    assert isinstance(data.train.columns["a"].stored.array, np.memmap)


def test_a_folder_of_samples_and_lengths_may_have_gaps(tmp_path):
    write(tmp_path, layout={"b": "sequence"})
    values, rows = np.load(tmp_path / "b.npy"), np.load(tmp_path / "b_rows.npy")
    (tmp_path / "b.npy").unlink()
    (tmp_path / "b").mkdir()
    for number, sample in enumerate(values):
        np.save(tmp_path / "b" / f"{number:03}.npy", sample)
    np.save(tmp_path / "b.lengths.npy", 1 + rows % 9)

    data = load_folder(tmp_path)

    assert_gaps(data)
    batch = next(in_order(data.train, batch_size=3))
    assert batch.inputs["b.lengths"].tolist() == [1, -1, 3]


def test_no_row_of_nan_is_made_for_the_whole_set(tmp_path, monkeypatch):
    """4,000 samples of 4,000 numbers take 64 MB, of which 40 are there."""
    monkeypatch.setattr("xmodal.data.split.READY_BYTES", 2**20)
    rows = np.arange(0, 4000, 100)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(40, 4000)).astype("float32"))
    np.save(tmp_path / "a_rows.npy", rows)
    np.save(tmp_path / "b.npy", np.arange(8000.0).reshape(4000, 2))
    np.save(tmp_path / "labels.npy", np.arange(4000) // 100 % 2)
    for split, part in {
        "train": np.delete(np.arange(4000), rows[-8:]),
        "valid": rows[-8:-4],
        "test": rows[-4:],
    }.items():
        np.save(tmp_path / f"{split}_idx.npy", part)

    tracemalloc.start()
    data = load_folder(tmp_path)
    batch = data.train[Pick(dict.fromkeys("ab", torch.arange(128)), None)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert batch.present["a"].sum() == 2 and peak < 2**24


def test_drawn_splits_and_repairs_of_a_folder(tmp_path):
    write(tmp_path)
    for split in SPLITS:
        (tmp_path / f"{split}_idx.npy").unlink()
    drawn = load_folder(tmp_path)
    assert not drawn.test.present and drawn.info.rows["train"]["a"] > drawn.info.present["a"]
    for split, rows in SPLITS.items():
        np.save(tmp_path / f"{split}_idx.npy", rows)
    values, rows = np.load(tmp_path / "a.npy"), np.load(tmp_path / "a_rows.npy")
    values[[2, 4], 1] = np.nan  # samples 3 and 6
    np.save(tmp_path / "a.npy", values)

    with pytest.raises(
        InputError, match="a.npy holds NaN or infinite values in 2 of 50 samples; the first is sample 3"
    ):
        load_folder(tmp_path)

    assert rows[2] == 3
    dropped = load_folder(tmp_path, FolderSettings(nan="drop"))
    assert dropped.info.present == {"a": 28, "b": 33} and not np.isin([3, 6], dropped.train.numbers["a"]).any()
    zeroed = load_folder(tmp_path, FolderSettings(nan="zero"))
    assert zeroed.info.present == {"a": 30, "b": 35}
    batch = next(in_order(zeroed.train, batch_size=40))
    assert batch.inputs["a"][3].isfinite().all() and batch.inputs["a"][4].isnan().all()


def checked(folder, capsys):
    """Status and content of `xmodal data check`."""
    status = answer(["data", "check", str(folder), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_check_counts_the_rows_of_each_modality(tmp_path, capsys):
    status, found = checked(write(tmp_path), capsys)

    assert status == 0 and found["errors"] == []
    train = found["splits"]["train"]
    assert (train["rows"], train["present"], train["complete"]) == (40, {"a": 30, "b": 35}, 25)
    assert found["splits"]["test"]["complete"] == 10 and found["modalities"]["a"]["rows"] == 50
    answer(["data", "check", str(tmp_path)])
    assert "train  40 rows, 25 with all modalities (a: 30, b: 35)" in capsys.readouterr().out


FOLDER_FAULTS = {
    "twice": (lambda rows: np.append(rows[:-1], 1), "a_rows.npy names row 1 twice"),
    "outside": (lambda rows: np.append(rows[:-1], 60), "a_rows.npy holds the row 60, but there are 60 samples"),
    "negative": (lambda rows: np.append(-1, rows[1:]), "a_rows.npy holds the row -1, but there are 60 samples"),
    "too few": (lambda rows: rows[:-3], "a_rows.npy names 47 rows, and its modality has 50"),
    "a mask": (lambda rows: np.isin(np.arange(ROWS), rows), "a_rows.npy has the shape (60,) and holds bool"),
    "empty": (lambda rows: rows[:0], "a_rows.npy is empty: at least one sample must have the modality"),
    "a test row": (
        lambda rows: np.where(rows == 59, 0, rows),
        "1 of 10 rows of test_idx.npy lack a, the first is row 59",
    ),
}


@pytest.mark.parametrize("name", FOLDER_FAULTS)
def test_faults_of_a_folder_are_sentences(tmp_path, capsys, name):
    change, sentence = FOLDER_FAULTS[name]
    write(tmp_path)
    np.save(tmp_path / "a_rows.npy", change(np.load(tmp_path / "a_rows.npy")))

    status, found = checked(tmp_path, capsys)

    (problem,) = found["errors"]
    assert status == 2 and sentence in problem


def test_other_faults_of_a_folder(tmp_path):
    write(tmp_path)
    np.save(tmp_path / "a_labels.npy", CLASSES)
    with pytest.raises(InputError, match="a_rows.npy and b_rows.npy marks samples .* and a_labels.npy says"):
        load_folder(tmp_path)
    (tmp_path / "a_labels.npy").unlink()
    np.save(tmp_path / "c_rows.npy", CLASSES)
    with pytest.raises(InputError, match="c_rows.npy belongs to no modality"):
        load_folder(tmp_path)
    (tmp_path / "c_rows.npy").unlink()
    np.save(tmp_path / "a.npy", with_nan(inputs()["a"], HAS["a"]))
    (tmp_path / "a_rows.npy").unlink()
    with pytest.raises(InputError, match="A sample that lacks the modality is left out of the file; <modality>_rows"):
        load_folder(tmp_path)


def test_a_prediction_needs_all_inputs(tmp_path):
    write(tmp_path)

    with pytest.raises(InputError, match="a_rows.npy says that some samples lack a"):
        read_inputs(tmp_path, ["a"])


# ---- batches


def present():
    return {name: torch.from_numpy(mask[:40]) for name, mask in HAS.items()}


STUDENT = Needs(("b",), ("a", "b"))


def batches(labelled, *, unlabelled=True, needs=STUDENT, **changes):
    return batches_for(
        dict.fromkeys("ab", 40),
        dict.fromkeys("ab", labelled),
        unlabelled=unlabelled,
        paired=True,
        batch_size=10,
        seed=4,
        present=present(),
        needs=needs,
        **changes,
    )


def test_streams_hold_the_rows_that_have_what_is_needed():
    labelled = torch.arange(40) % 2 == 0
    both, some = (present()["a"] & present()["b"]), present()["b"]

    sampler = batches(labelled)

    assert len(sampler) == 4  # 40 rows in batches of 10
    for pick in sampler.at(1):
        rows = pick.rows["a"]
        assert rows is pick.rows["b"] and len(rows.unique()) == 10
        assert labelled[rows].tolist() == [True] * 5 + [False] * 5
        assert both[rows[5:]].all() and some[rows[:5]].all()
        assert both[rows[:5]].tolist() == [True] * 2 + [False] * 3  # of 16 labelled rows 8 have both
    alone = batches(labelled, unlabelled=False, needs=Needs(("a",), ("a",)))
    assert {len(pick.rows["a"]) for pick in alone} == {10}
    assert all((labelled & present()["a"])[pick.rows["a"]].all() for pick in alone)


def test_labelled_rows_are_divided_in_their_shares():
    for size, whole, partly in [
        (64, 300, 100),
        (8, 1, 500),
        (8, 500, 1),
        (5, 2, 3),
        (30, 20, 10),
        (7, 0, 9),
        (7, 9, 0),
    ]:
        first, second = divided(size, whole, partly)

        assert first + second == size and 0 <= first <= whole and 0 <= second <= partly
        assert abs(first - size * whole / (whole + partly)) <= 1 and (first or not whole)


@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_all_processes_make_the_batch_of_one(world):
    labelled = torch.arange(40) % 3 == 0
    alone = [pick.rows["b"] for pick in batches(labelled).at(2)]
    shares = [[pick.rows["b"] for pick in batches(labelled, rank=rank, world=world).at(2)] for rank in range(world)]

    for step, rows in enumerate(alone):
        joined = torch.empty(len(rows), dtype=torch.long)
        for rank in range(world):
            joined[rank::world] = shares[rank][step]
        assert torch.equal(joined, rows)


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="0 training rows have a label and a and b: this training can use no others"):
        batches(~(present()["a"] & present()["b"]), unlabelled=False, needs=Needs())
    with pytest.raises(InputError, match="1 training rows have a label and b, or a and b and no label"):
        batches_for(
            {"a": 3, "b": 3},
            {},
            unlabelled=True,
            paired=True,
            batch_size=10,
            seed=0,
            present={"a": torch.tensor([True, True, True]), "b": torch.tensor([True, False, False])},
            needs=STUDENT,
        )
