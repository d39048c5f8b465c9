import pytest
import torch
from sklearn import metrics as sk

from xmodal.errors import InputError
from xmodal.metrics.segmentation import RULES, SegmentationScores, class_scores, scores_of
from xmodal.metrics.task import Scores, scalar_metrics
from xmodal.types import DataInfo


def pixels(classes=4, count=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (count,), generator=generator)
    other = torch.randint(classes, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 0.6, target, other), target


def counted(answers, target, classes=4, **options):
    scores = SegmentationScores(classes, **options)
    scores.update(answers, target)
    return scores.compute()


def test_scores_of_five_pixels_by_hand():
    found = counted(torch.tensor([1, 1, 2, 0, 2]), torch.tensor([1, 2, 2, 2, 0]), 3, ignore=(0,), full=True)

    # class 1: right once, said twice, true once; class 2: right once, said once, true three times (0 is unlabelled)
    assert found["iou"] == [0.0, 1 / 2, 1 / 3] and found["mean_iou"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert found["precision"] == [0.0, 1 / 2, 1.0] and found["recall"] == [0.0, 1.0, 1 / 3]
    assert found["accuracy"] == 2 / 4 and found["confusion"] == [[0, 0, 0], [0, 1, 0], [1, 1, 1]]
    assert found["weighted_iou"] == pytest.approx((1 / 2 + 3 * (1 / 3)) / 4)


def test_the_rules_differ_by_unlabelled_answers_on_labelled_pixels():
    table = torch.tensor([[5, 1, 1], [2, 6, 0], [0, 2, 8]])  # true class first

    strict, forgiving = (class_scores(table, ignore=[0], rule=rule) for rule in ("benchmark", "reference"))

    assert strict["iou"].tolist() == pytest.approx([0, 6 / 10, 8 / 10])
    assert forgiving["iou"].tolist() == pytest.approx([0, 6 / 8, 8 / 10])
    assert torch.equal(strict["precision"], forgiving["precision"])
    found = scores_of(table, ignore=[0])
    assert (found["mean_iou"], found["mean_iou_reference"]) == pytest.approx((0.7, 0.775))


def test_scores_that_do_not_say_whose_they_are_follow_the_rule_that_is_asked_for():
    answers, target = torch.tensor([1, 1, 2, 0, 2]), torch.tensor([1, 2, 2, 2, 0])

    ours, theirs = (counted(answers, target, 3, ignore=(0,), full=True, rule=rule) for rule in RULES)

    assert ours["recall"] == [0.0, 1.0, 1 / 3] and theirs["recall"] == [0.0, 1.0, 1 / 2]
    assert ours["mean_iou_reference"] == theirs["mean_iou_reference"] == theirs["mean_iou"] > ours["mean_iou"]
    assert theirs["weighted_iou"] == pytest.approx((1 / 2 + 3 * (1 / 2)) / 4)


@pytest.mark.parametrize("ignore", [(), (255,)])
def test_scores_agree_with_scikit_learn(ignore):
    answers, target = pixels()
    unknown = torch.arange(len(target)) % 7 == 0 if ignore else torch.zeros(len(target), dtype=torch.bool)

    found = counted(answers, target.masked_fill(unknown, 255), ignore=ignore, full=True)

    answers, target = answers[~unknown], target[~unknown]
    assert found["iou"] == pytest.approx(sk.jaccard_score(target, answers, average=None).tolist())
    assert found["precision"] == pytest.approx(sk.precision_score(target, answers, average=None).tolist())
    assert found["recall"] == pytest.approx(sk.recall_score(target, answers, average=None).tolist())
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(target, answers))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(target, answers, average="macro"))
    assert found["weighted_f1"] == pytest.approx(sk.f1_score(target, answers, average="weighted"))
    assert found["weighted_iou"] == pytest.approx(sk.jaccard_score(target, answers, average="weighted"))
    assert found["confusion"] == sk.confusion_matrix(target, answers).tolist()


def test_a_class_that_never_occurs_counts_zero_except_among_present_ones():
    found = counted(torch.tensor([0, 1]), torch.tensor([0, 1]), 4)

    assert found["mean_iou"] == 0.5 and found["mean_iou_present"] == 1.0


def test_scores_of_classes_and_pictures_are_taken_as_well_as_class_numbers():
    answers, target = pixels()
    maps, truth = answers.view(3, 10, 10), target.view(3, 10, 10)
    logits = torch.nn.functional.one_hot(maps, 4).movedim(-1, 1).float()

    scores = SegmentationScores(4)
    for row in range(3):
        scores.update(logits[row : row + 1], truth[row : row + 1])

    assert scores.compute() == counted(answers, target)


def test_a_batch_without_labelled_pixels_adds_nothing():
    info = DataInfo({}, "multiclass", 3, {}, dense=True, ignore=0)
    outputs, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    once, twice = Scores(info), Scores(info)

    for scores in (once, twice):
        scores.update(outputs, target)
    twice.update(outputs, torch.zeros_like(target))
    twice.update(outputs, target, torch.zeros_like(target, dtype=torch.bool))
    twice.update(outputs[:0], target[:0])

    assert once.compute() == twice.compute()


def test_names_of_scores_are_known_before_anything_is_scored():
    info = DataInfo({}, "multiclass", 3, {}, dense=True, ignore=0)
    scores = Scores(info)
    scores.update(torch.randn(1, 3, 2, 2), torch.ones(1, 2, 2, dtype=torch.long))

    assert scalar_metrics(info) == list(scores.compute())


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="rule of intersection over union called 'ours'. Known: benchmark, reference"):
        class_scores(torch.eye(2), rule="ours")
