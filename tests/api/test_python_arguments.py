"""What a Python call is given: every method, and arguments that could have no effect."""

import numpy as np
import pytest
from torch import nn

import xmodal
from xmodal.data.arrays import from_arrays
from xmodal.errors import InputError
from xmodal.methods import METHODS

SIDES = {"teacher": "clear", "student": "faint"}
SMALL = {
    "dmd": {"width": 8, "heads": 2, "layers": 1},
    "pmf": {"backbone": "camera_resnet10", "width": 4, "channels": 16},
    "mfh": {"sweep_epochs": 1},
}
every_method = pytest.mark.parametrize("method", METHODS)


class Said(list):
    """Counts the epochs it is told of."""

    def on_epoch(self, row):
        self.append(row)


@every_method
@pytest.mark.parametrize("call", ["distill", pytest.param("compare", marks=pytest.mark.slow)])
def test_every_method_gives_a_student_that_predicts_or_is_refused_before_training(method, call, views):
    inputs, label = views
    named = {"method": method} if call == "distill" else {"methods": method, "seeds": 1}
    options = SMALL.get(method, {})
    settings = {"options": options if call == "distill" else {method: options}, "training": {"shuffled": False}}
    said = Said()

    def run():
        return getattr(xmodal, call)(inputs, label, **SIDES, **named, **settings, epochs=1, callbacks=[said])

    if METHODS[method].targets == "place":
        with pytest.raises(InputError, match="predicts for every pixel or voxel"):
            run()
        assert said == []
        return
    done = run()

    assert done.student.needs == ("faint",)
    assert done.predict(inputs["faint"]).shape == label.shape
    name = "no-KD" if method == "supervised" else method
    assert name in done.scores


@pytest.mark.slow
def test_a_method_for_pixels_gives_a_student_of_pictures(make_pictures):
    data = make_pictures()

    done = xmodal.distill(
        data=data, **SIDES, method="pmf", options=SMALL["pmf"], epochs=1, batch_size=9, training={"shuffled": False}
    )

    pictures = {name: data.test.columns[name][data.test.numbers[name]] for name in ("clear", "faint")}
    assert done.student.predict(pictures).classes.shape == (3, *pictures["faint"].shape[2:])


X, Y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
INPUTS = {"clear": X, "faint": -X}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give inputs and target, or dataset=, or data="),
        ({"inputs": INPUTS}, "target is missing"),
        ({"target": Y}, "inputs is missing"),
        ({"inputs": INPUTS, "target": Y, "data": 1}, "given as inputs and target and data"),
        ({"data": 1, "task": "binary"}, "so task would have no effect"),
        ({"data": 1, "splits": {}}, "so splits would have no effect"),
        ({"data": 1, "unlabelled": {}, "groups": Y}, "so unlabelled and groups would have no effect"),
        ({"data": 1, "unlabelled_label": None}, "so unlabelled_label would have no effect"),
        ({"data": 1, "split_by_group": True}, "so split_by_group would have no effect"),
        ({"data": 1, "training": {"train_fraction": 0.5}}, "training names train_fraction"),
        ({"data": 1, "training": {"augment": "noise:0.1"}}, "training names augment"),
        ({"dataset": 1, "unlabelled": INPUTS}, "unlabelled goes with inputs"),
        ({"inputs": INPUTS, "target": Y, "split_by_group": True}, "there are none. Give groups="),
        ({"inputs": INPUTS, "target": Y, "training": {"epochs": 3}}, "training names epochs"),
        ({"inputs": INPUTS, "target": Y, "training": {"task": "binary"}}, "training names task"),
        ({"inputs": INPUTS, "target": Y, "training": {"resume": True}}, "no run folder to continue. Give out="),
        (
            {"inputs": INPUTS, "target": Y, "student_network": nn.Linear(4, 3), "training": {"student_width": 8}},
            "student_network is a network of your own",
        ),
        (
            {"inputs": INPUTS, "target": Y, "student_network": nn.Linear(4, 3), "METHOD": "dmd"},
            "'dmd' builds its own networks",
        ),
        (
            {"inputs": INPUTS, "target": Y, "teacher_network": nn.Linear(8, 3), "METHOD": "discom"},
            "teacher_network is never used",
        ),
        ({"inputs": INPUTS, "target": Y, "callbacks": [print]}, "neither on_epoch"),
        ({"inputs": INPUTS, "target": Y, "callbacks": print}, "a list of objects was expected"),
        ({"inputs": INPUTS, "target": Y, "class_weights": "balance"}, "balanced, or a number per class"),
        ({"inputs": INPUTS, "target": Y, "training": {"class_weights": "balanced"}}, "training names class_weights"),
        ({"inputs": INPUTS, "target": Y, "class_weights": [1, 2]}, "2 class weights and 3 classes"),
        ({"inputs": INPUTS, "target": Y, "class_weights": [1, 2, -1]}, "a number from 0 for each class"),
        ({"inputs": INPUTS, "target": Y + 0.5, "class_weights": "balanced"}, "this one is regression"),
        ({"inputs": INPUTS, "target": Y, "class_weights": "balanced", "METHOD": "discom"}, "no weights of classes"),
        ({"inputs": INPUTS, "target": Y, "sample_weight": np.ones(60), "METHOD": "dmd"}, "no weights of rows"),
        ({"inputs": INPUTS, "target": Y, "sample_weight": np.ones(59)}, "there are 60 rows"),
        ({"inputs": INPUTS, "target": Y, "sample_weight": -np.ones(60)}, "finite numbers from 0"),
        ({"inputs": INPUTS, "target": Y, "sample_weight": np.zeros(60)}, "nothing would be learned"),
        ({"inputs": INPUTS, "target": Y, "metrics": {"accuracy": max}}, "is measured already"),
        ({"inputs": INPUTS, "target": Y, "metrics": {"mine": 3}}, "is a int"),
        ({"inputs": INPUTS, "target": Y, "metrics": {"mine": (max, "most")}}, "'max' or 'min' was expected"),
        ({"inputs": INPUTS, "target": Y, "metrics": {"mine": lambda p, t: p}}, "one number was expected"),
        ({"inputs": INPUTS, "target": Y, "metrics": {"mine": lambda p, t: p.nothing}}, "fails on predictions of shape"),
    ],
)
@pytest.mark.parametrize("call", ["distill", "compare"])
def test_what_could_have_no_effect_is_refused(call, arguments, words):
    arguments = dict(arguments)
    method = arguments.pop("METHOD", "kd")
    named = {"method": method} if call == "distill" else {"methods": method}

    with pytest.raises(InputError, match=words):
        getattr(xmodal, call)(**arguments, **named, **({} if "data" in arguments else SIDES))


