"""Small data with a teacher that knows the answers, and a bench that learns from a given teacher."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from xmodal.engine.processes.launch import launch
from xmodal.study.bench import Bench
from xmodal.study.settings import PairSettings
from xmodal.teachers.request import TeacherRequest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Outputs of teachers are kept in an empty folder."""
    monkeypatch.setenv("XMODAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def truth_of(data):
    """The label of every row, in the order of the data."""
    target = np.full(next(iter(data.train.columns.values())).shape[0], -1)
    for split in (data.train, data.valid, data.test):
        target[next(iter(split.numbers.values()))] = next(iter(split.targets.values())).numpy()
    return target


@pytest.fixture
def toy(make_toy):
    return make_toy()


@pytest.fixture
def logits(toy):
    """Outputs of a teacher that is nearly always right, (rows, 3), in the order of the data."""
    truth = truth_of(toy)
    return (np.random.default_rng(3).normal(size=(len(truth), 3)) + 4 * np.eye(3)[truth]).astype(np.float32)


@pytest.fixture
def taught():
    """A bench on which kd has learned from a teacher; its student's weights as one vector."""

    def train(data, source, *, name="kd", control="", settings=None, seed=0, **request):
        from xmodal.methods import METHODS
        from xmodal.study.plan import method_settings

        asked = PairSettings(teacher=("clear",), student=("faint",), threads=1, **{"epochs": 4, **(settings or {})})
        plan = asked.plan()
        if source is not None:
            plan = replace(plan, teacher_from=TeacherRequest(source=source, **request))
        bench = Bench(data, plan, seed=seed, fabric=launch(asked.machine()))
        bench.teacher()
        card = METHODS[name]
        bench.train_card(card, method_settings(card, asked.options.get(name, {})), control=control)
        return bench

    return train


@pytest.fixture
def weights():
    def joined(bench, name="kd"):
        (student,) = bench.runs[name].students.values()
        return torch.cat([part.flatten() for part in student.module.state_dict().values()])

    return joined
