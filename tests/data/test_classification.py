import json

import numpy as np
import pytest

from xmodal.data import DATA, open_data, reopen
from xmodal.data.classification import ClassificationSettings, columns_of, draw, make, truth
from xmodal.data.own.check import check_folder
from xmodal.data.request import DataRequest
from xmodal.errors import InputError

FEW = {"samples": 400}


def published(shared, samples=400, seed=42):
    return draw(shared=shared, samples=samples, random_state=seed, noise_seed=seed, scale_on_all=True)


@pytest.mark.parametrize("shared", [0, 5, 20])
def test_shared_columns_are_equal_in_both_modalities_and_no_others(shared):
    train = published(shared)["train"]

    equal = np.flatnonzero((train.a == train.b).all(axis=0))

    assert equal.tolist() == list(range(20 - shared, 20))


def test_each_modality_sees_its_twenty_columns_and_noise_elsewhere():
    train = published(5)["train"]

    for modality, seen in (("a", train.a), ("b", train.b)):
        same = np.flatnonzero((seen == train.decisive).all(axis=0))
        assert same.tolist() == list(columns_of(modality, 5)) and len(same) == 20
        noise = np.delete(seen, same, axis=1)
        assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05  # 240 x 30 draws


def test_noise_is_drawn_for_b_first_and_training_rows_before_test_rows():
    found = published(0, seed=3)
    stream = np.random.RandomState(3)

    order = [(split, modality) for split in ("train", "test") for modality in ("b", "a")]

    for split, modality in order:
        seen = getattr(found[split], modality)
        noise = stream.randn(*seen.shape)
        free = [column for column in range(50) if column not in columns_of(modality, 0)]
        assert np.array_equal(seen[:, free], noise[:, free])


def test_the_student_sees_the_same_numbers_whatever_is_shared():
    assert np.array_equal(published(0)["test"].b, published(20)["test"].b)


def test_scaling_looks_at_the_training_rows_unless_published():
    ours = draw(shared=10, samples=400)
    theirs = published(10)

    assert np.allclose(ours["train"].decisive.mean(axis=0), 0) and np.allclose(ours["train"].decisive.std(axis=0), 1)
    assert abs(ours["test"].decisive.mean(axis=0)).max() > 0.01
    both = np.concatenate([theirs["train"].decisive, theirs["test"].decisive])
    assert np.allclose(both.mean(axis=0), 0) and np.allclose(both.std(axis=0), 1)


def test_nothing_is_taken_from_the_global_generator():
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)

    published(10)

    assert np.random.rand() == expected


def test_splits_are_disjoint_and_hold_every_class():
    data = open_data("classification", options=FEW)

    rows = {split: data.split(split).numbers["a"].tolist() for split in ("train", "valid", "test")}

    assert sorted(sum(rows.values(), [])) == list(range(400))
    assert [len(part) for part in rows.values()] == [216, 24, 160]
    assert all(len(data.split(split).targets["b"].unique()) == 4 for split in rows)
    assert data.info.modalities == DATA["classification"].modalities and not data.warnings


def test_published_training_rows_keep_the_validation_rows_and_say_so():
    data = open_data("classification", options={**FEW, "as_published": True})

    train, valid = data.train.numbers["a"], data.valid.numbers["a"]

    assert len(train) == 240 and set(valid) < set(train)
    assert "overfitted" in data.warnings[0]
    assert np.array_equal(data.train.columns["a"][:240], published(10)["train"].a.astype(np.float32))


def test_seed_zero_draws_the_published_samples_and_another_seed_others():
    first, other = (open_data("classification", options=FEW, seed=seed) for seed in (0, 1))
    fixed = open_data("classification", options={**FEW, "random_state": 42, "noise_seed": 42}, seed=1)

    assert np.array_equal(first.train.columns["b"][:], fixed.train.columns["b"][:])
    assert not np.array_equal(first.train.columns["b"][:], other.train.columns["b"][:])
    assert not np.array_equal(first.valid.numbers["b"], fixed.valid.numbers["b"])


def test_published_split_is_drawn_from_42_whatever_the_seed_of_the_samples():
    seeds = {"random_state": 7, "noise_seed": 11, "scale_on_all": True}

    theirs, ours = draw(shared=10, split_seed=42, **seeds), draw(shared=10, **seeds)

    # counted in the authors' code, which draws the samples from 7, the split from 42 and the noise from 11
    assert np.bincount(theirs["train"].label).tolist() == [1504, 1518, 1495, 1483]
    assert np.bincount(ours["train"].label).tolist() != [1504, 1518, 1495, 1483]


def test_as_published_splits_the_samples_of_every_seed_alike():
    options = {"as_published": True, "random_state": 7, "noise_seed": 11}

    data = open_data("classification", options=options, seed=3)

    assert np.bincount(data.train.targets["a"]).tolist() == [1504, 1518, 1495, 1483]


def test_truth_names_the_channels_that_are_shared():
    found = truth(5)

    assert found["modalities"]["a"]["shared"] == found["modalities"]["b"]["shared"] == [15, 16, 17, 18, 19]
    assert found["modalities"]["a"]["specific"] == list(range(20, 35))
    assert found["modalities"]["b"]["specific"] == list(range(15))
    assert (found["decisive"], found["alpha"], found["published_gamma"]) == (35, 0.75, 0.25)
    assert found["gamma"] == pytest.approx(5 / 35)


def test_written_folder_opens_by_its_path_with_the_same_numbers(tmp_path):
    root = make(tmp_path / "written", settings=ClassificationSettings(samples=400, shared=3))

    data = open_data(str(root))

    assert check_folder(root).errors == []
    expected = open_data("classification", options={**FEW, "shared": 3})
    for split in ("train", "valid", "test"):
        assert np.array_equal(data.split(split).numbers["a"], expected.split(split).numbers["a"])
    assert np.array_equal(data.train.columns["a"][:], expected.train.columns["a"][:])
    saved = json.loads((root / "truth.json").read_text())
    assert {**truth(3), "schema": 1} == saved


def test_source_opens_the_same_data_again():
    data = open_data("classification", options=FEW, seed=2)

    again = reopen(json.loads(json.dumps(data.source)))

    assert np.array_equal(again.test.columns["a"][:], data.test.columns["a"][:])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shared": 21}, "'shared' is 21"),
        ({"shard": 3}, "Did you mean 'shared'"),
        ({"valid_share": 0}, "'valid_share' is 0"),
        ({"samples": 4}, "'samples' is 4"),
    ],
)
def test_wrong_options_are_sentences(options, sentence):
    with pytest.raises(InputError) as caught:
        open_data("classification", options=options)
    assert sentence in str(caught.value)


def test_what_can_not_be_written_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(InputError, match="there already"):
        make(tmp_path)
    with pytest.raises(InputError, match="no format 'raw'"):
        make(tmp_path / "new", format="raw")
    with pytest.raises(InputError, match="built in and reads no folder"):
        DATA["classification"].load()("somewhere", ClassificationSettings(), DataRequest())
    with pytest.raises(InputError, match="multiclass"):
        open_data("classification", task="regression")


def test_as_published_sets_the_fields_that_it_names():
    settings = ClassificationSettings(as_published=True)

    assert settings.scale_on_all and settings.valid_in_train and settings.split_seed == 42
    assert ClassificationSettings(as_published=True, split_seed=5).split_seed == 5
    assert ClassificationSettings.model_validate(settings.model_dump()) == settings
