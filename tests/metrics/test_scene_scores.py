import numpy as np
import pytest
import torch

from xmodal.data.loader import Batches
from xmodal.metrics.scenes import GROUP, HIDDEN, SURFACE, SceneScores, class_iou, completion, count_images
from xmodal.metrics.task import Scores, scalar_metrics
from xmodal.types import DataInfo, InputInfo

CLASSES = 4


def rooms(images=6, seed=0):
    """Answers, labels with unknown ones among them, and the regions that are scored."""
    generator = torch.Generator().manual_seed(seed)
    answers = torch.randint(CLASSES, (images, 3, 2, 4), generator=generator)
    target = torch.randint(CLASSES, answers.shape, generator=generator)
    target[torch.rand(answers.shape, generator=generator) < 0.2] = 255
    return answers, target, torch.randint(3, answers.shape, generator=generator)


def flat(found):
    """Scores and lists of scores as one dictionary of numbers."""
    lists = {name: np.ravel(value) for name, value in found.items() if isinstance(value, list)}
    plain = {name: value for name, value in found.items() if name not in lists}
    return {**plain, **{f"{name} {place}": one for name, many in lists.items() for place, one in enumerate(many)}}


def facts(**changes):
    inputs = {"depth": InputInfo((1, 4, 4), layout="image")}
    return DataInfo(inputs, "multiclass", CLASSES, {}, dense=True, ignore=255, metrics="scenes", **changes)


def scored(answers, target, regions, *, sizes=(6,), full=False):
    scores = SceneScores(CLASSES, full=full)
    for parts in zip(*(part.split(list(sizes)) for part in (answers, target, regions)), strict=True):
        scores.update(*parts)
    return scores.compute()


