"""Many models at once end like each of them alone; what can't be stacked is trained alone and says so."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from networks import pictures, vector_student
from torch import Tensor, nn

from xmodal.data.arrays import from_arrays
from xmodal.data.base import Data
from xmodal.engine.fit import Run, fit
from xmodal.engine.processes import interrupt
from xmodal.engine.progress import Progress
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.errors import InputError, Interrupted, NonFinite
from xmodal.losses import LOSSES
from xmodal.method import Method
from xmodal.methods.kd import KD
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.models.network import student_of
from xmodal.types import Batch, Step, Student

MODELS = 3
SGD: dict[str, Any] = {"epochs": 4, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.1}
WHOLE = {**SGD, "batch_size": 1000}
ON_VECTORS = sorted(name for name, card in LOSSES.items() if card.inputs not in ("maps", "stages"))
QUICK = {"kl", "dkd", "kl_pssm", "hint", "dist", "sp", "vid", "ctkd", "rkd", "cc", "crd"}
ALONE = {"ctkd", "rkd", "rkd_angle", "cc", "crd"}  # schedule, own gradient twice, order of rows, memory


def make_data(seed: int = 0, *, rows: int = 131, task: str = "multiclass", width: int = 4, **more: Any) -> Data:
    """Two views of three classes; no batch size divides the rows that are left for training."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 3, rows)
    label[:3] = [0, 1, 2]
    clear = random.normal(size=(rows, width)).astype(np.float32)
    clear[np.arange(rows), label] += 2.0
    faint = (clear[:, :4] + random.normal(size=(rows, 4))).astype(np.float32)
    one_hot = np.eye(3)[label]
    target = {
        "multiclass": label,
        "binary": label % 2,
        "multilabel": one_hot.astype(np.int64),
        "regression": one_hot.astype(np.float32),
    }[task]
    part = rows // 6
    splits = {"train": np.arange(2 * part, rows), "valid": np.arange(part), "test": np.arange(part, 2 * part)}
    return from_arrays({"clear": clear, "faint": faint}, target, splits=splits, task=task, seed=seed, **more)


def mlp(width: int = 4, outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 6), nn.Tanh(), nn.Linear(6, outputs))


def student(data: Data, seed: int, modality: str = "faint", build: Callable[[], nn.Module] | None = None) -> Student:
    torch.manual_seed(seed)
    shape = data.info.inputs[modality].shape[0]
    return student_of(build() if build else mlp(shape, data.info.outputs), data.info, [modality])


def supervised(data: Data, seed: int, **more: Any) -> Method:
    return Supervised(student(data, seed, **more), data.info)


def kd(data: Data, seed: int, **more: Any) -> Method:
    return KD(student(data, seed), student(data, seed + 100, "clear").module, data.info, DistillationOptions(**more))


def weights(run: Run) -> dict[str, Tensor]:
    (student,) = run.students.values()
    return student.module.state_dict()


def furthest(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> float:
    """Largest difference, relative to the size of what is compared."""
    assert one.keys() == two.keys()
    return max(float((one[n] - two[n]).abs().max() / (1e-3 + two[n].abs().max())) for n in one)


def bits(run: Run) -> list[Tensor]:
    return [*weights(run).values(), *run.method.state_dict().values()]


def both_ways(
    build: Callable[[Data, int], Method], settings: FitSettings, *, data: Sequence[Data] | None = None
) -> tuple[list[Run], list[Run]]:
    """The same models at once, and one after the other."""
    data = data or [make_data(seed) for seed in range(MODELS)]
    many = fit_many([build(own, seed) for seed, own in enumerate(data)], data, settings)
    alone = [fit(build(own, seed), own, settings, seed=seed) for seed, own in enumerate(data)]
    return many, alone


def assert_alike(many: Sequence[Run], alone: Sequence[Run], *, tolerance: float = 5e-6) -> None:
    """Weights, history and best epoch; the tolerance is a few roundings of float32 in each of some thirty steps.

    Products of many models at once are rounded otherwise than those of one. A loss that is a small difference of larger
    terms keeps their rounding, about 1e-6.
    """
    for one, other in zip(many, alone, strict=True):
        assert one.notes == []
        assert furthest(weights(one), weights(other)) < tolerance
        assert furthest(one.method.state_dict(), other.method.state_dict()) < tolerance
        assert one.best.keys() == other.best.keys()
        for name, best in one.best.items():
            assert best["epoch"] == other.best[name]["epoch"]
            assert best["valid"] == pytest.approx(other.best[name]["valid"], rel=1e-5, abs=1e-6)
        for row, expected in zip(one.history, other.history, strict=True):
            assert list(row) == list(expected)
            for key in ("epoch", "steps", "lr"):
                assert row[key] == expected[key]
            assert row["losses"] == pytest.approx(expected["losses"], rel=1e-4, abs=1e-6)
            assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4, abs=1e-6)
            for name, valid in row["valid"].items():
                assert valid == pytest.approx(expected["valid"][name], rel=1e-5, abs=1e-6)


