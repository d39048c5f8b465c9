"""Cross-validation of arrays."""

import numpy as np
import pytest

import xmodal
from xmodal.errors import InputError

SIDES = {"teacher": "clear", "student": "faint", "epochs": 1, "training": {"shuffled": False}}


def test_every_row_is_tested_once_and_groups_stay_together(views):
    inputs, label = views
    groups = np.arange(len(label)) // 6

    done = xmodal.compare(inputs, label, **SIDES, folds=3, groups=groups)

    tested = [bench.data.test.numbers["faint"] for bench in done._study.trained.values()]
    assert sorted(np.concatenate(tested)) == list(range(len(label)))
    assert len(np.concatenate([np.unique(groups[rows]) for rows in tested])) == 40
    assert done.result["folds"] == 3


def test_one_fold_is_refused(views):
    with pytest.raises(InputError, match="2 or more were expected"):
        xmodal.compare(*views, **SIDES, folds=1)
