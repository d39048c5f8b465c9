"""Rows without a label: how targets say that a label is missing, and the training split that marks these rows.

Files and arrays say it with -1 (integers), NaN (floats) or empty text, Python also with None or pandas' NA. Within the
library the target of such a row is -1, or NaN for regression, so that code which forgets the mask of labelled rows
fails.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xmodal.data.split import Split
from xmodal.errors import InputError
from xmodal.names import UNLABELLED
from xmodal.types import DataInfo

SINGLE = ("multiclass", "binary")  # tasks with one class per target


def is_missing(value: Any) -> bool:
    """Whether a single value says that there is no label: None, NaN, or pandas' NA and NaT.

    Example:
        >>> [is_missing(value) for value in (None, float("nan"), 0, "a")]
        [True, True, False, False]
    """
    # by the name of its type: pandas is not imported, and a comparison with its NA is neither true nor false
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(value != value)


def is_missing_row(value: Any) -> bool:
    """Whether the target of a row says that there is no label: a missing value, or a list of nothing else.

    Example:
        >>> is_missing_row([None, float("nan")]), is_missing_row([None, 1.0])
        (True, False)
    """
    return is_missing(value) or (isinstance(value, list | tuple) and bool(value) and all(map(is_missing, value)))


def missing_values(values: NDArray[Any], label: int | None = UNLABELLED) -> NDArray[np.bool_]:
    """Mask of the values that say "no label": NaN, empty text, or ``label`` among integers (None: no integer)."""
    # -1.0 is an ordinary value of a regression
    nothing: NDArray[np.bool_] = np.zeros(values.shape, dtype=bool)
    if values.dtype.kind == "f":
        nothing = np.isnan(values)
    elif values.dtype.kind == "U":
        nothing = values == ""
    elif label is not None:
        nothing = values == label
    return nothing


def has_label(target: NDArray[Any], label: int | None = UNLABELLED) -> NDArray[np.bool_]:
    """(rows,) which rows have a label: not all of their values are missing.

    Args:
        target: of the rows, (rows,) or (rows, …).
        label: the missing value among integers, as NaN is among floats; None: no integer is.

    Example:
        >>> has_label(np.array([1, -1, 0])).tolist(), has_label(np.array([[0.5, 1.0], [np.nan, np.nan]])).tolist()
        ([True, False, True], [True, False])
    """
    flat = target.reshape(len(target), -1)
    if not flat.size:
        return np.ones(len(target), dtype=bool)
    nothing = missing_values(flat[:, 0], label)
    if flat.shape[1] > 1:
        # maps of classes take gigabytes: they are read only where their first value is missing
        rows = np.flatnonzero(nothing)
        nothing[rows] = missing_values(flat[rows], label).all(axis=1)
    return ~nothing


def label_of(ignore: int | None) -> int | None:
    """The integer of rows without a label in `marked` targets: -1, unless that is the value of ignored pixels."""
    return None if ignore == UNLABELLED else UNLABELLED


def marked(target: NDArray[Any], task: str, label: int | None = UNLABELLED) -> NDArray[Any]:
    """Targets whose rows without a label hold -1; those of regression hold NaN and are unchanged.

    Args:
        target: valid targets of all rows.
        task: kind of target.
        label: the missing value among integers, as NaN is among floats; None: no integer is.

    Example:
        >>> marked(np.array([0.0, np.nan, 2.0]), "multiclass"), marked(np.array([0, 9, 1]), "multiclass", 9)
        (array([ 0, -1,  2]), array([ 0, -1,  1]))
    """
    without = ~has_label(target, label) if task != "regression" else np.zeros(len(target), dtype=bool)
    if not without.any() or (target.dtype.kind == "i" and label == UNLABELLED):
        return target
    # before the conversion to integers, which has no result for NaN
    filled = np.where(without.reshape(-1, *[1] * (target.ndim - 1)), 0, target).astype(np.int64)
    filled[without] = UNLABELLED
    return filled


def mark_unlabelled(splits: Mapping[str, Split], info: DataInfo) -> tuple[Split, DataInfo]:
    """The training split with a mask of the rows that have a label, and the facts about them.

    Args:
        splits: ``train``, ``valid`` and ``test``, with targets that are -1 or NaN where there is no label.
        info: of these splits.

    Raises:
        InputError: rows of the validation or test split have no label, no training row has one, or a class has none.
    """
    train = splits["train"]
    label = label_of(info.ignore)
    problems = []
    for split in ("valid", "test"):
        for name, target in splits[split].targets.items():
            where = f"the {split} split" + ("" if info.paired else f" of {name}")
            problems += scored_problem(where, has_label(target.numpy(), label))
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    # by identity: modalities that share their targets share the mask
    shared = {id(target): torch.from_numpy(has_label(target.numpy(), label)) for target in train.targets.values()}
    masks = {name: shared[id(target)] for name, target in train.targets.items()}
    changed = train.without_labels(masks)
    if not changed.labelled:
        return train, info
    for name, mask in masks.items():
        where = "the training split" + ("" if info.paired else f" of {name}")
        problems += trained_problem(where, int(mask.sum()))
        if info.task in SINGLE and not info.dense:
            scored = [value for split in ("valid", "test") for value in splits[split].targets[name].tolist()]
            known = train.targets[name][mask].tolist()
            problems += class_problem(where, set(scored) - set(known), info.class_names)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return changed, replace(info, labelled=counted(masks), train_targets=changed.targets)


def counted(masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Modality → number of rows with a label."""
    return {name: int(mask.sum()) for name, mask in masks.items()}


def scored_problem(where: str, labelled: NDArray[np.bool_]) -> list[str]:
    """The error sentence about validation or test rows without a label; none if all have one."""
    missing = int((~labelled).sum())
    if not missing:
        return []
    return [
        f"{missing} of {len(labelled)} rows of {where} have no label, and scores need one for each. Label them, or "
        "move them to the training split, which uses rows without a label."
    ]


def trained_problem(where: str, labelled: int) -> list[str]:
    """The error sentence about a training split with too few labels; none if there are two or more."""
    if labelled >= 2:
        return []
    found = "No row" if not labelled else "Only one row"
    return [f"{found} of {where} has a label, and at least two were expected. Label more rows."]


def class_problem(where: str, missing: Collection[int], names: Sequence[str] = ()) -> list[str]:
    """The error sentence about classes without any label in training; none if there are no such classes."""
    if not missing:
        return []
    return [
        f"No labelled row of {where} has the {named(missing, names)}, and a class is learned from labels. Label at "
        "least one row of each."
    ]


def named(classes: Collection[int], names: Sequence[str] = (), most: int = 6) -> str:
    """Classes as text for an error message, by their names where they have some.

    Example:
        >>> named({2, 0}, ["walk", "run"]), named([1], ["walk", "run"])
        ('classes walk, 2', 'class run')
    """
    values = sorted(classes)
    shown = ", ".join(names[value] if value < len(names) else str(value) for value in values[:most])
    more = f", … ({len(values)} in all)" if len(values) > most else ""
    return f"class{'es' * (len(values) > 1)} {shown}{more}"
