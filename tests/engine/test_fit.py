from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import image_student, pictures, vector_student
from safetensors.torch import load_file
from torch import Tensor, nn

from xmodal.data.base import assemble
from xmodal.engine.fit import Run, fit
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError, NonFinite
from xmodal.method import Method
from xmodal.methods.kd import KD
from xmodal.methods.supervised import Supervised
from xmodal.types import Batch, Step, Student


def weights(run: Run) -> dict[str, Tensor]:
    (student,) = run.students.values()
    return student.module.state_dict()


def supervised(settings: FitSettings, *, seed: int = 0, folder: Path | None = None, **more: Any) -> Run:
    data = pictures()
    return fit(Supervised(vector_student(), data.info), data, settings, seed=seed, folder=folder, **more)


def assert_equal_weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor], *, atol: float = 0.0) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=atol)


class Plain(nn.Module):
    """Without BatchNorm, so that batches can be cut and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        out: Tensor = self.layer(inputs["vector"])
        return out


def plain_student() -> Student:
    torch.manual_seed(0)
    return Student(Plain(), ("vector",), "vector")


def test_same_seed_same_bits_and_another_seed_others() -> None:
    settings = FitSettings(epochs=3, batch_size=16)

    first, again, other = (supervised(settings, seed=seed) for seed in (0, 0, 1))

    assert_equal_weights(weights(first), weights(again))
    assert any(not torch.equal(weights(first)[name], weights(other)[name]) for name in weights(first))


def test_fit_equals_a_loop_written_out() -> None:
    data = pictures()
    run = fit(
        Supervised(plain_student(), data.info),
        data,
        FitSettings(epochs=2, batch_size=200, optimizer="sgd", learning_rate=0.1, momentum=0.5),
    )

    network = Plain()
    network.load_state_dict(plain_student().module.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.5)
    x = torch.from_numpy(np.asarray(data.train.columns["vector"][data.train.numbers["vector"]]))
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network({"vector": x}), data.train.targets["vector"]).backward()
        optimizer.step()

    assert_equal_weights(network.state_dict(), run.method.network.state_dict(), atol=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize(("mode", "rate"), [("mean", 0.2), ("sum", 0.1)])
def test_accumulated_batches_equal_one_large_batch(mode: str, rate: float) -> None:
    """Two halves of 65 rows, each row used once: mean of means, or twice the mean for ``sum``."""
    data = pictures(rows=130)
    shared: dict[str, Any] = {"epochs": 2, "optimizer": "sgd"}
    whole = FitSettings(batch_size=130, learning_rate=0.2, **shared)
    parts = FitSettings(batch_size=65, accumulate=2, accumulate_mode=mode, learning_rate=rate, **shared)

    runs = [fit(Supervised(plain_student(), data.info), data, settings) for settings in (whole, parts)]

    assert_equal_weights(weights(runs[0]), weights(runs[1]), atol=1e-6)


@pytest.mark.parametrize(("rows", "batch", "every"), [(131, 30, 3), (131, 26, 5), (100, 40, 3)])
def test_batches_of_unlike_sizes_count_by_their_rows(rows: int, batch: int, every: int) -> None:
    """30+30+30 and 30+11; 4 times 26 and 27, the odd row joining the last batch; 40+40+20."""
    data = pictures(rows=rows)
    shared: dict[str, Any] = {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.2}
    whole = FitSettings(batch_size=batch * every, **shared)
    parts = FitSettings(batch_size=batch, accumulate=every, **shared)

    runs = [fit(Supervised(plain_student(), data.info), data, settings) for settings in (whole, parts)]

    assert runs[0].history[-1]["steps"] < runs[1].history[-1]["steps"]
    assert_equal_weights(weights(runs[0]), weights(runs[1]), atol=1e-6)


def test_a_dropped_remainder_changes_nothing_after_the_last_whole_update() -> None:
    data = pictures(rows=130)
    shared: dict[str, Any] = {"epochs": 1, "optimizer": "sgd", "batch_size": 50, "learning_rate": 0.1}

    dropped = fit(Supervised(plain_student(), data.info), data, FitSettings(accumulate=2, remainder="drop", **shared))
    flushed = fit(Supervised(plain_student(), data.info), data, FitSettings(accumulate=2, **shared))

    assert dropped.history[0]["steps"] == flushed.history[0]["steps"] == 3
    assert not torch.equal(weights(dropped)["layer.weight"], weights(flushed)["layer.weight"])
    with pytest.raises(InputError, match="nothing would be learned"):
        fit(Supervised(plain_student(), data.info), data, FitSettings(accumulate=4, remainder="drop", **shared))


def test_each_student_keeps_its_best_epoch_on_the_validation_split() -> None:
    run = supervised(FitSettings(epochs=8, batch_size=16, learning_rate=0.5))
    scores = [row["valid"]["vector"]["accuracy"] for row in run.history]

    assert run.best["vector"]["score"] == max(scores)
    assert run.best["vector"]["epoch"] == scores.index(max(scores)), "of equal epochs the first one"


def test_patience_stops_after_that_many_epochs_without_a_better_one() -> None:
    run = supervised(FitSettings(epochs=200, batch_size=64, patience=3, learning_rate=0.05))

    assert len(run.history) == run.best["vector"]["epoch"] + 1 + 3 < 200


def test_every_term_of_every_epoch_is_in_the_history(tmp_path: Path) -> None:
    data = pictures()
    method = KD(image_student(), vector_student().module, data.info)
    run = fit(method, data, FitSettings(epochs=2, batch_size=32), folder=tmp_path / "run")

    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert rows == run.history
    assert [sorted(row["losses"]) for row in rows] == [["kd", "task"]] * 2
    assert rows[0]["loss"] == pytest.approx(sum(rows[0]["losses"].values()))


def test_the_run_folder_holds_what_is_promised(tmp_path: Path) -> None:
    supervised(FitSettings(epochs=1, save_every=1), folder=tmp_path / "run")

    names = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {
        "settings.json",
        "environment.json",
        "history.jsonl",
        "result.json",
        "best/vector.safetensors",
        "students/vector/student.safetensors",
    } <= names
    assert any(name.startswith("checkpoints/step-") for name in names)


def test_a_folder_is_never_written_over(tmp_path: Path) -> None:
    settings = FitSettings(epochs=1)
    supervised(settings, folder=tmp_path / "run")

    with pytest.raises(InputError, match="Add --resume"):
        supervised(settings, folder=tmp_path / "run")
    with pytest.raises(InputError, match=r"fit\.epochs was 1 and is now 2"):
        supervised(FitSettings(epochs=2), folder=tmp_path / "run", resume=True)


def test_a_finished_run_is_read_back_and_not_trained_again(tmp_path: Path) -> None:
    settings = FitSettings(epochs=3, batch_size=32)
    first = supervised(settings, folder=tmp_path / "run")
    stamp = (tmp_path / "run" / "result.json").stat().st_mtime_ns

    again = supervised(settings, folder=tmp_path / "run", resume=True)

    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == stamp
    assert_equal_weights(weights(first), weights(again))
    assert again.history == first.history and again.best == first.best


def test_the_cached_teacher_equals_the_one_asked_online() -> None:
    data = pictures()
    settings = FitSettings(epochs=3, batch_size=16, optimizer="sgd", learning_rate=0.1)  # Adam magnifies rounding
    runs = [
        fit(
            KD(image_student(), vector_student().module, data.info),
            data,
            settings.model_copy(update={"cache": cache}),
        )
        for cache in ("on", "off", "on")
    ]

    assert_equal_weights(weights(runs[0]), weights(runs[1]), atol=1e-5)
    assert_equal_weights(weights(runs[0]), weights(runs[2]))


def test_the_cache_is_refused_where_the_teacher_sees_augmented_samples() -> None:
    data = pictures(augment="noise:0.1")
    method = KD(image_student(), vector_student().module, data.info)

    with pytest.raises(InputError, match="augmented samples"):
        fit(method, data, FitSettings(epochs=1, cache="on"))


def test_the_shuffled_control_needs_a_teacher() -> None:
    with pytest.raises(InputError, match="has none"):
        supervised(FitSettings(epochs=1), exchange_teacher="class")


class Broken(Supervised):
    """A method whose second term fails in the third step."""

    def __init__(self, student: Student, info: Any) -> None:
        super().__init__(student, info)
        self.steps = 0

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        step = super().training_step(batch, teacher_outputs)
        self.steps += 1
        step.losses["odd"] = step.losses["task"] * (float("nan") if self.steps == 3 else 0.0)
        return step


def test_a_non_finite_term_stops_the_run_with_its_name_epoch_step_and_rows() -> None:
    data = pictures()

    with pytest.raises(NonFinite) as caught:
        fit(Broken(vector_student(), data.info), data, FitSettings(epochs=2, batch_size=50))

    text = str(caught.value)
    assert "loss term odd became non-finite in epoch 1, step 3" in text
    assert "training rows" in text


class BreaksLater(Supervised):
    """Good for an epoch, and broken from the second on."""

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        self.factor = math.inf if epoch else 1.0

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        step = super().training_step(batch, teacher_outputs)
        return Step({"task": step.losses["task"] * self.factor}, step.counts)


def test_what_was_best_is_kept_when_the_numbers_fail(tmp_path: Path) -> None:
    data, one = pictures(), FitSettings(epochs=1, batch_size=50)
    with pytest.raises(NonFinite, match="in epoch 2"):
        fit(
            BreaksLater(vector_student(), data.info),
            data,
            FitSettings(epochs=3, batch_size=50),
            folder=tmp_path / "run",
        )

    good = fit(Supervised(vector_student(), data.info), data, one)

    saved = load_file(tmp_path / "run" / "best" / "vector.safetensors")
    assert_equal_weights(saved, weights(good))
    assert (tmp_path / "run" / "students" / "vector" / "student.safetensors").is_file()
    assert not (tmp_path / "run" / "result.json").exists()  # it is no finished run


def test_a_non_finite_sample_is_named() -> None:
    data = pictures()
    array = np.array(data.train.columns["vector"][:])
    array[17] = np.nan
    names = ("vector",)
    rows = {split: dict.fromkeys(names, np.arange(131)) for split in ("train", "valid", "test")}
    bad = assemble({"vector": array}, {"vector": data.train.targets["vector"].numpy()}, rows)

    with pytest.raises(NonFinite, match=r"vector is not finite in training rows 17\."):
        fit(Supervised(vector_student(), bad.info), bad, FitSettings(epochs=1))


class Nothing(Method):
    """A method that has nothing to train."""

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        return Step({})

    def students(self) -> dict[str, Student]:
        return {}


def test_a_method_without_parameters_is_one_sentence() -> None:
    with pytest.raises(InputError, match="nothing to train"):
        fit(Nothing(), pictures(), FitSettings(epochs=1))


class TwoRates(Supervised):
    """The layer's bias goes its own way."""

    def param_groups(self) -> list[dict[str, Any]]:
        (weight, bias) = self.network.parameters()
        return [{"params": [weight]}, {"params": [bias], "optimizer": "sgd", "lr": 1e-12}]


