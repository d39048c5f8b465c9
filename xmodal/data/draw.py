"""Splits that are drawn: three shares of the rows, or folds, each of which is the test split once.

Rows are drawn class by class, or by group, so that no group (a speaker, a drive) is in two splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.groups import rows_of_each, split_groups
from xmodal.data.unlabelled import has_label, named
from xmodal.errors import InputError
from xmodal.names import SPLITS, UNLABELLED
from xmodal.seeding import mix

# share of all labelled rows that is the validation split of a fold, as in splits that are drawn once
VALID_SHARE = 0.1
Rows = Mapping[str, Mapping[str, NDArray[np.int64]]]


def stratified_split(
    target: NDArray[Any], fractions: tuple[float, float, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Train, valid and test rows in these shares of each class; regression is split as one class.

    Args:
        target: of all rows.
        fractions: of the training, validation and test split.
        seed: of the shuffle within each class.
    """
    random = np.random.default_rng(seed)
    strata = np.zeros(len(target), dtype=int) if target.ndim > 1 or target.dtype.kind == "f" else target
    parts: dict[str, list[NDArray[np.int64]]] = {split: [] for split in SPLITS}
    for members in rows_of_each(strata):
        # sums of fractions are rounded, not fractions: the parts of a class then add up to its rows
        rows = random.permutation(members)
        train = round(fractions[0] * len(rows))
        valid = round((fractions[0] + fractions[1]) * len(rows))
        for split, part in zip(SPLITS, (rows[:train], rows[train:valid], rows[valid:]), strict=True):
            parts[split].append(part)
    return {split: np.sort(np.concatenate(classes)).astype(np.int64) for split, classes in parts.items()}


