"""Columns that nothing reads are never opened, and the training has the same bits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from xmodal.data.arrays import from_arrays
from xmodal.data.base import Data
from xmodal.data.loader import in_order
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.methods.kd import KD
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_for
from xmodal.seeding import seeded

SETTINGS = FitSettings(epochs=3, batch_size=20)


class Counted:
    """A column that counts the rows that are read of it; without ``counts`` it allows none."""

    def __init__(self, values: Any, name: str, counts: Counter[str] | None) -> None:
        self.values, self.name, self.counts = values, name, counts
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, rows: Any) -> Any:
        assert self.counts is not None, f"{self.name} is read"
        part = self.values[rows]
        self.counts[self.name] += len(part)
        return part


def counted(*, paired: bool = True) -> tuple[Data, Counter[str]]:
    random = np.random.default_rng(0)
    inputs = {name: random.normal(size=(90, 4)).astype(np.float32) for name in ("a", "b", "c")}
    target: Any = np.arange(90) % 3
    data = from_arrays(inputs, target if paired else {name: target.copy() for name in inputs})
    counts: Counter[str] = Counter()
    for split in (data.train, data.valid, data.test):
        split.columns = {name: Counted(column, name, counts) for name, column in split.columns.items()}
    return data, counts


def network(data: Data, name: str) -> Any:
    with seeded(0, name):
        return build_for(data.info, [name])


@pytest.mark.parametrize("paired", [True, False])
def test_a_supervised_training_reads_its_modality_alone(paired: bool) -> None:
    data, counts = counted(paired=paired)

    run = fit(Supervised(network(data, "b"), data.info), data, SETTINGS)
    evaluate(run.students, data.test, data.info, fabric=launch())

    assert set(counts) == {"b"}


@pytest.mark.parametrize(("cache", "times"), [("on", 1), ("off", SETTINGS.epochs)])
def test_the_teachers_modality_is_read_once_where_its_outputs_are_cached(cache: str, times: int) -> None:
    data, counts = counted()
    # columns too large to be kept are read for every batch
    data.train._kept = lambda name: None  # type: ignore[method-assign, assignment]
    method = KD(network(data, "b"), network(data, "a").module, data.info)

    fit(method, data, SETTINGS.model_copy(update={"cache": cache}))

    rows = len(data.train)
    # the student's validation rows are small enough to be kept, and read once
    assert counts == {"a": times * rows, "b": SETTINGS.epochs * rows + len(data.valid)}


def test_the_training_has_the_bits_of_one_that_reads_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = counted()
    narrow = fit(Supervised(network(data, "b"), data.info), data, SETTINGS)
    monkeypatch.setattr(Supervised, "reads", lambda self: None)
    wide = fit(Supervised(network(data, "b"), data.info), data, SETTINGS)

    for first, second in zip(
        narrow.students["b"].module.parameters(), wide.students["b"].module.parameters(), strict=True
    ):
        assert torch.equal(first, second)
    assert [row["loss"] for row in narrow.history] == [row["loss"] for row in wide.history]


def test_a_view_has_the_rows_and_targets_of_all_modalities() -> None:
    data, _ = counted()

    view = data.train.reading(["a"])
    (batch,) = in_order(view, batch_size=90)
    (whole,) = in_order(data.train.reading(None), batch_size=90)

    assert list(batch.inputs) == ["a"] and set(batch.targets) == set(batch.index) == {"a", "b", "c"}
    assert set(whole.inputs) == {"a", "b", "c"}
