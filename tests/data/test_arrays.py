import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from xmodal.data.arrays import from_arrays, from_batches, from_dataset
from xmodal.data.base import assemble
from xmodal.data.loader import Pick, in_order
from xmodal.data.samples import DatasetColumn
from xmodal.errors import InputError
from xmodal.types import Batch, Normalisation

ROWS = 20
LABELS = np.arange(ROWS) % 2
SPLITS = {"train": np.arange(12), "valid": np.arange(12, 16), "test": np.arange(16, ROWS)}


def arrays(rows=ROWS):
    random = np.random.default_rng(0)
    return {"audio": random.normal(2, 3, size=(rows, 2, 8)), "image": random.normal(size=(rows, 1, 4, 4))}


def first(data, split="train"):
    return next(iter(in_order(data.split(split), batch_size=100)))


class Samples(Dataset):
    """A dataset that counts how often it is asked."""

    def __init__(self, form="pair"):
        self.form, self.inputs, self.asked = form, arrays(), 0

    def __len__(self):
        return ROWS

    def __getitem__(self, row):
        self.asked += 1
        inputs = {name: torch.from_numpy(array[row]) for name, array in self.inputs.items()}
        target = int(LABELS[row])
        if self.form == "pair":
            return inputs, target
        return {"inputs": inputs, "target": target} if self.form == "named" else {**inputs, "target": target}


def test_arrays_tensors_and_lists_give_the_same_data():
    inputs = arrays()

    data = from_arrays(inputs, LABELS, splits=SPLITS)
    tensors = from_arrays(
        {name: torch.from_numpy(x) for name, x in inputs.items()}, torch.from_numpy(LABELS), splits=SPLITS
    )
    lists = from_arrays({name: x.tolist() for name, x in inputs.items()}, LABELS.tolist(), splits=SPLITS)

    train = inputs["audio"][:12]
    expected = (train - train.mean(axis=(0, 2), keepdims=True)) / train.std(axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(first(data).inputs["audio"].numpy(), expected, atol=1e-5)
    assert first(data).target.tolist() == LABELS[:12].tolist() and data.info.paired and data.source == {}
    for other in (tensors, lists):
        assert torch.equal(first(other).inputs["audio"], first(data).inputs["audio"])


def test_statistics_do_not_see_the_test_split():
    inputs, spoilt = arrays(), arrays()
    spoilt["audio"][16:] *= 1e6

    data, other = (from_arrays(x, LABELS, splits=SPLITS) for x in (inputs, spoilt))

    assert data.info.normalisation == other.info.normalisation


def test_normalisation_by_name():
    data = from_arrays(arrays(), LABELS, normalise={"audio": "standard", "image": "none"})

    assert list(data.info.normalisation) == ["audio"]


def test_a_tensor_that_requires_gradients_is_taken():
    inputs = {"x": torch.ones(ROWS, 3, requires_grad=True)}

    assert from_arrays(inputs, LABELS).info.inputs["x"].shape == (3,)


def test_targets_by_modality_make_unpaired_data():
    inputs = {"audio": arrays()["audio"], "image": arrays(30)["image"]}

    data = from_arrays(inputs, {"audio": LABELS, "image": np.arange(30) % 2})

    assert not data.info.paired and data.info.rows["train"] == {"audio": 14, "image": 20}


def test_unpaired_splits_by_modality():
    inputs = {"audio": arrays()["audio"], "image": arrays(30)["image"]}
    rows = {split: {"audio": part, "image": part + 10} for split, part in SPLITS.items()}

    data = from_arrays(inputs, {"audio": LABELS, "image": np.arange(30) % 2}, splits=rows)

    assert data.test.numbers["image"].tolist() == [26, 27, 28, 29]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inputs": {}}, "There are no inputs"),
        ({"inputs": {"a": [[1, 2], [3]]}}, "samples of several shapes"),
        ({"inputs": {"a": np.ones((19, 2))}}, "inputs['a'] has 19, target has 20"),
        ({"inputs": {"a": np.ones((20, 2)), "b": np.ones((9, 2))}}, "inputs['b'] has 9"),
        ({"inputs": {"a": np.array([[None, 1]] * 20)}}, "inputs['a'] holds Python objects"),
        ({"inputs": {"a": np.ones(20)}}, "store the shape (20, 1)"),
        ({"inputs": {"a": np.ones((20, 0))}}, "inputs['a'] is empty"),
        ({"inputs": {"a": np.full((20, 2), np.nan)}}, "NaN or infinite values in 20 of 20 samples"),
        ({"inputs": {"a": np.ones((20, 8, 8))}}, "could be a picture without a channel axis"),
        ({"inputs": {"a.b": np.ones((20, 2))}}, "can't be the name of a modality"),
        ({"target": LABELS - 2}, "target: Labels are -1 and -2; -1 means unlabelled"),
        ({"target": LABELS - 1}, "target: Labels are -1 and 0; -1 means unlabelled"),
        ({"target": [None] * 20}, "target has no label in any of its 20 rows"),
        ({"target": LABELS * 0}, "target holds a single class"),
        ({"target": ["a"] * 20}, "target holds a single class (a)"),
        ({"target": np.full(20, "2026-01-01", dtype="datetime64[D]")}, "target has the type datetime64[D]: text,"),
        ({"target": [object()] * 20}, "target has the type object: text,"),
        ({"target": ["a", 1] * 10}, "target mixes text and other values"),
        ({"target": [2**70, 1] * 10}, "target holds integers of more than 64 bits"),
        ({"target": ["a", "b"] * 10, "task": "regression"}, "target holds text, and the task regression needs numbers"),
        ({"target": ["a", "b", "c", "d"] * 5, "task": "binary"}, "a binary task has two"),
        ({"target": ["a", "b"] * 10, "class_names": ["a", "c"]}, "target holds b, and class_names lists a, c"),
        ({"target": ["a", "b"] * 10, "class_names": ["a", "b", "a"]}, "class_names lists a twice"),
        ({"target": [3, 7] * 10, "class_names": ["x", "y", "z"]}, "target holds the class 7, but class_names lists 3"),
        ({"target": [["a", "b"]] * 20}, "one label per sample was expected"),
        ({"target": []}, "target is empty"),
        ({"target": {"b": LABELS}}, "There are targets for b and inputs for a"),
        ({"task": "multclass"}, "Did you mean 'multiclass'"),
        ({"task": "multilabel"}, "(samples, labels) was expected"),
        ({"class_names": ["one"]}, "class_names lists 1"),
        ({"normalise": "standrd"}, "Did you mean 'standard'"),
        ({"normalise": {"b": "none"}}, "normalise names the modality 'b'"),
        ({"layouts": {"a": "image"}}, "set to 'image'"),
        ({"splits": {"train": [0, 1]}}, "splits has the keys train"),
        ({"splits": {**SPLITS, "test": [0, 17]}}, "splits['train'] and splits['test'] share 1 rows"),
        ({"splits": {**SPLITS, "test": [20]}}, "splits['test'] holds the row 20"),
        ({"splits": {**SPLITS, "test": {"b": [16]}}}, "splits['test'] has rows for b: a was expected"),
        ({"train_fraction": 0.0}, "train_fraction is 0.0"),
    ],
)
def test_wrong_arrays_are_sentences(changes, sentence):
    given = {"inputs": {"a": np.arange(40.0).reshape(20, 2)}, "target": LABELS} | changes

    with pytest.raises(InputError) as caught:
        from_arrays(given.pop("inputs"), given.pop("target"), **given)

    assert sentence in str(caught.value)


