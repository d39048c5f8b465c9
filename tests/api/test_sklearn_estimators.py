"""The estimators for scikit-learn."""

import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import xmodal
from xmodal.errors import InputError
from xmodal.methods import METHODS
from xmodal.models.student_file import save_student
from xmodal.sklearn import CrossModalClassifier, CrossModalRegressor

NAMES = np.array(["ant", "bee", "cat"])
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "a row of weight 2 is drawn into a batch once, two rows twice"
}


def views(rows=120, seed=0):
    """A faint view for deployment, a clear one for the teacher, and a name as label."""
    random = np.random.default_rng(seed)
    number = np.arange(rows) % 3
    corners = 3.0 * np.eye(3)[number]
    return corners + 1.5 * random.normal(size=(rows, 3)), corners + 0.1 * random.normal(size=(rows, 3)), NAMES[number]


def short(**changes):
    return CrossModalClassifier(**{"epochs": 8, "random_state": 0} | changes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CrossModalClassifier, CrossModalRegressor])
def test_the_checks_of_scikit_learn_pass(kind):
    results = check_estimator(kind(), expected_failed_checks=EXPECTED_FAILURES, on_fail=None, on_skip=None)

    by_status = {}
    for result in results:
        by_status.setdefault(result["status"], []).append(result["check_name"])
    assert by_status.keys() <= {"passed", "xfail", "skipped"}, by_status
    assert by_status["xfail"] == list(EXPECTED_FAILURES)
    assert len(by_status["passed"]) > 50


def test_the_classes_are_those_of_y_and_the_probabilities_in_their_order():
    X, teacher_X, y = views()

    model = short().fit(X, y, teacher_X=teacher_X)

    assert model.classes_.tolist() == ["ant", "bee", "cat"] and model.score(X, y) > 0.8
    chances = model.predict_proba(X)
    assert chances.sum(axis=1) == pytest.approx(np.ones(len(X)))
    assert np.array_equal(model.classes_[chances.argmax(axis=1)], model.predict(X))


def test_the_teacher_changes_the_student_and_without_one_labels_alone_train():
    X, teacher_X, y = views()
    other = views(seed=1)[1]

    alone, taught, otherwise = (short().fit(X, y, teacher_X=each).predict_proba(X) for each in (None, teacher_X, other))

    assert not np.allclose(alone, taught, atol=1e-3) and not np.allclose(taught, otherwise, atol=1e-3)
    assert np.array_equal(alone, short(method="mfh").fit(X, y).predict_proba(X))
    by_teacher = short(teacher_reads="teacher_X").fit(X, y, teacher_X=teacher_X).predict_proba(X)
    assert not np.allclose(by_teacher, taught, atol=1e-3)


def test_grid_search_over_the_temperature_hands_the_rows_of_the_teacher_to_each_fold():
    X, teacher_X, y = views()

    search = GridSearchCV(short(epochs=3), {"temperature": [1.0, 4.0]}, cv=2).fit(X, y, teacher_X=teacher_X)

    assert search.best_params_["temperature"] in (1.0, 4.0)
    first = np.arange(len(X)) % 2 == 0
    folds = [(np.flatnonzero(first), np.flatnonzero(~first))]
    found = GridSearchCV(short(epochs=3), {"temperature": [2.0]}, cv=folds).fit(X, y, teacher_X=teacher_X)
    by_hand = short(epochs=3, temperature=2.0).fit(X[first], y[first], teacher_X=teacher_X[first])
    assert found.cv_results_["mean_test_score"][0] == pytest.approx(by_hand.score(X[~first], y[~first]))


def test_metadata_routing_hands_on_the_teacher():
    X, teacher_X, y = views()

    with sklearn.config_context(enable_metadata_routing=True):
        model = short(epochs=2).set_fit_request(teacher_X=True)
        routed = GridSearchCV(model, {"temperature": [2.0]}, cv=2).fit(X, y, teacher_X=teacher_X)

    again = short(epochs=2, temperature=2.0).fit(X, y, teacher_X=teacher_X)
    assert np.array_equal(routed.best_estimator_.predict_proba(X), again.predict_proba(X))


def test_pipelines_clones_and_cross_validation():
    X, teacher_X, y = views()

    pipeline = make_pipeline(StandardScaler(), short(epochs=3))
    pipeline.fit(X, y, crossmodalclassifier__teacher_X=teacher_X)
    scores = cross_val_score(short(epochs=3), X, y, cv=2, params={"teacher_X": teacher_X})

    assert pipeline.score(X, y) > 0.5 and scores.shape == (2,) and scores.min() > 0.5
    fitted = pipeline[-1]
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(X)


