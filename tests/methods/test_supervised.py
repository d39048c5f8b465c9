import math

import pytest
import torch

from xmodal.data.loader import Pick
from xmodal.engine.fit import fit
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.methods.supervised import Supervised, SupervisedSettings
from xmodal.types import Batch

EYE = [[1.0, 0.0], [0.0, 1.0]]
LOG3 = math.log(3.0)


def loss_of(step):
    return {name: loss.item() for name, loss in step.losses.items()}


def test_training_step_is_the_cross_entropy_of_the_labels(linear_student, make_info, make_batch):
    method = Supervised(linear_student(EYE), make_info())
    batch = make_batch([[9.0, 9.0]] * 2, [[LOG3, 0.0], [0.0, 0.0]], [0, 1])  # the truth gets 3/4, then 1/2

    step = method(batch, {})

    assert loss_of(step) == {"task": pytest.approx((-math.log(0.75) + math.log(2)) / 2)}
    assert {name: int(count) for name, count in step.counts.items()} == {"task": 2}


@pytest.mark.parametrize(
    ("task", "weight", "target", "expected"),
    [
        ("binary", [[1.0, 0.0]], [0, 1], (-math.log(0.25) + math.log(2)) / 2),
        ("multilabel", EYE, [[1, 0], [0, 1]], (-math.log(0.75) + 3 * math.log(2)) / 4),
        ("regression", [[1.0, 0.0]], [[0.0], [2.0]], (LOG3**2 + 4.0) / 2),
    ],
)
def test_every_kind_of_target_has_its_loss(linear_student, make_info, make_batch, task, weight, target, expected):
    method = Supervised(linear_student(weight), make_info(task, len(weight)))

    step = method(make_batch([[9.0, 9.0]] * 2, [[LOG3, 0.0], [0.0, 0.0]], target), {})

    assert loss_of(step)["task"] == pytest.approx(expected)


def test_a_row_that_is_not_valid_changes_neither_loss_nor_gradient_nor_count(linear_student, make_info, make_batch):
    faint, target = [[LOG3, 0.0], [5.0, -5.0]], [0, 1]
    masked = Supervised(linear_student(EYE), make_info())
    alone = Supervised(linear_student(EYE), make_info())

    step = masked(make_batch(faint, faint, target, valid=[True, False]), {})
    single = alone(make_batch(faint[:1], faint[:1], target[:1]), {})
    step.losses["task"].backward()
    single.losses["task"].backward()

    assert step.losses["task"].item() == pytest.approx(-math.log(0.75)) == single.losses["task"].item()
    assert int(step.counts["task"]) == 1
    torch.testing.assert_close(masked.network.module.weight.grad, alone.network.module.weight.grad)


def test_an_ignored_label_counts_nowhere(linear_student, make_info, make_batch):
    method = Supervised(linear_student(EYE), make_info(ignore=255))

    step = method(make_batch([[0.0, 0.0]] * 2, [[LOG3, 0.0], [5.0, -5.0]], [0, 255]), {})

    assert loss_of(step)["task"] == pytest.approx(-math.log(0.75)) and int(step.counts["task"]) == 1


def test_only_the_inputs_and_targets_of_the_student_are_read(linear_student, make_info):
    method = Supervised(linear_student(EYE), make_info(paired=False))
    unpaired = Batch(
        {"faint": torch.tensor([[LOG3, 0.0]]), "clear": torch.full((3, 2), float("nan"))},
        {"faint": torch.tensor([0]), "clear": torch.tensor([1, 1, 1])},
    )

    assert loss_of(method(unpaired, {}))["task"] == pytest.approx(-math.log(0.75))


def test_a_batch_without_the_modality_says_what_it_holds(linear_student, make_info):
    method = Supervised(linear_student(EYE), make_info())

    with pytest.raises(InputError, match="no input called 'faint'.*Known: clear"):
        method(Batch({"clear": torch.zeros(1, 2)}, {"clear": torch.tensor([0]), "faint": torch.tensor([0])}), {})


def test_fit_follows_gradient_descent_by_hand(linear_student, make_info, toy_data):
    method = Supervised(linear_student([[0.0, 0.0], [0.0, 0.0]]), toy_data.info)
    settings = FitSettings(epochs=1, batch_size=1000, optimizer="sgd", momentum=0.0, learning_rate=0.5)

    fit(method, toy_data, settings)

    rows = {name: torch.arange(count) for name, count in toy_data.train.rows.items()}
    batch = toy_data.train[Pick(rows, None)]
    onehot = torch.nn.functional.one_hot(batch.target, 2).float()
    expected = 0.5 * (onehot - 0.5).T @ batch.inputs["faint"] / len(onehot)  # at zero weights every class has 1/2
    torch.testing.assert_close(method.network.module.weight.detach(), expected)


def test_the_student_is_named_after_what_it_reads(linear_student, make_info):
    student = linear_student(EYE)
    method = Supervised(student, make_info())

    assert method.students() == {"faint": student} and not method.frozen


def test_there_are_no_settings_to_misspell():
    with pytest.raises(ValueError, match="temperature"):
        SupervisedSettings(temperature=2.0)