SETTINGS = {
    "sgd": {},
    "whole batch": {"batch_size": 1000},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    "adam": {"optimizer": "adam", "learning_rate": 0.01},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    "rmsprop": {"optimizer": "rmsprop", "learning_rate": 0.01},
    "schedule": {"schedule": "cosine", "warmup": 1.5},
    "falls": {"schedule": "multistep", "schedule_at": (1, 3), "schedule_per": "epoch"},
    "clipped norm": {"clip": 0.05},
    "clipped values": {"clip": 0.01, "clip_mode": "value"},
    "clipped at once": {"clip": 0.05, "clip_at": "backward", "accumulate": 2},
    "accumulated": {"accumulate": 3},
    "summed": {"accumulate": 3, "accumulate_mode": "sum", "learning_rate": 0.03},
    "dropped": {"accumulate": 4, "remainder": "drop"},
    "last": {"keep": "last"},
}


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_many_end_like_each_alone(options: dict[str, Any]) -> None:
    assert_alike(*both_ways(supervised, FitSettings(**{**SGD, **options})))


@pytest.mark.parametrize("batch_size", [16, 1000])
def test_each_student_has_a_teacher_of_its_own(batch_size: int) -> None:
    assert_alike(*both_ways(kd, FitSettings(**{**SGD, "batch_size": batch_size})))


@pytest.mark.parametrize("task", ["binary", "multilabel", "regression"])
def test_every_kind_of_target_is_scored(task: str) -> None:
    data = [make_data(seed, task=task) for seed in range(MODELS)]

    assert_alike(*both_ways(kd, FitSettings(**WHOLE), data=data))


@pytest.mark.parametrize(
    "loss", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ON_VECTORS]
)
def test_every_loss_on_vectors_is_stacked_or_says_why_not(loss: str) -> None:
    settings = FitSettings(**{**SGD, "learning_rate": 1e-4, "epochs": 2, "batch_size": 1000})  # weights reach 30000
    data = [make_data(seed, rows=60) for seed in range(2)]

    many, alone = both_ways(lambda own, seed: kd(own, seed, losses=(loss,)), settings, data=data)

    if loss in ALONE:
        assert all("Trained alone" in run.notes[0] for run in many)
        many[0].notes, many[1].notes = [], []
    assert_alike(many, alone, tolerance=1e-5)


def test_statistics_of_batches_are_each_models_own() -> None:
    def build(data: Data, seed: int) -> Method:
        return Supervised(vector_student(seed=seed), data.info)

    many, alone = both_ways(build, FitSettings(**SGD), data=[pictures(seed=seed) for seed in range(MODELS)])

    assert_alike(many, alone, tolerance=1e-5)
    means = [weights(run)["net.1.running_mean"] for run in many]
    assert not torch.allclose(means[0], means[1])
    assert weights(many[0])["net.1.num_batches_tracked"] == weights(alone[0])["net.1.num_batches_tracked"] > 0


def test_each_model_has_a_best_epoch_of_its_own() -> None:
    many, alone = both_ways(supervised, FitSettings(**{**WHOLE, "epochs": 12, "learning_rate": 0.3}))

    assert len({run.best["faint"]["epoch"] for run in many}) > 1, "else this test sees nothing"
    assert_alike(many, alone, tolerance=1e-5)  # a large rate, so that the best epochs differ
    assert any(furthest(weights(run), run.method.network.state_dict()) > 1e-3 for run in many)  # type: ignore[union-attr]


