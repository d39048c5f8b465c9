import json

import numpy as np
import pytest
import torch

from xmodal.data import DATA, open_data, reopen
from xmodal.data.digits import VIEWS, DigitsSettings, load, make, make_views, prepare, read_pixels
from xmodal.data.own.check import check_folder
from xmodal.data.request import DataRequest
from xmodal.errors import InputError


def small(**options):
    return load(None, DigitsSettings(views=("rows", "profile"), **options), DataRequest())


def test_views_of_a_pattern_equal_values_computed_by_hand():
    pixels = np.zeros((1, 8, 8))
    pixels[0, 0, 0], pixels[0, 0, 1], pixels[0, 7, 1] = 16, 8, 4

    views = make_views(pixels, [0], settings=DigitsSettings(coarse_noise=0, noisy_noise=0))

    assert views["image"].shape == (1, 1, 8, 8) and views["image"][0, 0, 0, 0] == 1.0
    assert views["rows"][0, [0, 1, 57]].tolist() == [1.0, 0.5, 0.25]
    columns, rows = views["profile"][0, :8], views["profile"][0, 8:]
    assert columns.tolist() == [1 / 8, 0.75 / 8, 0, 0, 0, 0, 0, 0]
    assert rows.tolist() == [1.5 / 8, 0, 0, 0, 0, 0, 0, 0.25 / 8]
    assert views["coarse"][0, 0, 0, 0] == 1.5 / 4 and views["coarse"][0, 0, 3, 0] == 0.25 / 4
    assert views["noisy"][0, 0, 0, :3].tolist() == [0.0, 0.5, 1.0]
    assert views["top"][0, 0, 0, 0] == 1.0 and views["bottom"][0, 0, 3, 1] == 0.25
    assert views["fourier"][0, 0] == pytest.approx(np.log1p(1.75 / 8))  # the constant: the sum over sqrt(64)


def test_fourier_view_equals_the_sum_of_its_definition():
    pixels = read_pixels()[0][:1]

    x = pixels[0] / 16
    wave = np.exp(-2j * np.pi * np.outer(np.arange(8), np.arange(8)) / 8)
    slow = np.log1p(np.abs(wave @ x @ wave.T)[:, :5] / 8)

    np.testing.assert_allclose(make_views(pixels, [0])["fourier"][0], slow.ravel(), rtol=1e-6)


def test_fourier_view_does_not_see_half_a_turn():
    pixels = read_pixels()[0][:50]

    upright = make_views(pixels, range(50))
    turned = make_views(pixels[:, ::-1, ::-1], range(50))

    np.testing.assert_allclose(turned["fourier"], upright["fourier"], atol=1e-6)
    assert not np.allclose(turned["rows"], upright["rows"])


def test_noise_has_the_stated_strength_and_belongs_to_the_sample():
    pixels = read_pixels()[0][:400]
    clean = make_views(pixels, range(400), settings=DigitsSettings(coarse_noise=0, noisy_noise=0))

    noisy = make_views(pixels, range(400))
    alone = make_views(pixels[7:8], [7])
    other = make_views(pixels, range(400), settings=DigitsSettings(noise_seed=1))

    assert np.std(noisy["coarse"] - clean["coarse"]) == pytest.approx(0.15, rel=0.05)  # 6,400 draws
    assert noisy["noisy"].min() >= 0 and noisy["noisy"].max() <= 1
    assert all(np.array_equal(alone[view][0], noisy[view][7]) for view in VIEWS)
    assert not np.array_equal(other["coarse"], noisy["coarse"])


def test_splits_are_disjoint_complete_stratified_and_seeded():
    labels = read_pixels()[1]
    first, again, other = (load(None, DigitsSettings(views=("rows",)), DataRequest(seed=seed)) for seed in (0, 0, 1))

    numbers = {name: first.split(name).numbers["rows"] for name in ("train", "valid", "test")}

    assert sorted(np.concatenate(list(numbers.values())).tolist()) == list(range(1797))
    for digit in range(10):
        total = (labels == digit).sum()
        shares = [(labels[rows] == digit).sum() / total for rows in numbers.values()]
        np.testing.assert_allclose(shares, (0.7, 0.1, 0.2), atol=1 / total)  # whole samples
    assert np.array_equal(again.train.numbers["rows"], numbers["train"])
    assert not np.array_equal(other.train.numbers["rows"], numbers["train"])


