from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xmodal.api.distill import distill
from xmodal.data.arrays import from_arrays
from xmodal.errors import InputError


def arrays(rows: int = 240, seed: int = 0):
    random = np.random.default_rng(seed)
    label = random.integers(0, 3, rows)
    clear = np.eye(3, 6)[label] * 3 + random.normal(size=(rows, 6))
    faint = np.eye(3, 4)[label] * 2 + random.normal(size=(rows, 4))
    return {"clear": clear, "faint": faint}, label


def test_arrays_give_teacher_control_student_and_shuffled_control():
    inputs, label = arrays()

    done = distill(inputs, label, teacher="clear", student="faint", epochs=15, learning_rate=0.01)

    assert list(done.scores) == ["teacher", "no-KD", "kd", "kd (shuffled teacher)"]
    assert done.scores["teacher"] > 0.8 and done.scores["kd"] > 0.6
    assert done.student.needs == ("faint",)
    assert done.folder is None


def test_a_run_folder_is_complete_and_deploys_the_student(tmp_path):
    inputs, label = arrays()

    done = distill(inputs, label, teacher="clear", student="faint", epochs=2, out=tmp_path / "run")

    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["rows"] == done.result["rows"]
    assert (tmp_path / "run" / result["deploy"]).is_file()
    assert "<table" in (tmp_path / "run" / "report.html").read_text()
    saved = np.load(tmp_path / "run" / "seed-0" / "kd" / "predictions" / "faint.npz")
    accuracy = (saved["outputs"].argmax(1) == saved["target"]).mean()
    assert accuracy == pytest.approx(done.scores["kd"])
    assert sorted(saved["rows"]) == sorted(set(saved["rows"]))


def test_a_teacher_may_see_everything_and_the_student_is_the_last_by_default():
    inputs, label = arrays()

    done = distill(inputs, label, epochs=1)

    assert done.result["teacher"] == ["clear", "faint"] and done.result["student"] == ["faint"]


@pytest.mark.parametrize("task", ["regression", "multilabel", "binary"])
def test_other_kinds_of_target(task):
    inputs, label = arrays()
    target = {
        "regression": label.astype(np.float32),
        "multilabel": np.stack([label > 0, label == 1], axis=1).astype(int),
        "binary": (label > 0).astype(int),
    }[task]

    done = distill(
        inputs, target, teacher="clear", student="faint", task=task, epochs=25, learning_rate=0.02, batch_size=32
    )

    kd = next(row["test"] for row in done.result["rows"] if row["name"] == "kd")
    assert kd["r2"] > 0.2 if task == "regression" else kd["accuracy"] > 0.7


def test_own_networks_take_one_tensor_or_a_dictionary():
    inputs, label = arrays()

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(10, 3)

        def forward(self, inputs):
            return self.layer(torch.cat([inputs["clear"], inputs["faint"]], dim=1))

    mine = nn.Sequential(nn.Linear(4, 3))
    done = distill(
        inputs,
        label,
        teacher=("clear", "faint"),
        student="faint",
        student_network=mine,
        teacher_network=Both(),
        epochs=20,
        learning_rate=0.05,
    )

    assert done.scores["teacher"] > 0.8 and done.scores["kd"] > 0.6
    assert done.student.inner.builder is None


def test_same_seed_same_scores():
    inputs, label = arrays()

    first, again = (distill(inputs, label, teacher="clear", student="faint", epochs=3, seed=4) for _ in range(2))

    assert first.result["rows"] == again.result["rows"]


def test_all_problems_come_together():
    inputs, label = arrays()

    with pytest.raises(InputError) as caught:
        distill(inputs, label, teacher="cleer", student="fain", options={"temprature": 2}, epochs=1)

    text = str(caught.value)
    assert len(caught.value.problems) == 3
    for words in ("Did you mean 'clear'", "Did you mean 'faint'", "Did you mean 'temperature'"):
        assert words in text


def test_kd_refuses_unpaired_data():
    inputs, label = arrays()
    target = {"clear": label, "faint": label[:200]}
    data = from_arrays({"clear": inputs["clear"], "faint": inputs["faint"][:200]}, target)

    with pytest.raises(InputError, match="'kd' needs paired samples"):
        distill(data=data, teacher="clear", student="faint", epochs=1)


def test_supervised_alone_needs_no_pairs():
    inputs, label = arrays()
    target = {"clear": label, "faint": label[:200]}
    data = from_arrays({"clear": inputs["clear"], "faint": inputs["faint"][:200]}, target)

    done = distill(data=data, student="faint", method="supervised", epochs=15, learning_rate=0.01)

    assert list(done.scores) == ["no-KD"] and done.scores["no-KD"] > 0.6


def test_nothing_to_distil_from_is_a_sentence():
    with pytest.raises(InputError, match="give inputs and target"):
        distill()


def test_a_used_folder_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    inputs, label = arrays()

    with pytest.raises(InputError, match="not empty"):
        distill(inputs, label, epochs=1, out=tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_further_flags_of_the_training_are_given_by_name():
    inputs, label = arrays()
    single, double = (
        distill(inputs, label, teacher="clear", student="faint", epochs=2, training={"precision": precision})
        for precision in ("32", "64")
    )

    assert double.scores == pytest.approx(single.scores, abs=0.05)
    assert {tensor.dtype for tensor in double.student.module.parameters()} == {torch.float32}
    with pytest.raises(InputError, match="training names epochs, which is an argument of its own"):
        distill(inputs, label, training={"epochs": 3})
    with pytest.raises(InputError, match="optimiser"):
        distill(inputs, label, training={"optimiser": "sgd"})


def test_a_network_of_ones_own_that_insists_on_32_bits_is_told_so():
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x.float())

    inputs, label = arrays()
    with pytest.raises(InputError, match="With --precision 64 it must compute in the dtype of its inputs"):
        distill(inputs, label, teacher="clear", student="faint", student_network=Narrow(), training={"precision": "64"})
