"""What all tests share."""

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from scenes import scenes

from xmodal.data.arrays import from_arrays
from xmodal.engine.processes.launch import launch
from xmodal.study.bench import Bench
from xmodal.study.plan import method_settings
from xmodal.study.settings import PairSettings

# one job where none are asked for: tests run in several processes already
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")

# how long an example takes depends on what else the machine does
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are fastest with one thread; `make test-portable` tries other numbers."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("XMODAL_TEST_THREADS", "1")))
    yield
    torch.set_num_threads(before)


def gaussian_views(rows=240):
    """Three classes seen twice, clearly and faintly; a network must be trained to tell them."""
    random = np.random.default_rng(0)
    target = np.arange(rows) % 3
    corners = 3.0 * np.eye(3)[target]
    clear = corners @ random.normal(size=(3, 5)) + 0.3 * random.normal(size=(rows, 5))
    faint = corners @ random.normal(size=(3, 4)) + 1.0 * random.normal(size=(rows, 4))
    return {"clear": clear, "faint": faint}, target


def target_of(task, classes):
    """The classes as the target of another task."""
    if task == "regression":
        return np.stack([classes == 0, classes == 1], axis=1).astype(np.float32)
    if task == "multilabel":
        return np.stack([classes != 0, classes == 1], axis=1).astype(np.int64)
    return (classes == 0).astype(np.int64) if task == "binary" else classes


@pytest.fixture(scope="session")
def make_toy():
    """Paired or unpaired toy data for a task."""

    def make(task="multiclass", *, paired=True):
        inputs, classes = gaussian_views()
        target = target_of(task, classes)
        return from_arrays(inputs, target if paired else {"clear": target, "faint": target[::-1].copy()}, task=task)

    return make


@pytest.fixture
def make_bench(make_toy):
    """A bench, the kit that methods are built with: 'clear' teaches, 'faint' is deployed."""

    def make(task="multiclass", *, seed=0, paired=True, **settings):
        known = {"epochs": 8, "batch_size": 32, "learning_rate": 1e-2, "dropout": 0.1, "threads": 1}
        asked = PairSettings(teacher=("clear",), student=("faint",), **(known | settings))
        return Bench(make_toy(task, paired=paired), asked.plan(), seed=seed, fabric=launch(asked.machine()))

    return make


@pytest.fixture(scope="session")
def make_pictures():
    """Paired or unpaired small pictures with a class for every pixel."""

    def make(*, paired=True):
        found = scenes(24, labelled=1.0)
        inputs = {"clear": found.test.columns["image"], "faint": found.test.columns["lidar"]}
        target = np.concatenate([part.targets["image"].numpy() for part in (found.train, found.valid, found.test)])
        rows = {"train": np.arange(18), "valid": np.arange(18, 21), "test": np.arange(21, 24)}
        other = {"clear": target, "faint": target[::-1].copy()}
        data = from_arrays(inputs, target if paired else other, splits=rows, ignore=0)
        data.info = replace(data.info, label_losses={"cross_entropy": 1.0})  # learned quickly
        return data

    return make


SMALL = {  # options that make a published network small enough for the tests of all methods
    "dmd": {
        "width": 8,
        "heads": 2,
        "layers": 1,
        "attention_dropout": (0.0,),
        "embed_dropout": 0.0,
        "output_dropout": 0.0,
    },
    "pmf": {"backbone": "camera_resnet10", "width": 4, "channels": 16},
}


@pytest.fixture
def build_method():
    """A fresh method of a card on a bench, with its own defaults, or small where its network is large."""
    return lambda card, bench: bench.build(card, method_settings(card, SMALL.get(card.name, {})))
