import pytest
import torch

from xmodal.errors import InputError
from xmodal.metrics.batch_accuracy import batch_accuracy

RIGHT = [1, 1, 0, 1, 0]  # rows that are answered rightly


def answered(right):
    """Outputs (rows, 2) and target (rows,) with these rows right."""
    target = torch.arange(len(right)) % 2
    answers = torch.where(torch.tensor(right, dtype=torch.bool), target, 1 - target)
    return torch.eye(2)[answers], target


@pytest.mark.parametrize(
    ("divide", "batch_size", "expected"),
    [
        ("batches", 2, (1 + 1 / 2 + 0) / 3),
        ("batches", 5, 3 / 5),
        ("batches", 1, 3 / 5),
        ("batches", 100, 3 / 5),
        ("rows", 2, (1 + 1 / 2 + 0) / 5),
        ("rows", 1, 3 / 5),
        ("rows", 5, 3 / 5 / 5),
    ],
)
def test_accuracies_of_the_authors_loops_by_hand(divide, batch_size, expected):
    assert batch_accuracy(*answered(RIGHT), batch_size=batch_size, divide=divide) == pytest.approx(expected)


def test_equal_batches_give_the_accuracy_and_its_share_of_a_batch():
    right = (torch.arange(64) % 3 > 0).tolist()
    outputs, target = answered(right)

    assert batch_accuracy(outputs, target, batch_size=32) == pytest.approx(sum(right) / 64)
    assert batch_accuracy(outputs, target, batch_size=32, divide="rows") == pytest.approx(sum(right) / 64 / 32)


def test_the_order_of_rows_matters_as_soon_as_a_batch_is_smaller():
    first, last = (batch_accuracy(*answered(right), batch_size=2) for right in ([1, 0, 0], [0, 0, 1]))

    assert (first, last) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"divide": "batch"}, "Did you mean 'batches'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"target": torch.zeros(4)}, r"target \(4,\)"),
        ({"outputs": torch.zeros(0, 2), "target": torch.zeros(0)}, "at least one row"),
    ],
)
def test_wrong_asks_are_refused(how, sentence):
    outputs, target = answered(RIGHT)

    with pytest.raises(InputError, match=sentence):
        batch_accuracy(**{"outputs": outputs, "target": target, "batch_size": 2, **how})
