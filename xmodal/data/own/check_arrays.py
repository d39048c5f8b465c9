"""Checks of one array at a time, in a file or in memory: columns, targets, row numbers and splits.

Each problem becomes one sentence: what was expected, what is there, and what to do.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.base import infer_task, layout_of
from xmodal.data.columns import refuse_type
from xmodal.data.own.repair import bad_rows, finite
from xmodal.data.report import Report
from xmodal.data.split import Column
from xmodal.data.unlabelled import (
    class_problem,
    has_label,
    missing_values,
    scored_problem,
    trained_problem,
)
from xmodal.errors import InputError
from xmodal.names import SPLITS, UNLABELLED, owner

# bytes of a column that are searched at a time: a column may be a memory map larger than the memory
CHUNK_BYTES = 8 * 2**20
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
AXES = {"vector": 1, "sequence": 2, "image": 3}


def check_column(
    modality: str,
    where: str,
    column: Column,
    report: Report,
    *,
    layout: str = "",
    normalised: bool = True,
    scan_bytes: int | None = None,
    used: NDArray[np.int64] | None = None,
    nan: str = "refuse",
    numbers: NDArray[np.int64] | None = None,
) -> None:
    """Check shape, type and values of one modality.

    Args:
        modality: its name.
        where: name of the array in the sentences.
        column: all samples.
        report: receives the problems.
        layout: layout that the user set; empty: by the shape.
        normalised: whether the loader normalises it.
        scan_bytes: bytes that are searched for NaN; None: all.
        used: rows in which NaN matters; None: all.
        nan: ``refuse`` makes NaN an error, ``drop`` and ``zero`` a warning.
        numbers: of the samples, where the column holds some of them; None: it holds all.
    """
    shape = tuple(column.shape)
    try:
        refuse_type(where, column.dtype)
    except InputError as error:
        report.errors.extend(error.problems)
        return
    if not shape:
        report.errors.append(f"{where} is a single number: an array with one row per sample was expected.")
    elif 0 in shape:
        report.errors.append(f"{where} is empty (shape {shape}): at least one number per sample was expected.")
    elif len(shape) == 1:
        report.errors.append(f"{where} has one number per sample (shape {shape}): store the shape ({shape[0]}, 1).")
    else:
        _check_layout(modality, where, shape, layout, report)
        _check_values(
            where, column, report, normalised=normalised, scan_bytes=scan_bytes, used=used, nan=nan, numbers=numbers
        )


def check_auxiliary(
    name: str,
    where: str,
    column: Column,
    report: Report,
    *,
    samples: int,
    steps: int | None = None,
    numbers: NDArray[np.int64] | None = None,
) -> bool:
    """Whether an auxiliary input, such as ``audio.lengths``, has a row per sample and valid values.

    Args:
        name: of the input.
        where: name of the array in the sentences.
        column: all samples.
        report: receives the problems.
        samples: number of samples of its modality.
        steps: number of steps of its modality, if it is a sequence: lengths range from 1 to this.
        numbers: of the samples, where the column holds some of them; None: it holds all.
    """
    problems: list[str] = []
    try:
        refuse_type(where, column.dtype)
    except InputError as error:
        report.errors.extend(error.problems)
        return False
    shape = tuple(column.shape)
    if not shape or shape[0] != samples:
        problems.append(
            f"{where} has the shape {shape}, and {owner(name)} has {samples} samples: one row for each was expected."
        )
    elif column.dtype.kind == "f" and len(bad := bad_rows(column)):
        first = bad[0] if numbers is None else numbers[bad[0]]
        problems.append(f"{where} holds NaN or infinite values; the first is in sample {first}. Repair it.")
    elif name.endswith(".lengths") and (len(shape) > 1 or column.dtype.kind not in "iu"):
        problems.append(f"{where} has the shape {shape} and holds {column.dtype}: ({samples},) integers were expected.")
    elif name.endswith(".lengths"):
        lengths = np.asarray(column[np.arange(samples)])
        wrong = np.flatnonzero((lengths < 1) | (lengths > (steps or lengths.max())))
        if len(wrong):
            sample = wrong[0] if numbers is None else numbers[wrong[0]]
            problems.append(
                f"{where} holds {lengths[wrong[0]]} for sample {sample}: 1 to {steps} were expected, as many as "
                f"{owner(name)} has steps."
            )
    report.errors += problems
    return not problems


def _check_layout(modality: str, where: str, shape: tuple[int, ...], layout: str, report: Report) -> None:
    # ``other`` allows any number of axes
    expected = AXES.get(layout, len(shape) - 1)
    if expected != len(shape) - 1:
        report.errors.append(
            f"{where} has samples of shape {shape[1:]}, but its layout is set to '{layout}', which has {expected} "
            "axes: vector (features), sequence (channels, time), image (channels, height, width)."
        )
    elif not layout:
        try:
            layout_of(modality, shape[1:])
        except InputError as error:
            report.errors.extend(error.problems)


def _check_values(
    where: str,
    column: Column,
    report: Report,
    *,
    normalised: bool,
    scan_bytes: int | None,
    used: NDArray[np.int64] | None,
    nan: str,
    numbers: NDArray[np.int64] | None,
) -> None:
    size = max(1, int(np.prod(column.shape[1:])) * column.dtype.itemsize)
    rows = column.shape[0] if scan_bytes is None else min(column.shape[0], max(1, scan_bytes // size))
    step = max(1, CHUNK_BYTES // size)
    bad: list[int] = []
    lacking = False  # whether a sample is NaN in all of its values
    largest = 0.0
    for start in range(0, rows, step):
        block = np.asarray(column[start : min(start + step, rows)])
        found = np.flatnonzero(~finite(block).reshape(len(block), -1).all(axis=1))
        lacking |= bool(np.isnan(block.reshape(len(block), -1)[found]).all(axis=1).any())
        found = start + found
        bad.extend((found if numbers is None else numbers[found]).tolist())
        # over all values that the file can hold: those beyond float32 get a hint of their own below
        largest = max(largest, float(np.abs(block, where=np.isfinite(block), out=np.zeros(block.shape)).max()))
    if used is not None:
        bad = np.intersect1d(bad, used).tolist()
    if bad and nan != "refuse":
        treatment = {"drop": "they are left out", "zero": "these values read as 0"}[nan]
        report.warnings.append(
            f"{where} holds NaN or infinite values in {len(bad)} of {rows} samples, the first is sample {bad[0]}: "
            f"{treatment}."
        )
    elif bad:
        report.errors.append(
            f"{where} holds NaN or infinite values in {len(bad)} of {rows} samples; the first is sample {bad[0]}. "
            "Repair or remove these samples."
            + " A sample that lacks the modality is left out of the file; <modality>_rows.npy names the others."
            * (lacking and len(bad) < rows)
            + " Values beyond 3.4e38 count as infinite: batches hold float32. Scale them." * (largest > LARGEST_FLOAT32)
        )
    # a standardised feature passes 10 only at ten standard deviations
    if not normalised and largest > 10:
        report.warnings.append(
            f"{where} is used without normalisation and holds values up to {largest:.4g}: it does not look normalised. "
            "Networks learn best from values around 1. Scale it, or set normalise to standard."
        )


def check_target(
    where: str,
    target: NDArray[Any],
    report: Report,
    *,
    task: str = "",
    class_names: Sequence[str] = (),
    ignore: int | None = None,
    label: int | None = UNLABELLED,
) -> bool:
    """Whether an array holds valid targets of a task.

    Args:
        where: name of the array in the sentences.
        target: targets of all samples.
        report: receives the problems.
        task: kind of target; empty: `infer_task`.
        class_names: names of the classes; empty: none.
        ignore: value that is not a class.
        label: integer that marks rows without a label, besides NaN; None: no integer.
    """
    errors_before = len(report.errors)
    if target.ndim == 0 or target.size == 0:
        report.errors.append(f"{where} is empty (shape {target.shape}): one target per sample was expected.")
        return False
    given, task = task, task or infer_task(target)
    # negative numbers are ordinary in regression
    label = None if task == "regression" or ignore == label else label
    labelled = has_label(target, label)
    if not labelled.any():
        report.errors.append(
            f"{where} has no label in any of its {len(target)} rows (all are {_marker(target, label)}): at least one "
            "of each class was expected. Label some rows."
        )
        return False
    known = target if labelled.all() else target[labelled]
    if not _complete(where, target, labelled, label, task, report):
        return False
    whole = known.dtype.kind != "f" or bool((known == np.round(known)).all())
    if not given and target.dtype.kind == "f" and whole:
        _tell_task(where, task, report)
    if task == "regression":
        if target.ndim > 2:
            report.errors.append(f"{where} has the shape {target.shape}: (samples,) or (samples, values) was expected.")
    elif not whole:
        first = known[known != np.round(known)].flat[0]
        report.errors.append(
            f"{where} holds {first:g}, which is no class: whole numbers from 0 were expected for the task {task}. "
            "Round them, or set task to regression."
        )
    elif task == "multilabel":
        _check_multilabel(where, known, class_names, report)
    else:
        counted = known if ignore is None else known[known != ignore]
        if not counted.size:
            report.errors.append(f"{where} holds nothing but {ignore}, which is ignored: some labels were expected.")
        elif target.ndim == 2 or (target.ndim > 1 and task == "binary"):
            report.errors.append(
                f"{where} has the shape {target.shape}: one class number per sample was expected for the task {task}. "
                "Take the argmax of one-hot rows, or set task to multilabel."
            )
        else:
            marker = label if len(known) < len(target) and target.dtype.kind != "f" else None
            _check_classes(where, counted, task, class_names, report, maps=target.ndim > 2, marker=marker)
    if len(known) < len(target) and target.dtype.kind != "f":
        # labels such as -1, 0 and 1 for three classes would lose one of them without a word
        report.warnings.append(
            f"{where} is {label} in {len(target) - len(known)} of {len(target)} rows, so these have no label and are "
            "for training alone."
        )
    return len(report.errors) == errors_before


def _marker(target: NDArray[Any], label: int | None) -> str:
    return "NaN" if target.dtype.kind == "f" else str(label)


def _complete(
    where: str, target: NDArray[Any], labelled: NDArray[np.bool_], label: int | None, task: str, report: Report
) -> bool:
    """Whether rows with a label are finite, and have all of their values."""
    table = target.ndim == 2 and target.shape[1] > 1
    partly = np.zeros(len(target), dtype=bool)
    # maps mark single pixels with `ignore`; a missing class of a column is a row without a label
    if table and task in ("multilabel", "regression"):
        partly = labelled & missing_values(target, label).any(axis=1)
    if partly.any():
        row = int(np.flatnonzero(partly)[0])
        marker = _marker(target, label)
        report.errors.append(
            f"{where} lacks some of the {target.shape[1]} values of row {row} ({marker}), and has others: all, or "
            f"{marker} in place of all, were expected. Complete the row, or clear it."
        )
        return False
    if target.dtype.kind == "f" and not np.isfinite(target[labelled]).all():
        infinite = labelled & ~np.isfinite(target).reshape(len(target), -1).all(axis=1)
        row = int(np.flatnonzero(infinite)[0])
        report.errors.append(f"{where} holds NaN or infinite values; the first is in row {row}. Repair or remove them.")
        return False
    return True


def _tell_task(where: str, task: str, report: Report) -> None:
    """A warning: what whole numbers stored as floats are taken to be."""
    if task == "regression":
        report.warnings.append(
            f"{where} holds whole numbers stored as floats, so the task is taken as regression. If they are classes, "
            "store integers or set task to multiclass."
        )
    else:
        report.warnings.append(
            f"{where} holds whole numbers and NaN, so the task is taken as {task} with missing labels. If they are "
            "measured values, set task to regression."
        )


def _check_multilabel(where: str, target: NDArray[Any], class_names: Sequence[str], report: Report) -> None:
    if target.ndim != 2:
        report.errors.append(f"{where} has the shape {target.shape}: (samples, labels) was expected for multilabel.")
        return
    if not np.isin(target, (0, 1)).all():
        report.errors.append(f"{where} holds values other than 0 and 1, which is all that multilabel targets may hold.")
    if class_names and len(class_names) != target.shape[1]:
        report.errors.append(f"{where} has {target.shape[1]} labels, but class_names lists {len(class_names)}.")


def _check_classes(
    where: str,
    target: NDArray[Any],
    task: str,
    class_names: Sequence[str],
    report: Report,
    *,
    maps: bool,
    marker: int | None,
) -> None:
    """Check the class numbers of the rows with a label; ``marker`` stands in the others, if there are any."""
    values = np.unique(target).astype(np.int64).tolist()
    if values[0] < 0:
        hint = " A map without a label is -1 everywhere; single pixels without a class are marked by ignore."
        report.errors.append(f"{where} holds the class {values[0]}: classes are counted from 0.{hint * maps}")
    elif len(values) < 2 and marker is not None:
        report.errors.append(
            f"{where}: Labels are {marker} and {values[0]}; {marker} means unlabelled. Use 0 and 1, or "
            "`unlabelled_label=None`."
        )
    elif len(values) < 2:
        report.errors.append(f"{where} holds a single class ({values[0]}): there is nothing to tell apart.")
    elif task == "binary" and values != [0, 1]:
        report.errors.append(
            f"{where} holds the classes {_few(values)}: a binary task has 0 and 1. Set task to multiclass."
        )
    elif class_names and values[-1] >= len(class_names):
        report.errors.append(
            f"{where} holds the class {values[-1]}, but class_names lists {len(class_names)} (from 0)."
        )
    # numbers like 70123 are codes: a network with as many outputs would not even fit into memory
    elif not class_names and values[-1] >= max(10_000, 100 * len(values)):
        report.errors.append(
            f"{where} holds {len(values)} classes with numbers up to {values[-1]}, and a network has one output per "
            "number. Number them from 0 without gaps (numpy.unique with return_inverse=True does it)."
        )
    elif not class_names and values[-1] >= 2 * len(values):
        report.warnings.append(
            f"{where} holds {len(values)} classes with numbers up to {values[-1]}; the numbers in between count as "
            "classes without samples. Number them from 0 without gaps."
        )
    if class_names and len(class_names) > len(values) and 0 <= values[0] and values[-1] < len(class_names):
        missing = [class_names[value] for value in range(len(class_names)) if value not in values]
        report.warnings.append(f"{where} has no sample of {_few(missing)}, which class_names lists.")


def _few(values: Sequence[object], most: int = 6) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, … ({len(values)} in all)"


def check_maps(
    where: str, target: NDArray[Any], shapes: Mapping[str, tuple[int, ...]], report: Report, *, task: str = ""
) -> None:
    """Check that maps of classes have the size of the images that they belong to.

    Args:
        where: name of the target in the sentences.
        target: targets of all samples.
        shapes: name of a file → its shape.
        report: receives the problems.
        task: kind of target; empty: `infer_task`.
    """
    if target.ndim < 3 or (task or infer_task(target)) != "multiclass":
        return
    wrong = {name: shape[2:] for name, shape in shapes.items() if shape[2:] != target.shape[1:]}
    if not wrong:
        return
    listed = ", ".join(f"{name} has samples of {_size(sides)}" for name, sides in wrong.items())
    message = f"{where} has maps of {_size(target.shape[1:])} classes, and {listed}: a class for each of its pixels"
    if len(wrong) == len(shapes):
        report.errors.append(f"{message} was expected. Resample one of them; classes by the nearest pixel.")
    else:
        report.warnings.append(f"{message} is what xmodal's networks predict. Use other networks for other sizes.")


def _size(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides)) or "one number"


def check_rows(where: str, rows: NDArray[Any], samples: int, report: Report, *, repeated: str = "count") -> bool:
    """Whether an array holds valid row numbers.

    Args:
        where: name of the array in the sentences.
        rows: the array.
        samples: number of samples.
        report: receives the problems.
        repeated: ``count`` or ``once``, how the loader treats repeated rows.
    """
    if rows.ndim != 1:
        report.errors.append(f"{where} has the shape {rows.shape}: a list of row numbers was expected.")
    elif not len(rows):
        report.errors.append(f"{where} is empty: a split needs at least one row.")
    elif rows.dtype.kind == "b":
        report.errors.append(f"{where} is a mask of true and false: row numbers were expected. Use numpy.flatnonzero.")
    elif rows.dtype.kind not in "iu":
        report.errors.append(f"{where} holds {rows.dtype} numbers: integer row numbers were expected.")
    elif int(rows.min()) < 0:
        report.errors.append(f"{where} holds the negative row {int(rows[rows < 0][0])}: rows are counted from 0.")
    elif int(rows.max()) >= samples:
        first = int(rows[rows >= samples][0])
        report.errors.append(f"{where} holds the row {first}, but there are {samples} samples (from 0).")
    else:
        more = len(rows) - len(np.unique(rows))
        if more:
            how = "each is taken once" if repeated == "once" else "each repetition counts"
            report.warnings.append(f"{where} repeats {more} of {len(rows)} rows; {how}.")
        return True
    return False


def check_splits(
    where: Mapping[str, str],
    rows: Mapping[str, NDArray[np.int64]],
    target: NDArray[Any] | None,
    report: Report,
    *,
    overlap: bool = False,
    label: int | None = UNLABELLED,
    class_names: Sequence[str] = (),
) -> None:
    """Check the splits of one modality for common rows, missing classes and missing labels.

    Args:
        where: split → its name in the sentences.
        rows: split → row numbers.
        target: targets of all samples; None if they are not valid.
        report: receives the problems.
        overlap: whether a row in two splits is a warning instead of an error.
        label: integer that marks rows without a label, besides NaN; None: no integer.
        class_names: names of the classes; empty: none.
    """
    splits = [split for split in SPLITS if split in rows]
    for first, second in itertools.combinations(splits, 2):
        common = np.intersect1d(rows[first], rows[second])
        if len(common):
            (report.warnings if overlap else report.errors).append(
                f"{where[first]} and {where[second]} share {len(common)} rows, the first is {common[0]}: a sample may "
                "be in one split only. Remove it from the others."
            )
    if "train" in rows and len(rows["train"]) < 2:
        report.errors.append(f"{where['train']} selects {len(rows['train'])} row: training needs at least two.")
        return
    if target is None:
        return
    # different numbers of rows and targets are reported elsewhere, and must not raise here
    numbers = {split: rows[split][rows[split] < len(target)] for split in splits}
    labelled = has_label(target, label)
    for split in splits:
        if split != "train":
            report.errors += scored_problem(where[split], labelled[numbers[split]])
        elif not labelled[numbers[split]].all():
            report.errors += trained_problem(where[split], int(labelled[numbers[split]].sum()))
    if target.ndim == 1 and target.dtype.kind != "f":
        known = {split: set(target[numbers[split][labelled[numbers[split]]]].tolist()) for split in splits}
        _check_classes_of(where, known, set(np.unique(target[labelled]).tolist()), report)
        if "train" in splits and known["train"] and not labelled[numbers["train"]].all():
            scored = set().union(*(known[split] for split in splits if split != "train"))
            report.errors += class_problem(where["train"], scored - known["train"], class_names)


def _check_classes_of(
    where: Mapping[str, str], known: Mapping[str, set[int]], classes: set[int], report: Report
) -> None:
    for split, found in known.items():
        # no label at all is reported already
        if not found:
            continue
        missing = sorted(classes - found)
        if split == "train" and len(missing) >= len(classes) - 1:
            report.errors.append(f"{where[split]} selects a single class: training needs at least two.")
        elif missing:
            report.warnings.append(f"{where[split]} selects no sample of the classes {_few(missing)}.")
