"""Unpaired data in stacks: each modality's rows in an order of its own, recycled or cut, as `fit` alone has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xmodal.data.arrays import from_arrays
from xmodal.data.base import Data
from xmodal.engine.fit import Run, fit
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.engine.stacked.stackable import hindrance
from xmodal.errors import NonFinite
from xmodal.losses.task import task_loss
from xmodal.method import Method
from xmodal.methods.discom import DisCoM
from xmodal.methods.supervised import Supervised
from xmodal.models.discom_net import branches_for
from xmodal.models.network import student_of
from xmodal.types import Batch, DataInfo, Step, Student

MODELS = 3
WIDTHS = {"clear": 4, "faint": 5}
SGD: dict[str, Any] = {"epochs": 4, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.1}


def make_data(seed: int = 0, *, rows: Sequence[int] = (80, 53), task: str = "multiclass") -> Data:
    """Three classes, seen by two modalities in samples of their own; ``rows`` train, a dozen and more validate."""
    random = np.random.default_rng(seed)
    inputs, targets = {}, {}
    splits: dict[str, dict[str, Any]] = {"train": {}, "valid": {}, "test": {}}
    for (name, width), count in zip(WIDTHS.items(), rows, strict=True):
        scored = 12 + width
        label = np.arange(count + scored + 3) % 3
        inputs[name] = random.normal(size=(len(label), width)).astype(np.float32)
        inputs[name][np.arange(len(label)), label] += 2.0
        targets[name] = label if task == "multiclass" else np.eye(3, dtype=np.float32)[label]
        whole = np.arange(len(label))
        splits["train"][name], splits["valid"][name] = whole[:count], whole[count : count + scored]
        splits["test"][name] = whole[count + scored :]
    return from_arrays(inputs, targets, splits=splits, task=task)


class Both(Method):
    """A network for each modality; what they have in common is the distance of their mean answers."""

    stackable = True

    def __init__(self, students: Mapping[str, Student], info: DataInfo) -> None:
        super().__init__()
        self.networks = nn.ModuleList([student.module for student in students.values()])
        self._students, self._info = dict(students), info

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        answers = [self.answer(batch, name) for name in self._students]
        losses = {
            name: task_loss(answer, batch.targets[name], task=self._info.task, ignore=None)[0]
            for name, answer in zip(self._students, answers, strict=True)
        }
        return Step({**losses, "apart": (answers[0].mean(0) - answers[1].mean(0)).square().sum()})

    def answer(self, batch: Batch, name: str) -> Tensor:
        outputs: Tensor = self._students[name].module({name: batch.input(name)})
        return outputs

    def students(self) -> dict[str, Student]:
        return dict(self._students)


def network(data: Data, name: str) -> Student:
    return student_of(
        nn.Sequential(nn.Linear(WIDTHS[name], 6), nn.Tanh(), nn.Linear(6, data.info.outputs)), data.info, [name]
    )


def both(data: Data, seed: int) -> Method:
    torch.manual_seed(seed)
    return Both({name: network(data, name) for name in WIDTHS}, data.info)


def faint_alone(data: Data, seed: int) -> Method:
    torch.manual_seed(seed)
    return Supervised(network(data, "faint"), data.info)


def discom(data: Data, seed: int) -> Method:
    torch.manual_seed(seed)
    described = {name: {"encoder": "mlp", "shape": [width], "width": 8} for name, width in WIDTHS.items()}
    return DisCoM({name: branches_for(data.info, name, described[name]) for name in WIDTHS}, data.info)


METHODS = {"both": both, "a control": faint_alone}


def furthest(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> float:
    """Largest difference, relative to the size of what is compared."""
    assert one.keys() == two.keys()
    return max(float((one[n] - two[n]).abs().max() / (1e-3 + two[n].abs().max())) for n in one)


def assert_alike(many: Sequence[Run], alone: Sequence[Run], *, tolerance: float = 1e-4) -> None:
    """Weights, students, history, best epochs; by default but for a few roundings in each of some twenty steps.

    Products of many models at once are rounded otherwise than those of one.
    """
    for one, other in zip(many, alone, strict=True):
        assert one.notes == []
        assert furthest(one.method.state_dict(), other.method.state_dict()) < tolerance
        assert one.best.keys() == other.best.keys() == one.students.keys()
        for name, best in one.best.items():
            assert best["epoch"] == other.best[name]["epoch"]
            assert best["valid"] == pytest.approx(other.best[name]["valid"], rel=1e-5, abs=1e-6)
            ours, theirs = (run.students[name].module.state_dict() for run in (one, other))
            assert furthest(ours, theirs) < tolerance
        for row, expected in zip(one.history, other.history, strict=True):
            assert row["steps"] == expected["steps"]
            assert row["losses"] == pytest.approx(expected["losses"], rel=1e-4, abs=1e-6)
            for name, valid in row["valid"].items():
                assert valid == pytest.approx(expected["valid"][name], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("unequal", ["recycle", "cut"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [(80, 80), (80, 53)], ids=["as many", "fewer"])
def test_unpaired_models_end_like_each_alone(method: str, rows: Sequence[int], unequal: str) -> None:
    build, data = METHODS[method], [make_data(seed, rows=rows) for seed in range(MODELS)]
    settings = FitSettings(**SGD, unequal=unequal)

    many = fit_many([build(own, seed) for seed, own in enumerate(data)], data, settings)
    alone = [fit(build(own, seed), own, settings, seed=seed) for seed, own in enumerate(data)]

    assert_alike(many, alone)


def test_three_normalisations_deep_it_is_the_same() -> None:
    data = [make_data(seed) for seed in range(2)]
    settings = FitSettings(**{**SGD, "learning_rate": 0.02, "epochs": 1})

    many = fit_many([discom(own, seed) for seed, own in enumerate(data)], data, settings)

    # each of them enlarges the rounding of the one before, epoch by epoch: other last digits of products are seen at
    # 1e-4 after one epoch and at 1e-2 after four; another order of the rows is seen at 1
    alone = [fit(discom(own, seed), own, settings, seed=seed) for seed, own in enumerate(data)]
    assert_alike(many, alone, tolerance=2e-3)


@pytest.mark.parametrize("rows", [(80, 80), (80, 53)], ids=["as many", "fewer"])
def test_a_batch_of_everything_holds_other_rows_in_each_epoch_where_some_are_recycled(rows: Sequence[int]) -> None:
    data, settings = make_data(rows=rows), FitSettings(**{**SGD, "batch_size": 1000})

    many = fit_many([both(data, 0), both(data, 1)], data, settings)

    assert_alike(many, [fit(both(data, seed), data, settings, seed=seed) for seed in range(2)])


def test_each_modality_has_the_order_of_its_own_seed() -> None:
    """Equal weights and equal data: the order alone tells the models apart."""
    data, settings = make_data(), FitSettings(**SGD)

    one, two, other = fit_many([both(data, 0) for _ in range(3)], data, settings, seeds=[4, 4, 5])

    assert furthest(one.method.state_dict(), two.method.state_dict()) < 1e-4  # a stack rounds by where a model stands
    assert furthest(one.method.state_dict(), other.method.state_dict()) > 1e-3


def test_every_modality_has_a_best_epoch_of_its_own() -> None:
    data = [make_data(seed) for seed in range(4)]

    runs = fit_many([both(own, 0) for own in data], data, FitSettings(**{**SGD, "epochs": 8}))

    epochs = [tuple(best["epoch"] for best in run.best.values()) for run in runs]
    assert any(clear != faint for clear, faint in epochs), epochs


def test_values_are_scored_model_by_model() -> None:
    data = [make_data(seed, task="regression") for seed in range(2)]

    many = fit_many([both(own, seed) for seed, own in enumerate(data)], data, FitSettings(**SGD))

    assert_alike(many, [fit(both(own, seed), own, FitSettings(**SGD), seed=seed) for seed, own in enumerate(data)])


def test_rows_taken_apart_may_still_share_their_target() -> None:
    """Paired data whose modalities are shuffled by themselves: as in the recipe of DisCoM-KD."""
    x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    data = from_arrays({"clear": x, "faint": np.hstack([x, x[:, :1]])}, y).apart()

    many = fit_many([both(data, seed) for seed in range(2)], data, FitSettings(**SGD))

    assert_alike(many, [fit(both(data, seed), data, FitSettings(**SGD), seed=seed) for seed in range(2)])


def test_other_numbers_of_rows_make_other_stacks() -> None:
    data = [make_data(0, rows=(80, 53)), make_data(1, rows=(80, 40)), make_data(2, rows=(80, 53))]

    many = fit_many([both(own, seed) for seed, own in enumerate(data)], data, FitSettings(**SGD))

    assert_alike(many, [fit(both(own, seed), own, FitSettings(**SGD), seed=seed) for seed, own in enumerate(data)])


class Joined(nn.Module):
    """Reads both modalities."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(9, 3)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        out: Tensor = self.layer(torch.cat([inputs[name] for name in WIDTHS], dim=1))
        return out


def test_a_student_of_several_modalities_has_no_rows_to_be_scored_on() -> None:
    data = make_data()
    method = Supervised(Student(Joined(), tuple(WIDTHS), "faint"), data.info)

    assert "a student reads several modalities" in hindrance(method, data, FitSettings(**SGD))


def test_rows_of_a_loss_that_is_not_finite_are_those_of_their_modality() -> None:
    data = [make_data(seed) for seed in range(2)]
    data[1].train._kept("faint")[7, 0] = float("inf")
    whole = FitSettings(**{**SGD, "batch_size": 1000, "unequal": "cut"})  # of the 80 rows of the other 53 at a time

    # a tanh of it is finite, its gradient is not
    with pytest.raises(NonFinite) as caught:
        fit_many([both(own, seed) for seed, own in enumerate(data)], data, whole)

    assert "of model 1 became non-finite in epoch 2" in str(caught.value)
    assert "faint is not finite in training rows 7." in str(caught.value)
