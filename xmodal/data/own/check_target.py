"""Checks of targets: labels of any type, tables, maps of class numbers and values of a regression.

Each problem becomes one sentence: what was expected, what is there, and what to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.report import Report
from xmodal.data.targets import RawTarget, counts_names, found_labels, guess_warning
from xmodal.data.unlabelled import has_label, missing_values
from xmodal.names import UNLABELLED

# more different labels than this, and more than half as many as rows, are names of rows or measured values
MOST_CLASSES = 50


def check_target(
    where: str,
    raw: RawTarget,
    report: Report,
    *,
    task: str = "",
    class_names: Sequence[str] = (),
    ignore: int | None = None,
    label: int | None = UNLABELLED,
) -> bool:
    """Whether targets are valid for a task.

    Args:
        where: name of the targets in the sentences.
        raw: targets of all samples.
        report: receives the problems.
        task: kind of target; empty: the one that the targets suggest.
        class_names: names of the classes; empty: none.
        ignore: value that is not a class.
        label: integer that marks rows without a label, besides NaN and empty text; None: no integer.
    """
    target, errors_before = raw.values, len(report.errors)
    if not raw.kind:
        report.errors.append(
            f"{where} has the type {target.dtype}: text, booleans, integers or floats were expected. Convert it."
        )
        return False
    if target.ndim == 0 or target.size == 0:
        report.errors.append(f"{where} is empty (shape {target.shape}): one target per sample was expected.")
        return False
    given, task = task, task or raw.task
    text = target.dtype.kind == "U"
    if text and task in ("regression", "multilabel"):
        report.errors.append(f"{where} holds text, and the task {task} needs numbers. Convert it, or leave task out.")
        return False
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
    if not given:
        report.warnings += guess_warning(where, raw)
    if task == "regression":
        if target.ndim > 2:
            report.errors.append(f"{where} has the shape {target.shape}: (samples,) or (samples, values) was expected.")
    elif not whole:
        first = known[known != np.round(known)].flat[0]
        report.errors.append(
            f"{where} holds {first:g}, which is no class: whole numbers or text were expected for the task {task}. "
            "Round them, or set task to regression."
        )
    elif task == "multilabel":
        _check_multilabel(where, known, class_names, report)
    else:
        counted = known if ignore is None else known[known != ignore]
        if not counted.size:
            report.errors.append(f"{where} holds nothing but {ignore}, which is ignored: some labels were expected.")
        elif target.ndim == 2 or (target.ndim > 1 and (task == "binary" or text)):
            report.errors.append(
                f"{where} has the shape {target.shape}: one label per sample was expected for the task {task}. "
                "Take the argmax of one-hot rows, or set task to multilabel."
            )
        else:
            marker = label if len(known) < len(target) and target.dtype.kind != "f" else None
            if target.ndim > 1 or ignore is not None:
                _check_numbers(where, counted, task, class_names, report, maps=target.ndim > 2, marker=marker)
            else:
                _check_labels(where, raw, task, class_names, report, label=label, marker=marker, given=bool(given))
    if len(known) < len(target) and target.dtype.kind != "f":
        # labels such as -1, 0 and 1 for three classes would lose one of them without a word
        report.warnings.append(
            f"{where} is {_marker(target, label)} in {len(target) - len(known)} of {len(target)} rows, so these have "
            "no label and are for training alone."
        )
    return len(report.errors) == errors_before


def differing_kinds(targets: Mapping[str, RawTarget], task: str) -> list[str]:
    """The error sentence about modalities whose labels are of different types or tasks; none if they agree."""
    kinds = {where: raw.kind if task else f"{raw.kind} ({raw.task})" for where, raw in targets.items()}
    # without a task, integers of one modality and class numbers in floats of another are the same classes
    if len(set(kinds.values())) < 2 or (task and "strings" not in kinds.values()):
        return []
    found = ", ".join(f"{where} has {kind}" for where, kind in kinds.items())
    return [f"The labels of the modalities differ: {found}. A class needs the same label in all of them. Convert them."]


def _marker(target: NDArray[Any], label: int | None) -> str:
    return {"f": "NaN", "U": "empty"}.get(target.dtype.kind, str(label))


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


def _check_multilabel(where: str, target: NDArray[Any], class_names: Sequence[str], report: Report) -> None:
    if target.ndim != 2:
        report.errors.append(f"{where} has the shape {target.shape}: (samples, labels) was expected for multilabel.")
        return
    if not np.isin(target, (0, 1)).all():
        report.errors.append(f"{where} holds values other than 0 and 1, which is all that multilabel targets may hold.")
    if class_names and len(class_names) != target.shape[1]:
        report.errors.append(f"{where} has {target.shape[1]} labels, but class_names lists {len(class_names)}.")


def _check_labels(
    where: str,
    raw: RawTarget,
    task: str,
    class_names: Sequence[str],
    report: Report,
    *,
    label: int | None,
    marker: int | None,
    given: bool,
) -> None:
    """Check labels of any type; ``marker`` stands in rows without a label, if there are any."""
    found = found_labels([raw], label)
    named = list(class_names)
    if len(found) < 2 and marker is not None and raw.kind == "integers":
        report.errors.append(
            f"{where}: Labels are {marker} and {found[0]}; {marker} means unlabelled. Use 0 and 1, or "
            "`unlabelled_label=None`."
        )
    elif len(found) < 2:
        report.errors.append(f"{where} holds a single class ({found[0]}): there is nothing to tell apart.")
    elif task == "binary" and len(found) > 2:
        report.errors.append(f"{where} holds the classes {few(found)}: a binary task has two. Set task to multiclass.")
    elif task == "binary" and named and len(named) != 2:
        report.errors.append(f"class_names lists {len(named)} classes: a binary task has two.")
    elif repeated := [name for name, count in Counter(named).items() if count > 1]:
        report.errors.append(f"class_names lists {few(repeated)} twice: a name for each class was expected.")
    elif named and raw.kind == "strings" and (others := [value for value in found if value not in named]):
        report.errors.append(
            f"{where} holds {few(others)}, and class_names lists {few(named)}: with text, class_names are the labels. "
            "Complete them, or leave them out."
        )
    elif named and raw.kind != "strings" and not _have_names(raw, found, named):
        report.errors.append(
            f"{where} holds the class {found[-1]}, but class_names lists {len(named)} (from 0), and there are "
            f"{len(found)} classes."
        )
    elif len(found) > max(MOST_CLASSES, int(has_label(raw.values, label).sum()) // 2) and not named:
        sentence = f"{where} holds {len(found)} different labels in {len(raw.values)} rows, so few rows have the same."
        advice = " If they are measured values, set task to regression; if they name the rows, choose other labels."
        (report.warnings if given else report.errors).append(sentence + advice * (not given))
    # a stray -999 is a usual sign of a missing label; the pair of -1 and 1 is a usual one of two classes
    if raw.kind == "integers" and not raw.order and found[0] < 0 <= found[-1] and found != [-1, 1]:
        report.warnings.append(
            f"{where} holds the label {found[0]}, which counts as a class. If it means that a label is missing, set "
            f"unlabelled_label to {found[0]}."
        )
    if raw.kind == "strings" and "nan" in found:
        report.warnings.append(
            f"{where} holds the text 'nan', which counts as a class. NumPy writes NaN like this into arrays of text: "
            "use empty text, or None in a list, for a missing label."
        )
    # text is named by itself, numbers by position
    keys = named if raw.kind == "strings" else raw.order or range(len(named))
    if named and len(found) < len(named):
        missing = [name for key, name in zip(keys, named, strict=False) if key not in found]
        report.warnings.append(f"{where} has no sample of {few(missing)}, which class_names lists.")
    elif unused := [value for value in raw.order if value not in found]:
        report.warnings.append(
            f"{where} has no sample of the categories {few(unused)}, so these are no classes. Name all categories in "
            "class_names to keep them."
        )


def _have_names(raw: RawTarget, found: Sequence[Any], names: Sequence[str]) -> bool:
    """Whether class names fit labels that are no text, see `Classes.of`."""
    return len(names) in (len(found), len(raw.order)) or (raw.kind == "integers" and counts_names(found, names))


def _check_numbers(
    where: str,
    target: NDArray[Any],
    task: str,
    class_names: Sequence[str],
    report: Report,
    *,
    maps: bool,
    marker: int | None,
) -> None:
    """Check class numbers that stay as they are; ``marker`` stands in rows without a label, if there are any."""
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
            f"{where} holds the classes {few(values)}: a binary task has 0 and 1. Set task to multiclass."
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
        report.warnings.append(f"{where} has no sample of {few(missing)}, which class_names lists.")


def few(values: Sequence[object], most: int = 6) -> str:
    """The first of some values as text, and how many there are."""
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, … ({len(values)} in all)"


def check_maps(
    where: str, raw: RawTarget, shapes: Mapping[str, tuple[int, ...]], report: Report, *, task: str = ""
) -> None:
    """Check that maps of classes have the size of the images that they belong to.

    Args:
        where: name of the target in the sentences.
        raw: targets of all samples.
        shapes: name of a file → its shape.
        report: receives the problems.
        task: kind of target; empty: the one that the targets suggest.
    """
    target = raw.values
    if target.ndim < 3 or (task or raw.task) != "multiclass":
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
