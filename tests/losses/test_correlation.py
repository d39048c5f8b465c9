"""Losses on correlations of rows and classes against slow loops; test_logits_zoo.py contains the other tests."""

import math

import pytest
import torch

from xmodal.losses.correlation import batch_correlation, class_correlation, dist, mlkd
from xmodal.losses.logits import kl


def draw(rows=6, classes=4, *rest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(rows, classes, *rest, generator=generator, dtype=torch.float64) for _ in range(2)]


def softmax(row, temperature=1.0):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow_kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def slow_pearson(a, b):
    a, b = ([value - sum(row) / len(row) for value in row] for row in (a, b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_dist(student, teacher, temperature):
    q, p = ([softmax(row, temperature) for row in side.tolist()] for side in (student, teacher))
    rows = [1 - slow_pearson(a, b) for a, b in zip(q, p, strict=True)]
    columns = [1 - slow_pearson(a, b) for a, b in zip(zip(*q, strict=True), zip(*p, strict=True), strict=True)]
    return temperature**2 * (sum(rows) / len(rows) + sum(columns) / len(columns))


def slow_gram(rows):
    return [[sum(a * b for a, b in zip(row, other, strict=True)) for other in rows] for row in rows]


def slow_gram_distances(q, p):
    return [
        sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in zip(slow_gram(p), slow_gram(q), strict=True)
    ]


def slow_mlkd(student, teacher, temperatures):
    answers = [softmax(row) for row in teacher.tolist()]
    confidence, totals = [max(row) for row in answers], [sum(column) for column in zip(*answers, strict=True)]
    rows = [value <= sorted(confidence)[(len(confidence) - 1) // 2] for value in confidence]
    classes = [value <= sorted(totals)[(len(totals) - 1) // 2] for value in totals]
    total = 0.0
    for temperature in temperatures:
        q, p = ([softmax(row, temperature) for row in side.tolist()] for side in (student, teacher))
        total += temperature**2 * sum(slow_kl(p[i], q[i]) for i in range(len(p)) if rows[i]) / len(p)
        total += sum(slow_gram_distances(q, p)) / len(p)
        by_class = slow_gram_distances(list(zip(*q, strict=True)), list(zip(*p, strict=True)))
        total += sum(value for value, kept in zip(by_class, classes, strict=True) if kept) / len(by_class)
    return total


@pytest.mark.parametrize("temperature", [0.7, 4.0])
def test_dist_equals_a_slow_loop(temperature):
    student, teacher = draw(7, 5)

    assert dist(student, teacher, temperature=temperature, eps=0.0).item() == pytest.approx(
        slow_dist(student, teacher, temperature), rel=1e-9
    )


def test_dist_weighs_its_two_parts():
    student, teacher = draw()

    rows, columns = dist(student, teacher, gamma=0.0), dist(student, teacher, beta=0.0)

    torch.testing.assert_close(dist(student, teacher, beta=2.0, gamma=0.5), 2 * rows + columns / 2)
    assert dist(student, teacher, beta=0.0, gamma=0.0).item() == 0.0


@pytest.mark.parametrize("rows", [6, 7])
def test_mlkd_selects_samples_and_classes_as_a_slow_loop_does(rows):
    student, teacher = draw(rows, 5)

    assert mlkd(student, teacher, temperatures=(2.0, 5.0)).item() == pytest.approx(
        slow_mlkd(student, teacher, (2.0, 5.0)), rel=1e-9
    )


def test_mlkd_without_masks_is_the_sum_of_its_parts():
    student, teacher = draw()

    parts = kl(student, teacher) + class_correlation(student, teacher) + batch_correlation(student, teacher)

    torch.testing.assert_close(mlkd(student, teacher, temperatures=(4.0,), masked=False), parts)


def test_correlations_exclude_what_the_mask_excludes():
    student, teacher = draw(3, 4)

    kept = class_correlation(student, teacher, keep=torch.tensor([True, True, False, False]))
    other = class_correlation(student, teacher, keep=torch.tensor([False, False, True, True]))

    torch.testing.assert_close(kept + other, class_correlation(student, teacher))
    assert batch_correlation(student, teacher, keep=torch.zeros(3, dtype=torch.bool)).item() == 0.0


def test_dist_is_zero_where_neither_side_varies():
    student, teacher = torch.tensor([[0.3, 1.7, 0.1]]), torch.tensor([[2.0, 0.0, 1.0]])

    assert dist(student, teacher, beta=0.0).item() == 0.0  # one sample
    assert dist(student.expand(5, 3), teacher.expand(5, 3), beta=0.0).item() == 0.0  # identical rows


@pytest.mark.parametrize("loss", [dist, mlkd, class_correlation, batch_correlation])
def test_pixels_count_as_rows_where_rows_are_compared(loss):
    student, teacher = draw(2, 3, 4)
    flat = (side.movedim(1, -1).reshape(8, 3) for side in (student, teacher))

    torch.testing.assert_close(loss(student, teacher), loss(*flat))
