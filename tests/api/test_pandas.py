"""Data frames in, a data frame out."""

import numpy as np
import pandas
import pytest
from pandas.testing import assert_frame_equal
from sklearn.model_selection import cross_val_score

import xmodal
from xmodal.sklearn import CrossModalClassifier

SIDES = {"teacher": "clear", "student": "faint", "epochs": 2}


def frames(views):
    inputs, label = views
    frames = {name: pandas.DataFrame(array).add_prefix(name) for name, array in inputs.items()}
    return frames, pandas.Series(label, index=np.arange(len(label))[::-1])


def test_frames_are_arrays_whatever_their_index(views):
    inputs, label = frames(views)

    framed = xmodal.distill(inputs, label, **SIDES)
    plain = xmodal.distill(*views, **SIDES)

    assert framed.rows == plain.rows
    assert np.array_equal(framed.predict(inputs["faint"]), plain.predict(views[0]["faint"]))


def test_the_frame_of_a_result_has_every_row_and_metric(views):
    done = xmodal.compare(*views, **SIDES, seeds=2)

    frame = done.to_frame()

    assert list(frame.columns[:4]) == ["name", "role", "seed", "student"] and len(frame) == len(done.rows) == 8
    means = frame.groupby("name")["accuracy"].mean()
    assert means.to_dict() == pytest.approx(done.scores)
    assert frame["valid accuracy"].tolist() == [row["valid"]["accuracy"] for row in done.rows]
    assert_frame_equal(done.to_frame(), frame)


def test_an_estimator_remembers_the_names_of_columns(views):
    inputs, label = frames(views)
    model = CrossModalClassifier(epochs=2, random_state=0)

    scores = cross_val_score(model, inputs["faint"], label, cv=2, params={"teacher_X": inputs["clear"]})
    fitted = model.fit(inputs["faint"], label, teacher_X=inputs["clear"])

    assert scores.shape == (2,)
    assert fitted.feature_names_in_.tolist() == ["faint0", "faint1", "faint2", "faint3"]
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(inputs["faint"].add_prefix("new "))
