"""Sequences of MOSI and MOSEI as columns: the arrays of the splits, concatenated and cleaned on access, time last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.columns import gather
from xmodal.data.own.repair import finite
from xmodal.data.split import Column

TREATMENTS = ("zero", "refuse", "published")
# Samples that are converted together: 256 sequences of MOSEI's audio are 38 MB, the whole array is 3 GB.
BLOCK = 256
Numbers = NDArray[Any]


def cleaned(values: Numbers, modality: str, treatment: str = "zero") -> NDArray[np.float32]:
    """Values as float32, with non-finite values replaced.

    Args:
        values: features of a modality, of any shape.
        modality: name of the modality.
        treatment: ``zero`` replaces NaN and ±inf by 0; ``published`` replaces only -inf in audio; ``refuse`` replaces
            nothing, since files with such values are refused when they are opened.

    Example:
        >>> values = np.array([1.0, np.nan, -np.inf])
        >>> cleaned(values, "audio").tolist(), cleaned(values, "audio", "published").tolist()
        ([1.0, 0.0, 0.0], [1.0, nan, 0.0])
    """
    # A float64 value beyond the range of float32 becomes infinite, and is counted as such by `not_finite`.
    with np.errstate(over="ignore"):
        numbers = np.asarray(values).astype(np.float32)
    if treatment == "zero":
        numbers[~finite(numbers)] = 0
    # The published audio features contain -inf; the authors' loader replaces these and nothing else.
    elif treatment == "published" and modality == "audio":
        numbers[np.isneginf(numbers)] = 0
    return numbers


def not_finite(parts: Sequence[Numbers]) -> dict[str, int]:
    """The number of values that are NaN, +inf and -inf as float32.

    Example:
        >>> not_finite([np.array([[1.0, np.inf]]), np.array([[1e40, np.nan]])])
        {'nan': 1, '+inf': 2, '-inf': 0}
    """
    counts = {"nan": 0, "+inf": 0, "-inf": 0}
    for part in parts:
        for first in range(0, len(part), BLOCK):
            numbers = cleaned(part[first : first + BLOCK], "", "refuse")
            if not np.isfinite(numbers).all():
                counts["nan"] += int(np.isnan(numbers).sum())
                counts["+inf"] += int(np.isposinf(numbers).sum())
                counts["-inf"] += int(np.isneginf(numbers).sum())
    return counts


def time_means(values: Numbers) -> Numbers:
    """The mean over the last axis, including padding, with the axis kept at length 1; NaN becomes 0.

    Example:
        >>> time_means(np.array([[1.0, 2.0, 0.0], [1.0, np.nan, 1.0]]))
        array([[1.],
               [0.]])
    """
    # The mean of a row with both +inf and -inf is NaN, with a warning.
    with np.errstate(invalid="ignore"):
        means: Numbers = values.mean(axis=-1, keepdims=True)
    # nan_to_num would also replace the infinities, by the largest float; the authors' code keeps them.
    return np.nan_to_num(means, nan=0.0, posinf=np.inf, neginf=-np.inf)


class Sequences:
    """Arrays (samples, time, width) of several splits as a single column (samples, width, time).

    Args:
        parts: the arrays, all of the same width and number of steps.
        modality: name of the modality.
        treatment: what to do with non-finite values, see `cleaned`.
    """

    def __init__(self, parts: Sequence[Numbers], modality: str, treatment: str = "zero") -> None:
        self.parts, self.modality, self.treatment = list(parts), modality, treatment
        self.ends = np.cumsum([len(part) for part in parts])
        steps, width = parts[0].shape[1:]
        self.shape, self.dtype = (int(self.ends[-1]), width, steps), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        values = gather(rows, self.ends, lambda place: self.parts[place])
        return cleaned(values, self.modality, self.treatment).transpose(0, 2, 1)


class TimeMeans:
    """The means over time of a column (samples, width, time), as (samples, width, 1)."""

    def __init__(self, column: Column) -> None:
        self.column, self.dtype = column, column.dtype
        self.shape = (*tuple(column.shape)[:-1], 1)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Numbers:
        return time_means(np.asarray(self.column[rows]))


def counted(counts: Mapping[str, int]) -> str:
    """Counts of `not_finite` as text.

    Example:
        >>> counted({"nan": 2, "+inf": 0, "-inf": 7})
        '2 nan and 7 -inf'
    """
    return " and ".join(f"{count} {kind}" for kind, count in counts.items() if count)
