import numpy as np
import pytest
import torch
from torch import nn

from xmodal.data.arrays import from_arrays
from xmodal.models.network import Reads
from xmodal.types import Batch, DataInfo, InputInfo, Student


def linear(weight, name):
    """A linear network without bias that reads one modality."""
    module = nn.Linear(len(weight[0]), len(weight), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(weight))
    return Reads(module, (name,))


@pytest.fixture
def linear_student():
    """A student of 'faint' with these weights."""
    return lambda weight: Student(linear(weight, "faint"), ("faint",), "faint")


@pytest.fixture
def linear_teacher():
    """A network of 'clear' with these weights."""
    return lambda weight: linear(weight, "clear")


@pytest.fixture
def make_info():
    """What is known of a data set with the modalities 'clear' and 'faint'."""

    def make(task="multiclass", classes=2, width=2, **facts):
        inputs = {name: InputInfo((width,), layout="vector") for name in ("clear", "faint")}
        return DataInfo(inputs, task, classes, facts.pop("rows", {}), **facts)

    return make


@pytest.fixture
def make_batch():
    """A paired batch of 'clear' and 'faint'."""

    def make(clear, faint, target, valid=None):
        target = torch.tensor(target)
        inputs = {"clear": torch.tensor(clear), "faint": torch.tensor(faint)}
        mask = {} if valid is None else dict.fromkeys(inputs, torch.tensor(valid))
        rows = torch.arange(len(target))
        return Batch(inputs, dict.fromkeys(inputs, target), mask, dict.fromkeys(inputs, rows))

    return make


@pytest.fixture
def toy_data():
    """Sixty paired samples of two classes that both modalities show."""
    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    signal = np.stack([2.0 * y - 1, 1 - 2.0 * y], axis=1)
    return from_arrays(
        {"clear": signal + 0.3 * random.normal(size=(60, 2)), "faint": signal + random.normal(size=(60, 2))}, y
    )
