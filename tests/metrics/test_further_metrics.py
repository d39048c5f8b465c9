"""Metrics of the user, besides those of the task."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassCohenKappa
from torchmetrics.regression import MeanAbsoluteError

import xmodal
from xmodal.metrics.further import further_metrics


def hits(chances, target):
    return (chances.argmax(dim=1) == target).float().mean()


def test_a_function_and_a_torchmetrics_object_agree_with_the_built_in_metric(make_toy):
    mine = {"by hand": hits, "object": MulticlassAccuracy(3, average="micro")}

    done = xmodal.distill(data=make_toy(), teacher="clear", student="faint", epochs=2, metrics=mine)

    for row in done.rows:
        for scores in (row["valid"], row["test"]):
            assert scores["by hand"] == pytest.approx(scores["accuracy"])
            assert scores["object"] == pytest.approx(scores["accuracy"])
    assert mine["object"].update_count == 0  # the user's object counted nothing


@pytest.mark.parametrize(
    ("task", "shapes"),
    [
        ("multiclass", {(3,)}),
        ("binary", {()}),
        ("multilabel", {(2,)}),
        ("regression", {(2,)}),
    ],
)
def test_what_a_function_is_called_with(make_toy, task, shapes):
    seen = []

    def look(predictions, target):
        seen.append((predictions, target))
        return 0.0

    done = xmodal.distill(data=make_toy(task), student="faint", method="supervised", epochs=1, metrics={"look": look})

    predictions, target = seen[-1]
    assert {tuple(predictions.shape[1:])} == shapes and len(predictions) == len(target)
    rows = done._study.trained[0].data.test.numbers["faint"]
    raw = done._study.trained[0].data.test.columns["faint"][rows]
    expected = done.student.predict(raw).outputs
    assert np.allclose(predictions.numpy().reshape(expected.shape), expected, atol=1e-5)


def test_the_direction_is_that_of_the_object_or_is_said(make_toy):
    given = {"up": hits, "down": (hits, "min"), "error": MeanAbsoluteError(), "kappa": MulticlassCohenKappa(3)}

    directions = {
        name: metric.direction
        for name, metric in further_metrics(
            {name: given[name] for name in ("up", "down", "kappa")}, make_toy().info, usual=()
        ).items()
    }
    of_values = further_metrics({"error": given["error"]}, make_toy("regression").info, usual=())

    assert directions == {"up": "max", "down": "min", "kappa": "max"} and of_values["error"].direction == "min"


def test_a_comparison_can_be_by_a_metric_of_the_user(make_toy):
    def missed(chances, target):
        return 1.0 - hits(chances, target)

    done = xmodal.compare(
        data=make_toy(),
        teacher="clear",
        student="faint",
        seeds=2,
        epochs=1,
        metric="missed",
        metrics={"missed": (missed, "min")},
        training={"shuffled": False},
    )

    assert (done.result["metric"], done.result["direction"]) == ("missed", "min")
    for row in done.rows:
        assert row["test"]["missed"] == pytest.approx(1 - row["test"]["accuracy"])
    assert "missed" in done.table().splitlines()[0]


def test_every_use_counts_anew(make_toy):
    metric = further_metrics({"hits": hits}, make_toy().info, usual=())["hits"]
    one, two = metric.fresh(), metric.fresh()

    one.update(torch.eye(3), torch.tensor([0, 1, 2]))
    two.update(torch.eye(3), torch.tensor([1, 1, 1]))

    assert (float(one.compute()), float(two.compute())) == pytest.approx((1.0, 1 / 3))