def test_what_is_scored_counts_in_stacks_as_it_does_alone() -> None:
    data = [make_data(seed) for seed in range(MODELS)]
    for number, own in enumerate(data):
        regions = (np.arange(len(own.valid.columns["faint"])) % 3 == number).astype(np.uint8)
        own.valid.scored = dict.fromkeys(own.valid.rows, regions)
    everywhere = fit(supervised(data[0], 0), make_data(0), FitSettings(**SGD), seed=0)

    many, alone = both_ways(supervised, FitSettings(**SGD), data=data)

    assert_alike(many, alone)
    assert many[0].history[-1]["valid"] != everywhere.history[-1]["valid"], "else this test sees nothing"


def test_the_norm_is_bounded_for_each_model_by_itself() -> None:
    data = [make_data(0), make_data(0)]
    for split in (data[1].train, data[1].valid):
        split.columns["faint"] = 1000.0 * np.asarray(split.columns["faint"])
    settings = FitSettings(
        **{**SGD, "epochs": 1, "batch_size": 1000, "learning_rate": 1.0, "momentum": 0.0, "clip": 1e-3}
    )

    runs = fit_many([supervised(own, 0) for own in data], data, settings)

    for run in runs:
        before = student(data[0], 0).module.state_dict()
        moved = sum(float((tensor - before[name]).square().sum()) for name, tensor in weights(run).items())
        assert moved**0.5 == pytest.approx(1e-3, rel=1e-3)


def test_models_that_share_their_data_see_it_in_their_own_order() -> None:
    data, settings = make_data(), FitSettings(**SGD)

    shared = fit_many([supervised(data, 0) for _ in range(2)], data, settings, seeds=[4, 5])
    alone = [fit(supervised(data, 0), data, settings, seed=seed) for seed in (4, 5)]

    assert_alike(shared, alone)
    assert furthest(weights(shared[0]), weights(shared[1])) > 1e-3
    assert_alike(
        fit_many([supervised(data, 0), supervised(data, 1)], data, FitSettings(**{**SGD, "batch_size": 1000})),
        [fit(supervised(data, seed), data, FitSettings(**{**SGD, "batch_size": 1000})) for seed in range(2)],
    )


def test_the_same_call_gives_the_same_bits() -> None:
    data = [make_data(seed) for seed in range(MODELS)]
    runs = [fit_many([kd(own, 0) for own in data], data, FitSettings(**WHOLE)) for _ in range(2)]

    for one, two in zip(*runs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(bits(one), bits(two), strict=True))


def test_little_memory_means_more_stacks_and_the_same_numbers() -> None:
    data = [make_data(seed) for seed in range(5)]
    output = io.StringIO()

    at_once = fit_many([supervised(own, 0) for own in data], data, FitSettings(**WHOLE))
    in_parts = fit_many(
        [supervised(own, 0) for own in data],
        data,
        FitSettings(**WHOLE),
        memory=100_000,
        progress=Progress(stream=output),
    )

    assert len(re.findall(r"models at once.*: epoch 4/4", output.getvalue())) > 1
    assert_alike(in_parts, at_once)


def test_a_later_stack_of_another_size_normalises_by_its_own_batches() -> None:
    """The method that is recorded was left in eval mode by the first stack."""

    def normalising() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))

    data, settings = [make_data(seed) for seed in range(5)], FitSettings(**WHOLE)
    many = [supervised(own, 0, build=normalising) for own in data]
    alone = [fit(supervised(own, 0, build=normalising), own, settings, seed=seed) for seed, own in enumerate(data)]

    in_parts = fit_many(many, data, settings, memory=200_000)  # three of them, then two

    assert_alike(in_parts, alone)


def test_a_model_that_fills_the_memory_is_trained_alone() -> None:
    data = make_data()

    (run,) = fit_many([supervised(data, 0)], data, FitSettings(**WHOLE), memory=1000)

    assert "more than half of the memory" in run.notes[0]
    assert_alike_but_for_notes(run, fit(supervised(data, 0), data, FitSettings(**WHOLE)))


