"""Two processes, one of which is killed: the other ends, a sentence tells how to go on, and going on ends the same."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rank_death import TORCHRUN, finished, kill_rank, left_of, start, trained

# 179 rows in batches of 15: 8 and 7 for the two processes, and 7 and 7 in the last one; the networks normalise by the
# statistics of their batches
WORDS = [
    *("run", "digits-kd", "--seeds", "1", "--no-shuffled", "--epochs", "24", "--batch-size", "15"),
    *("--schedule", "cosine", "--warmup", "2", "--save-every", "5", "--accelerator", "cpu", "--devices", "2"),
]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return trained(finished([*WORDS, "--out", "run"], tmp_path_factory.mktemp("unbroken")))


def test_a_run_whose_ranks_are_killed_one_after_the_other_ends_as_if_nothing_had_happened(
    unbroken: list[dict[str, Any]], tmp_path: Path
) -> None:
    history = tmp_path / "run" / "seed-0" / "kd" / "history.jsonl"
    words = [*WORDS, "--out", "run", "--json"]
    for rank, rows in ((1, 2), (0, 6)):
        process = start(words, tmp_path)

        said, complained, ranks = kill_rank(process, rank, history, rows=rows)

        assert process.returncode == 137
        sentence = complained.strip().splitlines()[-1]
        assert f"rank {rank} (pid {ranks[rank]}) was killed by signal 9 (SIGKILL)" in sentence
        assert "run holds 2 finished trainings and the checkpoint seed-0/kd/checkpoints/step-" in sentence
        assert json.loads(said) == {"schema": 1, "status": 137, "errors": [sentence.removeprefix("xmodal: ")]}
        assert "Traceback" not in complained and not list(tmp_path.glob("xmodal-error-*"))
        assert left_of(ranks) == []
        words = shlex.split(sentence.partition("Go on with: ")[2])[1:]

    assert words == [*WORDS, "--out", "run", "--json", "--resume"]
    assert trained(finished(words[: words.index("--json")] + ["--resume"], tmp_path)) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_under_torchrun_the_survivor_tells_how_to_go_on(
    rank: int, unbroken: list[dict[str, Any]], tmp_path: Path
) -> None:
    history = tmp_path / "run" / "seed-0" / "kd" / "history.jsonl"
    process = start([*WORDS, "--out", "run", "--workers", "1"], tmp_path, command=TORCHRUN)

    _, complained, ranks = kill_rank(process, rank, history, rows=2)

    (sentence,) = [line for line in complained.splitlines() if line.startswith("xmodal: ")]
    assert f"rank {rank} (pid {ranks[rank]}) died" in sentence and "under the same launcher" in sentence
    assert process.returncode == 1 and not list(tmp_path.glob("xmodal-error-*"))
    assert trained(finished([*WORDS, "--out", "run", "--resume"], tmp_path)) == unbroken