def test_train_fraction_keeps_every_class_and_leaves_the_test_split():
    whole, part = (
        load(None, DigitsSettings(views=("rows",)), DataRequest(train_fraction=share)) for share in (1.0, 0.02)
    )

    counts = torch.bincount(part.info.train_targets["rows"], minlength=10)

    assert counts.min() >= 1 and counts.sum() < 40
    assert set(part.train.numbers["rows"]) <= set(whole.train.numbers["rows"])
    assert np.array_equal(part.test.numbers["rows"], whole.test.numbers["rows"])


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, float("nan")])
def test_a_train_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(InputError, match="train_fraction"):
        load(None, DigitsSettings(views=("profile",)), DataRequest(train_fraction=fraction))


def test_info_says_what_the_views_look_like():
    info = open_data("digits").info

    assert info.modalities == DATA["digits"].modalities == VIEWS
    assert info.classes == 10 and info.paired and not info.normalisation
    assert info.inputs["coarse"].shape == (1, 4, 4) and info.inputs["coarse"].layout == "image"
    assert info.inputs["fourier"].shape == (40,) and info.inputs["fourier"].layout == "vector"


def test_unpaired_digits_have_targets_of_their_own():
    assert small(paired=False).info.paired is False


def test_source_opens_the_same_data_again():
    data = open_data("digits", options={"views": ["top", "rows"]}, train_fraction=0.1, augment="noise:0.1", seed=3)

    again = reopen(json.loads(json.dumps(data.source)))

    assert again.source == data.source
    assert again.info.inputs == data.info.inputs
    assert np.array_equal(again.train.numbers["top"], data.train.numbers["top"])
    assert again.train.augment == data.train.augment


def test_arrays_in_memory_can_not_be_opened_again():
    with pytest.raises(InputError, match="arrays in memory"):
        reopen({})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"vews": ["rows"]}, "no key 'vews'. Did you mean 'views'"),
        ({"views": ["row"]}, "no view 'row'. Did you mean 'rows'"),
        ({"views": []}, "at least one was expected"),
        ({"views": ["rows", "rows"]}, "each of them once"),
        ({"train_share": 0.5}, "add up to 0.8"),
        ({"train_share": "much"}, "'train_share' is 'much'"),
        ({"coarse_noise": -1}, "'coarse_noise' is -1"),
    ],
)
def test_wrong_options_are_sentences(options, sentence):
    with pytest.raises(InputError) as caught:
        open_data("digits", options=options)
    assert sentence in str(caught.value) and "pydantic" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_closest_one():
    with pytest.raises(InputError, match="Did you mean 'digits'.*Or give the path of a folder"):
        open_data("digtis")


def test_digits_have_one_task():
    with pytest.raises(InputError, match="multiclass"):
        open_data("digits", task="regression")


def test_written_folder_opens_by_its_path_with_the_same_numbers(tmp_path):
    root = make(tmp_path / "digits", samples=300, seed=4)

    data = open_data(str(root))

    assert check_folder(root).errors == []
    assert data.info.modalities == VIEWS and data.info.class_names == tuple("0123456789")
    assert data.info.rows["test"]["rows"] == 60 and not data.info.normalisation
    expected = make_views(read_pixels()[0][:300], range(300))
    for view in VIEWS:
        assert np.array_equal(data.train.columns[view][:], expected[view])


def test_raw_pictures_prepare_to_the_same_views_and_resume(tmp_path):
    raw = make(tmp_path / "raw", format="raw", samples=60)
    (tmp_path / "raw" / "raw" / "3" / "9999.png").write_bytes(b"no picture")

    first = prepare(raw, tmp_path / "out")
    second = prepare(raw, tmp_path / "out")

    assert len(first.done) == 60 and first.skipped[0][0] == "9999" and "identify" in first.skipped[0][1]
    assert second.done == [] and len(second.reused) == 60
    assert json.loads((tmp_path / "out" / "skipped.json").read_text())["skipped"][0]["name"] == "9999"
    data = open_data(str(tmp_path / "out"))
    expected = make_views(read_pixels()[0][:60], range(60))
    for view in VIEWS:
        assert np.array_equal(data.train.columns[view][np.arange(60)], expected[view])
    assert np.array_equal(np.load(tmp_path / "out" / "labels.npy"), read_pixels()[1][:60])


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(InputError, match="there already"):
        make(tmp_path)
    with pytest.raises(InputError, match="Did you mean 'raw'"):
        make(tmp_path / "new", format="rw")
    with pytest.raises(InputError, match="too few to draw splits"):
        make(tmp_path / "few", samples=30)
    with pytest.raises(InputError, match="holds no digits"):
        prepare(tmp_path, tmp_path / "out")


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    from xmodal.data.digits import read_pixels

    pixels, labels = read_pixels()
    bundle = load_digits()
    assert np.array_equal(pixels, bundle.images) and np.array_equal(labels, bundle.target)
    assert pixels.dtype == np.uint8 and labels.dtype == np.int64