class Asked(Sequence[Any]):
    """Builds its items when they are read, and records which were."""

    def __init__(self, make: Callable[[int], Any], length: int) -> None:
        self.make, self.length = make, length
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: Any) -> Any:
        self.read.append(place)
        return self.make(place)


def test_items_are_made_when_they_are_asked_for_once_and_in_order() -> None:
    data = Asked(lambda seed: make_data(seed), 4)
    methods = Asked(lambda seed: supervised(make_data(seed), seed), 4)

    runs = fit_many(methods, data, FitSettings(**SGD))

    assert data.read == methods.read == [0, 1, 2, 3]
    assert_alike(runs, [fit(methods[seed], data[seed], FitSettings(**SGD), seed=seed) for seed in range(4)])


def test_models_of_several_kinds_come_back_in_their_order() -> None:
    data = make_data()
    build: list[Callable[[], Method]] = [
        lambda: kd(data, 0),
        lambda: supervised(data, 0),
        lambda: kd(data, 0, kd_weight=2.0),
        lambda: kd(data, 0, temperature=1.0),
        lambda: supervised(data, 0, modality="clear"),
        lambda: supervised(data, 0, build=lambda: nn.Linear(4, 3)),
    ]

    runs = fit_many([make() for make in build], data, FitSettings(**WHOLE), seeds=[0] * len(build))

    alone = [fit(make(), data, FitSettings(**WHOLE)) for make in build]
    assert_alike(runs, alone)
    assert len({round(run.history[-1]["loss"], 6) for run in runs}) == len(build), "all six are different"


def test_data_that_is_not_read_may_have_other_shapes() -> None:
    output = io.StringIO()
    data = [make_data(0), make_data(1, width=7)]

    fit_many([supervised(own, 0) for own in data], data, FitSettings(**WHOLE), progress=Progress(stream=output))

    assert "2 models at once" in output.getvalue()


class Unused(nn.Module):
    """A layer that is never called, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.never, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.last.weight.requires_grad_(False)
        self.scale: Tensor
        self.register_buffer("scale", torch.rand(5))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x) * self.scale)
        return out


def test_what_gets_no_gradient_does_not_decay() -> None:
    settings = FitSettings(**{**WHOLE, "weight_decay": 0.1})

    many, alone = both_ways(lambda data, seed: supervised(data, seed, build=Unused), settings)

    assert_alike(many, alone)
    torch.manual_seed(0)
    fresh = Unused().state_dict()
    for name in ("never.weight", "last.weight", "scale"):
        assert torch.equal(weights(many[0])[f"module.{name}"], fresh[name])


class TwoRates(Supervised):
    """Biases go their own way, and a mean is logged."""

    def param_groups(self) -> list[dict[str, Any]]:
        named = list(self.network.named_parameters())
        return [
            {"params": [tensor for name, tensor in named if "weight" in name]},
            {"params": [tensor for name, tensor in named if "bias" in name], "optimizer": "adam", "lr": 0.02},
        ]

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        step = super().training_step(batch, teacher_outputs)
        return Step(step.losses, step.counts, {"mean": batch.input("faint").mean(), "rows": torch.tensor(1.0)})


def test_groups_have_rates_of_their_own_and_logs_are_kept() -> None:
    many, alone = both_ways(lambda data, seed: TwoRates(student(data, seed), data.info), FitSettings(**SGD))

    assert_alike(many, alone)
    assert many[0].history[0]["lr"] == [0.1, 0.02]
    for one, other in zip(many, alone, strict=True):
        assert one.history[-1]["logs"] == pytest.approx(other.history[-1]["logs"], rel=1e-5, abs=1e-6)  # a mean near 0


def test_dropout_is_drawn_for_each_model() -> None:
    data = make_data()
    settings = FitSettings(**{**SGD, "batch_size": 1000, "epochs": 1})
    methods = [
        supervised(data, 0, build=lambda: nn.Sequential(nn.Linear(4, 20), nn.Dropout(0.5), nn.Linear(20, 3)))
        for _ in range(2)
    ]

    one, two = fit_many(methods, data, settings)

    assert one.notes == two.notes == []
    assert furthest(weights(one), weights(two)) > 1e-3


def test_a_training_without_scores_looks_at_no_validation_sample() -> None:
    data = make_data()
    data.valid.columns["faint"] = np.full_like(data.valid.columns["faint"], np.nan)
    settings = FitSettings(**{**WHOLE, "keep": "last"})

    (run,) = fit_many([supervised(data, 0)], data, settings, score=False)

    assert run.history[0]["valid"] == {}
    assert run.best["faint"]["epoch"] == 3 and run.best["faint"]["valid"] == {}
    assert furthest(weights(run), weights(fit(supervised(data, 0), make_data(), settings))) < 2e-6


def test_a_history_is_a_list_that_is_made_when_it_is_read() -> None:
    data = make_data()
    (run,) = fit_many([supervised(data, 0)], data, FitSettings(**WHOLE))
    history = run.history

    assert len(history) == 4 and [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert history[-1] == history[3] == list(history)[3]
    assert [row["epoch"] for row in history[1:]] == [1, 2, 3]
    assert history == list(history) and history != [] and repr(history) == "History of 4 epochs"
    with pytest.raises(IndexError, match="epoch 4 of 4"):
        history[4]


def test_the_generators_are_left_as_they_were() -> None:
    data = make_data()
    method = supervised(data, 0)
    torch.manual_seed(3)
    expected = torch.rand(1)

    torch.manual_seed(3)
    fit_many([method], data, FitSettings(**WHOLE))

    assert torch.rand(1) == expected


class Stubborn(Supervised):
    """A method that promises nothing."""

    stackable = False


class Branching(Supervised):
    """A step that looks at numbers."""

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        step = super().training_step(batch, teacher_outputs)
        return Step({"task": step.losses["task"] * (2.0 if step.losses["task"] > 100 else 1.0)})


class Picking(Supervised):
    """A step that leaves rows out, which is fine alone, but not as many for each model."""

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        first = batch.input("faint")[:, 0]
        return Step({"task": super().training_step(batch, teacher_outputs).losses["task"] + first[first > 0].mean()})


class Calling(KD):
    """A step that asks the teacher itself, so that one model's teacher would answer for all."""

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        return super().training_step(batch, {"outputs": self.teacher(batch.inputs)})

    def reads(self) -> None:
        """Whatever the teacher reads."""


