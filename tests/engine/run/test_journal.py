"""Log and events: what TensorBoard itself reads of them, and what a resumed run makes of them."""

import struct

import pytest
from networks import pictures, vector_student
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xmodal.engine.fit import fit
from xmodal.engine.run.tensorboard import EVENTS, LOG, Journal, crc32c, event, record
from xmodal.engine.settings import FitSettings
from xmodal.files import read_rows
from xmodal.methods.supervised import Supervised

ROW = {"epoch": 0, "loss": 1.5, "losses": {"task": 1.0, "kd": 0.5}, "logs": {"grown": 0.25}, "lr": [0.1, 0.01]}
ROW |= {"valid": {"eye": {"accuracy": 0.5, "iou": [1.0]}}, "seconds": 2.0}


def a_run(folder, *, epochs=2, **more):
    data = pictures()
    settings = FitSettings(epochs=epochs, batch_size=16, tracking=True)
    return fit(Supervised(vector_student(), data.info), data, settings, folder=folder, title="a picture", **more)


def read(folder):
    found = EventAccumulator(str(folder)).Reload()
    return {name: [(one.step, one.value) for one in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_tensorboard_reads_every_scalar_of_every_epoch(tmp_path):
    run = a_run(tmp_path)

    found = read(tmp_path)

    (student,) = run.students
    assert {"train/loss", "train/task", "lr", "seconds", f"valid/{student}/accuracy"} <= found.keys()
    for row in run.history:
        step, value = found["train/loss"][row["epoch"]]
        assert step == row["epoch"] and value == pytest.approx(row["loss"], rel=1e-6)


def test_the_log_has_a_time_and_a_line_per_epoch(tmp_path):
    a_run(tmp_path)

    lines = (tmp_path / LOG).read_text().splitlines()

    assert len(lines) == 3 and all(line[4] == "-" and line[10] == "T" for line in lines)
    assert "begins at epoch 1/2: a picture" in lines[0]
    assert "epoch 2/2  loss " in lines[2] and "lr 0.001" in lines[2] and "accuracy 0." in lines[2]


def test_without_tracking_there_is_neither(tmp_path):
    data = pictures()
    fit(Supervised(vector_student(), data.info), data, FitSettings(epochs=1), folder=tmp_path)

    assert not (tmp_path / LOG).exists() and not (tmp_path / EVENTS).exists()


def test_a_resumed_run_has_every_epoch_once(tmp_path):
    journal = Journal(tmp_path, title="x", epochs=3)
    rows = [{**ROW, "epoch": number} for number in range(3)]
    journal.begin([])
    journal.epoch(rows[0])
    journal.epoch(rows[1])  # and then it is killed, the last checkpoint before the end of the second epoch

    again = Journal(tmp_path, title="x", epochs=3)
    again.begin(rows[:1])
    again.epoch(rows[1])
    again.epoch(rows[2])

    assert [step for step, _ in read(tmp_path)["train/loss"]] == [0, 1, 2]
    assert "goes on at epoch 2/3" in (tmp_path / LOG).read_text()


def test_a_finished_run_that_is_read_back_is_left_alone(tmp_path):
    a_run(tmp_path)
    before = (tmp_path / EVENTS).read_bytes()

    a_run(tmp_path, resume=True)

    assert (tmp_path / EVENTS).read_bytes() == before and len(read_rows(tmp_path / "history.jsonl")) == 2


def test_several_rates_have_numbers_and_lists_are_no_scalars(tmp_path):
    journal = Journal(tmp_path, title="x", epochs=1)
    journal.begin([ROW])

    names = read(tmp_path).keys()

    assert {"lr 0", "lr 1", "train/kd", "train/grown", "valid/eye/accuracy"} <= names and "valid/eye/iou" not in names


def test_a_record_is_laid_out_as_documented():
    content = event(step=300, values=[("a", 2.0)])

    written = record(content)

    assert struct.unpack("<Q", written[:8]) == (len(content),) and written[12:-4] == content
    assert content[9:12] == bytes([0x10, 0xAC, 0x02])  # field 2, 300 in sevens of bits
    assert content[12:] == b"\x2a\x0a\x0a\x08" + b"\x0a\x01a\x15" + struct.pack("<f", 2.0)


def test_the_checksum_agrees_with_its_definition_bit_by_bit():
    def slow(content):
        bits = 0xFFFFFFFF
        for byte in content:
            for place in range(8):
                carry = (bits ^ byte >> place) & 1
                bits = bits >> 1 ^ 0x82F63B78 * carry
        return bits ^ 0xFFFFFFFF

    for content in (b"", b"a", bytes(range(256))):
        assert crc32c(content) == slow(content)
