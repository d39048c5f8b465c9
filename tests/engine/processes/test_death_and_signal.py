"""Another rank is dead, and the launcher sends SIGTERM: whichever comes first, the survivor says who died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xmodal
from xmodal.engine.processes import spawn

pytestmark = pytest.mark.processes

# A rank whose peer is a process of ours; its command ends as `body` says. `lost` is what a collective raises.
RANK = """
import os, signal, socket, subprocess, sys, threading, time
from pathlib import Path
from xmodal.cli import main
from xmodal.engine.processes import interrupt, spawn

# it ends with us, however we end: reading from a pipe that closes, and holding none that the test reads
peer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
lost = RuntimeError("Connection reset by peer")

def kill():
    peer.kill()
    peer.wait()

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)

def worker_fails(number, frame):  # as torch's handler does
    raise RuntimeError("DataLoader worker is killed by signal: Terminated.")

def later(*events):
    def run():
        time.sleep(0.3)
        for event in events:
            event()
    threading.Thread(target=run).start()

def command(words):
    spawn.tell(Path("run"))
    spawn.remember([(socket.gethostname(), number) for number in (peer.pid, os.getpid())])
    with interrupt.saved_in(Path("run")):
        BODY

sys.modules["rank"] = sys.modules["__main__"]
main.COMMANDS["train"] = ("rank:command", "")
try:
    main.main(["train", "--json"])
finally:
    peer.kill()
    peer.wait()
"""
DEATHS = {
    "a collective fails": "kill(); raise lost",
    "a collective fails before the launcher has seen the death": "later(kill, terminate); raise lost",
    "the signal comes first": "kill(); terminate(); time.sleep(9)",
    "the signal waits for the step, which fails": """
        with interrupt.deferred():
            kill(); terminate()
            raise lost""",
    "the signal comes on the way out": """
        try:
            kill()
            raise lost
        finally:
            terminate()""",
    "a loading process ends too": """
        signal.signal(signal.SIGCHLD, worker_fails)
        later(kill, terminate)
        raise lost""",
    "a loading process ends first": """
        signal.signal(signal.SIGCHLD, worker_fails)
        later(kill, terminate)
        time.sleep(9)""",
}


def ended(body: str, here: Path) -> subprocess.CompletedProcess[str]:
    (here / "rank.py").write_text(RANK.replace("BODY", body))
    environment = {name: value for name, value in os.environ.items() if name not in (spawn.LINE, "RANK")}
    environment |= {"LOCAL_RANK": "1", "PYTHONPATH": str(Path(xmodal.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "rank.py"], cwd=here, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("order", DEATHS)
def test_the_survivor_says_who_died(order: str, tmp_path: Path) -> None:
    rank = ended(DEATHS[order], tmp_path)

    (sentence,) = rank.stderr.splitlines()
    assert sentence.startswith("xmodal: Of the 2 processes of this run, rank 0 (pid ") and "died" in sentence
    assert rank.returncode == 137
    assert json.loads(rank.stdout) == {"schema": 1, "status": 137, "errors": [sentence.removeprefix("xmodal: ")]}


def test_a_signal_while_all_live_is_an_interruption(tmp_path: Path) -> None:
    rank = ended("terminate(); time.sleep(9)", tmp_path)

    assert rank.returncode == 143 and rank.stderr == ""  # rank 0 says it
    rank = ended("later(kill); terminate(); time.sleep(9)", tmp_path)  # the other one leaves as well
    assert rank.returncode == 143


def test_an_error_of_its_own_stays_one_when_signals_follow(tmp_path: Path) -> None:
    rank = ended("later(terminate, terminate); raise lost", tmp_path)

    assert rank.returncode == 4 and "This is a bug in xmodal" in rank.stderr and "Traceback" not in rank.stderr
    (report,) = tmp_path.glob("xmodal-error-*.txt")
    assert "RuntimeError: Connection reset by peer" in report.read_text()