class Growing(Supervised):
    """A method with a schedule of its own."""

    weight = 0.0

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        self.weight = 1.0 + epoch

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        return Step({"task": self.weight * super().training_step(batch, teacher_outputs).losses["task"]})


def assert_alike_but_for_notes(run: Run, expected: Run) -> None:
    run.notes = []
    assert_alike([run], [expected], tolerance=1e-12)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Stubborn, "Stubborn is not stackable"),
        (Branching, "can't be run for many models"),
        (Picking, "can't be run for many models"),
        (Growing, "changes its settings from epoch to epoch"),
    ],
)
def test_a_method_that_cannot_be_stacked_is_trained_alone(kind: type[Supervised], reason: str) -> None:
    data = make_data()

    (run,) = fit_many([kind(student(data, 0), data.info)], data, FitSettings(**SGD))

    assert reason in run.notes[0]
    assert_alike_but_for_notes(run, fit(kind(student(data, 0), data.info), data, FitSettings(**SGD)))


def test_a_step_that_asks_a_frozen_part_itself_is_not_stacked() -> None:
    data = [make_data(0), make_data(1)]
    build = lambda own, seed: Calling(student(own, seed), student(own, seed + 9, "clear").module, own.info)  # noqa: E731

    many = fit_many([build(own, 0) for own in data], data, FitSettings(**SGD))

    assert all("neither a parameter nor a buffer" in run.notes[0] for run in many)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"patience": 3}, "patience"),
        ({"schedule": "plateau"}, "plateau"),
        ({"precision": "bf16-mixed"}, "in 32-true, not in bf16-mixed"),
        ({"precision": "64-true"}, "in 32-true, not in 64-true"),
        ({"cache": "off"}, "computed in every step"),
    ],
)
def test_settings_that_go_model_by_model_are_trained_alone(options: dict[str, Any], reason: str) -> None:
    data, settings = make_data(), FitSettings(**{**WHOLE, **options})

    (run,) = fit_many([kd(data, 0)], data, settings)

    assert reason in run.notes[0]
    assert_alike_but_for_notes(run, fit(kd(data, 0), data, settings))


