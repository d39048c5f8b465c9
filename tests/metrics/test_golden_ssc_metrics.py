"""Scores of completed rooms against those of the published code, in both of its orders; and its loss of labels."""

import pytest
import torch
from array_golden import golden_cases

from xmodal.losses.task import label_terms
from xmodal.metrics.scenes import SceneScores
from xmodal.types import DataInfo

ORDERS = {"": ("untouched", 1), "_after_completion": ("reference", 0)}


def scored(case):
    scores = SceneScores(case.params["num_classes"], full=True)
    given = case.given("score"), case.given("target").long(), case.given("nonempty").long()
    for image in range(len(given[0])):  # in batches of one: what is compared must not depend on it
        scores.update(*(part[image : image + 1] for part in given))
    return scores, given


def test_golden_ssc_metrics_of_the_published_code():
    for case in golden_cases("ssc/metrics"):
        scores, given = scored(case)
        found = scores.compute()

        if len(given[0]) <= 4:  # one batch, as the published numbers are
            mine = {f"comp_{name}": found[f"completion_{name}_reference"] for name in ("precision", "recall", "iou")}
            assert set(case.check(**mine)) == set(mine)
        for ending, (name, order) in ORDERS.items():
            mine = {
                f"iou_sum{ending}": scores.sums[order],
                f"cnt_class{ending}": scores.occurs[order],
                f"iou{ending}": found[f"iou_{name}"],
                f"miou{ending}": found[f"mean_iou_{name}"],
            }
            if len(given[0]) <= 4:
                mine[f"acc{ending}"] = found[f"accuracy_{name}"]
            assert set(case.check(**mine)) == set(mine)


def test_golden_ssc_counts_of_the_whole_data_set():
    for case in golden_cases("ssc/metrics"):
        table = scored(case)[0].counts.sum(dim=0)
        right = table.diagonal()

        mine = {
            "dataset_tp": right,
            "dataset_fp": table.sum(dim=0) - right,
            "dataset_fn": table.sum(dim=1) - right,
        }

        assert set(case.check(**mine)) == set(mine)


def test_golden_ssc_weighted_cross_entropy():
    for case in golden_cases("ssc/weighted_ce"):
        p = case.params
        info = DataInfo(
            {},
            "multiclass",
            len(p["weights"]),
            {},
            dense=True,
            ignore=p["ignore_index"],
            class_weights=tuple(p["weights"]),
        )

        loss, count = label_terms(case.given("logits"), case.given("target").long(), info)["task"]

        assert case.check(loss=loss)
        assert count > 0


def test_golden_ssc_metrics_of_other_answers_fail():
    for case in golden_cases("ssc/metrics"):
        scores = SceneScores(case.params["num_classes"])
        scores.update(case.given("score").roll(1, dims=1), case.given("target").long(), case.given("nonempty").long())
        with pytest.raises(AssertionError):
            case.check(miou=scores.compute()["mean_iou_untouched"])


def test_golden_ssc_targets_are_not_changed():
    for case in golden_cases("ssc/metrics"):
        before = case.given("target").clone()
        scored(case)
        assert torch.equal(case.given("target"), before)
