"""A given teacher beside the labels of the data: which of its rows have one, and whether both agree at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xmodal.data.base import Data
from xmodal.data.unlabelled import has_label
from xmodal.errors import InputError

DOUBT = 3.0  # standard deviations above chance that the agreement of an unnamed table with the labels must reach
FEW = 20  # labelled rows below which that is not tested


def targets_of(rows: NDArray[np.int64], data: Data) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The training target of each of these rows of the data, and which of them are training rows with a label."""
    split = data.train
    numbers = next(iter(split.numbers.values()))
    if not split.targets:
        raise InputError(
            "The labels of this data are drawn with its samples, so no given teacher can be compared with it."
        )
    target = next(iter(split.targets.values())).numpy()
    places = np.full(next(iter(split.columns.values())).shape[0], -1)
    places[numbers] = np.arange(len(numbers))
    known = has_label(target) if split.labelled else np.ones(len(target), dtype=bool)
    at = places[rows]
    return target[np.clip(at, 0, None)], (at >= 0) & known[np.clip(at, 0, None)]


def labelled_as(classes: Sequence[int], rows: NDArray[np.int64], data: Data) -> NDArray[np.bool_]:
    """Which rows are training rows whose label is one of these classes."""
    if not classes:
        return np.zeros(len(rows), dtype=bool)
    target, labelled = targets_of(rows, data)
    return labelled & np.isin(target, classes)


def by_chance(answers: NDArray[np.float32], rows: NDArray[np.int64], data: Data) -> str:
    """How often a teacher is right on labelled rows, if that is no more than by chance; empty if it is more.

    Outputs whose rows are in another order agree with the labels about as often as two independent columns of classes.
    """
    if data.info.task not in ("multiclass", "binary"):
        return ""
    target, labelled = targets_of(rows, data)
    outputs, truth = torch.from_numpy(answers[labelled]), target[labelled]
    if len(truth) < FEW:
        return ""
    predicted = (outputs[:, 0] > 0).long().numpy() if outputs.shape[1] == 1 else outputs.argmax(dim=1).numpy()
    shares = (np.bincount(each, minlength=data.info.classes) / len(truth) for each in (predicted, truth))
    chance = float(np.dot(*shares))
    deviation = np.sqrt(max(chance * (1 - chance) / len(truth), 1e-12))
    agreement = float((predicted == truth).mean())
    if agreement >= chance + DOUBT * deviation:
        return ""
    return f"right on {agreement:.0%} of {len(truth)} labelled rows, where chance gives {chance:.0%}"
