import json
from collections import Counter

import numpy as np
import pytest
import torch

from xmodal.data import DATA, open_data, reopen
from xmodal.data.gaussian.dataset import GaussianSettings, as_data, design_of, draw_splits_of, load, make
from xmodal.data.gaussian.draws import (
    Design,
    Noise,
    Pairs,
    View,
    arranged,
    counts_of,
    draw,
    draw_removal,
    draw_sweep,
    increase_alpha,
    increase_gamma,
    modify_gamma,
    separate_generator,
)
from xmodal.data.own.check import check_folder
from xmodal.data.request import DataRequest
from xmodal.errors import InputError


def least_squares_accuracy(fitted, tested, modality):
    """What a linear model of one modality can do, by a closed form."""
    with_one = [np.c_[getattr(part, modality), np.ones(len(part))] for part in (fitted, tested)]
    weight, *_ = np.linalg.lstsq(with_one[0], 2.0 * fitted.label - 1, rcond=None)
    return float(((with_one[1] @ weight > 0) == tested.label).mean())


# ---- who sees what


@pytest.mark.parametrize(("overlap", "gamma"), [(0, 0.0), (2, 2 / 18), (4, 0.25), (6, 6 / 14), (8, 8 / 12), (10, 1.0)])
def test_experiment_1_sweeps_gamma(overlap, gamma):
    design = increase_gamma(overlap)

    assert design.gamma == pytest.approx(gamma)
    assert len(design.a.sees) == len(design.b.sees) == 10 and len(design.shared) == overlap
    assert design.channels("a", "shared") == design.channels("b", "shared") == tuple(range(10 - overlap, 10))


@pytest.mark.parametrize(("specific", "alpha"), [(0, 0.0), (10, 0.5), (20, 2 / 3), (30, 0.75), (40, 0.8)])
def test_experiment_2_sweeps_alpha(specific, alpha):
    design = increase_alpha(specific)

    assert (design.alpha, design.beta) == (pytest.approx(alpha), 0.0)
    assert design.gamma == pytest.approx(1 - alpha)
    assert design.channels("a", "specific") == tuple(range(10, 10 + specific))


def test_experiment_3_shares_the_first_channels():
    design = modify_gamma(10, 20)

    assert (design.decisive, design.beta) == (30, 0.0) and design.gamma == pytest.approx(2 / 3)
    assert design.channels("a", "shared") == design.channels("b", "shared") == tuple(range(20))


def test_an_arranged_problem_says_the_truth():
    design = arranged(shared=2, a_only=1, b_only=3, unseen=4, a_width=5, b_width=6)

    assert design.described() == {
        "decisive": 10,
        "alpha": pytest.approx(1 / 3),
        "beta": pytest.approx(3 / 5),
        "gamma": pytest.approx(2 / 6),
        "modalities": {
            "a": {"width": 5, "shared": [0, 1], "specific": [2]},
            "b": {"width": 6, "shared": [0, 1], "specific": [2, 3, 4]},
        },
    }