def draw_splits(
    targets: Mapping[str, NDArray[Any]],
    fractions: tuple[float, float, float],
    seed: int,
    *,
    groups: NDArray[np.int64] | None = None,
    label: int | None = UNLABELLED,
    complete: NDArray[np.bool_] | None = None,
) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Split → modality → rows; modalities that share their targets share the rows.

    Rows with a label and all modalities are drawn by `stratified_split`, as if there were no others; those that lack
    something are for training.

    Args:
        targets: modality → targets of all rows.
        fractions: of the training, validation and test split.
        seed: of the draw.
        groups: of each row, each of which is to be in one split only, see `split_groups`; None: class by class.
        label: integer that marks rows without a label, besides NaN; None: no integer.
        complete: mask of the rows that have all modalities; None: all have.
    """
    drawn = {}
    for target in targets.values():
        if id(target) not in drawn:
            labelled = has_label(target, label)
            if complete is not None:
                labelled = labelled & complete
            if groups is None:
                drawn[id(target)] = _stratified_rows(target, labelled, fractions, seed)
            else:
                drawn[id(target)] = split_groups(groups, labelled, fractions, seed)
    return {split: {name: drawn[id(target)][split] for name, target in targets.items()} for split in SPLITS}


def _stratified_rows(
    target: NDArray[Any], labelled: NDArray[np.bool_], fractions: tuple[float, float, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    known = np.flatnonzero(labelled)
    drawn = {split: known[rows] for split, rows in stratified_split(target[known], fractions, seed).items()}
    empty = [split for split, rows in drawn.items() if not len(rows)]
    if empty:
        samples = f"{len(known)} samples" + " with a label and all modalities" * (len(known) < len(target))
        raise InputError(
            f"{samples} are too few to draw splits of {fractions} class by class: {', '.join(empty)} would be empty. "
            "Add samples, or give the splits."
        )
    drawn["train"] = np.sort(np.concatenate([drawn["train"], np.flatnonzero(~labelled)]))
    return drawn


def fold_rows(
    targets: Mapping[str, NDArray[Any]],
    splits: Rows,
    *,
    folds: int,
    fold: int,
    groups: NDArray[np.int64] | None = None,
    label: int | None = UNLABELLED,
    complete: NDArray[np.bool_] | None = None,
    class_names: Sequence[str] = (),
) -> tuple[dict[str, dict[str, NDArray[np.int64]]], str]:
    """The splits of one fold of a cross-validation, and a sentence on what is divided.

    The labelled rows of all given splits are put together and divided, class by class or by group. A tenth of them, or
    the nearest number of groups, is drawn from the other folds for validation. The division is the same for every
    fold; all of them are checked.

    Args:
        targets: modality → targets of all rows; modalities that share their targets share the rows.
        splits: split → modality → rows.
        folds: how many there are.
        fold: number of the one that is the test split, from 0.
        groups: of each row, each of which is to be in one split only; None: class by class.
        label: integer that marks rows without a label, besides NaN; None: no integer. They are for training.
        complete: mask of the rows that have all modalities; None: all have. The others are for training.
        class_names: for error messages.
    """
    if not 2 <= folds:
        raise InputError(f"folds is {folds}: 2 or more were expected, or 0 for a single split.")
    if not 0 <= fold < folds:
        raise InputError(f"Fold {fold} was asked for, and there are {folds}: 0 to {folds - 1} were expected.")
    drawn: dict[int, dict[str, NDArray[np.int64]]] = {}
    divided = 0
    for name, target in targets.items():
        if id(target) in drawn:
            continue
        rows = np.unique(np.concatenate([splits[split][name] for split in SPLITS]))
        usable = has_label(target[rows], label) & (True if complete is None else complete[rows])
        known, rest = rows[usable], rows[~usable]
        number = (
            _folds_of_classes(target[known], folds, class_names)
            if groups is None
            else _folds_of_groups(groups[known], folds)
        )
        every = [_one_fold(target, known, rest, number, each, groups) for each in range(folds)]
        for each, parts in enumerate(every):
            _check_fold(target, known, parts, f"Fold {each} of {folds}", class_names, groups)
        drawn[id(target)] = every[fold]
        divided += len(known)
    rows_of = {split: {name: drawn[id(target)][split] for name, target in targets.items()} for split in SPLITS}
    how = "class by class" if groups is None else "by group"
    return rows_of, f"{divided} labelled rows of all splits are divided into {folds} folds, {how}."


def _single(target: NDArray[Any]) -> bool:
    """Whether a target is one class."""
    return target.ndim == 1 and target.dtype.kind != "f"


def _folds_of_classes(target: NDArray[Any], folds: int, class_names: Sequence[str]) -> NDArray[np.int64]:
    """The fold of each row: each class is dealt out in random order, so that all folds have its share."""
    random = np.random.default_rng(mix(0, "folds"))
    strata = target if _single(target) else np.zeros(len(target), dtype=int)
    values, counts = np.unique(strata, return_counts=True)
    if _single(target) and counts.min() < folds:
        rare = int(values[counts.argmin()])
        raise InputError(
            f"The {named([rare], class_names)} has {counts.min()} labelled rows, and each of {folds} folds needs one. "
            "Take fewer folds, or add rows."
        )
    if len(target) < 2 * folds:
        raise InputError(f"{len(target)} labelled rows are too few for {folds} folds: two in each were expected.")
    number, first = np.zeros(len(target), dtype=np.int64), 0
    for rows in rows_of_each(strata):
        members = random.permutation(rows)
        # each class starts where the one before ended: otherwise the first folds would get all remainders
        number[members] = (first + np.arange(len(members))) % folds
        first += len(members)
    return number


def _folds_of_groups(groups: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """The fold of each row: groups in the order of their sizes, each into the fold that is smallest so far."""
    values, counts = np.unique(groups, return_counts=True)
    least = max(3, folds)
    if len(values) < least:
        raise InputError(
            f"There are {len(values)} groups with labelled rows, and {folds} folds need {least} at least. Take fewer "
            "folds, or leave the groups out."
        )
    # in random order before the sort, which is stable: groups of one size are in no order of their names
    order = np.random.default_rng(mix(0, "folds")).permutation(len(values))
    order = order[np.argsort(-counts[order], kind="stable")]
    sizes, number = np.zeros(folds, dtype=np.int64), np.zeros(len(values), dtype=np.int64)
    for group in order.tolist():
        number[group] = sizes.argmin()
        sizes[number[group]] += counts[group]
    return number[np.searchsorted(values, groups)]


def _one_fold(
    target: NDArray[Any],
    known: NDArray[np.int64],
    rest: NDArray[np.int64],
    number: NDArray[np.int64],
    fold: int,
    groups: NDArray[np.int64] | None,
) -> dict[str, NDArray[np.int64]]:
    """The three splits in which one fold is the test split."""
    test, others = known[number == fold], known[number != fold]
    share, seed = min(0.5, VALID_SHARE * len(known) / max(1, len(others))), mix(fold, "folds valid")
    if groups is None:
        parts = stratified_split(target[others], (1.0 - share, share, 0.0), seed)
        train, valid = others[parts["train"]], others[parts["valid"]]
    else:
        chosen = _valid_groups(groups[others], share, seed)
        train, valid = others[~np.isin(groups[others], chosen)], others[np.isin(groups[others], chosen)]
        # rows without a label of people who are scored are in no split
        rest = rest[~np.isin(groups[rest], groups[np.concatenate([test, valid])])]
    return {"train": np.sort(np.concatenate([train, rest])), "valid": np.sort(valid), "test": np.sort(test)}


def _valid_groups(groups: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Groups in random order, as many as come nearest to a share of the rows: at least one, and not all."""
    values, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(values))
    reached = np.cumsum(counts[order]) / counts.sum()
    chosen: NDArray[np.int64] = values[order[: min(int(np.abs(reached - share).argmin()) + 1, len(values) - 1)]]
    return chosen


def _check_fold(
    target: NDArray[Any],
    known: NDArray[np.int64],
    parts: Mapping[str, NDArray[np.int64]],
    where: str,
    class_names: Sequence[str],
    groups: NDArray[np.int64] | None,
) -> None:
    """Raise an error about a fold without validation rows, or whose training lacks a class."""
    if not len(parts["valid"]):
        why = "labelled rows are too few" if groups is None else "the other folds hold a single group"
        raise InputError(f"{where} has no validation row: {why}. Take another number of folds, or add rows.")
    if not _single(target):
        return
    train = np.intersect1d(parts["train"], known)
    missing = np.setdiff1d(target[known], target[train]).tolist()
    if missing:
        raise InputError(
            f"{where} leaves no training row of the {named(missing, class_names)}: its rows belong to few groups. Take "
            "other folds, or add groups."
        )
