"""Which weights a student ends with: `keep`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import pictures, vector_student
from pydantic import ValidationError
from safetensors.torch import load_file

from xmodal.engine.fit import Run, fit
from xmodal.engine.loop import resolved
from xmodal.engine.selection import Selection
from xmodal.engine.settings import FitSettings
from xmodal.methods.supervised import Supervised


def train(keep: str, *, folder: Path | None = None, **more: Any) -> Run:
    data = pictures()
    settings = {"epochs": 8, "batch_size": 16, "learning_rate": 0.3, **more}
    return fit(Supervised(vector_student(), data.info), data, FitSettings(keep=keep, **settings), folder=folder)


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_best_epoch_is_kept_unless_told_otherwise() -> None:
    assert FitSettings().keep == "auto"
    assert resolved(FitSettings(), pictures().info, 1).keep == "best"
    with pytest.raises(ValidationError, match="best"):
        FitSettings(keep="first")  # type: ignore[arg-type]


def test_best_and_last_are_the_same_training() -> None:
    best, last = train("best"), train("last")

    assert best.best["vector"]["epoch"] < 7, "else this test sees nothing"
    assert same(best.method.state_dict(), last.method.state_dict())
    assert [row["valid"] for row in best.history] == [row["valid"] for row in last.history]


def test_last_keeps_the_weights_after_the_last_epoch_and_says_so() -> None:
    run = train("last")
    student, network = run.students["vector"].module, run.method.network

    assert isinstance(network, torch.nn.Module)
    assert same(student.state_dict(), network.state_dict())
    assert student is not network and not student.training
    assert run.best["vector"]["epoch"] == 7
    assert run.best["vector"]["valid"] == run.history[-1]["valid"]["vector"]
    assert run.best["vector"]["score"] == run.history[-1]["valid"]["vector"]["accuracy"]


def test_the_run_folder_holds_the_last_weights_too(tmp_path: Path) -> None:
    run = train("last", folder=tmp_path / "run")

    state = run.students["vector"].module.state_dict()
    assert same(load_file(tmp_path / "run" / "best" / "vector.safetensors"), state)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["students"]["vector"]["best_epoch"] == 7


def test_a_finished_run_is_read_back_with_its_last_weights(tmp_path: Path) -> None:
    data, settings = pictures(), FitSettings(keep="last", epochs=3, batch_size=16, learning_rate=0.3)
    first = fit(Supervised(vector_student(), data.info), data, settings, folder=tmp_path / "run")

    again = fit(Supervised(vector_student(), data.info), data, settings, folder=tmp_path / "run", resume=True)

    assert same(again.students["vector"].module.state_dict(), first.students["vector"].module.state_dict())
    assert again.best == first.best


def test_patience_still_counts_epochs_without_a_better_one() -> None:
    best, last = (train(keep, epochs=200, patience=3) for keep in ("best", "last"))

    assert len(best.history) == len(last.history) < 200
    assert last.best["vector"]["epoch"] == best.best["vector"]["epoch"] + 3


@pytest.mark.parametrize(("lead", "waited", "loss"), [("", [0, 0, 0], -0.7), ("slow", [0, 1, 2], -0.5)])
def test_the_lead_alone_tells_how_long_nothing_got_better(lead: str, waited: list[int], loss: float) -> None:
    students = {name: vector_student() for name in ("fast", "slow")}
    selection, counts = Selection("accuracy", "max", lead=lead), []

    for epoch, fast in enumerate((0.7, 0.8, 0.9)):
        scores = {"fast": {"accuracy": fast}, "slow": {"accuracy": 0.5}}
        selection.update(epoch, scores, students)
        counts.append(selection.waited)

    assert counts == waited and selection.loss(scores) == pytest.approx(loss)
    assert [selection.best[name]["epoch"] for name in students] == [2, 0]  # each keeps its own best epoch all the same