def test_a_modality_that_sees_nothing_has_share_zero():
    design = arranged(shared=0, a_only=3, b_only=0, a_width=3, b_width=1)

    assert (design.alpha, design.beta, design.gamma) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("shares", "counts"),
    [
        ({"gamma": 0.5}, (10, 5, 5)),
        ({"gamma": 0.0}, (0, 10, 10)),
        ({"gamma": 1.0}, (20, 0, 0)),
        ({"alpha": 0.5}, (10, 10, 0)),
        ({"beta": 0.75}, (5, 0, 15)),
        ({"alpha": 0.5, "beta": 0.0}, (10, 10, 0)),
        ({"alpha": 0.0, "beta": 0.0}, (20, 0, 0)),
        ({"gamma": 0.5, "alpha": 0.5}, (10, 10, 0)),
        ({"gamma": 0.5, "beta": 0.2}, (10, 8, 2)),
        ({"gamma": 0.0, "alpha": 1.0}, (0, 10, 10)),
    ],
)
def test_shares_become_counts(shares, counts):
    assert counts_of(20, **shares) == counts


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.6])
def test_counts_come_near_the_shares_asked_for(alpha, beta):
    shared, a_only, b_only = counts_of(300, alpha=alpha, beta=beta)

    design = arranged(shared=shared, a_only=a_only, b_only=b_only, a_width=300, b_width=300)
    assert shared + a_only + b_only == 300
    assert (design.alpha, design.beta) == (pytest.approx(alpha, abs=0.02), pytest.approx(beta, abs=0.02))


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({}, "0 were given"),
        ({"alpha": 0.1, "beta": 0.1, "gamma": 0.1}, "3 were given"),
        ({"alpha": 1.0}, "gamma is 0 where alpha and beta are 1"),
        ({"alpha": 0.5, "gamma": 0.0}, "and only there"),
        ({"alpha": 0.9, "gamma": 0.5}, "no numbers of features"),
    ],
)
def test_shares_that_contradict_are_refused(shares, sentence):
    with pytest.raises(InputError, match=sentence):
        counts_of(20, **shares)


@pytest.mark.parametrize(
    ("make_one", "sentence"),
    [
        (lambda: increase_gamma(11), "shared is 11: this published experiment takes 0 to 10"),
        (lambda: increase_alpha(41), "a_only is 41"),
        (lambda: modify_gamma(30, 21), "a_only is 30: this published experiment takes 0 to 29"),
        (lambda: View.of(4, range(5)), "4 channels can't hold 5"),
        (lambda: View.of(4, range(3), at=(0, 0, 1)), "each its own"),
    ],
)
def test_what_does_not_fit_is_refused(make_one, sentence):
    with pytest.raises(InputError, match=sentence):
        make_one()


# ---- draws


def test_labels_follow_the_hyperplane_and_channels_hold_what_they_should():
    design = Design(3, View.of(2, (2,), at=(1,)), View.of(4, (0, 2)))
    stream = np.random.RandomState(5)

    pairs = draw(design, np.array([1.0, -2.0, 0.5]), 6, np.random.RandomState(5))

    decisive, b, a = (stream.randn(6, width) for width in (3, 4, 2))
    assert pairs.label.tolist() == [int(row @ [1.0, -2.0, 0.5] > 0) for row in decisive]
    assert np.array_equal(pairs.a, np.c_[a[:, 0], decisive[:, 2]].astype(np.float32))
    assert np.array_equal(pairs.b, np.c_[decisive[:, 0], b[:, 1], decisive[:, 2], b[:, 3]].astype(np.float32))


def test_several_classes_are_the_largest_of_as_many_hyperplanes():
    design = arranged(shared=2, a_only=1, b_only=0, a_width=3, b_width=2)
    planes = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0], [0.0, 0.0, 3.0]])

    pairs = draw(design, planes, 50, np.random.RandomState(0))

    by_hand = [max(range(3), key=lambda k, row=row: float(row @ planes[:, k])) for row in pairs.a.astype(np.float64)]
    assert pairs.label.tolist() == by_hand and len(set(by_hand)) == 3


def test_shared_features_are_equal_in_both_modalities_and_nothing_else_is():
    design = increase_gamma(4)

    pairs = draw_sweep(design, 3)["train"]

    shared = list(design.channels("a", "shared"))
    assert np.array_equal(pairs.a[:, shared], pairs.b[:, shared])
    others = [channel for channel in range(25) if channel not in shared]
    assert not (pairs.a[:, others] == pairs.b[:, others]).any()


def test_noise_has_its_strength_and_leaves_the_other_numbers_alone():
    design = arranged(shared=3, a_only=1, b_only=1, a_width=6, b_width=6)
    plane = np.ones(5)

    clean = draw(design, plane, 4000, np.random.RandomState(1))
    noisy = draw(design, plane, 4000, np.random.RandomState(1), noise=Noise({"b": 0.5}, label=0.2))

    assert np.array_equal(noisy.a, clean.a)
    assert np.array_equal(noisy.b[:, 4:], clean.b[:, 4:])
    assert np.std(noisy.b[:, :4] - clean.b[:, :4]) == pytest.approx(0.5, rel=0.03)  # 16,000 draws
    assert (noisy.label != clean.label).mean() == pytest.approx(0.1, abs=0.02)  # half of the drawn labels agree


