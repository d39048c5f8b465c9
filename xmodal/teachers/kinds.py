"""From what a teacher returns (logits, probabilities, classes, the best k of them) to the outputs that losses read.

Losses read what a network of the same task would return: logits for classes and labels, values for regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError, did_you_mean
from xmodal.teachers.table import Table

# Probabilities of 0 have no logarithm; this one is the smallest that float32 tells from 0 beside 1.
FLOOR = 1e-7
SUM = 1e-3  # how far from 1 the sum of probabilities may be


def outputs_of(table: Table, *, task: str, classes: int) -> tuple[NDArray[np.float32], str]:
    """The outputs (entries, width) of a table, and a sentence about how they were read.

    Args:
        table: of any kind but embeddings.
        task: of the data.
        classes: how many classes the teacher has; for regression the width of the target.

    Example:
        >>> table = Table("t", "auto", np.array([[0.25, 0.75]]))
        >>> outputs, sentence = outputs_of(table, task="multiclass", classes=2)
        >>> np.exp(outputs).tolist(), sentence
        ([[0.25, 0.75]], 'its outputs are read as probabilities')
    """
    if task == "regression":
        return _values(table, classes), "its outputs are read as values"
    if table.indices is not None:
        table = _spread(table, classes)
    kind = table.kind if table.kind != "auto" else _inferred(table, task)
    if kind == "classes":
        return _of_classes(table, task, classes), "its outputs are read as predicted classes"
    width = 1 if task == "binary" else classes
    values = _wide(table, width, binary=task == "binary")
    outputs = _logits(values, kind, task, table.where)
    return outputs.astype(np.float32), f"its outputs are read as {kind}"


def _values(table: Table, width: int) -> NDArray[np.float32]:
    if table.kind not in ("auto", "values"):
        raise InputError(f"The data is a regression, and {table.where} holds {table.kind}. Give predicted values.")
    values = table.values.reshape(len(table.values), -1)
    if values.dtype.kind not in "biuf" or values.shape[1] != width:
        raise InputError(
            f"{table.where} has {values.shape[1]} values in a row ({values.dtype}), and the target has {width}: the "
            "same were expected."
        )
    return values.astype(np.float32)


def _inferred(table: Table, task: str) -> str:
    """The kind of output, from the type and the range of the values."""
    values = table.values
    if values.ndim == 1 and task != "binary":
        return "classes"
    if values.dtype.kind in "biuU" and values.ndim == 1:
        return "classes"
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    inside = bool((known >= 0).all() and (known <= 1).all())
    if task != "multiclass":
        return "probabilities" if inside else "logits"
    rows = values[~np.isnan(values).any(axis=1)] if values.dtype.kind == "f" else values
    if inside and bool((np.abs(rows.sum(axis=1) - 1) < SUM).all()):
        return "probabilities"
    return "logits"


def _wide(table: Table, width: int, *, binary: bool) -> NDArray[np.float64]:
    """The values as (entries, width)."""
    values = table.values.astype(np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if binary and values.shape[1] == 2:
        # two columns say the same as one: the probability of class 1, or the difference of the logits
        return values
    if values.shape[1] != width:
        raise InputError(
            f"{table.where} has {values.shape[1]} columns, and {width} were expected, one for each class. Name the "
            "teacher's classes (--teacher-classes), or say that the table holds embeddings (--teacher-outputs "
            "embeddings, or --teacher-probe)."
        )
    return values


def _logits(values: NDArray[np.float64], kind: str, task: str, where: str) -> NDArray[np.float64]:
    if kind == "logits":
        # -inf is a common way to rule a class out
        highest = np.where(np.isneginf(values), np.nan, values)
        if np.isneginf(values).any():
            floor = np.nanmax(highest, axis=1, keepdims=True) + 2 * np.log(FLOOR)
            values = np.where(np.isneginf(values), floor, values)
        return values[:, 1:] - values[:, :1] if task == "binary" and values.shape[1] == 2 else values
    if kind not in ("probabilities", "log-probabilities"):
        raise InputError(f"The data has classes, and {where} holds {kind}. Give logits or probabilities.")
    known = ~np.isnan(values).any(axis=1)
    with np.errstate(over="ignore"):
        probabilities = values if kind == "probabilities" else np.exp(values)
    wrong = known & ((probabilities < 0) | (probabilities > 1 + SUM)).any(axis=1)
    if task == "multiclass" or values.shape[1] == 2 and task == "binary":
        wrong |= known & (np.abs(probabilities.sum(axis=1) - 1) >= SUM)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"Row {row} of {where} holds no {kind} (they sum to {probabilities[row].sum():.4g}). Normalise them, or "
            "say that the table holds logits (--teacher-outputs logits)."
        )
    if task == "multiclass":
        # the floor of log-probabilities, too: -inf is a common way to store a probability of 0
        logarithms = values if kind == "log-probabilities" else np.log(np.clip(probabilities, FLOOR, None))
        floored: NDArray[np.float64] = np.maximum(logarithms, np.log(FLOOR))
        return floored
    inside = np.clip(probabilities[:, -1:] if task == "binary" else probabilities, FLOOR, 1 - FLOOR)
    odds: NDArray[np.float64] = np.log(inside) - np.log1p(-inside)
    return odds


def _of_classes(table: Table, task: str, classes: int) -> NDArray[np.float32]:
    """Outputs that give all probability to one class."""
    if task == "multilabel" or table.values.ndim != 1:
        raise InputError(f"{table.where} holds classes: one for each row was expected, as (rows,).")
    numbers, lacking = _numbers(table)
    wrong = ~lacking & ((numbers < 0) | (numbers >= classes) | (numbers != np.round(numbers)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"Row {row} of {table.where} is class {table.values[row]}: whole numbers from 0 to {classes - 1} were "
            "expected, -1 or NaN where there is no answer."
        )
    certain = np.float32(-np.log(FLOOR))
    if task == "binary":
        outputs = np.where(numbers == 1, certain, -certain)[:, None]
    else:
        outputs = np.where(numbers[:, None] == np.arange(classes), np.float32(0), -certain)
    outputs[lacking] = np.nan
    return outputs.astype(np.float32)


def _numbers(table: Table) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The class numbers of a table of classes, and where there is no answer."""
    values = table.values
    if values.dtype.kind == "U":
        places = {name: number for number, name in enumerate(table.class_names)}
        unknown = next((name for name in values.tolist() if name and name not in places), None)
        if unknown is not None:
            raise InputError(f"{table.where} predicts '{unknown}', which is no class. {did_you_mean(unknown, places)}")
        return np.array([places.get(name, -1) for name in values.tolist()]), values == ""
    lacking = np.isnan(values) if values.dtype.kind == "f" else values == -1
    return np.where(lacking, 0, values), lacking


