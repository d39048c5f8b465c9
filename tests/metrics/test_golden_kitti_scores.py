"""Scores of pixels against numbers of the published code, through the object that training and evaluation update."""

import torch
from array_golden import golden_cases

from xmodal.metrics.segmentation import SegmentationScores, class_scores
from xmodal.metrics.task import Scores
from xmodal.types import DataInfo, InputInfo


def counted(case):
    """The table of a case, from answers that come as scores of classes, in two batches."""
    p = case.params
    info = DataInfo({"x": InputInfo((1, 1, 1))}, "multiclass", p["n_classes"], {}, dense=True, ignore=p["ignore"][0])
    scores, answers, target = Scores(info, full=True), case.given("pred"), case.given("target")
    for row in range(len(answers)):
        logits = torch.nn.functional.one_hot(answers[row : row + 1], p["n_classes"]).movedim(-1, 1).float()
        scores.update(logits, target[row : row + 1])
    return scores.compute()


def test_golden_kitti_scores_by_both_rules():
    for case in golden_cases("kitti/iou"):
        found = counted(case)
        counts, ignore = torch.tensor(found["confusion"]), case.params["ignore"]
        reference = class_scores(counts, ignore=ignore, rule="reference")
        scored = [number for number in range(len(counts)) if number not in ignore]

        assert case.check(
            mean_iou=found["mean_iou_reference"],
            iou=reference["iou"],
            mean_precision=found["mean_precision"],
            precision=reference["precision"],
            mean_recall=reference["recall"][scored].mean(),
            recall=reference["recall"],
            official_iou=found["iou"],
            official_mean_iou=found["mean_iou"],
        )


def test_golden_kitti_counts_and_overall_accuracy():
    for case in golden_cases("kitti/iou"):
        ignore = case.params["ignore"]
        everything = SegmentationScores(case.params["n_classes"], full=True)
        everything.update(case.given("pred"), case.given("target"))
        counts = everything.counts.clone()
        counts[ignore], counts[:, ignore] = 0, 0

        overall = counts.diagonal().sum().double() / counts.sum()  # the unlabelled answers left out

        names = [name for name in ("conf", "overall_acc") if case.has(name)]
        assert names == case.check(conf=everything.counts.T, overall_acc=overall)
