"""Groups of samples that belong together (a speaker, a person, a drive), and splits that keep each on one side.

If recordings of one person are in training and in the test split, the test score is that of known people.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.unlabelled import is_missing
from xmodal.errors import InputError
from xmodal.names import SPLITS

# orders of the groups that are tried, and the deviation from the wanted shares at which the search ends
ORDERS = 200
NEAR = 0.02


def rows_of_each(values: NDArray[Any]) -> list[NDArray[np.int64]]:
    """The rows of each value, in ascending order of the values and of the rows.

    One sort, because a comparison of all rows with each value takes rows × values steps.

    Example:
        >>> [rows.tolist() for rows in rows_of_each(np.array([7, 3, 7, 7, 3]))]
        [[1, 4], [0, 2, 3]]
    """
    order = np.argsort(values, kind="stable").astype(np.int64)
    ordered = values[order]
    # an empty array has no value, and no first row of one
    return np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1) if len(order) else []


def group_numbers(where: str, groups: Any, rows: int) -> NDArray[np.int64]:
    """One integer per row: integers are unchanged, other values are numbered in the order in which they appear.

    Args:
        where: name of the groups for error messages.
        groups: one hashable value per row.
        rows: how many rows there are.

    Example:
        >>> group_numbers("groups", ["ann", "bob", "ann"], 3), group_numbers("groups", [7, 3, 7], 3)
        (array([0, 1, 0]), array([7, 3, 7]))
    """
    array = groups if isinstance(groups, np.ndarray) else None
    # a tensor, or a column of a table, which NumPy reads; a list of tuples would become a table
    if array is None and hasattr(groups, "__array__"):
        array = np.asarray(groups)
    if array is not None and array.ndim != 1:
        raise InputError(f"{where} has the shape {array.shape}: one group per sample, ({rows},), was expected.")
    values = list(groups) if array is None else array.tolist()
    if len(values) != rows:
        raise InputError(f"{where} has {len(values)} values, and there are {rows} samples: one for each was expected.")
    missing = next((row for row, value in enumerate(values) if is_missing(value)), None)
    if missing is not None:
        raise InputError(f"Row {missing} of {where} has no value: give each sample a group, a new one if it has none.")
    if all(isinstance(value, int | np.integer) for value in values):
        return np.array(values, dtype=np.int64)
    try:
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    except TypeError:
        raise InputError(f"{where} holds values that can't be compared: integers or names were expected.") from None
    return np.array([numbers[value] for value in values], dtype=np.int64)


def split_groups(
    groups: NDArray[np.int64], labelled: NDArray[np.bool_], fractions: tuple[float, float, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Split → rows, with every group in one split only and the splits near these shares of the labelled rows.

    Groups are put in random order and the order is cut where the shares are nearest. Of several orders the first is
    taken whose shares are all within two hundredths, or else the best: so each seed has a split of its own.

    Rows without a label are for training: those of groups of the validation or test split are in no split.

    Args:
        groups: of each row.
        labelled: mask of the rows with a label.
        fractions: of the training, validation and test split.
        seed: of the order.

    Example:
        >>> rows = split_groups(np.arange(20) // 2, np.ones(20, dtype=bool), (0.7, 0.1, 0.2), seed=0)
        >>> {split: len(part) for split, part in rows.items()}
        {'train': 14, 'valid': 2, 'test': 4}
    """
    values, sizes = np.unique(groups[labelled], return_counts=True)
    if len(values) < len(SPLITS):
        raise InputError(
            f"There are {len(values)} groups with labelled rows, and each of the three splits needs one: at least 3 "
            "were expected. Add groups, give the splits, or draw them without regard to groups."
        )
    random = np.random.default_rng(seed)
    best, deviation = (values, 1, 2), np.inf
    for _ in range(ORDERS):
        order = random.permutation(len(values))
        reached = np.cumsum(sizes[order]) / sizes.sum()
        # each split has at least one group
        first = int(np.clip(np.abs(reached - fractions[0]).argmin() + 1, 1, len(values) - 2))
        second = np.abs(reached - fractions[0] - fractions[1]).argmin() + 1
        second = int(np.clip(second, first + 1, len(values) - 1))
        shares = np.diff([0.0, reached[first - 1], reached[second - 1], 1.0])
        # a difference of rounding errors is none: among equally good orders the first one is taken
        if (off := float(np.abs(shares - fractions).max())) < deviation - 1e-9:
            best, deviation = (values[order], first, second), off
        if off <= NEAR:
            break
    order, first, second = best
    scored = {"valid": np.isin(groups, order[first:second]), "test": np.isin(groups, order[second:])}
    masks = {"train": ~(scored["valid"] | scored["test"]), **{split: scored[split] & labelled for split in scored}}
    return {split: np.flatnonzero(masks[split]).astype(np.int64) for split in SPLITS}


def shared_groups(groups: NDArray[np.int64], rows: Mapping[str, NDArray[np.int64]]) -> list[str]:
    """The warning about groups that are in two splits; none if there are no such groups."""
    members = {split: np.unique(groups[numbers]) for split, numbers in rows.items()}
    pairs = [np.intersect1d(members[one], members[other]) for one, other in itertools.combinations(members, 2)]
    shared = np.unique(np.concatenate(pairs))
    if not len(shared):
        return []
    return [
        f"{len(shared)} of {len(np.unique(groups))} groups are in more than one split, so scores say little about new "
        "groups. Draw the splits by group, or give splits that keep each group together."
    ]


def drawn_groups(groups: NDArray[np.int64], rows: Mapping[str, NDArray[np.int64]]) -> list[str]:
    """The warnings about the groups of drawn splits: groups in two splits, and rows that are in none."""
    outside = len(groups) - sum(map(len, rows.values()))
    if not outside:
        return shared_groups(groups, rows)
    return [
        f"{outside} rows without a label belong to groups of the validation or test split, so training does not see "
        "them."
    ]
