"""Weights of classes and of rows in the loss of labels."""

import numpy as np
import pytest
import torch
from distilled import distilled

from xmodal.data.arrays import from_arrays
from xmodal.data.labels import hide_labels
from xmodal.data.loader import in_order
from xmodal.data.weights import with_class_weights, with_row_weights
from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.losses.task import label_terms, task_loss
from xmodal.methods.joint import Joint
from xmodal.methods.kd import KD
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_for
from xmodal.study.plan import open_seed
from xmodal.study.settings import PairSettings


def data_of(label, *, train, **arguments):
    rows = len(label)
    x = np.random.default_rng(0).normal(size=(rows, 3))
    others = [row for row in range(rows) if row not in train]
    splits = {"train": train, "valid": others[::2], "test": others[1::2]}
    return from_arrays({"clear": x, "faint": x + 1}, label, splits=splits, **arguments)


def test_balanced_classes_have_equal_sums_of_weights():
    data = data_of(np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 1, 2, 0, 1, 2]), train=list(range(9)))

    weights = with_class_weights(data, "balanced").info.class_weights

    assert weights == pytest.approx((9 / (3 * 6), 9 / (3 * 2), 9 / (3 * 1)))


def test_balanced_counts_the_labels_that_are_kept():
    label = np.arange(120) % 4 // 3  # three of four rows are of class 0
    data = data_of(label, train=list(range(80)))
    hidden = hide_labels(data, labelled="8", seed=0)

    weighted = with_class_weights(hidden, "balanced")

    assert weighted.info.class_weights == pytest.approx((8 / (2 * 6), 8 / (2 * 2)))
    assert weighted.revealed.info.class_weights == pytest.approx((80 / (2 * 60), 80 / (2 * 20)))


def test_the_loss_of_weighted_rows_by_hand():
    outputs, target = torch.zeros(3, 2), torch.tensor([0, 1, 1])
    outputs[2, 0] = 1.0
    log2, other = np.log(2), np.log(1 + np.e)

    loss, count = task_loss(outputs, target, task="multiclass", row_weight=torch.tensor([2.0, 0.0, 1.0]))

    assert loss.item() == pytest.approx((2 * log2 + 0 * log2 + other) / 3) and count == 3


def test_weights_of_rows_and_classes_multiply():
    info = with_class_weights(data_of(np.array([0, 1] * 6), train=[0, 1, 2, 3]), [1.0, 3.0]).info
    outputs, target = torch.zeros(3, 2), torch.tensor([0, 1, 1])
    labelled = torch.tensor([True, True, False])

    ((loss, total),) = label_terms(
        outputs, target, info, labelled=labelled, row_weight=torch.tensor([2.0, 0.5, 9.0])
    ).values()

    assert loss.item() == pytest.approx((1 * 2 + 3 * 0.5) * np.log(2) / 4) and total.item() == 4


def test_weights_are_scaled_over_labelled_training_rows_and_follow_their_rows():
    label = np.array([0, 1, 0, 1, 0, 1, -1, 0, 1, 0, 1])
    data = data_of(label, train=[5, 6, 0, 1])
    weights = np.array([1.0, 2.0, 100, 100, 100, 3.0, 50.0, 100, 100, 100, 100])

    weighted = with_row_weights(data, weights)

    batch = next(iter(in_order(weighted.train, batch_size=8)))
    assert batch.weights["faint"].tolist() == pytest.approx([1.5, 25.0, 0.5, 1.0])
    assert batch.weights["clear"] is batch.weights["faint"]
    assert next(iter(in_order(weighted.valid, batch_size=8))).weights == {}


@pytest.mark.parametrize("kind", ["supervised", "kd", "joint"])
def test_equal_weights_change_nothing_and_a_weight_of_zero_is_a_row_that_is_not_there(kind):
    label = np.arange(40) % 2
    train = list(range(24))
    data = data_of(label, train=train)

    def trained(data):
        torch.manual_seed(0)
        clear, faint = build_for(data.info, ("clear",)), build_for(data.info, ("faint",))
        if kind == "supervised":
            method = Supervised(faint, data.info)
        elif kind == "joint":
            method = Joint(clear, faint, data.info, agreement_weight=0.0)
        else:
            # of the teacher's term every row counts alike, so it is left out where rows have no weight
            method = distilled(KD, faint, clear.module, data.info, kd_weight=0.0, task_weight=1.0)
        settings = FitSettings(epochs=3, batch_size=24, optimizer="sgd", learning_rate=0.1, keep="last")
        run = fit(method, data, settings)
        return {
            name: tensor for student in run.students.values() for name, tensor in student.module.state_dict().items()
        }

    plain = trained(data)
    equal = trained(with_row_weights(data, np.full(40, 7.0)))
    assert all(torch.equal(plain[name], equal[name]) for name in plain)

    weights = np.ones(40)
    weights[[3, 10]] = 0.0
    changed = label.copy()
    changed[[3, 10]] = 1 - changed[[3, 10]]
    one, other = (trained(with_row_weights(data_of(label, train=train), weights)) for label in (label, changed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], plain[name]) for name in one)


@pytest.mark.parametrize("weights", [np.ones(39), np.ones((40, 1)), np.full(40, np.nan), ["a"] * 40])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(InputError, match="sample_weight does not fit"):
        with_row_weights(data_of(np.arange(40) % 2, train=list(range(24))), weights)


def test_unpaired_and_dense_data_have_no_weights_of_rows(make_toy, make_pictures):
    with pytest.raises(InputError, match="unpaired"):
        with_row_weights(make_toy(paired=False), np.ones(240))
    with pytest.raises(InputError, match="one target per sample"):
        with_row_weights(make_pictures(), np.ones(24))


def test_class_weights_are_a_flag():
    plan = PairSettings(data="digits", class_weights="balanced", labelled="30").plan()

    weights = open_seed(plan, 0).info.class_weights

    counts = torch.bincount(
        open_seed(PairSettings(data="digits", labelled="30").plan(), 0).info.train_targets["rows"] + 1
    )
    assert weights == pytest.approx([30 / (10 * count) for count in counts[1:].tolist()])
    assert PairSettings(class_weights="1,2.5").class_weights == (1.0, 2.5)
    with pytest.raises(ValueError, match=r"balanced, or a number per class \(1,2.5\) was expected"):
        PairSettings(class_weights="1,x")