def _spread(table: Table, classes: int) -> Table:
    """A table of the best k classes with a column for each class: the others share what is left of the probability."""
    assert table.indices is not None
    values, indices = table.values.astype(np.float64), table.indices
    known = ~np.isnan(values).any(axis=1)
    if ((indices[known] < 0) | (indices[known] >= classes)).any():
        raise InputError(f"{table.where} names classes outside 0 to {classes - 1}. Check indices.")
    ordered = np.sort(indices[known], axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise InputError(f"{table.where} names a class twice in one row. Check indices.")
    kind = table.kind
    if kind == "auto":
        kind = "log-probabilities" if (values[known] <= 0).all() else "probabilities"
    if kind not in ("probabilities", "log-probabilities"):
        raise InputError(
            f"{table.where} holds the best {indices.shape[1]} {kind} of each row, which say nothing of the other "
            "classes. Store probabilities or log-probabilities."
        )
    kept = values if kind == "probabilities" else np.exp(values)
    total = kept.sum(axis=1)
    if ((kept[known] < 0).any() or (total[known] > 1 + SUM).any()) and known.any():
        raise InputError(
            f"The best {indices.shape[1]} values of a row of {table.where} sum to more than 1 or are negative, so they "
            "are no probabilities. Store probabilities or log-probabilities."
        )
    rest = np.clip(1.0 - total, 0.0, None) / max(classes - indices.shape[1], 1)
    spread = np.repeat(rest[:, None], classes, axis=1)
    rows = np.flatnonzero(known)
    spread[rows[:, None], indices[rows]] = kept[rows]
    # with k = all classes, or rounding, the sum may differ from 1
    spread /= spread.sum(axis=1, keepdims=True)
    spread[~known] = np.nan
    return replace(table, values=spread, indices=None, kind="probabilities")


def shared_names(names: Sequence[str]) -> str:
    """Names for a sentence, at most six of them."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
