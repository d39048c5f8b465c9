"""Checks of one array at a time, in a file or in memory: columns, row numbers and splits.

Each problem becomes one sentence: what was expected, what is there, and what to do.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.base import layout_of
from xmodal.data.columns import refuse_type
from xmodal.data.own.repair import bad_rows, finite
from xmodal.data.own.scan import CHUNK_BYTES, Scan, distinct, in_both
from xmodal.data.report import Report
from xmodal.data.split import Column
from xmodal.data.unlabelled import (
    class_problem,
    has_label,
    named,
    scored_problem,
    trained_problem,
)
from xmodal.errors import InputError
from xmodal.names import SPLITS, UNLABELLED, owner

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
    scan: Scan | None = None,
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
        scan: receives the blocks that are searched; None: nothing does.
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
            where,
            column,
            report,
            normalised=normalised,
            scan_bytes=scan_bytes,
            used=used,
            nan=nan,
            numbers=numbers,
            scan=scan,
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
    scan: Scan | None,
) -> None:
    size = max(1, int(np.prod(column.shape[1:])) * column.dtype.itemsize)
    rows = column.shape[0] if scan_bytes is None else min(column.shape[0], max(1, scan_bytes // size))
    step = max(1, CHUNK_BYTES // size)
    bad: list[int] = []
    lacking = False  # whether a sample is NaN in all of its values
    largest = 0.0
    for start in range(0, rows, step):
        block = np.asarray(column[start : min(start + step, rows)])
        if scan is not None:
            scan.add(block)
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
        more = len(rows) - len(distinct(rows))
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
        common = in_both(rows[first], rows[second])
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
        _check_classes_of(where, known, set(np.unique(target[labelled]).tolist()), class_names, report)
        if "train" in splits and known["train"] and not labelled[numbers["train"]].all():
            scored = set().union(*(known[split] for split in splits if split != "train"))
            report.errors += class_problem(where["train"], scored - known["train"], class_names)


def _check_classes_of(
    where: Mapping[str, str],
    known: Mapping[str, set[int]],
    classes: set[int],
    class_names: Sequence[str],
    report: Report,
) -> None:
    for split, found in known.items():
        # no label at all is reported already
        if not found:
            continue
        missing = sorted(classes - found)
        if split == "train" and len(missing) >= len(classes) - 1:
            report.errors.append(f"{where[split]} selects a single class: training needs at least two.")
        elif missing:
            report.warnings.append(f"{where[split]} selects no sample of the {named(missing, class_names)}.")
