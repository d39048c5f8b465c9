"""Weights in the loss of labels: of classes, and of single rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from xmodal.data.base import Data
from xmodal.data.samples import as_array
from xmodal.errors import InputError
from xmodal.types import DataInfo

BALANCED = "balanced"


def with_class_weights(data: Data, weights: str | Sequence[float]) -> Data:
    """The same data with a weight for each class in the loss of labels.

    Args:
        data: of one class per target.
        weights: one number per class, or ``balanced``: rows / (classes · rows of the class), of the labelled training
            rows.

    Example:
        >>> from xmodal.data.arrays import from_arrays
        >>> data = from_arrays({"a": np.arange(40.0).reshape(40, 1)}, np.arange(40) // 30)
        >>> [round(weight, 2) for weight in with_class_weights(data, "balanced").info.class_weights]
        [0.67, 2.0]
    """
    revealed = data.revealed and with_class_weights(data.revealed, weights)
    numbers = _balanced(data.info) if isinstance(weights, str) else _checked(weights)
    return replace(data, info=replace(data.info, class_weights=numbers), revealed=revealed)


def _checked(weights: Sequence[float]) -> tuple[float, ...]:
    values = as_array("class_weights", weights)
    wrong = values.dtype.kind not in "biuf" or values.ndim != 1
    if wrong or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise InputError(
            f"class_weights is {weights!r}: 'balanced', or a number from 0 for each class in their order was expected, "
            "one of them above 0."
        )
    return tuple(values.astype(float).tolist())


def _balanced(info: DataInfo) -> tuple[float, ...]:
    if info.task != "multiclass":
        raise InputError(f"class_weights are for the task multiclass, and this one is {info.task}. Leave them out.")
    counts = torch.zeros(info.classes, dtype=torch.long)
    # by identity: paired modalities share their targets
    for target in {id(target): target for target in info.train_targets.values()}.values():
        known = target.flatten().long()
        known = known[known >= 0]
        if info.ignore is not None:
            known = known[known != info.ignore]
        counts += torch.bincount(known, minlength=info.classes)
    if not counts.all():
        # the weight of a class that never occurs is never read
        counts = counts.clamp(min=1)
    return tuple((counts.sum() / (info.classes * counts)).tolist())


def with_row_weights(data: Data, weights: Any, *, further: int = 0) -> Data:
    """The same data with a weight for each row in the loss of labels.

    They are scaled to a mean of 1 over the labelled training rows, so that equal weights change nothing.

    Args:
        data: paired, with one target per sample.
        weights: (rows,) of the columns without those that were added without a label.
        further: how many rows were added without a label.
    """
    values, rows = as_array("sample_weight", weights), next(iter(data.train.columns.values())).shape[0] - further
    problem = ""
    if not data.info.paired:
        problem = "the data is unpaired, and a weight belongs to a row of all modalities. Leave it out."
    elif data.info.dense or data.info.label_losses:
        problem = "it weights the loss of one target per sample, which this data does not have. Leave it out."
    elif values.shape != (rows,):
        problem = f"it has the shape {values.shape}, and there are {rows} rows: one weight for each was expected."
    elif values.dtype.kind not in "biuf" or not np.isfinite(values).all() or (values < 0).any():
        problem = "finite numbers from 0 were expected. Repair them."
    if problem:
        raise InputError(f"sample_weight does not fit: {problem}")
    whole = np.concatenate([values.astype(np.float64), np.ones(further)])
    name = next(iter(data.train.numbers))
    labelled = data.train.labelled[name].numpy() if data.train.labelled else slice(None)
    mean = whole[data.train.numbers[name][labelled]].mean()
    if not mean > 0:
        raise InputError("sample_weight is 0 for every labelled training row, so nothing would be learned. Raise some.")
    train = copy.copy(data.train)
    train.weights = (whole / mean).astype(np.float32)
    return replace(data, train=train, info=replace(data.info, weighted=True))
