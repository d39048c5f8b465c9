"""Columns in several parts: the rows of a batch, whatever form their numbers have."""

import numpy as np
import pytest

from xmodal.data.columns import gather

PARTS = [np.arange(10, 14), np.arange(20, 27), np.arange(30, 32)]
WHOLE, ENDS = np.concatenate(PARTS), np.array([4, 11, 13])


@pytest.mark.parametrize(
    "rows",
    [
        [12, 0, 5, 5],
        np.array([3, 4, 10, 11]),
        np.array([-1, -13]),
        slice(2, 12, 3),
        slice(None),
        WHOLE % 2 == 0,
        np.zeros(0, int),
    ],
    ids=["list", "array", "from the end", "slice", "all", "mask", "none"],
)
def test_rows_of_several_parts_are_those_of_the_whole_array(rows):
    assert np.array_equal(gather(rows, ENDS, lambda number: PARTS[number]), WHOLE[rows])


def test_rows_beyond_the_end_are_an_error():
    with pytest.raises(IndexError):
        gather(np.array([13]), ENDS, lambda number: PARTS[number])


def test_a_batch_of_endless_data_needs_no_list_of_all_rows():
    rows = gather(np.array([3, 4]), np.array([4, 10**15]), lambda number: PARTS[number])

    assert rows.tolist() == [13, 20]
