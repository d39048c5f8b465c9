"""A run of no epochs: what was trained elsewhere is scored and kept like anything else."""

from __future__ import annotations

from pathlib import Path

import torch
from networks import pictures, vector_student

from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import as_it_is
from xmodal.engine.processes.launch import launch
from xmodal.methods.supervised import Supervised
from xmodal.models.student_file import load_student
from xmodal.reports.read import read_run


def test_students_keep_the_weights_that_they_came_with(tmp_path: Path) -> None:
    data, student = pictures(), vector_student()
    before = {name: value.clone() for name, value in student.module.state_dict().items()}

    run = as_it_is(Supervised(student, data.info), data, seed=4, folder=tmp_path / "run")

    (name,) = run.students
    loaded, _ = load_student(tmp_path / "run" / "students" / name, module=vector_student().module)
    for kept in (run.students[name].module.state_dict(), loaded.module.state_dict()):
        assert all(torch.equal(kept[key], value) for key, value in before.items())
    scores = evaluate(run.students, data.valid, data.info, fabric=launch())
    assert run.best[name]["valid"] == scores[name] and run.best[name]["epoch"] == -1
    assert list(run.history) == []


def test_its_folder_is_that_of_a_finished_run_and_is_read_back(tmp_path: Path) -> None:
    data, student = pictures(), vector_student()
    first = as_it_is(Supervised(student, data.info), data, folder=tmp_path / "run")

    again = as_it_is(Supervised(vector_student(), data.info), data, folder=tmp_path / "run")

    loaded = read_run(tmp_path / "run")
    assert loaded.kind == "fit" and loaded.finished and loaded.result["stopped"] == "as it is"
    (name,) = first.students
    one, two = (run.students[name].module.state_dict() for run in (first, again))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_nothing_is_written_without_a_folder() -> None:
    data = pictures()

    run = as_it_is(Supervised(vector_student(), data.info), data)

    assert run.folder is None and run.students
