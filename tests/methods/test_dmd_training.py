"""DMD through the engine: two processes, a run that is killed and resumed, comparisons, the text encoder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dmd_processes import main, method_for, waves
from safetensors.numpy import load_file

from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.errors import InputError
from xmodal.methods.dmd import DMD, build_network
from xmodal.methods.settings import DMDSettings
from xmodal.study.bench import Bench
from xmodal.study.comparison import train
from xmodal.study.comparison_settings import ComparisonSettings
from xmodal.types import DataInfo, InputInfo

SMALL = {"width": 8, "heads": 2, "layers": 1, "kernel": (3,)}


@pytest.mark.processes
def test_two_processes_end_with_the_weights_and_the_history_of_one(tmp_path):
    script = Path(__file__).with_name("dmd_processes.py")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    main(tmp_path / "one", 1)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(tmp_path / "two"), "2"],
        env={**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]

    one, two = (load_file(tmp_path / folder / "last.safetensors") for folder in ("one", "two"))
    assert one.keys() == two.keys() and any(name.endswith("errors") for name in one)  # the running means of auto too
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=2e-6, err_msg=name)
    mine, theirs = (json.loads((tmp_path / folder / "history.json").read_text()) for folder in ("one", "two"))
    for row, other in zip(mine["history"], theirs["history"], strict=True):
        assert other["losses"] == pytest.approx(row["losses"], abs=1e-5)
        assert other["logs"] == pytest.approx(row["logs"], abs=1e-5)


class Killed(Exception):
    """What ends a run without a word."""


class Mortal(DMD):
    """DMD that dies in a certain step."""

    steps_left = 10**9

    def training_step(self, batch, teacher_outputs):
        self.steps_left -= 1
        if self.steps_left < 0:
            raise Killed
        return super().training_step(batch, teacher_outputs)


def noisy_method(data, steps_left=10**9):
    torch.manual_seed(0)
    settings = DMDSettings(**SMALL, attention_dropout=(0.3,), embed_dropout=0.2, output_dropout=0.5)
    method = Mortal(build_network(data.info, data.info.modalities, settings), data.info, homo_prior="auto")
    method.steps_left = steps_left
    return method


def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path):
    data = waves()
    settings = FitSettings(epochs=4, batch_size=8, learning_rate=1e-3, accumulate=2, save_every=1, schedule="plateau")

    whole = fit(noisy_method(data), data, settings, seed=3, folder=tmp_path / "whole")
    with pytest.raises(Killed):
        fit(noisy_method(data, steps_left=11), data, settings, seed=3, folder=tmp_path / "killed")
    again = fit(noisy_method(data), data, settings, seed=3, folder=tmp_path / "killed", resume=True)

    assert whole.method.units["homo"].errors.any()
    state, other = whole.method.state_dict(), again.method.state_dict()
    assert all(torch.equal(other[name], value) for name, value in state.items())
    for row, resumed in zip(whole.history, again.history, strict=True):
        assert {**row, "seconds": 0} == {**resumed, "seconds": 0}


def test_early_stopping_looks_at_the_fused_model():
    method = method_for(waves())

    assert method.lead == "fused" and method.lead in method.students()


def test_a_comparison_trains_dmd_beside_other_methods_and_scores_the_deployed_modality():
    data = waves()
    settings = ComparisonSettings(
        methods=("supervised", "dmd"),
        student=("audio",),
        epochs=2,
        batch_size=16,
        threads=1,
        options={"dmd": {**SMALL, "orthogonality": "flat"}},
    )

    comparison = settings.comparison()
    bench = Bench(data, comparison.plan, seed=0, fabric=launch(settings.machine()))
    notes = train(bench, comparison)
    rows = {row["name"]: row for row in bench.score()}

    assert rows["dmd"]["needs"] == ["audio"] and rows["dmd"]["student"] == "audio" and not notes
    assert np.isfinite(rows["dmd"]["test"]["mae"])
    assert set(bench.runs["dmd"].students) == {"text", "vision", "audio", "fused"}
    start = bench.runs["dmd"].method.report()["edges"]["hetero"]["start"]
    assert sum(start["mean"]) == pytest.approx(1.0, abs=1e-5)


def test_a_text_encoder_needs_tokens():
    inputs = {name: InputInfo((4, 6), layout="sequence") for name in ("text", "audio")}

    with pytest.raises(InputError, match=r"an input called MODALITY\.tokens, and this data has none"):
        build_network(DataInfo(inputs, "regression", 1, {}), ("text", "audio"), DMDSettings(text_encoder=Path("bert")))