def test_all_problems_are_said_at_once():
    with pytest.raises(InputError) as caught:
        from_arrays({"a": np.full((20, 2), np.nan), "b": np.ones(20)}, LABELS - 1, normalise="none-such")

    assert len(caught.value.problems) == 4


@pytest.mark.parametrize("keep_bytes", [0, 2**20])
@pytest.mark.parametrize("form", ["pair", "named", "flat"])
def test_a_dataset_gives_the_same_data_as_its_arrays(form, keep_bytes):
    expected = from_arrays(arrays(), LABELS, splits=SPLITS)

    data = from_dataset(Samples(form), splits=SPLITS, keep_bytes=keep_bytes)

    assert isinstance(data.train.columns["audio"], DatasetColumn) == (keep_bytes == 0)
    assert data.info.normalisation == expected.info.normalisation
    for name in ("audio", "image"):
        assert torch.equal(first(data, "test").inputs[name], first(expected, "test").inputs[name])
    assert torch.equal(first(data).target, first(expected).target)


def test_a_small_dataset_is_read_once():
    dataset = Samples()

    data = from_dataset(dataset)
    first(data)

    assert dataset.asked == ROWS + 1  # the first sample once more, for the shapes


def test_a_lazy_column_answers_rows_ranges_and_one_row():
    dataset = Samples()
    column = from_dataset(dataset, keep_bytes=0).train.columns["audio"]
    whole = dataset.inputs["audio"]

    assert np.array_equal(column[np.array([5, 3])], whole[[5, 3]])
    assert np.array_equal(column[2:4], whole[2:4]) and np.array_equal(column[7], whole[7])
    assert len(column) == ROWS