def test_train_fraction_and_augmentation_reach_arrays():
    training = {"train_fraction": 0.5, "augment": "noise:0.1"}

    done = xmodal.distill(INPUTS, Y, **SIDES, epochs=1, training=training)

    assert done.info.rows["train"]["faint"] == 21  # half of 42
    assert any("shuffled" in note for note in done.result["notes"])  # which augmentation makes impossible


def test_opened_data_keeps_its_splits_and_arrays_draw_one_for_each_seed():
    data = from_arrays(INPUTS, Y, seed=7)

    same = xmodal.compare(data=data, **SIDES, seeds=2, epochs=1, training={"shuffled": False})
    drawn = xmodal.compare(INPUTS, Y, **SIDES, seeds=2, epochs=1, training={"shuffled": False})

    rows = [
        [bench.data.test.numbers["faint"].tolist() for bench in each._study.trained.values()] for each in (same, drawn)
    ]
    assert rows[0][0] == rows[0][1] == data.test.numbers["faint"].tolist()
    assert rows[1][0] != rows[1][1]
    assert rows[1][1] == from_arrays(INPUTS, Y, seed=1).test.numbers["faint"].tolist()


def test_a_comparison_equals_one_distillation_per_seed():
    compared = xmodal.compare(INPUTS, Y, **SIDES, methods="kd", seeds=(4, 2), epochs=2)

    for seed in (4, 2):
        alone = xmodal.distill(INPUTS, Y, **SIDES, seed=seed, epochs=2)
        assert [row for row in compared.rows if row["seed"] == seed] == alone.rows


def test_a_sweep_has_no_form_for_arrays():
    with pytest.raises(InputError, match="Use xmodal compare --sweep"):
        xmodal.compare(INPUTS, Y, **SIDES, training={"sweep": "digits.noise=1,2"})


def test_few_labels_with_a_network_of_ones_own_whose_input_has_no_usual_one():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 3)

        def forward(self, x):
            return self.layer(x.flatten(1))

    cubes = np.concatenate([X, X], axis=1).reshape(60, 1, 2, 2, 2)

    done = xmodal.compare(
        {"clear": X, "faint": cubes}, Y, **SIDES, seeds=1, epochs=1, student_network=Flat(), training={"labelled": "9"}
    )

    assert done.result["labels"]["train"] == 9 and done.predict(cubes).shape == (60,)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"folds": 2, "splits": {"train": [0], "valid": [1], "test": [2]}}, "splits would have no effect"),
        ({"folds": 3, "seeds": 2}, "folds takes the place of seeds"),
        (
            {"options": {"ntdh": {"mask": "none"}}},
            "options names ntdh, which is not among",
        ),
        ({"seeds": [1, 1]}, "each may stand there once"),
    ],
)
def test_choices_without_an_effect_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        xmodal.compare({"a": np.zeros((30, 2)), "b": np.ones((30, 2))}, np.arange(30) % 3, methods="kd", **arguments)
