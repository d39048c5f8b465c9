"""`ManyScores` is `Scores` for each model."""

from __future__ import annotations

import math

import pytest
import torch

from xmodal.engine.stacked.scores import ManyScores
from xmodal.metrics.task import Scores
from xmodal.types import DataInfo


def info_of(task: str = "multiclass", classes: int = 4, **more: object) -> DataInfo:
    return DataInfo({}, task, classes, rows={}, **more)  # type: ignore[arg-type]


def test_two_models_by_hand() -> None:
    scores = ManyScores(info_of(classes=2), models=2)
    outputs = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])

    scores.update(outputs, torch.tensor([0, 1, 1]))
    values = scores.compute()

    assert values["accuracy"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert values["macro_f1"].tolist() == pytest.approx([2 / 3, 1 / 4])  # (2/3 + 2/3) / 2; (1/2 + 0) / 2
    assert values["weighted_f1"].tolist() == pytest.approx([2 / 3, 1 / 6])
    low, high = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    assert values["cross_entropy"].tolist() == pytest.approx([(2 * low + high) / 3, (low + 2 * high) / 3])


@pytest.mark.parametrize("present", [4, 3, 1])  # a class that occurs nowhere
@pytest.mark.parametrize("shared", [True, False])
def test_each_model_has_the_scores_that_it_has_alone(present: int, shared: bool) -> None:
    torch.manual_seed(present)
    info, models = info_of(), 5
    outputs = torch.randn(models, 37, 4)
    outputs[..., present:] = -10.0
    target = torch.randint(0, present, (37,) if shared else (models, 37))
    many = ManyScores(info, models=models)

    for part in (slice(0, 20), slice(20, 37)):
        many.update(outputs[:, part], target[..., part])
    scores = many.compute()

    for model in range(models):
        alone = Scores(info)
        alone.update(outputs[model], target if shared else target[model])
        ours, theirs = {name: values[model].item() for name, values in scores.items()}, alone.compute()
        assert ours.pop("cross_entropy") == pytest.approx(theirs.pop("cross_entropy"), rel=1e-5, abs=1e-6)
        assert ours.pop("accuracy") == theirs.pop("accuracy")  # counts
        assert ours == pytest.approx(theirs, abs=1e-6)  # means over classes, rounded by how many models they stand with


def test_it_applies_to_plain_classes_alone() -> None:
    assert ManyScores.applies(info_of())
    others = [info_of(task) for task in ("binary", "multilabel", "regression")]
    assert not any(map(ManyScores.applies, [*others, info_of(dense=True), info_of(ignore=255)]))
