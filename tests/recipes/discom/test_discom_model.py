"""DisCoM-KD as one object: fit, ask, embed, write, load."""

import numpy as np
import pytest

from xmodal.errors import InputError
from xmodal.recipes.discom.estimator import DisCoMKD

FAST = {"width": 8, "epochs": 6, "batch_size": 32, "learning_rate": 1e-2}


def views(rows=150, task="multiclass"):
    random = np.random.default_rng(0)
    y = np.arange(rows) % 3
    inputs = {
        name: 3.0 * np.eye(3)[y] @ random.normal(size=(3, width)) + random.normal(size=(rows, width)) + 100.0
        for name, width in (("left", 6), ("right", 4))
    }
    targets = {
        "multiclass": y,
        "binary": (y == 0).astype(int),
        "multilabel": np.stack([y == 0, y != 1], axis=1).astype(int),
        "regression": np.stack([50.0 * y, y - 7.0], axis=1),
    }
    return inputs, targets[task]


@pytest.fixture(scope="module")
def fitted():
    inputs, y = views()
    told = []
    return DisCoMKD(**{**FAST, "epochs": 15}).fit(inputs, y, callback=told.append), inputs, y, told


def test_both_students_learn_and_probabilities_agree_with_classes(fitted):
    model, inputs, y, _ = fitted

    for name in ("left", "right"):
        shares = model.predict_proba(name, inputs[name])
        assert shares.shape == (150, 3) and np.allclose(shares.sum(axis=1), 1, atol=1e-5)
        assert (model.predict(name, inputs[name]) == shares.argmax(axis=1)).all()
        assert (model.predict(name, inputs[name]) == y).mean() > 0.8


def test_the_callback_is_given_every_epoch(fitted):
    model, _, _, told = fitted

    assert [row["epoch"] for row in told] == list(range(15)) and told == model.history
    assert set(told[0]["losses"]) == {"task", "auxiliary", "adversarial", "modality", "orthogonality"}
    assert set(told[0]["valid"]) == {"left", "right"}


def test_the_parts_of_raw_samples_make_the_answer(fitted):
    model, inputs, _, _ = fitted
    student, _ = model.students["left"]

    parts = model.embed("left", inputs["left"][:7])
    alone = model.embed("left", inputs["left"][:1])

    assert {name: part.shape for name, part in parts.items()} == dict.fromkeys(parts, (7, 4))
    np.testing.assert_allclose(alone["invariant"], parts["invariant"][:1], atol=1e-5)
    weight, bias = (tensor.detach().numpy() for tensor in (student.module.head.weight, student.module.head.bias))
    answers = np.hstack([parts["invariant"], parts["informative"]]) @ weight.T + bias
    assert (answers.argmax(axis=1) == model.predict("left", inputs["left"][:7])).all()


def test_an_exported_student_answers_to_the_last_bit_without_the_other(fitted, tmp_path):
    model, inputs, _, _ = fitted

    loaded = DisCoMKD.load([model.export("right", tmp_path / "student")])

    assert loaded.modalities == ("right",)
    ours, theirs = (each.predict_proba("right", inputs["right"]) for each in (model, loaded))
    assert np.array_equal(ours, theirs)
    parts, same = (each.embed("right", inputs["right"][:3]) for each in (model, loaded))
    assert all(np.array_equal(parts[name], same[name]) for name in parts)
    with pytest.raises(InputError, match="no student of 'left'"):
        loaded.predict("left", inputs["left"])


def test_the_same_seed_gives_the_same_answers():
    inputs, y = views()

    one, again, other = (
        DisCoMKD(seed=seed, **{**FAST, "epochs": 1}).fit(inputs, y).predict_proba("left", inputs["left"][:5])
        for seed in (0, 0, 1)
    )

    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_unpaired_arrays_of_different_length():
    inputs, y = views()
    inputs["right"], labels = inputs["right"][:80], {"left": y, "right": y[:80]}

    model = DisCoMKD(**{**FAST, "epochs": 1}).fit(inputs, labels)

    assert model.info is not None and not model.info.paired and len(model.history) == 1


def test_values_come_in_their_own_units():
    inputs, target = views(task="regression")
    model = DisCoMKD(**{**FAST, "epochs": 25}, options={"regression_loss": "huber"}).fit(inputs, target)

    found = model.predict("left", inputs["left"])

    assert np.abs(found - target).mean(axis=0)[0] < 15 and np.abs(found[:, 1] - target[:, 1]).mean() < 0.4
    with pytest.raises(InputError, match="no probabilities"):
        model.predict_proba("left", inputs["left"])


@pytest.mark.parametrize(("task", "shape"), [("binary", (150,)), ("multilabel", (150, 2))])
def test_other_tasks_answer_in_their_form(task, shape):
    inputs, target = views(task=task)

    model = DisCoMKD(**{**FAST, "epochs": 1}).fit(inputs, target, task=task)

    assert model.predict("right", inputs["right"]).shape == shape


def test_what_is_misspelt_is_a_sentence():
    with pytest.raises(InputError, match="no key 'domain_target'"):
        DisCoMKD(options={"domain_target": "released"})
    with pytest.raises(InputError, match="Call fit first"):
        DisCoMKD().predict("left", np.zeros((1, 2)))
    inputs, y = views()
    with pytest.raises(InputError, match="two modalities or more"):
        DisCoMKD(**FAST).fit({"left": inputs["left"]}, y)
