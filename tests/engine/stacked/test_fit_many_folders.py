"""A stack leaves in each run's folder what `fit` leaves there, and goes on from there as `fit` does."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xmodal.data.arrays import from_arrays
from xmodal.data.base import Data
from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.engine.run.result import Run
from xmodal.engine.settings import FitSettings
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.errors import InputError, NonFinite
from xmodal.files import read_json, read_rows
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_for
from xmodal.models.student_file import load_student
from xmodal.types import Batch, Step

SETTINGS = FitSettings(epochs=3, batch_size=16, optimizer="sgd", learning_rate=0.1)
SEEDS = [3, 5, 8]


def make_data() -> Data:
    random = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = random.normal(size=(90, 4)) + 2.0 * np.eye(4)[y]
    return from_arrays({"sensor": x}, y)


def supervised(data: Data, seed: int, kind: type[Supervised] = Supervised) -> Supervised:
    torch.manual_seed(seed)
    return kind(build_for(data.info, ("sensor",), encoder="mlp", width=6), data.info)


def train(data: Data, root: Path, **more: Any) -> list[Run]:
    folders = [root / f"seed-{seed}" for seed in SEEDS]
    return fit_many([supervised(data, seed) for seed in SEEDS], data, SETTINGS, seeds=SEEDS, folders=folders, **more)


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def bits(run: Run) -> list[Tensor]:
    (student,) = run.students.values()
    return [*student.module.state_dict().values(), *run.method.state_dict().values()]


def assert_same_bits(one: list[Run], other: list[Run]) -> None:
    for a, b in zip(one, other, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(bits(a), bits(b), strict=True))


def test_a_folder_holds_what_the_folder_of_one_training_holds(tmp_path: Path) -> None:
    data = make_data()

    runs = train(data, tmp_path / "many")
    alone = fit(supervised(data, 5), data, SETTINGS, seed=5, folder=tmp_path / "alone")

    assert runs[1].folder is not None and alone.folder is not None
    assert files_of(runs[1].folder) == files_of(alone.folder)
    assert read_json(runs[1].folder / "settings.json") == read_json(alone.folder / "settings.json")
    ours, theirs = (read_json(run.folder / "result.json") for run in (runs[1], alone))  # type: ignore[operator]
    assert ours.keys() == theirs.keys() and (ours["seed"], ours["epochs"]) == (5, 3)
    assert ours["students"]["sensor"]["best_epoch"] == theirs["students"]["sensor"]["best_epoch"]
    rows, expected = (read_rows(run.folder / "history.jsonl") for run in (runs[1], alone))  # type: ignore[operator]
    assert [list(row) for row in rows] == [list(row) for row in expected]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-4)


def test_a_student_from_a_folder_has_its_recorded_score(tmp_path: Path) -> None:
    data = make_data()

    for run in train(data, tmp_path):
        assert run.folder is not None
        student, _ = load_student(run.folder / "students" / "sensor")
        scores = evaluate({"sensor": student}, data.valid, data.info, fabric=launch())

        assert scores["sensor"]["accuracy"] == run.best["sensor"]["valid"]["accuracy"]


def test_finished_runs_are_read_back(tmp_path: Path) -> None:
    data, output = make_data(), io.StringIO()
    before = train(data, tmp_path)

    again = train(data, tmp_path, resume=True, progress=Progress(stream=output))

    assert "epoch" not in output.getvalue(), "nothing is trained"
    assert_same_bits(again, before)
    for one, other in zip(again, before, strict=True):
        assert (one.best, list(one.history)) == (other.best, list(other.history))


def test_a_stack_of_which_a_part_was_written_ends_with_the_same_bits(tmp_path: Path) -> None:
    """As after a kill between two folders, and within one."""
    data = make_data()
    before = train(data, tmp_path)
    (tmp_path / "seed-5" / "result.json").unlink()
    shutil.rmtree(tmp_path / "seed-8" / "students")
    (tmp_path / "seed-8" / "result.json").unlink()
    (tmp_path / "seed-8" / "history.jsonl").write_text('{"epoch": 0', encoding="utf-8")
    kept = (tmp_path / "seed-3" / "result.json").stat().st_mtime_ns

    again = train(data, tmp_path, resume=True)

    assert_same_bits(again, before)
    assert (tmp_path / "seed-3" / "result.json").stat().st_mtime_ns == kept, "what is there stays as it is"
    assert files_of(tmp_path / "seed-8") == files_of(tmp_path / "seed-3")
    assert_same_bits(train(data, tmp_path, resume=True), before)


def test_folders_in_use_and_other_settings_are_refused(tmp_path: Path) -> None:
    data = make_data()
    train(data, tmp_path)

    with pytest.raises(InputError, match="never writes over another"):
        train(data, tmp_path)
    with pytest.raises(InputError, match="seed was 3 and is now 4"):
        fit_many([supervised(data, 0)], data, SETTINGS, seeds=[4], folders=[tmp_path / f"seed-{SEEDS[0]}"], resume=True)


def test_what_does_not_fit_together_is_told_before_anything_is_written(tmp_path: Path) -> None:
    data = make_data()

    with pytest.raises(InputError) as caught:
        fit_many([supervised(data, 0)] * 2, data, SETTINGS, folders=[tmp_path / "a"], score=False)

    assert "2 methods were given and 1 folders" in str(caught.value)
    assert "leave the folders out" in str(caught.value)
    assert not (tmp_path / "a").exists()


class Stubborn(Supervised):
    """Promises nothing."""

    stackable = False


def test_what_is_trained_alone_has_a_folder_too(tmp_path: Path) -> None:
    data = make_data()

    def both() -> list[Run]:
        methods = [supervised(data, 0), supervised(data, 0, Stubborn)]
        folders = [tmp_path / "stack", tmp_path / "alone"]
        return fit_many(methods, data, SETTINGS, seeds=[0, 0], folders=folders, resume=True)

    stacked, alone = both()
    again = both()

    assert "not stackable" in alone.notes[0] and stacked.notes == []
    assert files_of(tmp_path / "stack") == files_of(tmp_path / "alone")
    assert_same_bits(again, [stacked, alone])


class Breaking(nn.Module):
    """Fine until its weight has grown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        out: Tensor = inputs["sensor"] @ self.weight
        return out


class Exploding(Supervised):
    """Its weight doubles in every step."""

    def training_step(self, batch: Batch, teacher_outputs: Mapping[str, Tensor]) -> Step:
        step = super().training_step(batch, teacher_outputs)
        (weight,) = self.network.parameters()
        return Step({**step.losses, "growth": -weight.square().square().sum()}, step.counts)


def test_numbers_that_fail_leave_the_best_weights_so_far(tmp_path: Path) -> None:
    data = make_data()

    def method(kind: type[Supervised]) -> Supervised:
        student = build_for(data.info, ("sensor",), encoder="mlp", width=6)
        student.module = Breaking()
        return kind(student, data.info)

    settings = SETTINGS.model_copy(update={"epochs": 60, "learning_rate": 1e-2})
    with pytest.raises(NonFinite, match="of model 0 became non-finite"):
        fit_many([method(Exploding)], data, settings, folders=[tmp_path / "run"])

    assert (tmp_path / "run" / "best" / "sensor.safetensors").is_file()
    assert not (tmp_path / "run" / "result.json").exists()
