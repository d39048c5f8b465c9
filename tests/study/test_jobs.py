"""Several seeds at the same time: how many, what their processes tell each other, and the same bits as one by one."""

import io
import json
import os
import pickle
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

import xmodal
from xmodal.devices import OneProcess
from xmodal.engine.processes import interrupt
from xmodal.engine.progress import JobProgress, Progress
from xmodal.errors import InputError, MissingExtra, NonFinite
from xmodal.recipes.compare import Settings
from xmodal.study.opening import Study
from xmodal.study.parallel import channel as channels
from xmodal.study.parallel.channel import Channel, Voice, await_earlier
from xmodal.study.parallel.count import cores, free_memory, jobs_of
from xmodal.study.parallel.task import Outcome, Shared, Task
from xmodal.study.parallel.worker import DEATHS, train_seed
from xmodal.study.plan import Plan

CPU = OneProcess(torch.device("cpu"))


class TwoProcesses(OneProcess):
    world_size = 2


@pytest.mark.parametrize(
    ("asked", "tasks", "threads", "device", "expected"),
    [
        (None, 1, None, "cpu", 1),
        (None, 5, None, "cpu", 4),
        (None, 3, None, "cpu", 3),
        (None, 5, 2, "cpu", 2),
        (None, 5, 8, "cpu", 1),
        (None, 5, None, "cuda", 1),
        (7, 5, 8, "cpu", 5),
        (2, 5, 8, "cuda", 2),
    ],
)
def test_there_are_as_many_jobs_as_cores_and_seeds_allow(monkeypatch, asked, tasks, threads, device, expected):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "4")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    # whatever this machine has left
    monkeypatch.setattr("xmodal.study.parallel.count.free_memory", lambda: None)

    assert cores() == 4
    assert jobs_of(asked, tasks=tasks, threads=threads, fabric=OneProcess(torch.device(device))) == expected


def test_a_job_needs_memory(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "4")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr("xmodal.study.parallel.count.free_memory", lambda: 5 * 10**9)

    assert jobs_of(None, tasks=9, threads=1, fabric=CPU) == 2
    assert 10**8 < free_memory() < 10**14 or free_memory() is None


def test_jobs_and_devices_exclude_each_other():
    together = TwoProcesses(torch.device("cpu"))

    assert jobs_of(None, tasks=5, threads=1, fabric=together) == 1
    with pytest.raises(InputError, match="--jobs 2 trains several seeds .* Leave --jobs or --devices out"):
        jobs_of(2, tasks=5, threads=1, fabric=together)


@pytest.mark.parametrize("cluster", ["ray", "dask:", "dask:10.0.0.1:8786", "dask:tcp://host"])
def test_a_cluster_is_a_kind_and_an_address(cluster):
    with pytest.raises(ValueError, match="expected"):
        Settings(cluster=cluster)


def test_jobs_change_no_setting_that_a_resumed_run_must_repeat():
    assert Settings(jobs=3, cluster="dask").described() == Settings().described()


@pytest.mark.parametrize("error", [InputError(["one", "two"]), MissingExtra("Reading", "av", "video")])
def test_problems_stay_apart_on_their_way_to_another_process(error):
    arrived = pickle.loads(pickle.dumps(error))

    assert isinstance(arrived, InputError) and arrived.problems == error.problems


def test_events_arrive_once_and_half_a_line_waits(tmp_path):
    channel = Channel(tmp_path / "c")
    voice = Voice(channel.folder, "seed-3")
    voice.tell("say", sentence="a\nb")
    with voice.file.open("ab") as file:
        file.write(b'{"kind": "say", "sen')

    assert [(task, event["kind"]) for task, event in channel.events()] == [("seed-3", "say")]
    assert list(channel.events()) == []
    # the process was killed there, and another one goes on
    assert Voice(channel.folder, "seed-3").begin() == 0
    assert [event["kind"] for _, event in channel.events()] == ["begin"]
    assert voice.begin() == 1
    channel.close()
    assert list(tmp_path.iterdir()) == []


def test_a_process_stops_when_it_is_asked_to_or_its_parent_is_gone(tmp_path, monkeypatch):
    channel = Channel(tmp_path / "c")
    voice = Voice(channel.folder, "seed-0")
    assert voice.stopped() == 0

    channel.stop(2)
    assert voice.stopped() == 2
    (channel.folder / "stop").unlink()
    voice.parent = 2**22 + 1  # above the largest number of a process
    assert voice.stopped() == 15

    # on another machine only the time of its last sign is known
    monkeypatch.setattr(channels, "SILENCE", 0.2)
    elsewhere = Voice(channel.folder, "seed-1")
    elsewhere._here = False
    assert elsewhere.stopped() == 0
    time.sleep(0.1)
    os.utime(channel.folder / "parent.json", (1, 1))
    assert elsewhere.stopped() == 0
    time.sleep(0.3)
    assert elsewhere.stopped() == 15
    channel.close()
    assert elsewhere.stopped() == 15


def test_a_new_run_waits_for_processes_of_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setattr(channels, "PATIENCE", 0.5)
    left = Channel(tmp_path / f"{channels.PREFIX}a")
    Voice(left.folder, "seed-0").begin()  # this process, which does not end
    began = time.monotonic()
    await_earlier(tmp_path)

    assert time.monotonic() - began > 0.4 and not left.folder.exists()

    left = Channel(tmp_path / f"{channels.PREFIX}b")
    (left.folder / "seed-0.jsonl").write_text(json.dumps({"kind": "begin", "host": "elsewhere", "pid": os.getpid()}))
    began = time.monotonic()
    await_earlier(tmp_path)
    assert time.monotonic() - began < 0.4 and not left.folder.exists()


