"""Sequences of MOSI and MOSEI as columns: three arrays behind one another, cleaned, time last, read when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.columns import gather
from xmodal.data.own.repair import finite
from xmodal.data.split import Column

TREATMENTS = ("zero", "refuse", "published")
BLOCK = 256  # samples that are looked at in one go
Numbers = NDArray[Any]


def cleaned(values: Numbers, modality: str, treatment: str = "zero") -> NDArray[np.float32]:
    """Values in float32 without what no network can read.

    Args:
        values: numbers of a modality, of any shape.
        modality: which one.
        treatment: ``zero`` puts 0 in place of NaN and ±inf; ``published`` in place of -inf in audio alone; ``refuse``
            changes nothing, since it was refused before.

    Example:
        >>> values = np.array([1.0, np.nan, -np.inf])
        >>> cleaned(values, "audio").tolist(), cleaned(values, "audio", "published").tolist()
        ([1.0, 0.0, 0.0], [1.0, nan, 0.0])
    """
    with np.errstate(over="ignore"):  # what does not fit into float32 becomes infinite, and is counted so
        numbers = np.asarray(values).astype(np.float32)
    if treatment == "zero":
        numbers[~finite(numbers)] = 0
    elif treatment == "published" and modality == "audio":
        numbers[np.isneginf(numbers)] = 0
    return numbers


def not_finite(parts: Sequence[Numbers]) -> dict[str, int]:
    """How many values of some arrays are NaN, +inf and -inf as float32.

    Example:
        >>> not_finite([np.array([[1.0, np.inf]]), np.array([[1e40, np.nan]])])
        {'nan': 1, '+inf': 2, '-inf': 0}
    """
    found = {"nan": 0, "+inf": 0, "-inf": 0}
    for part in parts:
        for first in range(0, len(part), BLOCK):
            numbers = cleaned(part[first : first + BLOCK], "", "refuse")
            if not np.isfinite(numbers).all():
                found["nan"] += int(np.isnan(numbers).sum())
                found["+inf"] += int(np.isposinf(numbers).sum())
                found["-inf"] += int(np.isneginf(numbers).sum())
    return found


def time_means(values: Numbers) -> Numbers:
    """The mean over the last axis, kept with length 1 and padding included; NaN becomes 0.

    Example:
        >>> time_means(np.array([[1.0, 2.0, 0.0], [1.0, np.nan, 1.0]]))
        array([[1.],
               [0.]])
    """
    with np.errstate(invalid="ignore"):  # +inf and -inf in one row have no mean
        means: Numbers = values.mean(axis=-1, keepdims=True)
    return np.nan_to_num(means, nan=0.0, posinf=np.inf, neginf=-np.inf)


class Sequences:
    """Arrays (samples, time, width) of several splits as one column (samples, width, time).

    Args:
        parts: the arrays; width and time are those of the first.
        modality: which one.
        treatment: of values that are not finite, see `cleaned`.
    """

    def __init__(self, parts: Sequence[Numbers], modality: str, treatment: str = "zero") -> None:
        self.parts, self.modality, self.treatment = list(parts), modality, treatment
        self.ends = np.cumsum([len(part) for part in parts])
        steps, width = parts[0].shape[1:]
        self.shape, self.dtype = (int(self.ends[-1]), width, steps), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        found = gather(rows, self.ends, lambda place: self.parts[place])
        return cleaned(found, self.modality, self.treatment).transpose(0, 2, 1)


class TimeMeans:
    """A column (samples, width, time) as its means over time, (samples, width, 1)."""

    def __init__(self, column: Column) -> None:
        self.column, self.dtype = column, column.dtype
        self.shape = (*tuple(column.shape)[:-1], 1)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Numbers:
        return time_means(np.asarray(self.column[rows]))


def counted(counts: Mapping[str, int]) -> str:
    """Counts of `not_finite` in words.

    Example:
        >>> counted({"nan": 2, "+inf": 0, "-inf": 7})
        '2 nan and 7 -inf'
    """
    return " and ".join(f"{count} {kind}" for kind, count in counts.items() if count)
