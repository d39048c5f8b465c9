"""Masks of kept channels: counts, ties, and the orders."""

import numpy as np
import pytest

from xmodal.diagnostics.saliency import keep_mask
from xmodal.errors import InputError

VALUES = [0.3, 0.1, 0.9, 0.5]


@pytest.mark.parametrize(
    ("how", "stay"),
    [
        ({"keep": 1}, [2]),
        ({"keep": 3}, [0, 2, 3]),
        ({"keep": 4}, [0, 1, 2, 3]),
        ({"keep": 2, "order": "least"}, [0, 1]),
        ({"ratio": 0.75}, [2]),
        ({"ratio": 0.74}, [2, 3]),  # 2.96 channels are removed: 2
        ({"ratio": 0.0}, [0, 1, 2, 3]),
        ({"ratio": 0.5, "order": "least"}, [0, 1]),
        ({"ratio": 0.5, "order": "first"}, [0, 1]),
        ({"keep": 3, "order": "first"}, [0, 1, 2]),
    ],
)
def test_kept_channels(how, stay):
    assert np.flatnonzero(keep_mask(VALUES, **how)).tolist() == stay


@pytest.mark.parametrize(
    ("ratio", "channels", "removed"), [(0.75, 128, 96), (0.29, 100, 29), (0.7, 10, 7), (0.1, 9, 0)]
)
def test_a_share_is_rounded_down_and_rounding_of_the_product_does_not_count(ratio, channels, removed):
    assert (~keep_mask(np.arange(channels), ratio=ratio)).sum() == removed  # 0.29 · 100 = 28.999…


def test_of_equal_channels_the_lower_numbers_are_removed_first():
    assert keep_mask([0.0] * 4, keep=2).tolist() == [False, False, True, True]
    assert keep_mask([0.0] * 4, keep=2, order="least").tolist() == [False, False, True, True]


def test_random_masks_depend_on_the_seed_alone():
    first, second = (keep_mask(VALUES * 10, ratio=0.5, order="random", seed=seed) for seed in (0, 1))

    assert first.sum() == second.sum() == 20 and (first != second).any()
    assert (first == keep_mask(np.zeros(40), ratio=0.5, order="random", seed=0)).all()


@pytest.mark.parametrize(
    ("values", "how", "sentence"),
    [
        (VALUES, {}, "expected exactly one"),
        (VALUES, {"keep": 1, "ratio": 0.5}, "expected exactly one"),
        (VALUES, {"keep": 0}, "expected 1 to 4"),
        (VALUES, {"keep": 5}, "expected 1 to 4"),
        (VALUES, {"ratio": 1.0}, "ratio is 1.0"),
        (VALUES, {"keep": 1, "order": "mots"}, "Did you mean 'most'"),
        ([], {"keep": 1}, r"shape \(0,\)"),
        ([[0.1]], {"keep": 1}, r"shape \(1, 1\)"),
        ([0.1, float("nan")], {"keep": 1}, "finite"),
    ],
)
def test_wrong_asks_are_refused(values, how, sentence):
    with pytest.raises(InputError, match=sentence):
        keep_mask(values, **how)