class Changed(Samples):
    """One sample is not like the others."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def __getitem__(self, row):
        sample = super().__getitem__(row)
        return self.change(*sample) if row == 6 else sample


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, y: ({**x, "audio": torch.ones(2, 9)}, y), "audio of sample 6 has the shape (2, 9)"),
        (lambda x, y: ({**x, "audio": torch.full((2, 8), torch.nan)}, y), "audio of sample 6 holds NaN"),
        (lambda x, y: ({"audio": x["audio"]}, y), "Sample 6 of the dataset has the modalities audio, sample 0"),
        (lambda x, y: (x, [y, y]), "targets of the dataset have several shapes"),
        (lambda x, y: (x["audio"], x["image"], y), "Sample 6 of the dataset is a tuple of an unknown form"),
    ],
)
def test_a_sample_unlike_the_others_is_a_sentence(change, sentence):
    with pytest.raises(InputError) as caught:
        from_dataset(Changed(change))

    assert sentence in str(caught.value)


def test_an_empty_dataset_is_a_sentence():
    with pytest.raises(InputError, match="empty or has no length"):
        from_dataset([])


def batches(rows, size=5, **changes):
    inputs = {name: torch.from_numpy(x[rows]).float() for name, x in arrays().items()}
    target = torch.from_numpy(LABELS[rows])
    batches = []
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        shared = target[part]
        batches.append(Batch({name: x[part] for name, x in inputs.items()}, dict.fromkeys(inputs, shared)))
    return batches


def test_batches_are_joined_to_the_splits_they_came_in():
    data = from_batches(*(iter(batches(rows)) for rows in SPLITS.values()))

    assert data.info.paired and data.info.rows["valid"] == {"audio": 4, "image": 4} and not data.info.normalisation
    assert torch.equal(first(data, "test").inputs["image"], torch.from_numpy(arrays()["image"][16:]).float())


def test_unpaired_batches_stay_unpaired():
    def unpaired(rows):
        x, y = torch.randn(rows, 3), torch.arange(rows) % 2
        return [Batch({"a": x, "b": x[: rows - 2]}, {"a": y, "b": 1 - y[: rows - 2]})]

    data = from_batches(unpaired(10), unpaired(6), unpaired(8))

    assert not data.info.paired and data.info.rows["test"] == {"a": 8, "b": 6}


def test_batches_that_do_not_fit_are_sentences():
    good = batches(SPLITS["train"])
    less = [Batch({"audio": torch.ones(2, 2, 8)}, {"audio": torch.zeros(2)})]
    masked = batches(SPLITS["valid"])
    masked[0].valid = {"audio": torch.ones(4, dtype=torch.bool)}

    with pytest.raises(InputError, match="valid split has no batches"):
        from_batches(good, [], good)
    with pytest.raises(InputError, match="A batch has the inputs audio and targets of audio"):
        from_batches(good, less, good)
    with pytest.raises(InputError, match="marks parts as invalid"):
        from_batches(good, masked, good)


def maps_of_classes(rows=20):
    random = np.random.default_rng(0)
    target = random.integers(0, 3, (rows, 4, 4))
    target[:, 0] = 255
    return {"image": random.normal(size=(rows, 3, 4, 4)), "depth": random.normal(size=(rows, 1, 4, 4))}, target


def test_maps_of_class_numbers_make_the_data_dense():
    inputs, target = maps_of_classes()

    data = from_arrays(inputs, target, ignore=255)

    info = data.info
    assert (info.dense, info.task, info.classes, info.ignore) == (True, "multiclass", 3, 255)
    assert info.select == ("mean_iou", "max")
    batch = data.train[Pick(dict.fromkeys(inputs, torch.arange(2)), None)]
    assert batch.target.shape == (2, 4, 4) and (batch.target[:, 0] == 255).all()


def test_a_class_that_is_ignored_stays_a_class_where_larger_ones_are():
    inputs, target = maps_of_classes()

    assert from_arrays(inputs, np.where(target == 255, 0, target), ignore=0).info.classes == 3


def test_dense_data_is_not_augmented_by_what_moves_its_samples():
    inputs, target = maps_of_classes()

    with pytest.raises(InputError, match="'noise:0.1,shift:1' moves what is in a sample"):
        from_arrays(inputs, target, ignore=255, augment="noise:0.1,shift:1")
    assert from_arrays(inputs, target, ignore=255, augment="noise:0.1").train.augmented


def test_empty_places_stay_zero_where_the_statistics_say_so():
    maps = np.array([[[[4.0, 0.0]], [[0.0, 0.0]]]] * 3, np.float32)  # (rows, 2, 1, 2): the second place is empty
    rows = {split: {"lidar": np.array([number])} for number, split in enumerate(("train", "valid", "test"))}
    known = {how: Normalisation([[[1.0]], [[2.0]]], [[[3.0]], [[4.0]]], empty=how) for how in (False, True)}

    seen = {
        how: assemble({"lidar": maps}, {"lidar": np.array([0, 1, 0])}, rows, normalise={"lidar": statistics}).test[
            Pick({"lidar": torch.tensor([0])}, None)
        ]
        for how, statistics in known.items()
    }

    torch.testing.assert_close(seen[False].inputs["lidar"][0, :, 0].T, torch.tensor([[1, -0.5], [-1 / 3, -0.5]]))
    torch.testing.assert_close(seen[True].inputs["lidar"][0, :, 0].T, torch.tensor([[1, -0.5], [0, 0]]))