def test_no_draw_touches_the_global_generator():
    np.random.seed(0)
    expected = np.random.RandomState(0).randn()

    draw_sweep(increase_alpha(0), 0)
    draw_removal(modify_gamma(10, 5), 0)

    assert np.random.randn() == expected


def test_the_test_set_shares_rows_with_the_next_seed_as_in_the_authors_code():
    # 500 numbers of a hyperplane are 25 rows of 20 features
    here, after = (draw_sweep(increase_gamma(0), seed) for seed in (0, 1))

    assert np.array_equal(here["test"].b[25:225, :10], after["train"].b[:, :10])


def test_the_removal_stream_can_be_drawn_from_further():
    random, passed = np.random.RandomState(42), np.random.RandomState(42)

    first = draw_removal(modify_gamma(10, 5), 42, random=random)

    passed.randn(1400 * (15 + 50 + 50))  # 200, 1000 and 200 rows
    assert random.randn() == passed.randn()
    again = draw_removal(modify_gamma(10, 5), 42)
    assert all(np.array_equal(first[name].a, again[name].a) for name in first)


def test_validation_rows_leave_the_published_ones_alone():
    few, many = (draw_sweep(increase_gamma(4), 0, valid=rows) for rows in (5, 500))

    assert all(np.array_equal(few[name].a, many[name].a) for name in ("train", "test"))
    assert not np.isin(few["valid"].b, [few["train"].b, few["test"].b[:200]]).any()


def test_pairs_keep_channels_and_exchange_modalities():
    pairs = Pairs(np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((2, 1), np.float32), np.array([0, 1]))

    assert pairs.keep(np.array([2, 0, 2])).a.tolist() == [[2, 0, 2], [5, 3, 5]]
    assert pairs.exchanged().a is pairs.b and pairs.exchanged().b is pairs.a and len(pairs) == 2


def test_what_a_modality_sees_bounds_what_it_can_tell():
    """More common features, better students; and a modality that sees nothing guesses."""
    found = []
    for shared in (0, 5, 10):
        settings = GaussianSettings(shared=shared, a_only=10 - shared, b_only=0, train=2000, test=4000)
        samples = draw_splits_of(settings, 0)
        teacher, student = (least_squares_accuracy(samples["train"], samples["test"], name) for name in "ab")
        assert teacher > 0.97
        found.append(student)

    assert found[0] == pytest.approx(0.5, abs=0.03) and found[0] + 0.1 < found[1] < found[2] - 0.1


# ---- the data set


def test_the_data_set_has_two_modalities_and_the_splits_asked_for():
    data = open_data("gaussian", options={"train": 30, "valid": 20, "test": 50, "a_width": 12}, seed=4)

    assert data.info.modalities == DATA["gaussian"].modalities == ("a", "b")
    assert data.info.inputs["a"].shape == (12,) and data.info.inputs["b"].layout == "vector"
    assert {split: rows["a"] for split, rows in data.info.rows.items()} == {"train": 30, "valid": 20, "test": 50}
    assert (data.info.task, data.info.classes, data.info.paired) == ("multiclass", 2, True)
    assert not data.info.normalisation


def test_the_size_of_a_split_changes_no_other_and_the_seed_changes_all():
    small, large, other = (
        draw_splits_of(GaussianSettings(train=train), seed) for train, seed in ((10, 0), (99, 0), (99, 1))
    )

    assert np.array_equal(small["test"].a, large["test"].a) and np.array_equal(small["valid"].b, large["valid"].b)
    assert not np.array_equal(large["test"].label, other["test"].label)


