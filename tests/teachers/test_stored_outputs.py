"""Stored outputs teach what the teacher itself teaches."""

import numpy as np
import pytest
import torch

from xmodal.data.arrays import from_arrays
from xmodal.data.labels import hide_labels
from xmodal.errors import InputError
from xmodal.models.student_file import save_student
from xmodal.study.bench import TEACHER
from xmodal.teachers.attached import ANSWERS
from xmodal.teachers.given import open_teacher
from xmodal.teachers.request import TeacherRequest
from xmodal.teachers.tabulate import tabulated, write_outputs


@pytest.fixture
def trained(taught, toy, tmp_path):
    """A bench that trained its teacher itself, and the file of that teacher."""
    bench = taught(toy, None)
    (teacher,) = bench.runs[TEACHER].students.values()
    return bench, save_student(tmp_path / "student.safetensors", teacher, toy.info)


def test_a_student_file_and_its_stored_logits_teach_the_same_to_the_bit(taught, toy, trained, weights, tmp_path):
    bench, file = trained
    given = open_teacher(TeacherRequest(source=file), toy, ("clear",))
    write_outputs(tmp_path / "teacher.npz", given, toy)
    write_outputs(tmp_path / "teacher.npy", given, toy, splits=("train",))

    from_file = taught(toy, file)
    from_npz, from_npy = taught(toy, tmp_path / "teacher.npz"), taught(toy, tmp_path / "teacher.npy")

    for other in (from_file, from_npz, from_npy):
        assert torch.equal(weights(other), weights(bench))
    # the table of all rows is scored like the network; that of the training rows cannot be
    rows = {bench: {row["name"]: row for row in bench.score()} for bench in (from_file, from_npz, from_npy)}
    assert rows[from_npz]["teacher"]["test"] == rows[from_file]["teacher"]["test"]
    assert "teacher" not in rows[from_npy]


def test_the_online_teacher_and_stored_probabilities_differ_by_rounding(taught, toy, trained, weights):
    bench, file = trained
    values, rows = tabulated(open_teacher(TeacherRequest(source=file), toy, ("clear",)))
    probabilities = torch.from_numpy(values).double().softmax(dim=1).numpy()

    online = taught(toy, file, settings={"cache": "off"})
    stored = taught(toy, {"probabilities": probabilities, "rows": rows})

    assert (weights(online) - weights(bench)).abs().max() < 1e-5
    assert (weights(stored) - weights(bench)).abs().max() < 1e-5


def test_a_table_is_never_augmented(taught, toy, logits, weights):
    def with_noise():
        inputs = {name: toy.train.columns[name] for name in ("clear", "faint")}
        splits = {name: toy.split(name).numbers["clear"] for name in ("train", "valid", "test")}
        target = np.arange(240) % 3
        return from_arrays(inputs, target, splits=splits, augment="noise:0.3")

    bench = taught(with_noise(), logits)

    assert bench.data.train.changing == {"clear", "faint"}
    batch = next(iter(bench.batches()))
    assert torch.equal(
        batch.inputs[ANSWERS], torch.from_numpy(logits)[toy.train.numbers["clear"][: len(batch.inputs[ANSWERS])]]
    )


def test_rows_without_an_answer_teach_their_label_alone(taught, toy, logits, weights):
    """The same answers in the other rows give the same student, whatever stands in rows that are left out."""
    numbers = toy.train.numbers["clear"][:60]
    kept = np.setdiff1d(np.arange(240), numbers)
    holes = logits.copy()
    holes[numbers] = np.nan

    lacking = taught(toy, holes)
    shorter = taught(toy, {"logits": logits[kept], "rows": kept})

    assert torch.equal(weights(lacking), weights(shorter))
    assert not torch.equal(weights(lacking), weights(taught(toy, logits)))
    assert f"an answer for {len(toy.train) - 60} of {len(toy.train)} training rows" in lacking.given.notes[0]


def test_unlabelled_rows_learn_from_the_table(taught, toy, logits):
    few = hide_labels(toy, labelled="6", seed=0)
    options = {"kd": {"task_weight": 0.0}}
    bench = taught(few, logits, settings={"epochs": 15, "learning_rate": 1e-2, "options": options})

    scores = {row["name"]: row["test"]["accuracy"] for row in bench.score()}

    # no label is in the loss, so all comes from the table
    assert scores["kd"] > 0.8 and scores["teacher"] > 0.9


def test_a_table_works_where_the_teachers_modality_is_absent(taught, toy, logits):
    alone = from_arrays({"faint": toy.train.columns["faint"]}, np.arange(240) % 3, seed=0)

    # the fixture names the modality clear, which this data does not have
    given = open_teacher(TeacherRequest(source=logits), alone, ())

    assert given.data.info.modalities == ("faint", ANSWERS) and given.scored


@pytest.mark.parametrize("control", ["shuffled", "permuted"])
def test_controls_exchange_the_stored_outputs(taught, toy, logits, weights, control):
    bench = taught(toy, logits)
    other = taught(toy, logits, control=control)
    (name,) = [name for name in other.runs if name.startswith("kd (")]

    assert not torch.equal(weights(other, name), weights(bench))


@pytest.mark.parametrize("task", ["regression", "multilabel", "binary"])
def test_other_tasks(make_toy, taught, task):
    data = make_toy(task)
    width = data.info.outputs
    numbers = {name: data.split(name).numbers["clear"] for name in ("train", "valid", "test")}
    target = np.zeros((240, width), dtype=np.float32)
    for name, rows in numbers.items():
        target[rows] = data.split(name).targets["clear"].numpy().reshape(len(rows), -1)
    stored = target if task == "regression" else {"probabilities": 0.05 + 0.9 * target}

    bench = taught(data, stored)

    (row,) = [row for row in bench.score() if row["name"] == "teacher"]
    metric, best = data.info.select[0], 0.0 if task == "regression" else 1.0
    assert row["test"][metric] == pytest.approx(best, abs=1e-6)


def test_embeddings_teach_features_and_not_outputs(taught, toy, logits):
    hidden = np.concatenate([logits, logits[:, :2] ** 2], axis=1)

    with pytest.raises(InputError, match="the teacher is a table of embeddings"):
        taught(toy, {"embeddings": hidden})
    bench = taught(toy, {"embeddings": hidden}, settings={"options": {"kd": {"loss": ("hint",)}}})

    assert "teacher" not in bench.roles and bench.runs["kd"].history[-1]["loss"] > 0


def test_a_probe_makes_a_teacher_of_embeddings_with_the_labels_that_are_there(taught, toy, logits):
    turned = logits @ np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    few = hide_labels(toy, labelled="30", seed=0)

    bench = taught(few, {"embeddings": turned}, probe=True)

    scores = {row["name"]: row["test"]["accuracy"] for row in bench.score()}
    assert scores["teacher"] > 0.85
    assert "fitted on 30 labelled rows" in bench.given.notes[0]


def test_a_network_with_other_statistics_reads_what_it_was_trained_on(taught, toy, trained):
    """Data whose normalisation differs: outputs equal those for the raw inputs."""
    bench, file = trained
    inputs = {name: toy.train.columns[name] for name in ("clear", "faint")}
    unscaled = from_arrays(inputs, np.arange(240) % 3, normalise="none", seed=1)

    here, rows_here = tabulated(open_teacher(TeacherRequest(source=file), toy, ("clear",)))
    there, rows_there = tabulated(open_teacher(TeacherRequest(source=file), unscaled, ("clear",)))

    assert np.allclose(here[rows_here.argsort()], there[rows_there.argsort()], atol=1e-4)
