"""Jobs that are killed or interrupted: the run, or the one that resumes it, ends with the same table and weights."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.processes]
SHORT = ["digits", "--methods", "supervised,kd", "--seeds", "3", "--epochs", "12", "--threads", "1"]


def command(out, *further):
    words = ["compare", *SHORT, "--save-seconds", "0.5", "--out", str(out), *further]
    return [sys.executable, "-m", "xmodal.cli.main", *words]


def found(out):
    """The table and the weights of all students, without what depends on the clock."""
    result = json.loads((out / "result.json").read_text())
    weights = {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.glob("seed-*/*/students/**/student.safetensors")
    }
    assert len(weights) == 12
    return result["rows"], result["verdict"], weights


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    out = tmp_path_factory.mktemp("jobs") / "one"
    subprocess.run(command(out, "--jobs", "1"), check=True, capture_output=True)
    return found(out)


def started(out, *further):
    process = subprocess.Popen(
        command(out, *further), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    until(lambda: len(list(out.glob("seed-*/teacher/result.json"))) >= 2, process)
    return process


def until(holds, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)


def at_work(out):
    """Numbers of the processes that have begun a task."""
    lines = [line for path in out.glob(".jobs-*/*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line)["pid"] for line in lines if '"begin"' in line]


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def gone(pids, seconds=60):
    deadline = time.monotonic() + seconds
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(lives, pids))


def test_two_jobs_equal_one(one_by_one, tmp_path):
    subprocess.run(command(tmp_path / "run", "--jobs", "2"), check=True, capture_output=True)

    assert found(tmp_path / "run") == one_by_one


def test_a_killed_process_is_replaced(one_by_one, tmp_path):
    out = tmp_path / "run"
    process = started(out, "--jobs", "2")
    workers = at_work(out)
    os.kill(workers[0], signal.SIGKILL)
    errors = process.communicate()[1]

    assert process.returncode == 0, errors
    assert found(out) == one_by_one and gone(workers)
    assert [path.name for path in out.glob(".jobs-*")] == []


def test_a_killed_parent_leaves_a_run_that_can_be_resumed(one_by_one, tmp_path):
    out = tmp_path / "run"
    process = started(out, "--jobs", "2")
    workers = at_work(out)
    process.kill()
    process.communicate()

    assert not (out / "result.json").exists() and gone(workers)
    subprocess.run(command(out, "--jobs", "2", "--resume"), check=True, capture_output=True)
    assert found(out) == one_by_one


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_saves_and_names_one_command(one_by_one, tmp_path, number):
    out = tmp_path / "run"
    process = started(out, "--jobs", "2")
    workers = at_work(out)
    # as a terminal does: to the parent and to its processes
    os.killpg(process.pid, number)
    errors = process.communicate(timeout=120)[1]

    assert process.returncode == 128 + number and gone(workers, seconds=5)
    assert errors.count("--resume") == 1 and "Traceback" not in errors
    # another number of jobs continues the same run
    subprocess.run(command(out, "--jobs", "1", "--resume"), check=True, capture_output=True)
    assert found(out) == one_by_one


def test_a_cluster_whose_worker_is_killed_finds_the_same(one_by_one, tmp_path):
    # the only skip: the package belongs to an extra
    if os.environ.get("XMODAL_REQUIRE_EXTRAS") != "1":
        pytest.importorskip("distributed", reason="install the extra [cluster]")
    python, out, address = [sys.executable, "-m"], tmp_path / "run", tmp_path / "scheduler.json"
    quiet = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    engine = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(address)]
    scheduler = subprocess.Popen([*python, "distributed.cli.dask_scheduler", *engine], **quiet)
    workers = []
    try:
        until(lambda: address.exists() and address.read_text().strip().endswith("}"), scheduler)
        where = json.loads(address.read_text())["address"]
        alone = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path)]
        workers = [subprocess.Popen([*python, "distributed.cli.dask_worker", where, *alone], **quiet) for _ in range(2)]
        process = started(out, "--cluster", f"dask:{where}")
        assert set(at_work(out)) <= {worker.pid for worker in workers}
        workers[0].kill()
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
        assert found(out) == one_by_one
    finally:
        for started_here in (*workers, scheduler):
            started_here.terminate()
            started_here.wait()
