"""A problem with a known answer: the teacher sees the classes clearly, the student the same sample with noise."""

import numpy as np

from xmodal import distill
from xmodal.data.arrays import from_arrays


def noisy_copies(rows=4030, classes=4, width=12):
    """Classes around corners; the teacher's modality is clean, the student's is the same row with noise."""
    random = np.random.default_rng(0)
    target = np.arange(rows) % classes
    corners = random.normal(size=(classes, width))
    clean = corners[target] + 0.15 * random.normal(size=(rows, width))
    noisy = clean + 1.2 * random.normal(size=(rows, width))
    order = random.permutation(rows)
    splits = {"train": order[:2030], "valid": order[2030:2230], "test": order[2230:]}
    return from_arrays({"clean": clean, "noisy": noisy}, target, splits=splits)


def test_thirty_labels_and_two_thousand_pairs_are_nearly_as_good_as_all_labels():
    data, usual = noisy_copies(), {"teacher": "clean", "student": "noisy", "epochs": 15}

    few = distill(data=data, training={"labelled": "30", "threads": 1}, **usual).scores
    everything = distill(data=data, method="supervised", training={"threads": 1}, **usual).scores["no-KD"]

    assert few["teacher"] > 0.99  # so its predictions are the labels that are hidden
    assert few["kd"] > everything - 0.03
    assert few["no-KD"] < everything - 0.06
    assert few["kd (permuted pairs)"] < few["no-KD"] + 0.02
    assert few["kd (same-modality teacher)"] < few["no-KD"] + 0.03
