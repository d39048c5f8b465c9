"""Auxiliary inputs of a modality: they follow its rows, are not normalised, and are no modality themselves."""

import numpy as np
import pytest
import torch

from xmodal.data import open_data
from xmodal.data.arrays import from_arrays, from_batches
from xmodal.data.loader import Batches, Loader, in_order
from xmodal.data.own.check import check_folder
from xmodal.data.own.folder import read_inputs
from xmodal.errors import InputError
from xmodal.types import owner

ROWS = 20


def arrays():
    """Sequences whose values and lengths name their row."""
    audio = np.tile(np.arange(ROWS, dtype=np.float32)[:, None, None], (1, 2, 8))
    return {
        "audio": audio,
        "audio.lengths": np.arange(ROWS) % 8 + 1,
        "audio.tokens": np.arange(ROWS * 3).reshape(ROWS, 3),
        "audio.weight": np.linspace(0, 1, ROWS),
        "depth": np.random.default_rng(0).normal(size=(ROWS, 4)),
    }


def opened(**options):
    return from_arrays(arrays(), np.arange(ROWS) % 2, normalise="none", **options)


@pytest.fixture
def with_lengths(folder):
    """The small folder with lengths of its modality audio."""
    np.save(folder / "audio.lengths.npy", np.arange(ROWS) % 8 + 1)
    return folder


def test_an_owner_is_what_stands_before_the_first_dot():
    assert owner("audio.lengths") == owner("audio") == owner("audio.a.b") == "audio"


def test_whole_numbers_stay_whole_and_are_never_normalised():
    data = from_arrays(arrays(), np.arange(ROWS) % 2)
    batch = next(iter(in_order(data.test, batch_size=ROWS)))

    kinds = {name: tensor.dtype for name, tensor in batch.inputs.items()}
    assert kinds["audio.lengths"] == kinds["audio.tokens"] == torch.int64
    assert kinds["audio"] == kinds["audio.weight"] == kinds["depth"] == torch.float32
    assert set(data.info.normalisation) == {"audio", "depth"} == set(data.info.modalities)
    info = data.info.inputs
    assert info["audio.lengths"].shape == () and info["audio.lengths"].dtype == "int64"
    assert info["audio.tokens"].shape == (3,) and info["audio.tokens"].layout == "other"


@pytest.mark.parametrize("apart", [False, True])
def test_they_follow_the_rows_of_their_modality_in_shuffled_batches(apart):
    data = opened().apart() if apart else opened()
    sampler = Batches(data.train.rows, paired=data.info.paired, batch_size=4, seed=0)

    for batch in Loader(data.train, sampler).epoch(3):
        rows = batch.inputs["audio"][:, 0, 0].long()
        assert torch.equal(batch.inputs["audio.lengths"], rows % 8 + 1)
        assert torch.equal(batch.inputs["audio.tokens"][:, 0], rows * 3)
        assert set(batch.index) == set(batch.targets) == {"audio", "depth"}


def test_columns_too_large_to_keep_give_the_same_rows(monkeypatch):
    small = next(iter(in_order(opened().test, batch_size=ROWS)))
    monkeypatch.setattr("xmodal.data.split.READY_BYTES", 0)

    large = next(iter(in_order(opened().test, batch_size=ROWS)))

    assert all(torch.equal(small.inputs[name], large.inputs[name]) for name in small.inputs)


def test_augmentation_leaves_them_alone():
    data = opened(augment="noise:1")
    batch = next(iter(Loader(data.train, Batches(data.train.rows, paired=True, batch_size=ROWS, seed=0)).epoch(0)))

    assert torch.equal(batch.inputs["audio.lengths"], batch.inputs["audio.tokens"][:, 0] // 3 % 8 + 1)
    with pytest.raises(InputError, match="names a modality 'audio.lengths'"):
        opened(augment="audio.lengths.noise:1")


def test_batches_carry_them_through():
    data = opened()
    parts = [list(in_order(split, batch_size=3)) for split in (data.train, data.valid, data.test)]

    again = from_batches(*parts)

    one, two = (next(iter(in_order(each.test, batch_size=ROWS))) for each in (data, again))
    assert again.info.modalities == data.info.modalities and list(again.info.inputs) == list(data.info.inputs)
    assert all(torch.equal(one.inputs[name], two.inputs[name]) for name in one.inputs)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("audio.lengths", np.arange(5), r"has the shape \(5,\), and audio has 20 samples"),
        ("audio.lengths", np.zeros(ROWS), r"holds float64: \(20,\) integers were expected"),
        ("audio.lengths", np.arange(ROWS), "holds 0 for sample 0: 1 to 8 were expected"),
        ("audio.lengths", np.full(ROWS, 9), "holds 9 for sample 0: 1 to 8 were expected"),
        ("audio.weight", np.full(ROWS, np.nan), "NaN or infinite values; the first is in sample 0"),
        ("audio.words", np.array(["a"] * ROWS), "holds text"),
    ],
)
def test_what_does_not_fit_its_modality_is_refused(name, value, sentence):
    with pytest.raises(InputError, match=sentence):
        from_arrays({**arrays(), name: value}, np.arange(ROWS) % 2)


def test_what_goes_with_nothing_is_refused_by_its_name():
    with pytest.raises(InputError, match="'video.lengths' can't be the name of a modality"):
        from_arrays({**arrays(), "video.lengths": np.arange(ROWS)}, np.arange(ROWS) % 2)


def test_a_folder_may_hold_them(with_lengths):
    data = open_data(str(with_lengths))
    batch = next(iter(in_order(data.test, batch_size=ROWS)))

    assert data.info.modalities == ("audio", "image") and batch.inputs["audio.lengths"].tolist() == [1, 2, 3, 4]
    assert open_data(str(with_lengths), options={"modalities": ["image"]}).info.inputs.keys() == {"image"}
    assert check_folder(with_lengths).errors == []


def test_a_folder_with_wrong_ones_is_refused(with_lengths):
    np.save(with_lengths / "audio.lengths.npy", np.full(ROWS, 70))
    assert check_folder(with_lengths).errors == [
        "audio.lengths.npy holds 70 for sample 0: 1 to 8 were expected, as many as audio has steps."
    ]

    np.save(with_lengths / "video.lengths.npy", np.ones(ROWS, int))
    assert any("'video.lengths' can't be the name" in problem for problem in check_folder(with_lengths).errors)


def test_a_student_that_needs_them_finds_them(with_lengths):
    (with_lengths / "image.npy").unlink()
    (with_lengths / "labels.npy").unlink()

    found = read_inputs(with_lengths, ["audio", "audio.lengths"])

    assert found["audio"].shape == (ROWS, 2, 8) and found["audio.lengths"][:3].tolist() == [1, 2, 3]
    with pytest.raises(InputError, match=r"has no audio.weight.npy"):
        read_inputs(with_lengths, ["audio", "audio.weight"])
