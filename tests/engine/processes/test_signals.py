"""SIGTERM and Ctrl-C finish the step, save, say how to go on; going on ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

COMMAND = [
    *("distill", "digits", "--teacher", "rows", "--student", "fourier", "--no-shuffled", "--threads", "1"),
    *("--epochs", "15", "--batch-size", "8", "--train-fraction", "0.5", "--accelerator", "cpu"),
]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "xmodal.cli.main", *COMMAND, "--out", str(out), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=out.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_training(out: Path, process: subprocess.Popen[str], run: str) -> None:
    """Until the history of this run has a row."""
    history = out / "seed-0" / run / "history.jsonl"
    limit = time.monotonic() + 600
    while not history.exists() or not history.read_text():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.01)


def rows_of(out: Path) -> list[dict[str, Any]]:
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return [{key: row[key] for key in ("name", "best_epoch", "valid", "test")} for row in result["rows"]]


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("unharmed") / "run"
    process = start(out)
    _, stderr = process.communicate(timeout=900)
    assert process.returncode == 0, stderr
    return rows_of(out)


@pytest.mark.parametrize(
    ("number", "run"),
    [
        pytest.param(signal.SIGTERM, "kd", id="SIGTERM in the student"),
        pytest.param(signal.SIGINT, "teacher", id="SIGINT in the teacher", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_command_says_how_to_go_on_and_ends_the_same(
    number: signal.Signals, run: str, unharmed: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(out)
    wait_for_training(out, process, run)

    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)

    assert process.returncode == 128 + number
    last = stderr.strip().splitlines()[-1]
    assert "the state is saved" in last and "Traceback" not in stderr
    assert (out / "seed-0" / run / "checkpoints").is_dir()

    words = shlex.split(last.partition("Continue with: ")[2])
    again = subprocess.run(
        [sys.executable, "-m", "xmodal.cli.main", *words[1:]],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert again.returncode == 0, again.stderr
    assert rows_of(out) == unharmed


@pytest.mark.slow
def test_both_processes_stop_at_the_same_step_and_go_on(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    short = ("--devices", "2", "--epochs", "4")
    process = start(whole, *short)
    assert process.wait(timeout=900) == 0, process.communicate()[1]
    process.communicate()

    process = start(cut, *short)
    wait_for_training(cut, process, "kd")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 143, stderr

    again = start(cut, *short, "--resume")
    _, stderr = again.communicate(timeout=900)
    assert again.returncode == 0, stderr
    assert rows_of(cut) == rows_of(whole)
