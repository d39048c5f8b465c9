"""The recipe on VGGSound in two processes: the table of one, and the same table after its ranks were killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xmodal.data.vggsound.synthetic import make

# large steps blow up what rounding changes, so 1 and 2 processes are compared in the preset's 64 bits
WORDS = [
    *("run", "vggsound", "--preset", "small", "--epochs", "5", "--batch-size", "15"),
    *("--teacher-width", "8", "--student-width", "8", "--remove", "least,none", "--ratio", "0.5"),
    *("--accelerator", "cpu", "--schedule", "step", "--schedule-every", "4", "--save-every", "2", "--json"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """48 clips to train with, of which some choose the epoch: batches and halves of batches come out uneven."""
    folder = tmp_path_factory.mktemp("vggsound") / "root"
    return make(folder, format="prepared", clips=12, test_clips=3, seconds=1, size=32)


def start(root, here, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "xmodal.cli.main", *WORDS, "--vggsound.root", str(root), "--out", "run", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=here,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(root, here, *more):
    process = start(root, here, *more)
    said, complained = process.communicate(timeout=1200)
    assert process.returncode == 0, complained
    return json.loads(said)


@pytest.fixture(scope="module")
def two(root, tmp_path_factory):
    return finished(root, tmp_path_factory.mktemp("two"), "--devices", "2")


def scores(result):
    """Name, epoch and every number of the rows."""
    return [(row["name"], row["best_epoch"], dict(row["valid"]), dict(row["test"])) for row in result["rows"]]


@pytest.mark.slow
def test_two_processes_end_with_the_table_of_one(root, two, tmp_path):
    one = finished(root, tmp_path)

    assert [row["name"] for row in one["rows"]] == [
        "teacher",
        "no-KD",
        "least 0.5",
        "least 0.5 (shuffled teacher)",
        "none",
    ]
    for mine, theirs in zip(scores(one), scores(two), strict=True):
        assert mine[:2] == theirs[:2]
        for first, second in zip(mine[2:], theirs[2:], strict=True):
            assert first.pop("cross_entropy") == pytest.approx(second.pop("cross_entropy"), abs=1e-6)
            assert first == second
    history = (tmp_path / "run/seed-0/teacher/history.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in history]
    assert losses[-1] < 0.95 * losses[0], "too little was learned to be compared"
    for mine, theirs in zip(one["ranking"]["seeds"], two["ranking"]["seeds"], strict=True):
        assert mine["value"] == pytest.approx(theirs["value"], abs=1e-6)


def rank_of(process, rank):
    """Process number of a rank (Linux)."""
    limit = time.monotonic() + 300
    while time.monotonic() < limit:
        for place in Path("/proc").glob("[0-9]*"):
            try:
                ours = int((place / "stat").read_text().rpartition(")")[2].split()[1]) == process.pid
                if ours and f"RANK={rank}".encode() in (place / "environ").read_bytes().split(b"\0"):
                    return int(place.name)
            except OSError:
                continue
        time.sleep(0.01)
    raise AssertionError(f"no rank {rank}")


@pytest.mark.slow
def test_a_run_whose_ranks_are_killed_ends_with_the_same_table(root, two, tmp_path):
    resume = []
    for rank, stage in ((1, "no-KD"), (0, "none")):
        process = start(root, tmp_path, "--devices", "2", *resume)
        number, begun = rank_of(process, rank), tmp_path / "run" / "seed-0" / stage / "checkpoints"
        limit = time.monotonic() + 1200
        while not list(begun.glob("step-*")):
            assert process.poll() is None and time.monotonic() < limit, process.communicate()[1]
            time.sleep(0.005)
        os.kill(number, signal.SIGKILL)
        _, complained = process.communicate(timeout=300)

        assert process.returncode == 137
        sentence = complained.strip().splitlines()[-1]
        assert f"rank {rank} (pid {number}) was killed by signal 9" in sentence
        assert f"checkpoint seed-0/{stage}/checkpoints/step-" in sentence and sentence.endswith("--resume")
        resume = ["--resume"]

    again = finished(root, tmp_path, "--devices", "2", "--resume")

    assert scores(again) == scores(two)
    assert again["ranking"] == two["ranking"]
