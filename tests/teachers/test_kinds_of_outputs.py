"""How outputs are read: by their name, by what is declared, or by their range; values computed by hand."""

import numpy as np
import pandas as pd
import pytest

from xmodal.data.arrays import from_arrays
from xmodal.errors import InputError
from xmodal.teachers.classes import class_map
from xmodal.teachers.given import open_teacher
from xmodal.teachers.kinds import FLOOR, outputs_of
from xmodal.teachers.probe import probed
from xmodal.teachers.request import TeacherRequest
from xmodal.teachers.table import table_of
from xmodal.teachers.tabulate import tabulated
from xmodal.types import DataInfo

LOG = np.log


def read(value, task="multiclass", classes=3, kind="auto"):
    outputs, sentence = outputs_of(table_of(value, kind), task=task, classes=classes)
    return outputs, sentence.removeprefix("its outputs are read as ")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ([[0.5, 0.25, 0.25]], "probabilities", [[LOG(0.5), LOG(0.25), LOG(0.25)]]),
        ([[1.0, 0.0, 0.0]], "probabilities", [[0.0, LOG(FLOOR), LOG(FLOOR)]]),
        ([[0.5, 0.25, 0.5]], "logits", [[0.5, 0.25, 0.5]]),
        ([[2.0, -1.0, 0.0]], "logits", [[2.0, -1.0, 0.0]]),
        (
            {"log_probabilities": [[LOG(0.5), LOG(0.5), -np.inf]]},
            "log-probabilities",
            [[LOG(0.5), LOG(0.5), LOG(FLOOR)]],
        ),
        ([2, 0, -1], "predicted classes", [[LOG(FLOOR), LOG(FLOOR), 0], [0, LOG(FLOOR), LOG(FLOOR)], [np.nan] * 3]),
        ([1.0, np.nan], "predicted classes", [[LOG(FLOOR), 0, LOG(FLOOR)], [np.nan] * 3]),
    ],
)
def test_multiclass(value, kind, expected):
    outputs, read_as = read(value)

    assert read_as == kind
    assert np.allclose(outputs, expected, atol=1e-5, equal_nan=True)


def test_declared_logits_are_not_taken_for_probabilities():
    outputs, read_as = read([[0.5, 0.25, 0.25]], kind="logits")

    assert read_as == "logits" and outputs.tolist() == [[0.5, 0.25, 0.25]]


def test_names_of_classes():
    table = table_of({"classes": np.array(["cat", "", "dog"]), "class_names": ["dog", "cat"]})

    outputs, _ = outputs_of(table, task="multiclass", classes=2)

    assert np.allclose(outputs, [[LOG(FLOOR), 0], [np.nan, np.nan], [0, LOG(FLOOR)]], equal_nan=True)


@pytest.mark.parametrize("logarithms", [False, True])
def test_top_k_shares_the_rest_among_the_other_classes(logarithms):
    kept = np.array([[0.5, 0.3], [0.9, 0.1]])
    name = "log_probabilities" if logarithms else "probabilities"
    value = {name: LOG(kept) if logarithms else kept, "indices": [[3, 0], [1, 2]]}

    outputs, _ = read(value, classes=4)

    # of the first row 0.2 is left for two classes
    assert np.allclose(np.exp(outputs), [[0.3, 0.1, 0.1, 0.5], [FLOOR, 0.9, 0.1, FLOOR]], atol=1e-6)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ([[0.75], [0.5]], "probabilities", [[LOG(3)], [0.0]]),
        ([[0.25, 0.75]], "probabilities", [[LOG(3)]]),
        ([[2.0], [-1.0]], "logits", [[2.0], [-1.0]]),
        ([[1.0, 3.0]], "logits", [[2.0]]),
        ([1, 0], "predicted classes", [[-LOG(FLOOR)], [LOG(FLOOR)]]),
    ],
)
def test_binary(value, kind, expected):
    outputs, read_as = read(value, "binary", 2)

    assert read_as == kind and np.allclose(outputs, expected, atol=1e-5)


def test_several_labels_and_values():
    assert np.allclose(read([[0.5, 0.75]], "multilabel", 2)[0], [[0.0, LOG(3)]])
    assert read([[0.1, -3.0]], "regression", 2)[0].tolist() == np.float32([[0.1, -3.0]]).tolist()
    with pytest.raises(InputError, match="has 3 values in a row .* and the target has 2"):
        read([[0.1, 1, 2]], "regression", 2)
    with pytest.raises(InputError, match="is a regression, and .* holds probabilities"):
        read({"probabilities": [[0.5]]}, "regression", 1)


def info(names):
    return DataInfo({}, "multiclass", len(names), {}, class_names=tuple(names))


def test_names_that_say_nothing_keep_the_order():
    mapped = class_map(None, ("LABEL_0", "LABEL_1"), info(["cat", "dog"]), "it")

    assert not mapped.sentence and mapped(np.float32([[1, 2]]), "multiclass").tolist() == [[1, 2]]


def test_classes_in_another_order_are_exchanged():
    mapped = class_map(None, ("dog", "cat"), info(["cat", "dog"]), "it")

    assert mapped(np.float32([[1, 2]]), "multiclass").tolist() == [[2, 1]]


def test_two_classes_with_one_output_keep_their_order():
    two = DataInfo({}, "binary", 2, {}, class_names=("no", "yes"))

    assert not class_map(None, ("no", "yes"), two, "it").sentence
    with pytest.raises(InputError, match="has the classes yes, no, and the data has no, yes"):
        class_map(None, ("yes", "no"), two, "it")


def test_probe_of_a_label_that_all_rows_have():
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    target = np.array([[1, 0], [1, 1], [1, 0], [1, 1], [1, 0], [1, 1]])

    outputs = probed(x, target, np.full(6, True), task="multilabel", width=2)

    assert outputs.shape == (6, 2) and (outputs[:, 0] > 10).all()


def test_probe_of_a_linear_target_finds_it():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    target = x @ np.float32([[1.0], [2.0], [0.0]]) + 5

    outputs = probed(x, target, np.arange(200) < 100, task="regression", width=1)

    assert np.abs(outputs - target).max() < 0.2


def classes_of(value, labels):
    data = from_arrays({"x": np.random.default_rng(0).normal(size=(60, 2))}, np.array(labels)[np.arange(60) % 3])
    given = open_teacher(TeacherRequest(source=value), data, ())
    values, rows = tabulated(given)
    return values[rows.argsort()].argmax(axis=1)


@pytest.mark.parametrize("kind", [np.array, list, pd.Series, lambda text: np.array(text, dtype=object)])
def test_predicted_classes_as_the_labels_of_the_data(kind):
    text = [("cat", "ant", "bee")[row % 3] for row in range(60)]

    assert classes_of(kind(text), ["cat", "ant", "bee"]).tolist() == [(2, 0, 1)[row % 3] for row in range(60)]


def test_predicted_classes_in_the_numbering_of_the_data():
    numbers = np.array([10, 30, 20])[np.arange(60) % 3]

    assert classes_of(numbers, [10, 30, 20]).tolist() == [(0, 2, 1)[row % 3] for row in range(60)]


def test_logits_of_minus_infinity_rule_a_class_out():
    outputs, _ = read([[1.0, -np.inf, 0.0]])

    assert np.isfinite(outputs).all() and np.exp(outputs - outputs.max())[0, 1] < 1e-12