def test_a_room_of_eight_voxels_by_hand():
    #  empty right, empty wrong, full right, full wrong class, missed, unknown, not scored, on a surface and right
    target = torch.tensor([[0, 0, 1, 2, 1, 255, 1, 2]])
    answers = torch.tensor([[0, 1, 1, 1, 0, 3, 1, 2]])
    regions = torch.tensor([[1, 1, 1, 1, 1, 2, 0, 2]])

    found = scored(answers, target, regions, sizes=(1,), full=True)

    # occupied: right 3, invented 1, missed 1
    assert found["completion_iou"] == pytest.approx(3 / 5)
    assert found["completion_precision"] == found["completion_recall"] == pytest.approx(3 / 4)
    assert found["completion_iou_occluded"] == pytest.approx(2 / 4)
    assert found["accuracy"] == pytest.approx(3 / 6)
    # class 1: 1 of 4, class 2: 1 of 2, class 3 never occurs
    assert found["iou"] == pytest.approx([1 / 3, 1 / 4, 1 / 2, 0])
    assert found["mean_iou"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    # the published order takes the unknown voxel for an empty one that was told wrongly
    assert found["accuracy_reference"] == pytest.approx(3 / 7)
    assert found["iou_reference"][0] == pytest.approx(1 / 4)
    assert found["completion_iou_reference"] == pytest.approx(3 / 5)


@pytest.mark.parametrize("sizes", [(1,) * 6, (4, 2), (3, 3), (5, 1)])
def test_scores_do_not_depend_on_the_batches_they_come_in(sizes):
    given = rooms()

    assert flat(scored(*given, sizes=sizes, full=True)) == pytest.approx(flat(scored(*given, full=True)))


def test_nothing_that_is_passed_in_is_changed():
    given = rooms()
    before = [part.clone() for part in given]

    scored(*given)

    assert all(map(torch.equal, given, before))


def test_the_published_rule_by_a_loop_over_images():
    answers, target, regions = rooms(7)
    found = scored(answers, target, regions, sizes=(7,), full=True)

    ious, of_classes = [], {c: [] for c in range(CLASSES)}
    for said, true, region in zip(answers, target, regions, strict=True):
        true = true.masked_fill(true == 255, 0)
        said, true = said[region > 0], true[region > 0]
        unknown = target[len(ious)][region > 0] == 255
        full = said.masked_fill(unknown, 0) > 0
        both, either = (full & (true > 0)).sum().item(), (full | (true > 0)).sum().item()
        ious.append(both / either)
        for c in range(CLASSES):
            if (true == c).any():
                of_classes[c].append(
                    ((said == c) & (true == c)).sum().item() / ((said == c) | (true == c)).sum().item()
                )
    batches = [ious[at : at + GROUP] for at in range(0, 7, GROUP)]
    expected = sum(sum(batch) / len(batch) for batch in batches) / len(batches)

    assert found["completion_iou_reference"] == pytest.approx(expected)
    means = [sum(of_classes[c]) / len(of_classes[c]) for c in range(1, CLASSES)]
    assert found["mean_iou_reference"] == pytest.approx(sum(means) / len(means))


def test_without_regions_every_voxel_counts_as_on_a_surface():
    answers, target, _ = rooms()
    surface = torch.full_like(target, SURFACE)
    scores = SceneScores(CLASSES)
    scores.update(answers, target)

    assert scores.compute() == pytest.approx(scored(answers, target, surface))


def test_scores_of_classes_are_their_largest():
    answers, target, regions = rooms()
    logits = torch.nn.functional.one_hot(answers, CLASSES).movedim(-1, 1).float()

    assert scored(logits, target, regions) == pytest.approx(scored(answers, target, regions))


def test_nothing_told_and_nothing_there_is_zero_and_not_nan():
    empty = torch.zeros(1, 2, 2, 2, dtype=torch.long)

    found = scored(empty, empty, empty + HIDDEN, sizes=(1,))

    assert found["completion_iou"] == found["completion_precision"] == found["mean_iou"] == 0
    assert found["accuracy"] == 1


def test_counts_add_up_to_the_scored_voxels():
    answers, target, regions = rooms()

    tables = count_images(answers, target, regions, classes=CLASSES)

    assert tables.shape == (6, 2, CLASSES + 1, CLASSES)
    assert tables.sum() == (regions > 0).sum()
    assert tables[:, HIDDEN - 1].sum() == (regions == HIDDEN).sum()
    assert tables[:, :, CLASSES].sum() == ((target == 255) & (regions > 0)).sum()


def test_tables_of_several_images_are_scored_at_once():
    tables = torch.randint(5, (3, CLASSES, CLASSES))

    assert class_iou(tables)[1].tolist() == class_iou(tables[1]).tolist()
    assert [part[2].item() for part in completion(tables)] == [part.item() for part in completion(tables[2])]


def test_the_set_is_asked_for_by_name_and_sees_whole_images():
    answers, target, regions = rooms()
    logits = torch.randn(6, CLASSES, 3, 2, 4)
    scores = Scores(facts(), full=True)

    scores.update(logits[:4], target[:4], None, regions[:4])
    scores.update(logits[4:], target[4:], None, regions[4:])
    found = scores.compute()

    expected = scored(logits, target, regions, full=True)
    assert flat({name: found[name] for name in expected}) == pytest.approx(flat(expected))
    known = (regions > 0) & (target != 255)
    entropy = torch.nn.functional.cross_entropy(logits.movedim(1, -1)[known], target[known])
    assert found["cross_entropy"] == pytest.approx(entropy.item(), rel=1e-5)
    assert set(scalar_metrics(facts())) == {name for name, value in found.items() if isinstance(value, float)}


def test_voxels_that_are_not_valid_are_unknown():
    answers, target, regions = rooms()
    valid = torch.rand(target.shape) > 0.5
    logits = torch.nn.functional.one_hot(answers, CLASSES).movedim(-1, 1).float()
    scores = Scores(facts())

    scores.update(logits, target, valid, regions)

    expected = scored(answers, target.masked_fill(~valid, 255), regions)
    assert {name: scores.compute()[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("size", [2, 3, 5, 7])
@pytest.mark.parametrize("world", [2, 3])
def test_the_counts_of_two_processes_are_those_of_one(world, size):
    given, shares = rooms(7), []
    for rank in range(world):
        scores = SceneScores(CLASSES, full=True)
        for pick in Batches({"depth": 7}, paired=True, batch_size=size, seed=0, shuffle=False, rank=rank, world=world):
            scores.update(*(part[pick.rows["depth"]] for part in given))
        shares.append(scores)

    # as processes exchange their lists: one behind the other, by rank
    for name in ("images", "numbers"):
        together = torch.cat([row for scores in shares for row in getattr(scores, name)])
        setattr(shares[0], name, together)
    for name in ("counts", "sums", "occurs"):
        setattr(shares[0], name, sum(getattr(scores, name) for scores in shares))

    assert flat(shares[0].compute()) == pytest.approx(flat(scored(*given, sizes=(7,), full=True)), abs=1e-12)


def test_a_process_without_images_counts_nothing():
    given = rooms(4)
    scores = SceneScores(CLASSES)
    scores.update(*given)
    scores.update(*(part[:0] for part in given))

    assert scores.compute() == pytest.approx(scored(*given, sizes=(4,)))
