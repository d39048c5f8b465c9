"""The test split is opened once, when nothing is left to train."""

import numpy as np
import pytest

from xmodal.api.distill import distill
from xmodal.data import split
from xmodal.data.base import assemble
from xmodal.engine.processes.launch import launch
from xmodal.study.bench import Bench
from xmodal.study.comparison import train
from xmodal.study.comparison_settings import ComparisonSettings

ROWS = {"train": range(0, 90), "valid": range(90, 120), "test": range(120, 150)}
SPLIT_OF = {row: split for split, rows in ROWS.items() for row in rows}


class Counted:
    """A column that writes down every row that is read of it."""

    def __init__(self, name, numbers, reads):
        self.name, self.numbers, self.reads = name, numbers, reads
        self.shape, self.dtype = numbers.shape, numbers.dtype

    def __getitem__(self, rows):
        self.reads += [(self.name, int(row)) for row in np.atleast_1d(np.arange(len(self.numbers))[rows])]
        return self.numbers[rows]


@pytest.fixture
def counted(monkeypatch):
    """Data and the list of all reads; no split is kept in memory, so that looking twice is reading twice."""
    monkeypatch.setattr(split, "READY_BYTES", -1)
    random = np.random.default_rng(0)
    target = np.arange(150) % 3
    reads = []
    columns = {
        name: Counted(name, target[:, None] + random.normal(size=(150, 4)), reads) for name in ("clear", "faint")
    }
    rows = {split: dict.fromkeys(columns, np.array(numbers)) for split, numbers in ROWS.items()}
    data = assemble(columns, dict.fromkeys(columns, target), rows, normalise=dict.fromkeys(columns, "standard"))
    return data, reads


def times(reads, split):
    """How often each row of each modality of a split was read."""
    found = dict.fromkeys(((name, row) for name in ("clear", "faint") for row in ROWS[split]), 0)
    for read in reads:
        if SPLIT_OF[read[1]] == split:
            found[read] += 1
    return set(found.values())


def assert_opened_once_and_last(reads):
    order = [SPLIT_OF[row] for _, row in reads]
    first_look = order.index("test")

    assert times(reads, "test") == {1}
    assert set(order[first_look:]) == {"test"}  # no row is trained or selected on afterwards
    assert min(times(reads, "valid")) >= 2 and min(times(reads, "train")) >= 3


def test_opening_data_reads_the_training_rows_alone(counted):
    _, reads = counted

    assert {SPLIT_OF[row] for _, row in reads} == {"train"}  # for mean and deviation


def test_distill_opens_the_test_split_once_and_last(counted):
    data, reads = counted

    done = distill(data=data, teacher="clear", student="faint", epochs=2, batch_size=30)

    assert_opened_once_and_last(reads)
    assert len(done.scores) == 4  # teacher, control, student and its shuffled control all come from that one look


def test_a_comparison_opens_the_test_split_once_and_last(counted):
    data, reads = counted
    settings = ComparisonSettings(teacher=("clear",), student=("faint",), epochs=2, batch_size=30)
    comparison = settings.comparison()

    bench = Bench(data, comparison.plan, seed=0, fabric=launch(settings.machine()))
    train(bench, comparison)
    assert "test" not in {SPLIT_OF[row] for _, row in reads}
    rows = bench.score()

    assert_opened_once_and_last(reads)
    assert [row["role"] for row in rows] == ["teacher", "control", "method", "shuffled"]


def test_the_counter_notices_a_second_look(counted):
    data, reads = counted
    distill(data=data, teacher="clear", student="faint", epochs=1, batch_size=30)

    data.test.columns["faint"][data.test.numbers["faint"]]

    assert times(reads, "test") == {1, 2}
    with pytest.raises(AssertionError):
        assert_opened_once_and_last(reads)
