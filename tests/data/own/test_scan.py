"""Lists of numbers: which are different, which are in two lists, and how many samples are stored twice."""

import numpy as np
import pytest

from xmodal.data.own.scan import distinct, in_both, repeated


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lengths", [(0, 0), (0, 5), (5, 0), (1, 1), (30, 50)])
def test_numbers_of_lists_are_those_of_sets(lengths, seed):
    random = np.random.default_rng(seed)
    first, second = (random.integers(0, 40, length).astype(np.uint64) for length in lengths)

    assert distinct(first).tolist() == sorted(set(first.tolist()))
    assert in_both(first, second).tolist() == sorted(set(first.tolist()) & set(second.tolist()))


@pytest.mark.parametrize("seed", range(4))
def test_repeated_samples_are_counted_one_by_one(seed):
    random = np.random.default_rng(seed)
    numbers = np.arange(100, 200)  # of the stored samples
    digests = random.integers(0, 60, 100).astype(np.uint64)
    rows, others = random.integers(90, 150, 40), random.integers(150, 210, 40)

    there = {digest for digest, number in zip(digests.tolist(), numbers, strict=True) if number in others}
    expected = sum(digest in there and number in rows for digest, number in zip(digests.tolist(), numbers, strict=True))

    assert repeated(digests, numbers, rows, others) == expected > 0
    assert repeated(digests, numbers, rows, np.zeros(0, int)) == 0
