"""Means over time compared with the authors' code: ``need_normalized_example`` of every ``*dmd*.json``.

Reads tests/golden, or the folder in XMODAL_GOLDEN.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from xmodal.data.mosi.columns import Sequences, TimeMeans, cleaned, time_means

FOLDER = Path(os.environ.get("XMODAL_GOLDEN", Path(__file__).parents[2] / "golden"))
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*dmd*.json"))}
with_example = [name for name, content in FILES.items() if "need_normalized_example" in content]


def det(shape, seed, scale=1.0, shift=0.0):
    """The inputs of the golden files, which are defined by a formula."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint64) * np.uint64(747796405)
    word = np.uint64(0xFFFFFFFF)
    x = (x + np.uint64((seed * 2891336453 + 1) % 2**32)) & word
    for shift_by, factor in ((16, 2246822519), (13, 3266489917), (16, 1)):
        x ^= x >> np.uint64(shift_by)
        x = (x * np.uint64(factor)) & word
    return (shift + scale * (2 * x.astype(np.float64) / 2**32 - 1)).astype(np.float32).reshape(shape)


def example(name):
    """The input (samples, time, width) of a file, with non-finite values inserted, and the expected means."""
    case = FILES[name]["need_normalized_example"]
    values = det(case["shape"], case["seed"])
    changes = re.findall(r"x\[([\d, ]+)\]\s*=\s*([-+]?(?:inf|nan))", case["then"])
    assert changes
    for place, value in changes:
        values[tuple(int(number) for number in place.split(","))] = float(value)
    return values, np.array(case["out"], np.float32)


@pytest.mark.parametrize("name", FILES)
def test_golden_dmd_numbers_by_formula(name):
    for call, values in FILES[name].get("det_check", {}).items():
        shape, rest = re.match(r"det\((\[[\d,]+\]),(.*)\)", call).groups()
        seed, *more = rest.split(",")
        options = {key: float(value) for key, value in (part.split("=") for part in more)}
        np.testing.assert_allclose(det(json.loads(shape), int(seed), **options), np.array(values), rtol=1e-6)


@pytest.mark.parametrize("name", with_example)
def test_golden_dmd_means_over_time_with_the_published_cleaning(name):
    values, expected = example(name)

    means = time_means(cleaned(values, "audio", "published").transpose(0, 2, 1))

    np.testing.assert_allclose(means.transpose(0, 2, 1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", with_example)
def test_golden_dmd_means_over_time_are_what_training_reads(name):
    values, expected = example(name)
    column = TimeMeans(Sequences([values[:1], values[1:]], "audio", "published"))

    means = column[np.arange(len(values))[::-1]]

    assert column.shape == means.shape == (len(values), values.shape[2], 1)
    np.testing.assert_allclose(means[::-1].transpose(0, 2, 1), expected, rtol=1e-4, atol=1e-5)