def test_minus_one_is_a_class_unless_it_means_unlabelled():
    X, teacher_X, y = views()
    numbers = np.searchsorted(NAMES, y) - 1
    few = np.where(np.arange(len(y)) < 90, -1, numbers + 5)

    assert short(epochs=1).fit(X, numbers).classes_.tolist() == [-1, 0, 1]
    model = short(unlabelled=-1).fit(X, few, teacher_X=teacher_X)
    assert model.classes_.tolist() == [4, 5, 6] and model.score(X, numbers + 5) > 0.8
    # the rows without a label are of use through the teacher
    alone = short(unlabelled=-1).fit(X[90:], few[90:], teacher_X=teacher_X[90:])
    assert not np.allclose(model.predict_proba(X), alone.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({}, {"y": [0.0, float("nan")] * 60}, "NaN"),
        ({}, {"y": np.array(["a", None, "b", "c"] * 30, dtype=object)}, "NaN or None|Input contains NaN|missing"),
        ({}, {"teacher_X": np.full((120, 2), np.nan)}, "teacher_X contains NaN"),
        ({}, {"teacher_X": np.ones((119, 2))}, "inconsistent numbers of samples"),
        ({"teacher_reads": "all"}, {}, "one of both, teacher_X was expected"),
        ({"method": "supervised"}, {}, "supervised has no teacher"),
        ({"method": "pmf"}, {}, "predicts for every pixel"),
        ({"method": "kdd"}, {}, "Did you mean 'kd'"),
        ({"options": {"temprature": 2}}, {}, "Did you mean 'temperature'"),
        ({"unlabelled": "ant"}, {"y": ["ant"] * 120}, "Every row of y is 'ant'"),
        ({"class_weight": "even"}, {}, "'balanced' or a dictionary"),
        ({"class_weight": {"dog": 2.0}}, {}, r"names \['dog'\]"),
        ({"method": "discom", "class_weight": "balanced"}, {}, "no weights of classes"),
    ],
)
def test_what_cannot_work_is_refused(changes, arguments, words):
    X, teacher_X, y = views()

    with pytest.raises(ValueError, match=words):
        short(**changes).fit(**{"X": X, "y": y, "teacher_X": teacher_X} | arguments)


@pytest.mark.parametrize("rows", [2, 3, 33])
def test_few_rows_and_a_last_batch_of_one_row_train(rows):
    X, teacher_X, y = views(rows)

    assert short(epochs=1).fit(X, y, teacher_X=teacher_X).predict(X).shape == (rows,)


def test_predictions_depend_neither_on_other_rows_nor_on_a_pickle():
    X, teacher_X, y = views()

    model = short(epochs=2).fit(X, y, teacher_X=teacher_X)

    whole = model.predict_proba(X)
    assert np.concatenate([model.predict_proba(row[None]) for row in X[:5]]) == pytest.approx(whole[:5], abs=1e-12)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), whole)


def test_weights_of_classes_and_rows_reach_the_student():
    X, _, y = views()
    plain = short(epochs=3).fit(X, y).predict_proba(X)

    often = short(epochs=3, class_weight={"bee": 50.0}).fit(X, y).predict_proba(X)
    assert often[:, 1].mean() > plain[:, 1].mean() + 0.1
    only = short(epochs=8).fit(X, y, sample_weight=(y == "cat").astype(float))
    assert (only.predict(X) == "cat").mean() > 0.9


def test_a_regressor_predicts_in_the_units_of_y_and_so_does_its_student():
    X, teacher_X, _ = views()
    y = 1000.0 + 50.0 * X[:, 0]

    model = CrossModalRegressor(epochs=30, random_state=0).fit(X, y, teacher_X=teacher_X)

    assert model.score(X, y) > 0.9
    assert model.student_.predict(X).outputs[:, 0] == pytest.approx(model.predict(X), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CrossModalClassifier, CrossModalRegressor])
@pytest.mark.parametrize("method", [name for name, card in METHODS.items() if card.paired and card.targets == "any"])
def test_methods_of_the_list_fit(kind, method):
    X, teacher_X, y = views(60)
    task = "multiclass" if kind is CrossModalClassifier else "regression"
    y = y if task == "multiclass" else X[:, 0]
    model = kind(method=method, epochs=1, random_state=0)

    if task not in METHODS[method].tasks:
        with pytest.raises(InputError, match=f"not {task}"):
            model.fit(X, y, teacher_X=teacher_X)
        return
    assert model.fit(X, y, teacher_X=teacher_X).predict(X).shape == (60,)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options"), [("discom", {}), ("dmd", {"width": 8, "heads": 2, "layers": 1})])
def test_methods_with_networks_of_their_own_fit_classes_and_values(method, options):
    X, teacher_X, y = views(60)
    arguments = {"method": method, "options": options, "epochs": 1, "random_state": 0}

    classes = CrossModalClassifier(**arguments).fit(X, y, teacher_X=teacher_X).predict(X)
    values = CrossModalRegressor(**arguments).fit(X, X[:, 0], teacher_X=teacher_X).predict(X)

    assert set(classes) <= set(NAMES) and values.shape == (60,)


def test_the_student_is_a_file_that_needs_no_scikit_learn(tmp_path):
    X, teacher_X, y = views()
    model = short().fit(X, y, teacher_X=teacher_X)

    file = save_student(tmp_path / "student.safetensors", model.student_.inner, model.info_)

    assert xmodal.open_student(file).predict(X).labels == model.predict(X).tolist()
