"""Two processes, one of which is killed: the other ends, a sentence tells how to go on, and going on ends the same."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
from rank_death import TORCHRUN, end_early, finished, kill_rank, left_of, start, trained

pytestmark = pytest.mark.processes

# 179 rows in batches of 15: 8 and 7 for the two processes, and 7 and 7 in the last one; the network normalises by the
# statistics of its batches. One training alone: starting takes longer than that.
WORDS = [
    *("run", "digits-kd", "--seeds", "1", "--methods", "supervised", "--no-shuffled"),
    *("--epochs", "12", "--batch-size", "15", "--schedule", "cosine", "--warmup", "2", "--save-every", "10"),
    *("--accelerator", "cpu"),
]
TWO = [*WORDS, "--devices", "2"]
HISTORY = Path("run", "seed-0", "no-KD", "history.jsonl")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return trained(finished([*TWO, "--out", "run"], tmp_path_factory.mktemp("unbroken")))


def killed_and_resumed(order: tuple[int, ...], here: Path, *more: str) -> list[dict[str, Any]]:
    """What a run has trained whose ranks were killed one after the other."""
    words, resume = [*TWO, *more, "--out", "run", "--json"], ["--resume"]
    for number, rank in enumerate(order):
        process = start([*words, *resume[: number > 0]], here)

        said, complained, ranks = kill_rank(process, rank, here / HISTORY, rows=2 + 3 * number)

        assert process.returncode == 137
        sentence = complained.strip().splitlines()[-1]
        assert f"rank {rank} (pid {ranks[rank]}) was killed by signal 9 (SIGKILL)" in sentence
        assert "run holds 0 finished trainings and the checkpoint seed-0/no-KD/checkpoints/step-" in sentence
        assert json.loads(said) == {"schema": 1, "status": 137, "errors": [sentence.removeprefix("xmodal: ")]}
        assert not list(here.glob("xmodal-error-*")) and left_of(ranks) == []
        assert shlex.split(sentence.partition("Continue with: ")[2]) == ["xmodal", *words, *resume]
    return trained(finished([*words, *resume], here))


def test_a_run_whose_first_rank_is_killed_ends_after_all_as_if_nothing_had_happened(
    unbroken: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert killed_and_resumed((0,), tmp_path) == unbroken


@pytest.mark.slow
def test_so_does_one_whose_ranks_are_killed_one_after_the_other(unbroken: list[dict[str, Any]], tmp_path: Path) -> None:
    assert killed_and_resumed((1, 0, 1), tmp_path, "--workers", "2") == unbroken


@pytest.mark.slow
def test_accumulation_half_precision_and_answers_on_disk_survive_it_too(tmp_path: Path) -> None:
    words = [word for word in TWO if word not in ("--methods", "supervised")]
    words += ["--accumulate", "3", "--precision", "bf16", "--cache", "disk", "--out", "run"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    process = start(words, broken)
    _, complained, ranks = kill_rank(process, 0, broken / "run" / "seed-0" / "kd" / "history.jsonl", rows=2)
    assert process.returncode == 137 and left_of(ranks) == [], complained
    (written,) = (broken / "run" / "seed-0" / "answers").glob("*/0.npy")
    before = written.stat().st_mtime_ns

    again = finished([*words, "--resume"], broken)

    assert written.stat().st_mtime_ns == before, "the answers were there"
    assert trained(again) == trained(finished(words, whole))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_under_torchrun_the_survivor_tells_how_to_go_on(
    rank: int, unbroken: list[dict[str, Any]], tmp_path: Path
) -> None:
    process = start([*TWO, "--out", "run", "--workers", "1"], tmp_path, command=TORCHRUN)

    _, complained, ranks = kill_rank(process, rank, tmp_path / HISTORY, rows=2)

    assert "xmodal: " in complained, complained
    (sentence,) = [line for line in complained.splitlines() if line.startswith("xmodal: ")]
    assert f"rank {rank} (pid {ranks[rank]}) died" in sentence and "under the same launcher" in sentence
    assert process.returncode == 1 and not list(tmp_path.glob("xmodal-error-*"))
    assert trained(finished([*TWO, "--out", "run", "--resume"], tmp_path)) == unbroken


@pytest.mark.slow
def test_interrupted_under_torchrun_both_save_with_loading_processes_too(
    unbroken: list[dict[str, Any]], tmp_path: Path
) -> None:
    process = start([*TWO, "--out", "run", "--workers", "1"], tmp_path, command=TORCHRUN)

    _, complained, ranks = end_early(process, None, signal.SIGTERM, tmp_path / HISTORY, rows=2)

    (sentence,) = [line for line in complained.splitlines() if line.startswith("xmodal: ")]
    assert "the state is saved" in sentence and left_of(ranks) == []
    assert trained(finished([*TWO, "--out", "run", "--resume"], tmp_path)) == unbroken


@pytest.mark.slow
def test_tasks_of_slurm_find_one_another(unbroken: list[dict[str, Any]], tmp_path: Path) -> None:
    job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    job |= {"SLURM_JOB_ID": "14321", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1"}
    tasks = [
        start([*WORDS, "--out", "run", "--json"], tmp_path, **job, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
        for rank in (0, 1)
    ]

    told = [task.communicate(timeout=900) for task in tasks]

    assert [task.returncode for task in tasks] == [0, 0], told
    assert trained(json.loads(told[0][0])) == unbroken and told[1][0] == ""
