"""Dense targets from arrays to scores, learned by every kind of method."""

import numpy as np
import pytest
import torch
from scenes import scenes

from xmodal.engine.evaluate import evaluate
from xmodal.engine.fit import fit
from xmodal.engine.processes.launch import launch
from xmodal.engine.settings import FitSettings
from xmodal.engine.teacher_cache import strata
from xmodal.methods.kd import KD
from xmodal.methods.ntdh import NTDH
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_for

GOOD = 0.35  # mean IoU; to say ground everywhere has less than 0.2


@pytest.fixture(scope="module")
def data():
    return scenes(label_losses={"focal": 1.0, "lovasz": 1.0})


def network(data, modality):
    torch.manual_seed(0)
    return build_for(data.info, [modality], width=8, dropout=0.01)


def trained(method, data, *, epochs=10):
    return fit(method, data, FitSettings(epochs=epochs, batch_size=6, learning_rate=3e-2, schedule="cosine"))


def scored(students, data):
    (scores,) = evaluate(students, data.test, data.info, fabric=launch(), full=True).values()
    return scores


@pytest.fixture(scope="module")
def teacher(data):
    torch.set_num_threads(1)
    return trained(Supervised(network(data, "image"), data.info), data)


def test_labels_of_few_pixels_are_learned(data, teacher):
    untrained = Supervised(network(data, "image"), data.info).eval()

    scores = scored(teacher.students, data)

    assert scores["mean_iou"] > GOOD and teacher.best["image"]["valid"]["mean_iou"] > GOOD
    assert scored(untrained.students(), data)["mean_iou"] < 0.2
    assert scores["iou"][0] == 0.0 and np.sum(scores["confusion"][0]) == 0  # unlabelled pixels count nowhere
    assert teacher.history[-1]["losses"]["task lovasz"] < teacher.history[0]["losses"]["task lovasz"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(KD, {"pixels": "all"}), pytest.param(NTDH, {"losses": ("kl", "dkd:0.1")}, marks=pytest.mark.slow)],
)
def test_a_lidar_student_learns_from_a_camera_teacher(kind, options, data, teacher):
    module = teacher.students["image"].module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    method = kind(network(data, "lidar"), module, data.info, DistillationOptions(temperature=1.0, **options))

    run = trained(method, data)

    assert scored(run.students, data)["mean_iou"] > GOOD
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_the_same_seed_gives_the_same_bits(data):
    one, two = (trained(Supervised(network(data, "lidar"), data.info), data, epochs=1) for _ in range(2))

    state, again = (run.students["lidar"].module.state_dict() for run in (one, two))
    assert all(torch.equal(state[name], again[name]) for name in state) and one.best == two.best


def test_outputs_of_dense_students_are_kept_as_classes(data):
    outputs = {}
    students = Supervised(network(data, "lidar"), data.info).eval().students()

    evaluate(students, data.test, data.info, fabric=launch(), outputs=outputs)

    columns = outputs["lidar"]
    assert (
        columns["outputs"].shape == columns["target"].shape == (4, 16, 16) and columns["outputs"].dtype == torch.uint8
    )
    assert torch.equal(columns["target"], data.test.targets["lidar"])


def test_any_other_sample_can_stand_in_where_targets_are_dense(data):
    assert torch.equal(strata(data.info, data.train.targets.get("image")), torch.zeros(24, dtype=torch.long))
