"""Rows of predictions for every kind of target."""

from pathlib import Path

import numpy as np

from xmodal.cli.predictions import summary, table, write_csv
from xmodal.deploy import Predictions


def test_binary_gives_the_probability_of_the_predicted_class() -> None:
    parts = [Predictions(np.array([[0.9], [0.2]]), np.array([1, 0]), ("no", "yes"))]

    rows = table(parts, np.array([4, 7]), {"task": "binary", "class_names": ["no", "yes"]})

    assert rows == [
        {"row": 4, "class": 1, "name": "yes", "probability": 0.9},
        {"row": 7, "class": 0, "name": "no", "probability": 0.8},
    ]


def test_several_labels_have_a_probability_each() -> None:
    parts = [Predictions(np.array([[0.9, 0.7], [0.1, 0.2]]), np.array([[1, 1], [0, 0]]), ("a", "b"))]

    rows = table(parts, np.array([0, 1]), {"task": "multilabel", "class_names": ["a", "b"]})

    assert rows[0] == {"row": 0, "class": "0 1", "name": "a, b", "p_a": 0.9, "p_b": 0.7}
    assert summary(rows, "multilabel") == ["2 samples: a, b: 1, none: 1"]


def test_regression_gives_values(tmp_path: Path) -> None:
    rows = table([Predictions(np.array([[1.5, 2.0], [0.5, 3.0]]), None)], np.array([3, 1]), {"task": "regression"})

    write_csv(tmp_path / "p.csv", rows)

    assert (tmp_path / "p.csv").read_text() == "row,value0,value1\n3,1.5,2.0\n1,0.5,3.0\n"
    assert summary(rows, "regression") == ["2 samples: the first value runs from 0.5 to 1.5, its mean is 1"]
