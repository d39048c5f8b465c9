"""Log and events: what TensorBoard's own reader finds in them, and what a resumed run makes of them."""

import subprocess
import sys
import threading
from contextlib import closing

import pytest
from networks import pictures, vector_student
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xmodal.engine.fit import fit
from xmodal.engine.run.tensorboard import EVENTS, LOG, TensorBoardLog, tensorboard_installed
from xmodal.engine.settings import FitSettings
from xmodal.errors import MissingExtra
from xmodal.files import read_rows
from xmodal.methods.supervised import Supervised

ROW = {"epoch": 0, "loss": 1.5, "losses": {"task": 1.0, "kd": 0.5}, "logs": {"grown": 0.25}, "lr": [0.1, 0.01]}
ROW |= {"valid": {"eye": {"accuracy": 0.5, "iou": [1.0]}}, "seconds": 2.0}


def a_run(folder, *, epochs=2, **more):
    data = pictures()
    settings = FitSettings(epochs=epochs, batch_size=16, tracking=True)
    return fit(Supervised(vector_student(), data.info), data, settings, folder=folder, title="a picture", **more)


def read(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def event_file(folder):
    (file,) = folder.glob(EVENTS)
    return file


def test_tensorboard_reads_every_scalar_of_every_epoch(tmp_path):
    run = a_run(tmp_path)

    events = read(tmp_path)

    (student,) = run.students
    names = {
        "train/loss",
        "train/task",
        "lr",
        "seconds",
        *(f"valid/{student}/{name}" for name in run.history[0]["valid"][student]),
    }
    assert events.keys() == names
    for row in run.history:
        expected = {"train/loss": row["loss"], "train/task": row["losses"]["task"], "lr": row["lr"][0]}
        expected |= {"seconds": row["seconds"], f"valid/{student}/accuracy": row["valid"][student]["accuracy"]}
        for name, value in expected.items():
            # the file holds float32
            assert events[name][row["epoch"]] == (row["epoch"], pytest.approx(value, rel=1e-6)), name


def test_the_log_has_a_time_and_a_line_per_epoch(tmp_path):
    a_run(tmp_path)

    lines = (tmp_path / LOG).read_text().splitlines()

    assert len(lines) == 3 and all(line[4] == "-" and line[10] == "T" for line in lines)
    assert "begins at epoch 1/2: a picture" in lines[0]
    assert "epoch 2/2  loss " in lines[2] and "lr 0.001" in lines[2] and "accuracy 0." in lines[2]


def test_without_tracking_there_is_neither(tmp_path):
    data = pictures()
    fit(Supervised(vector_student(), data.info), data, FitSettings(epochs=1), folder=tmp_path)

    assert not (tmp_path / LOG).exists() and not list(tmp_path.glob(EVENTS))


def test_the_writers_thread_ends_with_the_training(tmp_path):
    before = threading.active_count()

    a_run(tmp_path)

    assert threading.active_count() == before


def test_a_resumed_run_has_every_epoch_once(tmp_path):
    rows = [{**ROW, "epoch": number} for number in range(3)]
    with closing(TensorBoardLog(tmp_path, title="x", epochs=3)) as log:
        log.epoch(rows[0])
        log.epoch(rows[1])  # and then it is killed, the last checkpoint before the end of the second epoch

    with closing(TensorBoardLog(tmp_path, title="x", epochs=3, history=rows[:1])) as log:
        log.epoch(rows[1])
        log.epoch(rows[2])

    assert event_file(tmp_path) and [step for step, _ in read(tmp_path)["train/loss"]] == [0, 1, 2]
    assert "resumes at epoch 2/3" in (tmp_path / LOG).read_text()


def test_events_are_on_disk_after_each_epoch_of_a_process_that_is_killed(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from xmodal.engine.run.tensorboard import TensorBoardLog
row = {ROW!r}
log = TensorBoardLog(Path({str(tmp_path)!r}), title="x", epochs=3)
log.epoch(row)
log.epoch({{**row, "epoch": 1}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == -9

    assert [step for step, _ in read(tmp_path)["train/loss"]] == [0, 1]


def test_a_finished_run_that_is_read_back_is_left_alone(tmp_path):
    a_run(tmp_path)
    file = event_file(tmp_path)
    before = file.read_bytes()

    a_run(tmp_path, resume=True)

    assert event_file(tmp_path) == file and file.read_bytes() == before
    assert len(read_rows(tmp_path / "history.jsonl")) == 2


def test_several_rates_have_numbers_and_what_is_no_number_is_left_out(tmp_path):
    row = {**ROW, "logs": {"grown": 0.25, "empty": None}}

    TensorBoardLog(tmp_path, title="x", epochs=1, history=[row]).close()

    assert read(tmp_path) == {
        "train/loss": [(0, 1.5)],
        "train/task": [(0, 1.0)],
        "train/kd": [(0, 0.5)],
        "train/grown": [(0, 0.25)],
        "lr 0": [(0, pytest.approx(0.1))],
        "lr 1": [(0, pytest.approx(0.01))],
        "valid/eye/accuracy": [(0, 0.5)],
        "seconds": [(0, 2.0)],
    }


def test_a_missing_package_is_one_sentence_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)

    assert not tensorboard_installed()
    with pytest.raises(MissingExtra) as caught:
        a_run(tmp_path / "run")

    (sentence,) = caught.value.problems
    assert "needs the package 'tensorboard'" in sentence and "xmodal[tracking]" in sentence
    assert sentence.endswith("Or train without it: --no-tracking.")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_read_back_without_the_package(tmp_path, monkeypatch):
    run = a_run(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard", None)

    assert a_run(tmp_path, resume=True).history == run.history


def test_writing_events_imports_neither_tensorflow_nor_torchs_summary_writer(tmp_path):
    code = f"""
import sys
from pathlib import Path
from xmodal.engine.run.tensorboard import TensorBoardLog
TensorBoardLog(Path({str(tmp_path)!r}), title="x", epochs=1, history=[{ROW!r}]).close()
print(*sorted({{"torch", "tensorflow", "tensorboard.backend"}} & sys.modules.keys()))
"""
    result = subprocess.run([sys.executable, "-c", code], timeout=600, capture_output=True, text=True, check=True)

    assert result.stdout.strip() == ""
