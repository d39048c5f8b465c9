import math

import pytest
import torch

from xmodal.losses.segmentation import focal, lovasz
from xmodal.losses.task import label_terms, task_loss, task_values, what_counts
from xmodal.types import DataInfo


def test_cross_entropy_of_even_odds_is_log_two():
    loss, count = task_loss(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]), task="multiclass")

    assert loss.item() == pytest.approx(math.log(2)) and int(count) == 4


def test_multiclass_equals_a_slow_loop():
    outputs, target = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1, 0, 2])

    values = task_values(outputs, target, task="multiclass")

    for row, logits in enumerate(outputs.tolist()):
        expected = math.log(sum(map(math.exp, logits))) - logits[target[row]]
        assert values[row].item() == pytest.approx(expected, rel=1e-5)  # float32


def test_binary_reads_one_logit_per_row():
    outputs = torch.tensor([[math.log(3.0)], [0.0]])  # probabilities 3/4 and 1/2

    values = task_values(outputs, torch.tensor([0, 1]), task="binary")

    assert values.tolist() == pytest.approx([-math.log(0.25), math.log(2)])


def test_multilabel_is_the_mean_of_its_binary_labels():
    outputs = torch.tensor([[math.log(3.0), 0.0]])

    loss, count = task_loss(outputs, torch.tensor([[1, 0]]), task="multilabel")

    assert loss.item() == pytest.approx((-math.log(0.75) + math.log(2)) / 2) and int(count) == 1


def test_regression_is_the_mean_square_over_the_width():
    outputs, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])

    assert task_values(outputs, target, task="regression").tolist() == [2.5, 8.0]


def test_dense_targets_give_one_value_per_pixel():
    outputs, target = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5, dtype=torch.long)

    loss, count = task_loss(outputs, target, task="multiclass")

    assert task_values(outputs, target, task="multiclass").shape == (2, 4, 5)
    assert loss.item() == pytest.approx(math.log(3)) and int(count) == 40


@pytest.mark.parametrize("ignore", [255, -1, 0])
def test_an_ignored_pixel_changes_neither_loss_nor_gradient(ignore):
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(2, 3, 4, generator=generator).requires_grad_()
    target = torch.randint(1, 3, (2, 4), generator=generator)
    target[0, 1] = target[1, 3] = ignore

    loss, count = task_loss(outputs, target, task="multiclass", ignore=ignore)
    loss.backward()

    kept = target != ignore
    by_hand = torch.nn.functional.cross_entropy(outputs.movedim(1, -1)[kept], target[kept])
    torch.testing.assert_close(loss, by_hand)
    assert int(count) == 6
    assert not outputs.grad.movedim(1, -1)[~kept].any() and outputs.grad.movedim(1, -1)[kept].all()


def test_mask_and_ignored_target_are_combined():
    target = torch.tensor([0, 255, 1, 1])

    loss, count = task_loss(
        torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, 0.0]]),
        target,
        task="multiclass",
        valid=torch.tensor([True, True, False, True]),
        ignore=255,
    )

    assert loss.item() == pytest.approx(math.log(2)) and int(count) == 2


@pytest.mark.parametrize(
    ("task", "outputs", "target"),
    [
        ("binary", torch.tensor([[0.0], [50.0]]), torch.tensor([1, 0])),
        ("multilabel", torch.tensor([[0.0, 0.0], [50.0, 50.0]]), torch.tensor([[1, 0], [0, 0]])),
    ],
)
def test_an_invalid_row_is_excluded_in_every_task(task, outputs, target):
    loss, count = task_loss(outputs, target, task=task, valid=torch.tensor([True, False]))

    assert loss.item() == pytest.approx(math.log(2)) and int(count) == 1


def test_ignore_does_not_change_other_tasks():
    loss, count = task_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [0.0]]), task="regression", ignore=0)

    assert loss.item() == 5.0 and int(count) == 2


def test_half_precision_is_computed_in_float32():
    values = task_values(torch.tensor([[6e4, -6e4]], dtype=torch.float16), torch.tensor([1]), task="multiclass")

    assert values.dtype == torch.float32 and values.item() == pytest.approx(1.2e5, rel=1e-3)


def test_without_mask_and_ignored_value_everything_is_valid():
    assert what_counts(torch.tensor([0, 1])) is None


def test_an_unknown_task_lists_the_valid_ones():
    with pytest.raises(ValueError, match="task is 'ranking': expected multiclass, binary, multilabel or regression"):
        task_values(torch.zeros(1, 1), torch.zeros(1), task="ranking")


def info(**facts):
    return DataInfo({}, "multiclass", 3, {}, **facts)


def test_by_default_the_only_term_is_the_task_loss():
    outputs, target = torch.randn(2, 3, 4), torch.randint(3, (2, 4))

    terms = label_terms(outputs, target, info(ignore=0))

    loss, count = task_loss(outputs, target, task="multiclass", ignore=0)
    assert list(terms) == ["task"] and torch.equal(terms["task"][0], loss) and torch.equal(terms["task"][1], count)


def test_terms_are_weighted_and_use_valid_pixels_only():
    outputs, target = torch.randn(2, 3, 4), torch.randint(3, (2, 4))
    valid = torch.rand(2, 4) > 0.3
    counts = valid & (target != 0)

    facts = info(
        ignore=0, label_losses={"cross_entropy": 1.0, "focal": 2.0, "lovasz": 0.5}, class_weights=(0.0, 1.0, 3.0)
    )
    terms = label_terms(outputs, target, facts, valid=valid)

    rows, labels = outputs.movedim(1, -1)[counts], target[counts]
    weights = torch.tensor([0.0, 1.0, 3.0])
    entropy = torch.nn.functional.cross_entropy(rows, labels, reduction="none")
    expected = {
        "task cross_entropy": (weights[labels] * entropy).sum() / weights[labels].sum(),
        "task focal": 2 * focal(rows, labels, alpha=weights),
        "task lovasz": 0.5 * lovasz(rows, labels),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name][0], value)
        assert float(terms[name][1]) == (weights[labels].sum() if "entropy" in name else len(rows))


