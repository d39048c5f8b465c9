"""Rows that lack a modality: columns that hold some of the samples, and the checks of the splits.

A recording in which the microphone failed still has its pictures, a labelled sound corpus has no pictures at all: such
training rows serve every term of a loss that can use what they have. Validation and test rows have all modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.split import Column, Split
from xmodal.errors import InputError, listed
from xmodal.types import SPLITS, DataInfo, owner

Masks = Mapping[str, NDArray[np.bool_]]


class PartialColumn:
    """A column that some samples lack: the others are stored, and those that lack it read as NaN.

    Among integers, which have no NaN, lacking samples read as -1 if the column is an auxiliary input, such as lengths,
    whose integers stay integers; the integers of a modality are read as floats.

    Args:
        stored: the samples that are there.
        rows: their numbers, (stored samples,).
        samples: how many samples there are, with those that lack the column.
        auxiliary: whether integers stay integers.

    Attributes:
        present: mask of the samples that are there, (samples,).

    Example:
        >>> column = PartialColumn(np.array([[5.0], [7.0]]), np.array([2, 0]), 3)
        >>> column[np.array([0, 1, 2])].tolist(), column.present.tolist()
        ([[7.0], [nan], [5.0]], [True, False, True])
    """

    def __init__(self, stored: Column, rows: NDArray[np.int64], samples: int, *, auxiliary: bool = False) -> None:
        self.stored, self.rows, self.auxiliary = stored, rows, auxiliary
        self.shape = (samples, *stored.shape[1:])
        kept = stored.dtype.kind == "f" or auxiliary
        # unsigned integers have no -1
        self.dtype = np.dtype(np.int64) if auxiliary and stored.dtype.kind in "bu" else stored.dtype
        self.dtype = self.dtype if kept else np.dtype(np.float32)
        self.places: NDArray[np.int64] = np.full(samples, -1, dtype=np.int64)
        self.places[rows] = np.arange(len(rows))
        self.present: NDArray[np.bool_] = self.places >= 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        places = self.places[rows]
        if (places >= 0).all():
            values: NDArray[Any] = self.stored[places]
            return values
        flat = np.atleast_1d(places)
        nothing = np.nan if self.dtype.kind == "f" else -1
        values = np.full((len(flat), *self.shape[1:]), nothing, self.dtype)
        values[flat >= 0] = self.stored[flat[flat >= 0]]
        return values if places.ndim else values[0]


def stored_of(column: Column) -> tuple[Column, NDArray[np.int64] | None]:
    """The samples of a column that are there, and their numbers; None: all are there."""
    return (column.stored, column.rows) if isinstance(column, PartialColumn) else (column, None)


def masks_of(columns: Mapping[str, Column]) -> dict[str, NDArray[np.bool_]]:
    """Modality → mask of the samples that have it; empty if no column lacks any."""
    partial = [column for column in columns.values() if isinstance(column, PartialColumn)]
    if all(column.present.all() for column in partial):
        return {}
    return {
        name: column.present if isinstance(column, PartialColumn) else np.ones(column.shape[0], dtype=bool)
        for name, column in columns.items()
        if name == owner(name)
    }


def complete(masks: Masks) -> NDArray[np.bool_] | None:
    """Mask of the samples that have all modalities; None: all have."""
    return np.logical_and.reduce(list(masks.values())) if masks else None


def present_problems(where: Mapping[str, str], rows: Mapping[str, NDArray[np.int64]], masks: Masks) -> list[str]:
    """The error sentences about rows that lack a modality; none if the splits are as they must be.

    Args:
        where: split → its name in the sentences.
        rows: split → row numbers.
        masks: modality → mask of the samples that have it; empty: all have all.
    """
    problems = []
    for split in (split for split in SPLITS if split in rows and masks):
        there = {name: mask[rows[split]] for name, mask in masks.items()}
        if split == "train":
            problems += [
                f"No row of {where[split]} has {name}, so nothing is learned of it. Add rows that have it, or leave "
                f"{name} out."
                for name, mask in there.items()
                if not mask.any()
            ]
            nothing = rows[split][~np.logical_or.reduce(list(there.values()))]
            if len(nothing):
                problems.append(
                    f"{len(nothing)} rows of {where[split]} have none of the modalities {', '.join(there)}; the first "
                    f"is row {nothing[0]}. Remove them."
                )
            continue
        for name, mask in there.items():
            if not mask.all():
                problems.append(
                    f"{int((~mask).sum())} of {len(mask)} rows of {where[split]} lack {name}, the first is row "
                    f"{rows[split][~mask][0]}, and scores need every modality. Move them to the training split, which "
                    "uses rows that lack one."
                )
    return problems


def count_present(splits: Mapping[str, Split], info: DataInfo) -> DataInfo:
    """The facts with the number of training rows that have each modality, where some lack one.

    Args:
        splits: ``train``, ``valid`` and ``test``.
        info: of these splits.

    Raises:
        InputError: a row of the validation or test split lacks a modality, or a training row has none.
    """
    columns = {name: column for name, column in splits["train"].columns.items() if name in info.modalities}
    masks = masks_of(columns)
    if not masks:
        return info
    if not info.paired:
        names = listed(name for name, mask in masks.items() if not mask.all())
        raise InputError(
            f"Some samples lack {names}, and this data is unpaired: each modality has samples of its own. Leave the "
            "samples out that lack one."
        )
    where = {"train": "the training split", "valid": "the validation split", "test": "the test split"}
    rows = {split: next(iter(part.numbers.values())) for split, part in splits.items()}
    if problems := present_problems(where, rows, masks):
        raise InputError(problems)
    present = splits["train"].present
    return replace(info, present={name: int(mask.sum()) for name, mask in present.items()}) if present else info


def sample_numbers(where: str, rows: NDArray[Any], stored: int | None, samples: int) -> list[str]:
    """The error sentences about the numbers of the samples that a column holds; none if they are valid.

    Args:
        where: name of the numbers in the sentences.
        rows: the numbers.
        stored: how many samples the column holds; None: not known.
        samples: how many samples there are.
    """
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        return [
            f"{where} has the shape {rows.shape} and holds {rows.dtype}: a list of the row numbers that are there was "
            "expected, as integers."
        ]
    if not len(rows):
        return [f"{where} is empty: at least one sample must have the modality. Leave the modality out."]
    problems = []
    if stored is not None and len(rows) != stored:
        problems.append(
            f"{where} names {len(rows)} rows, and its modality has {stored}: one number for each was expected."
        )
    outside = rows[(rows < 0) | (rows >= samples)]
    if len(outside):
        problems.append(f"{where} holds the row {outside[0]}, but there are {samples} samples (from 0).")
    values, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        problems.append(f"{where} names row {values[counts > 1][0]} twice: each sample has a modality once.")
    return problems