def shared_for(train, folder):
    return Shared(
        train=train,
        opened=lambda plan, seed: None,
        settings=Settings(threads=1),
        recipe="compare",
        out=None,
        threads=1,
        channel=folder,
        modules={},
        tells_epochs=False,
        sends_networks=False,
        here=False,
    )


def fails_with(error):
    def train(study, seed, data):
        raise error

    return train


@pytest.mark.parametrize("error", [InputError("wrong"), NonFinite("nan"), OSError(28, "full", "file")])
def test_an_error_comes_back_as_it_is(tmp_path, error):
    channel = Channel(tmp_path / "c")

    outcome = train_seed(shared_for(fails_with(error), channel.folder), Task("seed-0", 0, Plan(data="digits")))

    assert outcome.error is error and outcome.found is None


def test_a_bug_comes_back_as_its_traceback(tmp_path):
    channel = Channel(tmp_path / "c")

    outcome = train_seed(shared_for(fails_with(KeyError("lost")), channel.folder), Task("seed-0", 0, Plan(data="d")))

    assert isinstance(outcome.error, RuntimeError) and "KeyError: 'lost'" in str(outcome.error)
    assert pickle.loads(pickle.dumps(outcome)).name == "seed-0"


def test_a_task_at_which_processes_died_is_given_up(tmp_path):
    channel = Channel(tmp_path / "c")
    voice = Voice(channel.folder, "seed-0")
    shared = shared_for(lambda study, seed, data: {"rows": [seed]}, channel.folder)
    for _ in range(DEATHS - 1):
        voice.begin()
    assert train_seed(shared, Task("seed-0", 7, Plan(data="d"))).found == {"rows": [7]}

    assert train_seed(shared, Task("seed-0", 7, Plan(data="d"))) == Outcome("seed-0", deaths=DEATHS)


def test_a_request_reaches_a_training_as_a_signal(tmp_path):
    channel = Channel(tmp_path / "c")

    def train(study, seed, data):
        channel.stop(15)
        deadline = time.monotonic() + 20
        while not interrupt.pending() and time.monotonic() < deadline:
            time.sleep(0.01)
        return {"pending": interrupt.pending()}

    outcome = train_seed(shared_for(train, channel.folder), Task("seed-0", 0, Plan(data="d")))

    assert outcome.found == {"pending": 15}
    # the next task of this process starts afresh, and is not begun
    assert interrupt.pending() == 0
    assert train_seed(shared_for(train, channel.folder), Task("seed-1", 1, Plan(data="d"))).signal == 15


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x):
        return self.layers(x)


class Told:
    def __init__(self):
        self.rows, self.ends, self.threads = [], 0, set()

    def on_epoch(self, row):
        self.rows.append((row["name"], row["seed"], row["epoch"], row["loss"]))
        self.threads.add(threading.current_thread())

    def on_end(self, result):
        self.ends += 1


def test_two_jobs_find_what_one_finds(tmp_path):
    random = np.random.default_rng(0)
    target = random.integers(0, 2, 120)
    # of more than a megabyte, which reaches other processes as a memory map
    clear = target[:, None] + 0.1 * random.normal(size=(120, 2300))
    arrays = {"clear": clear, "faint": random.normal(size=(120, 4))}
    torch.manual_seed(0)
    network, told, results = Wide(), {1: Told(), 2: Told()}, {}
    for jobs, callback in told.items():
        results[jobs] = xmodal.compare(
            {name: array.astype(np.float32) for name, array in arrays.items()},
            target,
            teacher="clear",
            student="faint",
            seeds=2,
            epochs=2,
            student_network=network,
            training={"threads": 1},
            callbacks=[callback],
            jobs=jobs,
        )
    one, two = results[1], results[2]

    assert two.rows == one.rows and len(two.rows) == 8
    assert two.result["verdict"] == one.result["verdict"]
    # every epoch was told here, in order for each seed
    assert sorted(told[2].rows) == sorted(told[1].rows) and told[2].ends == 1
    assert told[2].threads == {threading.main_thread()}
    for name, seed in [("kd", 1), ("no-KD", 0)]:
        weights = [each.student_of(name, seed=seed).inner.module.state_dict() for each in (one, two)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert np.array_equal(one.predict(arrays["faint"]), two.predict(arrays["faint"]))
    assert two.save(tmp_path / "student.safetensors", name="teacher", seed=1).is_file()
    assert two.report(tmp_path / "page.html").stat().st_size > 10_000


def test_what_cannot_be_sent_is_named():
    lock = threading.Lock()

    def score(outputs, target):
        with lock:
            return 0.0

    random = np.random.default_rng(0)
    arrays = {"clear": random.normal(size=(40, 3)), "faint": random.normal(size=(40, 4))}

    with pytest.raises(InputError, match="can't be sent .*lock.* Use one job"):
        xmodal.compare(arrays, np.arange(40) % 2, student="faint", seeds=2, metrics={"score": score}, jobs=2)


def test_without_a_folder_networks_stay_with_the_study():
    study = Study(Settings(threads=1), "compare", CPU, Progress(quiet=True))
    assert study.keeps_networks
    study.out = study.settings.out or Settings(out="somewhere").out
    assert not study.keeps_networks


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_display_counts_again_what_a_killed_process_had_told():
    whole = Progress(stream=Terminal(), fits=4)
    one, other = JobProgress(whole), JobProgress(whole)
    for view in (one, other):
        view.begin()
        view.start("teacher", 3)
        view.epoch(2, "loss 1")
        view.end()
    one.expect(1)
    assert (whole.done, whole.fits) == (2, 5)

    one.begin()
    assert (whole.done, whole.fits) == (1, 4)
    bars = len(whole._bar.tasks)
    one.close()
    assert len(whole._bar.tasks) == bars - 1
    whole.close()
