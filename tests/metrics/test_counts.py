"""Counts have the bits of torchmetrics, which is the oracle here."""

import pytest
import torch
from torchmetrics import MeanMetric
from torchmetrics import classification as tm

from xmodal.metrics.counts import BinaryCounts, Counts, Mean, _largest


def batches(seed, classes, rows=(37, 64, 5), absent=True):
    generator = torch.Generator().manual_seed(seed)
    for count in rows:
        outputs = torch.randn(count, classes, generator=generator)
        # ties, which argmax decides by position
        outputs[::7] = outputs[::7].round()
        yield outputs, torch.randint(0, classes - absent, (count,), generator=generator)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("ignore", [None, 1])
def test_multiclass_counts_equal_torchmetrics(seed, ignore):
    classes = 3 + 5 * seed
    ours = Counts(classes, ignore=ignore, full=True)
    common = {"num_classes": classes, "ignore_index": ignore}
    oracle = {
        "accuracy": tm.MulticlassAccuracy(average="micro", **common),
        "macro_f1": tm.MulticlassF1Score(average="macro", **common),
        "weighted_f1": tm.MulticlassF1Score(average="weighted", **common),
        "per_class": tm.MulticlassRecall(average="none", **common),
        "confusion": tm.MulticlassConfusionMatrix(**common),
    }
    for outputs, target in batches(seed, classes):
        ours.update(outputs, target)
        for metric in oracle.values():
            metric.update(outputs, target)

    assert ours.compute() == {name: metric.compute().tolist() for name, metric in oracle.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_largest_output_is_that_of_torch(dtype):
    outputs = torch.randn(200, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    outputs[::3] = outputs[::3].round()  # ties
    outputs[5, 3] = outputs[5, 7] = outputs[6, 0] = outputs[7, -1] = float("nan")
    outputs[8] = float("-inf")
    outputs[9, 4] = outputs[9, 2] = float("inf")

    assert torch.equal(_largest(outputs.requires_grad_()), outputs.argmax(dim=1))
    assert torch.equal(_largest(outputs[:, ::2]), outputs[:, ::2].argmax(dim=1))


def test_many_classes_name_the_most_frequent_confusions():
    classes, generator = 300, torch.Generator().manual_seed(0)
    target = torch.randint(0, classes, (900,), generator=generator)
    predicted = torch.where(torch.rand(900, generator=generator) < 0.3, target, (target // 3) * 3 % classes)
    ours = Counts(classes, full=True)
    for part in range(3):
        rows = slice(300 * part, 300 * part + 300)
        ours.update(torch.nn.functional.one_hot(predicted[rows], classes).float(), target[rows])

    scores = ours.compute()

    table = torch.zeros(classes, classes, dtype=torch.long)
    for true, other in zip(target.tolist(), predicted.tolist(), strict=True):
        table[true, other] += 1
    expected = sorted(
        ([true, other, table[true, other].item()] for true, other in table.nonzero().tolist() if true != other),
        key=lambda entry: (-entry[2], entry[0], entry[1]),
    )
    assert scores["confused"] == {"true": table.sum(dim=1).tolist(), "largest": expected[:200]}
    assert "confusion" not in scores and len(scores["per_class"]) == classes


@pytest.mark.parametrize("seed", range(6))
def test_binary_counts_equal_torchmetrics(seed):
    ours, generator = BinaryCounts(full=True), torch.Generator().manual_seed(seed)
    oracle = {"accuracy": tm.BinaryAccuracy(), "f1": tm.BinaryF1Score(), "confusion": tm.BinaryConfusionMatrix()}
    for rows in (50, 7):
        chances = torch.rand(rows, generator=generator).round(decimals=1)
        target = torch.randint(0, 2, (rows,), generator=generator)
        ours.update(chances, target)
        for metric in oracle.values():
            metric.update(chances, target)

    assert ours.compute() == {name: metric.compute().tolist() for name, metric in oracle.items()}


def test_nothing_to_count_is_zero():
    assert Counts(3).compute() == {"accuracy": 0.0, "macro_f1": 0.0, "weighted_f1": 0.0}
    assert BinaryCounts().compute() == {"accuracy": 0.0, "f1": 0.0}


@pytest.mark.parametrize("bad", [False, True])
def test_means_equal_torchmetrics(bad):
    ours, oracle = Mean(), MeanMetric(nan_strategy="disable")
    for seed in range(5):
        values = torch.randn(101, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        if bad and seed == 2:
            values[3] = torch.nan
        ours.update(values)
        oracle.update(values)

    assert torch.equal(ours.compute().nan_to_num(7.0), oracle.compute().nan_to_num(7.0))