def test_lovasz_uses_the_pixels_of_all_processes():
    outputs, target = torch.randn(2, 3, 4), torch.randint(3, (2, 4))
    elsewhere = {True: outputs[1].T, False: target[1]}  # outputs or labels of another process

    def gather(rows):
        return torch.cat([rows, elsewhere[rows.is_floating_point()]])

    value, count = label_terms(outputs[:1], target[:1], info(label_losses={"lovasz": 1.0}), gather=gather)["task"]

    torch.testing.assert_close(value, lovasz(outputs, target))
    assert int(count) == 8


def test_class_weights_alone_weight_the_cross_entropy():
    outputs, target = torch.randn(5, 3), torch.randint(3, (5,))

    terms = label_terms(outputs, target, info(class_weights=(1.0, 2.0, 0.5)))

    expected = torch.nn.functional.cross_entropy(outputs, target, weight=torch.tensor([1.0, 2.0, 0.5]))
    torch.testing.assert_close(terms["task"][0], expected)


NAN = float("nan")
LABELLED_TARGETS = {  # kind of target → facts of the data, outputs of one row, and targets of three labelled rows
    "multiclass": ({}, (3,), torch.tensor([0, 2, 1])),
    "pixels": ({"ignore": 0}, (3, 4), torch.tensor([[0, 1, 2, 1], [2, 2, 1, 0], [1, 1, 1, 2]])),
    "pixels without an ignored class": ({}, (3, 2), torch.tensor([[0, 1], [2, 2], [1, 0]])),
    "class weights": ({"class_weights": (0.5, 1.0, 3.0)}, (3,), torch.tensor([0, 2, 1])),
    "focal": ({"label_losses": {"focal": 1.0}}, (3,), torch.tensor([0, 2, 1])),
    "lovasz": ({"label_losses": {"lovasz": 0.5, "cross_entropy": 1.0}}, (3, 2), torch.tensor([[0, 1], [2, 2], [1, 0]])),
    "binary": ({"task": "binary"}, (1,), torch.tensor([1, 0, 1])),
    "multilabel": ({"task": "multilabel"}, (3,), torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 1]])),
    "multilabel, floats": (
        {"task": "multilabel"},
        (3,),
        torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]),
    ),
    "regression": ({"task": "regression"}, (3,), torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0], [2.0, 2.0, 2.0]])),
}


def facts_of(kind):
    facts, shape, target = LABELLED_TARGETS[kind]
    return (
        DataInfo({}, facts.get("task", "multiclass"), 3, {}, **{k: v for k, v in facts.items() if k != "task"}),
        shape,
        target,
    )


def terms_with_gradient(outputs, target, info, **masks):
    """Value and count of each term, and the gradient of their sum."""
    outputs = outputs.clone().requires_grad_()
    terms = label_terms(outputs, target, info, **masks)
    sum(value for value, _ in terms.values()).backward()
    return {name: (value.item(), float(count)) for name, (value, count) in terms.items()}, outputs.grad


@pytest.mark.parametrize("kind", LABELLED_TARGETS)
@pytest.mark.parametrize("unlabelled", [1, 6])
def test_rows_without_a_label_change_neither_the_loss_nor_its_gradient(kind, unlabelled):
    info, shape, target = facts_of(kind)
    outputs = torch.randn(3 + unlabelled, *shape, generator=torch.Generator().manual_seed(0))
    nothing = target.new_full((unlabelled, *target.shape[1:]), NAN if target.is_floating_point() else -1)
    labelled = torch.arange(len(outputs)) < 3

    alone, gradient = terms_with_gradient(outputs[:3], target, info)
    mixed, mixed_gradient = terms_with_gradient(outputs, torch.cat([target, nothing]), info, labelled=labelled)

    assert {name: value for name, (value, _) in mixed.items()} == pytest.approx({n: v for n, (v, _) in alone.items()})
    assert {name: count for name, (_, count) in mixed.items()} == {name: count for name, (_, count) in alone.items()}
    torch.testing.assert_close(mixed_gradient[:3], gradient)
    assert gradient.any() and not mixed_gradient[3:].any()  # zeros: neither NaN nor a small number


@pytest.mark.parametrize("kind", LABELLED_TARGETS)
def test_without_any_label_the_loss_is_zero_and_stays_in_the_graph(kind):
    info, shape, target = facts_of(kind)
    nothing = torch.full_like(target, NAN if target.is_floating_point() else -1)

    terms, gradient = terms_with_gradient(
        torch.ones(3, *shape), nothing, info, labelled=torch.zeros(3, dtype=torch.bool)
    )

    assert set(terms.values()) == {(0.0, 0.0)}
    assert not gradient.any()


def test_a_valid_place_of_a_row_without_a_label_does_not_count():
    valid, labelled = torch.tensor([[True, False], [True, True]]), torch.tensor([True, False])

    loss, count = task_loss(
        torch.zeros(2, 3, 2), torch.tensor([[1, 2], [-1, -1]]), task="multiclass", valid=valid, labelled=labelled
    )

    assert loss.item() == pytest.approx(math.log(3)) and int(count) == 1
