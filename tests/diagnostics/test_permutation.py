"""The order in which permutations are drawn is the published one, whatever the blocks."""

import pytest
import torch

from xmodal.diagnostics.permutation import blocks, checked
from xmodal.errors import InputError


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_draws_are_the_outer_loop_and_channels_the_inner_one(size):
    generator = torch.Generator().manual_seed(3)
    expected = [[torch.randperm(7, generator=generator) for _ in range(5)] for _ in range(2)]

    result = list(blocks(2, 5, 7, size, torch.Generator().manual_seed(3)))

    for draw, first, some in result:
        assert all(torch.equal(order, expected[draw][first + place]) for place, order in enumerate(some))
    assert sum(len(some) for _, _, some in result) == 10


def test_given_permutations_come_in_the_same_blocks():
    given = torch.stack([torch.stack([torch.randperm(4) for _ in range(3)]) for _ in range(2)])

    result = list(blocks(given, 3, 4, 2, None))

    assert [(draw, first) for draw, first, _ in result] == [(0, 0), (0, 2), (1, 0), (1, 2)]
    assert torch.equal(torch.cat([some for *_, some in result]).reshape(2, 3, 4), given)


def test_permutations_of_any_integer_type_are_accepted():
    assert checked([[[1, 0]]], 1, 2).dtype == torch.int64
    assert checked(torch.tensor([[[1, 0]]], dtype=torch.int32), 1, 2).tolist() == [[[1, 0]]]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([[0, 1]], "shape"),
        ([[[0.0, 1.0]]], "type torch.float"),
        ([[[0, 2]]], "outside 0 to 1"),
        ([[[1, 1]]], "1 of 1 permutations contain a row twice"),
        (torch.zeros(0, 1, 2, dtype=torch.long), "shape"),
    ],
)
def test_invalid_permutations_are_refused(given, sentence):
    with pytest.raises(InputError, match=sentence):
        checked(given, 1, 2)
