import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk

from xmodal.metrics.task import Scores
from xmodal.types import DataInfo

NEAR = {"abs": 1e-5}  # torchmetrics counts in float32


def info(task, classes, **facts):
    return DataInfo({}, task, classes, {}, **facts)


def scored(facts, *batches, full=True):
    scores = Scores(facts, full=full)
    for batch in batches:
        scores.update(*batch)
    return scores.compute()


def random_multiclass(rows=200, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (rows,), generator=generator)
    outputs = torch.randn(rows, classes, generator=generator)
    outputs[torch.arange(rows), target] += 1.0
    return outputs, target


def random_labels(rows=200, labels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 2, (rows, labels), generator=generator)
    return torch.randn(rows, labels, generator=generator) + target - 0.5, target


def random_values(rows=200, width=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(rows, width, generator=generator)
    return target + 0.5 * torch.randn(rows, width, generator=generator), target


def multiclass_by_sklearn(outputs, target):
    answers = outputs.argmax(1)
    return {
        "accuracy": sk.accuracy_score(target, answers),
        "macro_f1": sk.f1_score(target, answers, average="macro"),
        "weighted_f1": sk.f1_score(target, answers, average="weighted"),
        "cross_entropy": sk.log_loss(target, outputs.double().softmax(1), labels=range(outputs.shape[1])),
        "per_class": sk.recall_score(target, answers, average=None).tolist(),
    }


def assert_near(found, expected):
    for name, value in expected.items():
        assert np.asarray(found[name]) == pytest.approx(np.asarray(value), **NEAR), name


def test_multiclass_agrees_with_scikit_learn():
    outputs, target = random_multiclass()

    found = scored(info("multiclass", 4), (outputs, target))

    assert_near(found, multiclass_by_sklearn(outputs, target))
    assert found["confusion"] == sk.confusion_matrix(target, outputs.argmax(1)).tolist()


def test_binary_agrees_with_scikit_learn():
    outputs, target = random_labels(labels=1)

    found = scored(info("binary", 2), (outputs, target[:, 0]))

    truth, logit = target[:, 0], outputs[:, 0]
    expected = {
        "accuracy": sk.accuracy_score(truth, logit > 0),
        "f1": sk.f1_score(truth, logit > 0),
        "auroc": sk.roc_auc_score(truth, logit),
        "cross_entropy": sk.log_loss(truth, logit.double().sigmoid()),
    }
    assert_near(found, expected)
    assert found["confusion"] == sk.confusion_matrix(truth, logit > 0).tolist()


def test_multilabel_agrees_with_scikit_learn():
    outputs, target = random_labels()

    found = scored(info("multilabel", 3), (outputs, target))

    answers = (outputs > 0).long()
    expected = {
        "accuracy": (answers == target).float().mean().item(),
        "macro_f1": sk.f1_score(target, answers, average="macro"),
        "exact_match": sk.accuracy_score(target, answers),
        "average_precision": sk.average_precision_score(target, outputs, average="macro"),
        "per_class": sk.f1_score(target, answers, average=None).tolist(),
        "cross_entropy": np.mean([sk.log_loss(target[:, k], outputs[:, k].double().sigmoid()) for k in range(3)]),
    }
    assert_near(found, expected)


@pytest.mark.parametrize("width", [1, 3])
def test_regression_agrees_with_scikit_learn_and_scipy(width):
    outputs, target = random_values(width=width)

    found = scored(info("regression", width), (outputs, target))

    expected = {
        "mse": sk.mean_squared_error(target, outputs),
        "mae": sk.mean_absolute_error(target, outputs),
        "r2": sk.r2_score(target, outputs),
    }
    assert_near(found, expected)
    correlations = [stats.pearsonr(outputs[:, k], target[:, k]).statistic for k in range(width)]
    assert found["pearson"] == pytest.approx(correlations[0] if width == 1 else correlations, **NEAR)
    assert "cross_entropy" not in found


CASES = {
    "multiclass": (info("multiclass", 4), random_multiclass()),
    "binary": (info("binary", 2), (random_labels(labels=1)[0], random_labels(labels=1)[1][:, 0])),
    "multilabel": (info("multilabel", 3), random_labels()),
    "regression": (info("regression", 2), random_values()),
}
every_task = pytest.mark.parametrize("task", CASES)


@every_task
def test_batches_of_different_size_equal_one_batch(task):
    facts, (outputs, target) = CASES[task]
    sizes = [1, 1, 5, 60, 133]

    batches = list(zip(outputs.split(sizes), target.split(sizes), strict=True))

    assert_near(scored(facts, *batches), scored(facts, (outputs, target)))


@every_task
def test_rows_that_are_not_valid_do_not_count(task):
    facts, (outputs, target) = CASES[task]
    valid = torch.arange(len(target)) % 3 > 0
    spoilt = torch.where(valid.view(-1, *[1] * (outputs.ndim - 1)), outputs, torch.full_like(outputs, 1e4))

    assert_near(scored(facts, (spoilt, target, valid)), scored(facts, (outputs[valid], target[valid])))


@every_task
def test_an_empty_batch_changes_nothing(task):
    facts, (outputs, target) = CASES[task]
    nothing = torch.zeros(len(target), dtype=torch.bool)

    found = scored(facts, (outputs[:0], target[:0]), (outputs, target), (outputs, target, nothing))

    assert found == scored(facts, (outputs, target))


@every_task
def test_half_precision_outputs_are_scored_as_float32(task):
    facts, (outputs, target) = CASES[task]
    half = outputs.to(torch.bfloat16)

    assert scored(facts, (half, target)) == scored(facts, (half.float(), target))


@every_task
def test_what_is_expensive_waits_for_the_full_evaluation(task):
    facts, batch = CASES[task]

    quick, full = scored(facts, batch, full=False), scored(facts, batch, full=True)

    expensive = {
        "multiclass": {"per_class", "confusion"},
        "binary": {"auroc", "confusion"},
        "multilabel": {"average_precision", "per_class"},
        "regression": {"r2", "pearson"},
    }
    assert set(full) - set(quick) == expensive[task]
    assert all(isinstance(value, float) for value in quick.values())
    assert_near(full, quick)


@pytest.mark.parametrize("ignore", [-1, 255, 2])
def test_ignored_targets_count_nowhere(ignore):
    outputs, target = random_multiclass(classes=3)
    target = torch.where(torch.arange(len(target)) % 4 == 0, ignore, target)
    kept = target != ignore

    found = scored(info("multiclass", 3, ignore=ignore), (outputs[:50], target[:50]), (outputs[50:], target[50:]))

    answers, truth = outputs.argmax(1)[kept], target[kept]
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, answers), **NEAR)
    expected = torch.nn.functional.cross_entropy(outputs[kept], truth).item()
    assert found["cross_entropy"] == pytest.approx(expected, **NEAR)
    assert sum(map(sum, found["confusion"])) == kept.sum()


