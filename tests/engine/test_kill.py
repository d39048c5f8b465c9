"""A run killed at any moment and resumed ends with the bits of a run that was never killed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xmodal import files

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent


class Server:
    """Starts attempts in processes of their own, and kills them."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "kill_server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, folder: Path, *, resume: bool = False, kill_at: int = 0) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{folder} {int(resume)} {kill_at}\n")
        self.process.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=300)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def unharmed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """Digest and duration of the run that nobody kills."""
    folder = tmp_path_factory.mktemp("unharmed") / "run"
    server.start(folder)
    began = time.monotonic()
    assert server.end() == 0
    return read_digest(folder), time.monotonic() - began


def read_digest(folder: Path) -> str:
    digest: str = files.read_json(folder / "digest.json")["digest"]
    return digest


def kill_after(server: Server, folder: Path, delay: float, *, resume: bool) -> None:
    """Kill an attempt after some seconds; one that was faster is taken back and killed earlier."""
    before = folder.with_name("before")
    while True:
        if folder.exists():
            shutil.copytree(folder, before)
        child = server.start(folder, resume=resume)
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        ended = server.end()
        if ended == -signal.SIGKILL:
            shutil.rmtree(before, ignore_errors=True)
            return
        assert ended == 0
        shutil.rmtree(folder)
        if before.exists():
            before.rename(folder)
        delay *= 0.7


def survives(server: Server, folder: Path, *, delays: list[float], kill_at: list[int]) -> str:
    """Kill one attempt after another, first inside checkpoints, then at moments; let the last one finish."""
    resume = False
    for number in kill_at:
        server.start(folder, resume=resume, kill_at=number)
        assert server.end() == -signal.SIGKILL, "the process was to die inside the writing of a checkpoint"
        resume = True
    for delay in delays:
        kill_after(server, folder, delay, resume=resume)
        resume = True
    server.start(folder, resume=resume)
    assert server.end() == 0
    return read_digest(folder)


def test_three_kills_one_of_them_inside_a_checkpoint_change_no_bit(
    server: Server, unharmed: tuple[str, float], tmp_path: Path
) -> None:
    digest, seconds = unharmed

    resumed = survives(server, tmp_path / "run", delays=[0.45 * seconds, 0.3 * seconds], kill_at=[7])

    assert resumed == digest
    assert not list((tmp_path / "run").rglob(".*part*")), "half-written files were left behind"


def test_a_damaged_newest_checkpoint_costs_steps_and_not_the_run(
    server: Server, unharmed: tuple[str, float], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    server.start(folder, kill_at=18)
    assert server.end() == -signal.SIGKILL
    older, newest = sorted((folder / "checkpoints").glob("step-*"))
    tensors = newest / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"?")

    server.start(folder, resume=True)

    assert server.end() == 0
    assert read_digest(folder) == unharmed[0]


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_a_kill_at_any_moment_changes_no_bit(
    moment: int, server: Server, unharmed: tuple[str, float], tmp_path: Path
) -> None:
    digest, seconds = unharmed
    draw = random.Random(moment)
    inside = moment % 3 == 0

    resumed = survives(
        server,
        tmp_path / "run",
        delays=[] if inside else [draw.uniform(0.05, 0.95) * seconds],
        kill_at=[draw.randrange(1, 24)] if inside else [],
    )

    assert resumed == digest