def test_data_that_changes_from_epoch_to_epoch_is_trained_alone() -> None:
    augmented = make_data(augment="noise:0.1")

    (run,) = fit_many([supervised(augmented, 0)], augmented, FitSettings(**SGD))

    assert "augmented" in run.notes[0]


def test_targets_that_are_no_classes_are_left_to_the_loss() -> None:
    data = make_data()
    for target in data.train.targets.values():
        target[5] = -100  # what cross-entropy passes over

    (run,) = fit_many([supervised(data, 0)], data, FitSettings(**SGD))
    assert "not among the classes 0 to 2" in run.notes[0]
    with pytest.raises(ValueError, match="target holds classes"):
        fit_many([kd(data, 0, losses=("dkd",))], data, FitSettings(**SGD))


def test_a_loss_that_is_not_finite_names_the_model_and_its_rows() -> None:
    data = [make_data(seed) for seed in range(3)]
    # a tanh of it is finite, its gradient is not
    data[2].train._kept("faint")[11, 0] = float("inf")

    with pytest.raises(NonFinite) as caught:
        fit_many([supervised(own, 0) for own in data], data, FitSettings(**{**SGD, "batch_size": 1000}))

    text = str(caught.value)
    assert "The loss term task of model 2 became non-finite in epoch 2, step 1 (task = nan)" in text
    assert "faint is not finite in training rows 11." in text


def test_a_step_of_many_that_is_not_finite_is_the_one_named() -> None:
    data = make_data()

    with pytest.raises(NonFinite, match=r"kd of model 0 .* in epoch \d+, step \d .* the batch held training rows"):
        fit_many([kd(data, 0, losses=("mse",))], data, FitSettings(**{**SGD, "learning_rate": 1e9, "epochs": 30}))


def test_wrong_numbers_of_things_are_told_together() -> None:
    data = make_data()
    methods = [supervised(data, 0), supervised(data, 1)]

    with pytest.raises(InputError) as caught:
        fit_many(methods, [data], FitSettings(**SGD), seeds=[1, 2, 3], score=False)

    assert len(caught.value.problems) == 3
    assert "2 methods were given and 1 data" in str(caught.value) and "3 seeds" in str(caught.value)
    assert "'last' was expected" in str(caught.value)


def test_no_methods_make_no_runs() -> None:
    assert fit_many([], [], FitSettings()) == []


def test_nothing_to_train_and_nothing_learned_are_the_sentences_of_fit() -> None:
    data = make_data()
    frozen = supervised(data, 0)
    frozen.requires_grad_(False)

    with pytest.raises(InputError, match="nothing to train"):
        fit_many([frozen], data, FitSettings(**SGD))
    with pytest.raises(InputError, match="nothing would be learned"):
        fit_many([supervised(data, 0)], data, FitSettings(**{**SGD, "accumulate": 99, "remainder": "drop"}))


def test_progress_is_told_for_the_stack() -> None:
    output, data = io.StringIO(), make_data()

    fit_many(
        [supervised(data, 0), supervised(data, 1)],
        data,
        FitSettings(**WHOLE),
        progress=Progress(stream=output),
        title="students",
    )

    assert "students, 2 models at once: epoch 4/4  loss " in output.getvalue()
    assert "faint: accuracy 0." in output.getvalue()


@pytest.fixture
def watched() -> Iterator[None]:
    """The handlers of the command line, for the time of a test."""
    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    interrupt.install()
    yield
    interrupt._watch.received = 0
    for number, handler in before.items():
        signal.signal(number, handler)


class Stopping(Progress):
    """Sends a signal in the second epoch."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        super().epoch(row)
        if row["epoch"] == 1:
            signal.raise_signal(signal.SIGTERM)
        assert row["epoch"] < 2, "the epoch is finished, and no other begun"


@pytest.mark.usefixtures("watched")
def test_a_signal_stops_after_the_epoch() -> None:
    data = make_data()

    with pytest.raises(Interrupted):
        fit_many([supervised(data, 0)], data, FitSettings(**WHOLE), progress=Stopping(stream=io.StringIO()))
