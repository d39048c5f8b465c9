"""Weights, metrics and callbacks with several processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "weighted_distillation.py"


@pytest.mark.slow
@pytest.mark.processes
def test_two_processes_tell_once_and_the_same_as_one():
    told = []
    for processes in (1, 2):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(processes)], capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told.append([json.loads(line) for line in done.stdout.splitlines()])

    (*one, one_end), (*two, two_end) = told
    assert [row[:2] for row in one] == [row[:2] for row in two] and len(one) == 8
    assert [row[2] for row in two] == pytest.approx([row[2] for row in one], rel=1e-6)
    assert one_end == two_end
    assert all(hits == pytest.approx(accuracy) for _, hits, accuracy in two_end)
