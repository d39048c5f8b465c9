"""Votes of neighbours: simple cases, comparison with a slow loop, invariances, and errors."""

import math

import pytest
import torch

from xmodal.data.semantic_kitti import knn
from xmodal.data.semantic_kitti.knn import gaussian, knn_classes, measured
from xmodal.errors import InputError


def slow(ranges, classes, depth, rows, columns, *, neighbours=5, search=5, sigma=1.0, cutoff=1.0):
    """The rule, point by point and pixel by pixel."""
    height, width = ranges.shape
    half, total = search // 2, 0.0
    bell = {}
    for i in range(-half, half + 1):
        for j in range(-half, half + 1):
            bell[i, j] = math.exp(-(i * i + j * j) / (2 * sigma**2))
            total += bell[i, j]
    classes_of_points = []
    for r, row, column in zip(depth.tolist(), rows.tolist(), columns.tolist(), strict=True):
        window = []
        for (i, j), weight in bell.items():
            y, x = row + i, column + j
            inside = 0 <= y < height and 0 <= x < width
            distance_there, label = (ranges[y, x].item(), classes[y, x].item()) if inside else (0.0, 0)
            distance_there = math.inf if distance_there < 0 else distance_there
            distance_there = r if (i, j) == (0, 0) else distance_there
            window.append((abs(distance_there - r) * (1 - weight / total), label))
        votes = [0] * 20
        for distance, label in sorted(window, key=lambda entry: entry[0])[:neighbours]:
            if cutoff <= 0 or distance <= cutoff:
                votes[label] += 1
        classes_of_points.append(max(range(1, 20), key=lambda number: (votes[number], -number)))
    return torch.tensor(classes_of_points)


def scan(points=300, height=9, width=14, seed=0):
    """Ranges with empty pixels, classes, and points in front of and behind the ranges of their pixels."""
    generator = torch.Generator().manual_seed(seed)
    ranges = 3 + 2 * torch.rand(height, width, generator=generator)
    ranges[torch.rand(height, width, generator=generator) < 0.3] = -1.0
    classes = torch.randint(0, 6, (height, width), generator=generator)
    rows = torch.randint(0, height, (points,), generator=generator)
    columns = torch.randint(0, width, (points,), generator=generator)
    return ranges, classes, 3 + 2 * torch.rand(points, generator=generator), rows, columns


def test_a_point_behind_another_gets_the_class_of_neighbours_at_its_range():
    ranges = torch.tensor([[9.0, 4.0, 9.0], [9.0, 4.0, 9.0], [9.0, 4.0, 9.0]])
    classes = torch.tensor([[2, 5, 2], [2, 5, 2], [2, 5, 2]])
    point = torch.tensor([9.0]), torch.tensor([1]), torch.tensor([1])

    classes_of_points = knn_classes(ranges, classes, *point, search=3, neighbours=5)

    assert classes_of_points.tolist() == [2]  # four votes at distance 0 for class 2, and one of its pixel for class 5


def test_pixels_beyond_the_cutoff_do_not_vote():
    ranges, classes = torch.tensor([[7.0, 4.0, 7.0]]), torch.tensor([[2, 5, 2]])
    point = torch.tensor([4.0]), torch.tensor([0]), torch.tensor([1])

    near = knn_classes(ranges, classes, *point, search=3, neighbours=3, cutoff=1.0)
    all_three = knn_classes(ranges, classes, *point, search=3, neighbours=3, cutoff=0.0)

    assert (near.tolist(), all_three.tolist()) == ([5], [2])


def test_unlabelled_has_no_vote_and_a_point_without_votes_gets_class_one():
    ranges = torch.full((1, 3), 4.0)
    point = torch.tensor([4.0]), torch.tensor([0]), torch.tensor([1])

    nothing = knn_classes(ranges, torch.tensor([[0, 0, 0]]), *point, search=3)
    minority = knn_classes(ranges, torch.tensor([[0, 0, 6]]), *point, search=3, neighbours=3)

    assert (nothing.tolist(), minority.tolist()) == ([1], [6])


def test_in_a_tie_the_smaller_class_wins():
    ranges = torch.full((1, 3), 4.0)
    point = torch.tensor([4.0]), torch.tensor([0]), torch.tensor([1])

    assert knn_classes(ranges, torch.tensor([[9, 0, 3]]), *point, search=3, neighbours=3).tolist() == [3]


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"neighbours": 3, "search": 3},
        {"neighbours": 7, "search": 7, "sigma": 2.0},
        {"cutoff": 0.2},
        {"cutoff": 0.0},
        {"neighbours": 30, "search": 5},
        {"neighbours": 1, "search": 1},
    ],
)
def test_votes_equal_those_of_a_slow_loop(numbers):
    inputs = scan()

    assert knn_classes(*inputs, **numbers).tolist() == slow(*inputs, **numbers).tolist()


def test_the_size_of_chunks_does_not_change_the_classes(monkeypatch):
    inputs = scan()
    whole = knn_classes(*inputs)

    monkeypatch.setattr(knn, "CHUNK", 7)

    assert torch.equal(knn_classes(*inputs), whole)


def test_the_order_of_the_points_does_not_matter():
    ranges, classes, *points = scan()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))

    shuffled = knn_classes(ranges, classes, *(part[order] for part in points))

    assert torch.equal(shuffled, knn_classes(ranges, classes, *points)[order])


def test_a_picture_of_one_class_gives_every_point_that_class():
    ranges, classes, *points = scan()

    assert knn_classes(ranges, torch.full_like(classes, 4), *points).unique().tolist() == [4]


def test_empty_pixels_of_a_perspective_view_do_not_vote():
    ranges, mask, classes = torch.zeros(3, 3), torch.zeros(3, 3, dtype=torch.bool), torch.full((3, 3), 5)
    ranges[1, 1], mask[1, 1], classes[1, 1] = 0.3, True, 2
    point = torch.tensor([0.2]), torch.tensor([1]), torch.tensor([1])

    as_zero = knn_classes(ranges, classes, *point, search=3)
    as_nothing = knn_classes(measured(ranges, mask), classes, *point, search=3)

    assert (as_zero.tolist(), as_nothing.tolist()) == ([5], [2])


def test_no_points_give_no_classes():
    none = torch.zeros(0, dtype=torch.long)

    assert knn_classes(torch.ones(2, 2), torch.ones(2, 2, dtype=torch.long), torch.zeros(0), none, none).tolist() == []


def test_the_gaussian_has_sum_1_and_its_maximum_in_the_centre():
    bell = gaussian(5, 1.0)

    assert bell.sum().item() == pytest.approx(1) and bell.argmax().item() == 12
    assert torch.allclose(bell, bell.T) and torch.allclose(bell, bell.flip(0))


def test_inconsistent_arguments_are_refused():
    ranges, classes, depth, rows, columns = scan()

    with pytest.raises(InputError, match=r"shape \(9, 14\) and classes \(9, 13\)"):
        knn_classes(ranges, classes[:, 1:], depth, rows, columns)
    with pytest.raises(InputError, match="one number of each per point"):
        knn_classes(ranges, classes, depth[1:], rows, columns)
    with pytest.raises(InputError, match="an odd number"):
        knn_classes(ranges, classes, depth, rows, columns, search=4)
    with pytest.raises(InputError, match="1 of 300 points are outside"):
        knn_classes(ranges, classes, depth, rows.clone().index_fill_(0, torch.tensor([0]), 9), columns)
