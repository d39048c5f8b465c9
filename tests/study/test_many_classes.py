"""A comparison with more classes than a table can hold: what is in which file, and how large the files are."""

import json

import numpy as np
import pytest
import scipy.sparse

from xmodal.metrics.counts import Counts
from xmodal.recipes import compare
from xmodal.reports import read_run, write_page

CLASSES, SEEDS = 250, 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("many") / "data", np.random.default_rng(0)
    folder.mkdir()
    labels = np.arange(4 * CLASSES) % CLASSES
    for name, noise in (("a", 0.1), ("b", 0.5)):
        centres = random.normal(size=(CLASSES, 8))
        np.save(folder / f"{name}.npy", (centres[labels] + noise * random.normal(size=(len(labels), 8))).astype("f4"))
    np.save(folder / "labels.npy", labels)
    for split, rows in {"train": (0, 2), "valid": (2, 3), "test": (3, 4)}.items():
        np.save(folder / f"{split}_idx.npy", np.arange(rows[0] * CLASSES, rows[1] * CLASSES))
    out = folder.parent / "run"
    settings = {"teacher": "a", "student": "b", "epochs": 2, "seeds": str(SEEDS), "methods": "kd", "shuffled": False}
    compare.run(compare.Settings(data=str(folder), out=out, **settings))
    return out


def test_the_result_names_no_class_in_its_rows(run):
    rows = read_run(run).result["rows"]

    assert len(rows) == 3 * SEEDS
    assert all(isinstance(value, int | float) for row in rows for value in row["test"].values())
    assert (run / "result.json").stat().st_size < 20_000 + 60 * CLASSES  # names and labels of the classes


def test_each_training_has_its_counts_and_the_whole_table(run):
    test = read_run(run / "seed-0/kd").result["students"]["b"]["test"]
    with np.load(run / "seed-0/kd/predictions/b.npz") as arrays:
        predicted, target = arrays["outputs"].argmax(axis=1), arrays["target"]
    table = np.zeros((CLASSES, CLASSES), int)
    np.add.at(table, (target, predicted), 1)

    assert np.array_equal(scipy.sparse.load_npz(run / "seed-0/kd/confusion/b.npz").toarray(), table)
    assert test["confused"]["true"] == table.sum(axis=1).tolist()
    assert test["per_class"] == (table.diagonal() / table.sum(axis=1)).tolist()
    true, other, rows = test["confused"]["largest"][0]
    assert table[true, other] == rows == (table - np.diag(table.diagonal())).max()


def test_the_page_shows_some_classes_and_the_most_frequent_confusions(run, tmp_path):
    page = write_page([run], tmp_path / "page.html").read_text()

    assert "the 200 of 250 classes on which the names differ most" in page
    assert "Confusion matrices" in page and "true class" in page
    assert len(page) < 150_000


def test_scores_of_5000_classes_take_a_hundred_kilobytes():
    counts = Counts(5000, full=True)
    target = np.arange(20_000) % 5000
    counts.wrong = [counts.counts.new_tensor(target * 5000 + (target * 7 + 1) % 5000)]

    scores = counts.compute()

    assert len(scores["confused"]["largest"]) == 200
    assert len(json.dumps(scores, indent=1)) < 110_000
