"""The metrics of MOSI and MOSEI against the authors' code, exact after rounding to four decimals.

Reads every ``*dmd*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names.
"""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from xmodal.metrics.sentiment import ALIASES, sentiment_scores
from xmodal.metrics.task import Scores
from xmodal.types import DataInfo, InputInfo

FOLDER = Path(os.environ.get("XMODAL_GOLDEN", Path(__file__).parents[1] / "golden"))
CASES = {
    f"{path.stem}: {case['name']}": case
    for path in sorted(FOLDER.glob("*dmd*.json"))
    for case in json.loads(path.read_text()).get("metrics", ())
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
INFO = DataInfo({"text": InputInfo((1,))}, "regression", 1, {}, metrics="sentiment")


def expected(case):
    """Names → values of both implementations; a case in which they fail has none of theirs."""
    both = {**case.get("mmsa", {}), **case.get("dmd", {})}
    return {name: math.nan if value is None else value for name, value in both.items() if name != "reference_error"}


def assert_equal(found, wanted):
    for name, value in wanted.items():
        assert found[name] == value or (math.isnan(found[name]) and math.isnan(value)), name


@every_case
def test_golden_dmd_metrics_are_those_of_the_authors_code(case):
    scores = sentiment_scores(case["pred"], case["true"])

    assert_equal(scores, expected(case))
    if "reference_error" in case.get("mmsa", {}) or "reference_error" in case.get("dmd", {}):
        assert math.isnan(scores["Non0_acc_2"]) and math.isnan(scores["Non0_F1_score"])
        assert all(math.isfinite(scores[name]) for name in ("MAE", "Mult_acc_7", "Mult_acc_5", "Has0_acc_2"))


@every_case
def test_golden_dmd_metrics_are_what_training_and_evaluation_compute_batch_by_batch(case):
    scores = Scores(INFO, full=True)
    for first in range(0, len(case["pred"]), 3):
        part = [torch.tensor(case[key][first : first + 3])[:, None] for key in ("pred", "true")]
        scores.update(*part)

    found = {name: round(value, 4) for name, value in scores.compute().items()}

    found |= {"MAE": found["mae"], **{alias: found[name] for alias, name in ALIASES.items()}}
    assert_equal(found, expected(case))