def test_a_batch_of_nothing_but_ignored_targets_changes_nothing():
    facts, (outputs, target) = info("multiclass", 4, ignore=-1), random_multiclass()

    found = scored(facts, (outputs, torch.full_like(target, -1)), (outputs, target))

    assert found == scored(facts, (outputs, target))


def test_dense_outputs_are_scored_per_pixel():
    generator = torch.Generator().manual_seed(3)
    outputs = torch.randn(3, 4, 5, 6, generator=generator)
    target = torch.randint(0, 4, (3, 5, 6), generator=generator)
    target[:, 0] = 255
    valid = torch.rand(3, 5, 6, generator=generator) > 0.3

    found = scored(info("multiclass", 4, dense=True, ignore=255), (outputs, target, valid))

    kept = valid & (target != 255)
    pixels, truth = outputs.movedim(1, -1)[kept], target[kept]
    assert_near(found, multiclass_by_sklearn(pixels, truth))
    assert np.sum(found["confusion"]) == kept.sum()


def test_shapes_of_per_class_values_and_confusion_matrix():
    found = {task: scored(*CASES[task]) for task in ("multiclass", "binary", "multilabel")}

    assert len(found["multiclass"]["per_class"]) == 4 and len(found["multilabel"]["per_class"]) == 3
    assert np.shape(found["multiclass"]["confusion"]) == (4, 4) and np.shape(found["binary"]["confusion"]) == (2, 2)


def test_confusion_has_true_classes_in_its_rows():
    outputs = torch.eye(3)[[1, 1, 2]]  # answers 1, 1, 2

    found = scored(info("multiclass", 3), (outputs, torch.tensor([0, 1, 2])))

    assert found["confusion"] == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert found["per_class"] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_small_positive_logits_are_not_taken_for_probabilities(task):
    width = {"binary": 1, "multilabel": 2}[task]
    outputs = torch.full((4, width), 0.2)  # as a logit this says yes
    target = torch.ones(4, width, dtype=torch.long).squeeze(1)

    found = scored(info(task, 2), (outputs, target), full=False)

    assert found["accuracy"] == 1.0


def test_a_class_without_samples_is_no_reason_to_warn():
    outputs, target = torch.eye(3)[[0, 1]], torch.tensor([0, 1])

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = scored(info("multiclass", 3), (outputs, target))
        scored(info("binary", 2), (torch.tensor([[1.0], [2.0]]), torch.tensor([1, 1])))

    assert not said and found["per_class"] == [1.0, 1.0, 0.0] and found["accuracy"] == 1.0


def test_a_score_that_is_not_a_number_is_not_hidden():
    found = scored(info("multiclass", 2), (torch.tensor([[float("nan"), 0.0], [1.0, 0.0]]), torch.tensor([0, 0])))

    assert found["cross_entropy"] != found["cross_entropy"]
