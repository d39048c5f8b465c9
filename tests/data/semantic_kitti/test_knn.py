"""Votes of neighbours: by hand, against a slow literal version, invariances, and what is refused."""

import math

import pytest
import torch

from xmodal.data.semantic_kitti import knn
from xmodal.data.semantic_kitti.knn import gaussian, knn_classes, measured
from xmodal.errors import InputError


def slow(ranges, classes, depth, rows, columns, *, neighbours=5, search=5, sigma=1.0, cutoff=1.0):
    """Point by point and pixel by pixel, as the rule is told."""
    height, width = ranges.shape
    half, total = search // 2, 0.0
    bell = {}
    for i in range(-half, half + 1):
        for j in range(-half, half + 1):
            bell[i, j] = math.exp(-(i * i + j * j) / (2 * sigma**2))
            total += bell[i, j]
    found = []
    for r, row, column in zip(depth.tolist(), rows.tolist(), columns.tolist(), strict=True):
        window = []
        for (i, j), weight in bell.items():
            y, x = row + i, column + j
            inside = 0 <= y < height and 0 <= x < width
            there, said = (ranges[y, x].item(), classes[y, x].item()) if inside else (0.0, 0)
            there = math.inf if there < 0 else there
            there = r if (i, j) == (0, 0) else there
            window.append((abs(there - r) * (1 - weight / total), said))
        votes = [0] * 20
        for distance, said in sorted(window, key=lambda entry: entry[0])[:neighbours]:
            if cutoff <= 0 or distance <= cutoff:
                votes[said] += 1
        found.append(max(range(1, 20), key=lambda number: (votes[number], -number)))
    return torch.tensor(found)


def scan(points=300, height=9, width=14, seed=0):
    """Ranges with empty pixels, classes, and points on and behind what the pixels hold."""
    generator = torch.Generator().manual_seed(seed)
    ranges = 3 + 2 * torch.rand(height, width, generator=generator)
    ranges[torch.rand(height, width, generator=generator) < 0.3] = -1.0
    classes = torch.randint(0, 6, (height, width), generator=generator)
    rows = torch.randint(0, height, (points,), generator=generator)
    columns = torch.randint(0, width, (points,), generator=generator)
    return ranges, classes, 3 + 2 * torch.rand(points, generator=generator), rows, columns


def test_a_point_behind_another_takes_the_class_of_what_lies_as_far():
    ranges = torch.tensor([[9.0, 4.0, 9.0], [9.0, 4.0, 9.0], [9.0, 4.0, 9.0]])
    classes = torch.tensor([[2, 5, 2], [2, 5, 2], [2, 5, 2]])
    point = torch.tensor([9.0]), torch.tensor([1]), torch.tensor([1])

    found = knn_classes(ranges, classes, *point, search=3, neighbours=5)

    assert found.tolist() == [2]  # four votes at distance 0 for class 2, one of its own pixel for 5


def test_what_lies_beyond_the_cutoff_has_no_vote():
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


def test_of_classes_with_equally_many_votes_the_smaller_number_wins():
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
    given = scan()

    assert knn_classes(*given, **numbers).tolist() == slow(*given, **numbers).tolist()


def test_points_are_looked_at_in_parts_without_a_trace(monkeypatch):
    given = scan()
    whole = knn_classes(*given)

    monkeypatch.setattr(knn, "TOGETHER", 7)

    assert torch.equal(knn_classes(*given), whole)


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


def test_the_bell_has_sum_one_and_its_top_in_the_middle():
    bell = gaussian(5, 1.0)

    assert bell.sum().item() == pytest.approx(1) and bell.argmax().item() == 12
    assert torch.allclose(bell, bell.T) and torch.allclose(bell, bell.flip(0))


def test_what_does_not_fit_together_is_refused():
    ranges, classes, depth, rows, columns = scan()

    with pytest.raises(InputError, match=r"shape \(9, 14\) and classes \(9, 13\)"):
        knn_classes(ranges, classes[:, 1:], depth, rows, columns)
    with pytest.raises(InputError, match="one number of each per point"):
        knn_classes(ranges, classes, depth[1:], rows, columns)
    with pytest.raises(InputError, match="an odd number"):
        knn_classes(ranges, classes, depth, rows, columns, search=4)
    with pytest.raises(InputError, match="1 of 300 points lie outside"):
        knn_classes(ranges, classes, depth, rows.clone().index_fill_(0, torch.tensor([0]), 9), columns)
