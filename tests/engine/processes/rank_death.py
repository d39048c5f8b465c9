"""Runs of two processes that get killed: starting them, finding their ranks, seeing what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

XMODAL = [sys.executable, "-m", "xmodal.cli.main"]
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("-m", "xmodal.cli.main"),
]


def start(words: list[str], here: Path, *, command: list[str] = XMODAL, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=here,
        env={**os.environ, "OMP_NUM_THREADS": "1", **more},
    )


def finished(words: list[str], here: Path) -> Any:
    """The result of a command that nobody kills."""
    process = start([*words, "--json"], here)
    said, complained = process.communicate(timeout=900)
    assert process.returncode == 0, complained
    return json.loads(said)


def ranks_of(process: subprocess.Popen[str]) -> dict[int, int]:
    """Rank → process number of the children that a parent has started (Linux)."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            words = (place / "environ").read_bytes().split(b"\0") if parent == process.pid else []
        except OSError:  # it has ended meanwhile
            continue
        found.update({int(word[5:]): int(place.name) for word in words if word.startswith(b"RANK=")})
    return found


def left_of(ranks: dict[int, int]) -> list[str]:
    """Processes of these sessions that still live: ranks, and whoever loads data for them."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (place / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) in ranks.values() and state != "Z":
                found.append((place / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def kill_rank(
    process: subprocess.Popen[str], rank: int, history: Path, *, rows: int
) -> tuple[str, str, dict[int, int]]:
    """SIGKILL a rank as soon as ``history`` has so many rows; what the command printed, and who its ranks were."""
    return end_early(process, rank, signal.SIGKILL, history, rows=rows)


def end_early(
    process: subprocess.Popen[str], rank: int | None, number: signal.Signals, history: Path, *, rows: int
) -> tuple[str, str, dict[int, int]]:
    """A signal for a rank, or for what started them, as soon as ``history`` has so many rows."""
    limit, ranks = time.monotonic() + 900, {}
    while sorted(ranks) != [0, 1]:
        assert process.poll() is None, process.communicate()[1]
        ranks = ranks_of(process)
    while not history.exists() or history.read_text().count("\n") < rows:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.005)
    os.kill(process.pid if rank is None else ranks[rank], number)
    said, complained = process.communicate(timeout=300)
    return said, complained, ranks


def trained(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What was trained and how it scored."""
    return [{key: row[key] for key in ("name", "seed", "best_epoch", "valid", "test")} for row in result["rows"]]
