"""The small parent of several processes: who fails, who speaks, what is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xmodal.engine.processes import spawn
from xmodal.engine.processes.launch import _processes
from xmodal.engine.run.folder import what_is_saved
from xmodal.engine.settings import MachineSettings
from xmodal.errors import InputError, ProcessDied

pytestmark = pytest.mark.processes

OUTSIDE = (*spawn.LAUNCHERS, "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_NTASKS", "MASTER_PORT", spawn.LINE)
BEGIN = """
import os, signal, subprocess, sys, time
from pathlib import Path
from xmodal.engine.processes import interrupt, spawn
from xmodal.errors import Interrupted
here, rank = Path(os.environ["HERE"]), int(os.environ["RANK"])
interrupt.install()
"""
SLEEPS = """
try:
    spawn.follow()
    Path(here, f"rank-{rank}").write_text(str(os.getpid()))
    time.sleep(100)
except Interrupted as error:
    Path(here, f"said-{rank}").write_text(str(error.signal_number))
    sys.exit(error.exit_status)
"""
LEADS = """
import sys
from xmodal.engine.processes import spawn
sys.exit(spawn.lead([sys.executable, sys.argv[1]], 2))
"""


@pytest.fixture(autouse=True)
def nobody_leads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setattr(spawn, "_rank", spawn._Rank())


def lead(code: str, processes: int = 2) -> int:
    return spawn.lead([sys.executable, "-c", f"{BEGIN}spawn.follow()\n{code}"], processes)


def led_by_another(tmp_path: Path, code: str, *, first: str = "") -> subprocess.Popen[bytes]:
    """A parent in a process of its own, with two ranks that do ``code``, and something before they can be signalled."""
    (tmp_path / "rank.py").write_text(first + BEGIN + code)
    (tmp_path / "lead.py").write_text(LEADS)
    root = str(Path(spawn.__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "lead.py"), str(tmp_path / "rank.py")],
        env={**os.environ, "PYTHONPATH": root},
    )


def wait_for(tmp_path: Path, name: str) -> list[str]:
    """What both ranks have written under a name."""
    paths, limit = [tmp_path / f"{name}-{rank}" for rank in (0, 1)], time.monotonic() + 300
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < limit
        time.sleep(0.005)
    return [path.read_text() for path in paths]


def lives(number: int) -> bool:
    """Whether a process is there and not merely waiting to be counted."""
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def wait_until_gone(numbers: list[int]) -> None:
    limit = time.monotonic() + 120
    while any(map(lives, numbers)):
        assert time.monotonic() < limit, "processes were left"
        time.sleep(0.01)


def test_ranks_know_their_place_and_only_the_first_is_heard(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = f"""
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
Path(here, str(rank)).write_text(" ".join(os.environ[name] for name in names))
print("out", rank); print("err", rank, file=sys.stderr)
assert {spawn.LINE!r} not in os.environ, "what a rank starts would take itself for one"
"""
    assert lead(code, 3) == 0

    lines = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    assert [line[:-1] for line in lines] == [[str(rank), str(rank), "3", "0", "127.0.0.1"] for rank in range(3)]
    assert len({line[-1] for line in lines}) == 1 and lines[0][-1].isdigit()
    assert capfd.readouterr() == ("out 0\n", "err 0\n")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_others_and_their_children(rank: int, tmp_path: Path) -> None:
    code = f"""
child = subprocess.Popen(["sleep", "100"])
Path(here, str(rank)).write_text(f"{{os.getpid()}} {{child.pid}}")
spawn.tell(here / "run")
both = [here / "0", here / "1"]
while not all(path.exists() and path.read_text() for path in both): time.sleep(0.01)
if rank == {rank}: os.kill(os.getpid(), signal.SIGKILL)
time.sleep(100)
"""
    with pytest.raises(ProcessDied) as died:
        lead(code)

    numbers = [[int(word) for word in (tmp_path / str(each)).read_text().split()] for each in (0, 1)]
    assert f"rank {rank} (pid {numbers[rank][0]}) was killed by signal 9 (SIGKILL)" in str(died.value)
    assert died.value.exit_status == 137 and died.value.saved == str(tmp_path / "run")
    wait_until_gone(sum(numbers, []))


def test_a_rank_that_fails_alone_is_heard(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "GRACE", 0.2)
    code = """