def test_classes_are_counted_even_if_the_samples_show_fewer():
    samples = draw_splits_of(GaussianSettings(train=2, valid=2, test=2, classes=40), 0)

    assert as_data(samples, classes=40).info.classes == 40


def test_binary_is_chosen_by_name():
    assert open_data("gaussian", task="binary").info.outputs == 1
    with pytest.raises(InputError, match="gaussian has the task multiclass; binary was asked for"):
        open_data("gaussian", options={"classes": 3}, task="binary")


def test_a_published_experiment_is_the_data_set_too():
    data = open_data("gaussian", options={"experiment": "modify-gamma", "a_only": 10, "shared": 20}, seed=42)

    wanted = draw_removal(modify_gamma(10, 20), 42)
    assert np.array_equal(data.train.columns["a"][:200], wanted["train"].a)
    assert np.array_equal(data.test.columns["b"][400:], wanted["test"].b)
    assert torch.equal(data.test.targets["a"], torch.from_numpy(wanted["test"].label))


def test_source_opens_the_same_pairs_again():
    data = open_data("gaussian", options={"gamma": 0.5, "decisive": 8}, train_fraction=0.5, seed=3)

    again = reopen(json.loads(json.dumps(data.source)))

    assert again.source == data.source
    assert np.array_equal(again.train.columns["a"], data.train.columns["a"])
    assert Counter(again.train.targets["a"].tolist()) == Counter(data.train.targets["a"].tolist())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shered": 3}, "no key 'shered'. Did you mean 'shared'"),
        ({"experiment": "increase-gama"}, "Did you mean 'increase-gamma'"),
        ({"experiment": "increase-gamma", "a_only": 3}, "increase-gamma fixes a_only"),
        ({"experiment": "increase-alpha", "a_only": 50}, "a_only is 50"),
        ({"shared": 3, "gamma": 0.5}, "expected one or the other"),
        ({"shared": 21}, "can't hold 26 decisive features"),
        ({"shared": 0, "a_only": 0, "b_only": 0}, "no feature is decisive"),
        ({"gamma": 1.5}, "'gamma' is 1.5"),
        ({"classes": 1}, "'classes' is 1"),
    ],
)
def test_wrong_options_of_the_pairs_are_sentences(options, sentence):
    with pytest.raises(InputError) as caught:
        open_data("gaussian", options=options)
    assert sentence in str(caught.value) and "pydantic" not in str(caught.value)


def test_the_pairs_read_no_folder():
    with pytest.raises(InputError, match="read no folder"):
        load("somewhere", GaussianSettings(), DataRequest())


def test_a_written_folder_holds_the_same_samples_and_the_truth(tmp_path):
    settings = GaussianSettings(shared=3, a_only=2, b_only=1, train=40, valid=20, test=30, classes=3)
    root = make(tmp_path / "pairs", seed=7, settings=settings)

    data = open_data(str(root))

    expected = draw_splits_of(settings, 7)
    assert check_folder(root).errors == []
    assert data.info.classes == 3 and not data.info.normalisation and data.info.rows["valid"]["b"] == 20
    for split in ("train", "valid", "test"):
        numbers = data.split(split).numbers["b"]
        assert np.array_equal(data.split(split).columns["b"][numbers], expected[split].b)
        assert data.split(split).targets["b"].tolist() == expected[split].label.tolist()
    truth = json.loads((root / "truth.json").read_text())
    assert truth["modalities"]["b"] == {"width": 25, "shared": [0, 1, 2], "specific": [3]}
    assert truth["gamma"] == 0.5 == design_of(settings).gamma


def test_pairs_are_written_to_a_new_folder_and_have_no_raw_format(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(InputError, match="there already"):
        make(tmp_path)
    with pytest.raises(InputError, match="no format 'raw'"):
        make(tmp_path / "new", format="raw")


def test_separate_generators_differ_from_each_other_and_from_plain_seeds():
    separate = [separate_generator(0), separate_generator(1), separate_generator(0, 1)]

    assert len({float(random.randn()) for random in (*separate, np.random.RandomState(0))}) == 4
