"""`teacher_from=` in Python: arrays, functions and modules as teachers."""

import numpy as np
import pytest
import torch
from torch import nn

import xmodal
from xmodal.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XMODAL_CACHE", str(tmp_path / "cache"))


def arrays(rows=240):
    random = np.random.default_rng(0)
    label = np.array(["ant", "bee", "cat"])[np.arange(rows) % 3]
    clear = 3 * np.eye(3, 5)[np.arange(rows) % 3] + random.normal(size=(rows, 5))
    faint = np.eye(3, 4)[np.arange(rows) % 3] + random.normal(size=(rows, 4))
    return {"clear": clear, "faint": faint}, label


class Pretrained(nn.Module):
    """Knows five classes by its own names."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return 3 * torch.cat(
            [inputs["clear"][:, [2, 0]], -torch.ones(len(inputs["clear"]), 2), inputs["clear"][:, [1]]], 1
        )


def test_a_module_with_other_classes_teaches_text_labels(tmp_path):
    inputs, label = arrays()
    names = ["cat", "ant", "x", "y", "bee"]

    done = xmodal.distill(
        inputs,
        label,
        student="faint",
        teacher="clear",
        teacher_from=Pretrained(),
        teacher_classes=names,
        epochs=3,
        out=tmp_path / "run",
    )

    assert done.scores["teacher"] > 0.85
    assert list(done.scores) == ["teacher", "no-KD", "kd", "kd (shuffled teacher)", "kd (permuted pairs)"]
    assert set(done.predict(inputs["faint"])) <= {"ant", "bee", "cat"}
    assert any("of its 5 classes 3 are used" in note for note in done.result["notes"])


def test_an_array_of_outputs_in_compare():
    inputs, label = arrays()
    outputs = 5 * np.eye(3)[np.arange(240) % 3]

    done = xmodal.compare(
        {"faint": inputs["faint"]}, label, student="faint", methods="kd", seeds=2, epochs=2, teacher_from=outputs
    )

    assert done.scores["teacher"] == 1.0


def test_a_trained_and_a_given_teacher_exclude_each_other():
    inputs, label = arrays()

    with pytest.raises(InputError, match="teacher_network= is trained here, and teacher_from= is used as it is"):
        xmodal.distill(
            inputs,
            label,
            student="faint",
            teacher="clear",
            teacher_network=nn.Linear(5, 3),
            teacher_from=lambda raw: raw["clear"][:, :3],
            epochs=1,
        )
    with pytest.raises(InputError, match="teacher_classes names the classes of a given teacher"):
        xmodal.distill(inputs, label, teacher_classes=["a"], epochs=1)


def test_the_same_call_with_another_teacher_is_another_run(tmp_path):
    inputs, label = arrays()
    outputs = 5 * np.eye(3)[np.arange(240) % 3]
    call = {"student": "faint", "epochs": 1, "out": tmp_path / "run"}
    first = xmodal.distill(inputs, label, teacher_from=outputs, **call)

    again = xmodal.distill(inputs, label, teacher_from=outputs, **call)
    with pytest.raises(InputError, match="is not the one with which the run in"):
        xmodal.distill(inputs, label, teacher_from=2 * outputs, **call)

    assert again.scores == first.scores