if rank == 1: sys.exit("xmodal: the disk of rank 1 is full")
time.sleep(100)
"""
    with pytest.raises(ProcessDied, match="rank 1 .* ended with exit status 1; the others were ended") as died:
        lead(code, 3)

    assert died.value.exit_status == 1
    assert "the disk of rank 1 is full" in capfd.readouterr().err


def test_a_failure_that_the_first_rank_tells_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert lead("print('wrong', file=sys.stderr)\nsys.exit(2)") == 2
    assert capfd.readouterr().err == "wrong\n"


def test_a_rank_that_could_not_go_on_without_another_is_not_the_reason() -> None:
    code = f"""
number = here / "number"
if rank: number.write_text(str(os.getpid())); sys.exit(3)
while not number.exists() or not number.read_text() or spawn.runs(int(number.read_text())): time.sleep(0.01)
sys.exit({spawn.LEFT_ALONE})
"""
    with pytest.raises(ProcessDied, match="rank 1 .* ended with exit status 3") as died:
        lead(code)
    assert died.value.exit_status == 3


def test_a_rank_that_hangs_after_the_first_is_done_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "GRACE", 0.2)

    assert lead("if rank: time.sleep(100)") == 0


@pytest.mark.parametrize("number", spawn.SIGNALS)
def test_a_signal_reaches_every_rank_even_before_it_can_answer(number: signal.Signals, tmp_path: Path) -> None:
    begun = 'import os; open(os.path.join(os.environ["HERE"], "begun-" + os.environ["RANK"]), "w").write("yes")'
    process = led_by_another(tmp_path, SLEEPS, first=begun)
    wait_for(tmp_path, "begun")  # they are still importing

    process.send_signal(number)

    assert process.wait(timeout=300) == 128 + number
    assert wait_for(tmp_path, "said") == [str(int(number))] * 2


def test_ranks_whose_parent_is_killed_leave_as_after_sigterm(tmp_path: Path) -> None:
    process = led_by_another(tmp_path, SLEEPS)
    ranks = [int(word) for word in wait_for(tmp_path, "rank")]

    process.kill()
    process.wait()

    assert wait_for(tmp_path, "said") == ["15", "15"]
    wait_until_gone(ranks)


def test_who_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spawn.leads(2) and not spawn.leads(1)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert not spawn.leads(2)
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")  # a shell within a job
    assert spawn.leads(2)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not spawn.leads(2)


def test_the_launcher_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = MachineSettings(devices=3)
    assert _processes(machine) == (3, 1)
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_NNODES", "2")
    assert _processes(machine) == (4, 2)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    assert _processes(machine) == (4, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # torchrun within a job
    monkeypatch.setenv("WORLD_SIZE", "6")
    assert _processes(machine) == (2, 3)


def test_what_was_typed_in_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-W", "error", "train.py", "--devices", "2"])
    assert spawn.same_command() == [sys.executable, "-W", "error", "train.py", "--devices", "2"]
    monkeypatch.setattr(sys, "orig_argv", ["python"])
    with pytest.raises(InputError, match="Put it into a file"):
        spawn.same_command()


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_survivor_under_a_foreign_launcher_finds_out_who_died(tmp_path: Path) -> None:
    here, dead = socket.gethostname(), dead_process()
    assert spawn.gone() is None and not spawn.has_peers()

    spawn.tell(tmp_path)
    spawn.tell(tmp_path / "stage")  # the folder of the whole command comes first
    spawn.remember([(here, dead), (here, os.getpid()), (here, os.getppid()), ("another-machine", dead)])

    died = spawn.gone()
    assert died is not None and died.saved == str(tmp_path) and died.exit_status == 137
    assert str(died) == f"Of the 4 processes of this run, rank 0 (pid {dead}) died; the others can't continue."
    assert spawn.speaks()
    spawn.remember([(here, os.getppid()), (here, os.getpid()), ("another-machine", dead)])
    assert not spawn.speaks() and spawn.gone(seconds=0.0) is None


def test_what_is_saved_names_trainings_and_the_newest_checkpoint(tmp_path: Path) -> None:
    assert what_is_saved(None) == what_is_saved(tmp_path) == "Nothing had been saved yet: start it again."
    (tmp_path / "settings.json").touch()
    assert what_is_saved(tmp_path) == f"{tmp_path} holds 0 finished trainings and no checkpoint."
    for name, steps in (("teacher", (10, 20)), ("kd", (5, 10))):
        for age, step in enumerate(steps):
            checkpoint = tmp_path / name / "checkpoints" / f"step-{step:09d}"
            checkpoint.mkdir(parents=True)
            os.utime(checkpoint, (age, age))
    (tmp_path / "teacher" / "result.json").touch()
    assert what_is_saved(tmp_path).endswith(
        "holds 1 finished training and the checkpoint kd/checkpoints/step-000000010."
    )
