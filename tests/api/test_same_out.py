"""A second call with the same run folder: a notebook cell that is run again."""

import json

import numpy as np
import pytest
from torch import nn

import xmodal
from xmodal.errors import InputError

SIDES = {"teacher": "clear", "student": "faint", "epochs": 2}


class Stop(Exception):
    """Ends a training from outside."""


class Counts:
    """Counts epochs, and stops after some."""

    def __init__(self, stop_after=None):
        self.epochs, self.stop_after = 0, stop_after

    def on_epoch(self, row):
        self.epochs += 1
        if self.epochs == self.stop_after:
            raise Stop


@pytest.fixture(scope="module")
def made(views, tmp_path_factory):
    """A finished run, which no test may change: its arguments, result and number of epochs."""
    counts = Counts()
    call = dict(zip(("inputs", "target"), views, strict=True)) | SIDES
    call |= {"out": tmp_path_factory.mktemp("made") / "run", "training": {"shuffled": False}}
    return call, xmodal.distill(**call, callbacks=[counts]), counts.epochs


@pytest.mark.parametrize("training", [{}, {"resume": True}], ids=["run again", "resume"])
def test_the_same_call_returns_the_finished_result_without_training(made, training):
    call, one, epochs = made
    again = Counts()

    two = xmodal.distill(**{**call, "training": {**call["training"], **training}}, callbacks=[again])

    assert (epochs, again.epochs) == (6, 0)
    assert two.result == one.result and two.folder == one.folder
    assert np.array_equal(two.student(call["inputs"]), one.student(call["inputs"]))


def test_a_call_that_was_stopped_is_continued_and_ends_the_same(views, tmp_path):
    inputs, label = views
    call = {**SIDES, "methods": "kd", "seeds": 2, "training": {"shuffled": False}}
    whole = xmodal.compare(inputs, label, **call)
    with pytest.raises(Stop):
        xmodal.compare(inputs, label, **call, out=tmp_path / "run", callbacks=[Counts(stop_after=8)])
    left = Counts()

    done = xmodal.compare(inputs, label, **call, out=tmp_path / "run", callbacks=[left])

    assert 0 < left.epochs < 12
    assert done.rows == whole.rows


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3}, "epochs was 2 and is now 3"),
        ({"seed": 1}, "made with other data|seed was 0 and is now 1"),
        ({"target": "other"}, "made with other data. Give the same to continue it, or another out="),
        ({"inputs": "other"}, "made with other data"),
        ({"splits": "other"}, "made with other data"),
        ({"student_network": nn.Linear(4, 3)}, "made with other networks of your own"),
        ({"class_weights": "balanced"}, "class_weights was .* and is now 'balanced'"),
        ({"sample_weight": np.arange(240)}, "made with other weights of rows"),
        ({"metrics": {"mine": lambda chances, target: 0.0}}, "made with other metrics"),
        ({"training": {"resume": False}}, "training says not to resume"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_another_call_with_the_same_folder_is_refused(made, views, splits, changes, words):
    call, (inputs, label) = made[0], views
    before = {path: path.stat().st_mtime_ns for path in call["out"].rglob("*")}
    other = {"target": (label + 1) % 3, "inputs": {**inputs, "clear": inputs["clear"] + 1}, "splits": splits}
    changes = {name: other[name] if name in other else value for name, value in changes.items()}
    changes["training"] = {**call["training"], **changes.get("training", {})}

    with pytest.raises(InputError, match=words):
        xmodal.distill(**{**call, **changes})

    assert {path: path.stat().st_mtime_ns for path in call["out"].rglob("*")} == before


def test_a_comparison_does_not_continue_a_distillation(made):
    with pytest.raises(InputError, match="recipe was 'distill' and is now 'compare'"):
        xmodal.compare(**made[0])


@pytest.mark.slow
def test_opened_data_sets_are_recognised_by_their_name_and_options(tmp_path):
    call = {"student": "fourier", "method": "supervised", "epochs": 1}
    xmodal.distill(data=xmodal.open_data("digits"), **call, out=tmp_path / "run")

    again = xmodal.distill(data=xmodal.open_data("digits"), **call, out=tmp_path / "run")

    assert json.loads((tmp_path / "run" / "result.json").read_text())["rows"] == again.rows
    with pytest.raises(InputError, match="made with other data"):
        xmodal.distill(data=xmodal.open_data("digits", seed=1), **call, out=tmp_path / "run")