def test_a_group_may_name_its_own_optimiser_and_rate() -> None:
    data = pictures()
    run = fit(TwoRates(plain_student(), data.info), data, FitSettings(epochs=2, optimizer="adam", learning_rate=0.1))
    before = plain_student().module.state_dict()

    torch.testing.assert_close(weights(run)["layer.bias"], before["layer.bias"], rtol=0, atol=1e-7)
    assert (weights(run)["layer.weight"] - before["layer.weight"]).abs().max() > 0.05
    assert run.history[0]["lr"] == [0.1, 1e-12]


@pytest.mark.parametrize("clip_at", ["step", "backward"])
def test_clipping_bounds_the_update(clip_at: str) -> None:
    data = pictures()
    settings = FitSettings(
        epochs=1, batch_size=200, optimizer="sgd", learning_rate=1.0, clip=1e-3, clip_at=clip_at, clip_mode="norm"
    )
    run = fit(Supervised(plain_student(), data.info), data, settings)
    before = plain_student().module.state_dict()

    moved = sum((weights(run)[name] - before[name]).square().sum() for name in before)
    assert float(moved) ** 0.5 == pytest.approx(1e-3, rel=1e-3)


def test_bf16_trains_and_predicts() -> None:
    run = supervised(FitSettings(epochs=5, batch_size=16, precision="bf16-mixed", learning_rate=0.01))

    assert run.best["vector"]["score"] > 0.8
    assert all(tensor.dtype == torch.float32 for tensor in weights(run).values() if tensor.is_floating_point())
