"""Names of samples, by which tables of other tools are matched with the data: `ids.npy`, one text or integer each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.own.layout import IDS
from xmodal.data.unlabelled import is_missing
from xmodal.errors import InputError


def ids_of(where: str, values: Any, rows: int) -> list[str]:
    """One text per row.

    Args:
        where: name of the ids for error messages.
        values: text or integers, one per row.
        rows: how many rows there are.

    Example:
        >>> ids_of("ids", [7, 3], 2)
        ['7', '3']
    """
    # a tensor, or a column of a table, which NumPy reads
    found = np.asarray(values).tolist() if hasattr(values, "__array__") else list(values)
    if len(found) != rows:
        raise InputError(f"{where} has {len(found)} values, and there are {rows} samples: one for each was expected.")
    wrong = next(
        (row for row, value in enumerate(found) if is_missing(value) or not isinstance(value, str | int)), None
    )
    if wrong is not None:
        raise InputError(
            f"Row {wrong} of {where} is {found[wrong]!r}: text or an integer was expected for each sample."
        )
    return [str(value) for value in found]


def read_ids(folder: Path, rows: int) -> list[str]:
    """The names in ``ids.npy`` of a folder; empty if there is no such file."""
    path = folder / IDS
    if not path.exists():
        return []
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} can't be read ({error}). Write integers or text with numpy.save.") from None
    return ids_of(str(path), values, rows)


def shared_ids(where: str, ids: Sequence[str], rows: Mapping[str, NDArray[np.int64]]) -> list[str]:
    """The warnings about ids of several samples: of two splits, or of one.

    Example:
        >>> shared_ids("ids.npy", ["a", "b", "a"], {"train": np.array([0, 1]), "test": np.array([2])})[0]
        "ids.npy: 1 id is in train and in test, the first is 'a'. If one id is one sample, the test score is too good."
    """
    names = np.asarray(ids)
    warnings = []
    for first, second in itertools.combinations(rows, 2):
        common = np.intersect1d(names[rows[first]], names[rows[second]])
        if len(common):
            count = f"{len(common)} id{'s are' if len(common) > 1 else ' is'}"
            warnings.append(
                f"{where}: {count} in {first} and in {second}, the first is '{common[0]}'. If one id is one sample, "
                "the test score is too good."
            )
    values, counts = np.unique(names, return_counts=True)
    if not warnings and counts.max() > 1:
        warnings.append(
            f"{where}: {int((counts > 1).sum())} ids name several samples, the first is '{values[counts > 1][0]}', so "
            "a table can't be matched by them."
        )
    return warnings
