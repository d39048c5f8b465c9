"""Read the content of a MOSI or MOSEI file and report all of its problems.

    {"train": split, "valid": split, "test": split}, and in each split

    text vision audio       (n, time, width)   features; vision and audio may have more steps than text
    regression_labels       (n,)               from -3 to 3
    text_bert               (n, 3, time)       optional: token ids, mask, segments
    audio_lengths vision_lengths               optional: n true lengths; the mask contains those of text
    id                      n strings          optional

Other keys are not used. Numbers of steps and widths are those of the arrays: the constants in public code for these
files are partly wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.mosi.columns import Sequences, counted, not_finite
from xmodal.data.mosi.pickle_reader import Array, opened, read_pickle
from xmodal.data.mosi.synthetic import MODALITIES
from xmodal.data.report import Report
from xmodal.data.split import Column
from xmodal.errors import InputError
from xmodal.names import SPLITS

TOKENS = "text_bert"
LABELS = "regression_labels"
# Labels are in [-LARGEST, LARGEST].
LARGEST = 3.0
# Samples that a message lists; the rest are counted.
NAMED = 6
Numbers = NDArray[Any]


@dataclass
class Source:
    """The splits of a file, concatenated: row i of every array is the same sample.

    Attributes:
        columns: modality → (samples, width, time).
        lengths: modality → true length of each sample, (samples,).
        labels: (samples,); empty if the file was opened without labels.
        rows: split → number of samples.
        ids: ids of the samples.
        tokens: (samples, 3, time); None if the file has no ``text_bert``.
        counts: modality → kind → number of non-finite values.
        treatment: what is done with non-finite values, see `cleaned`.
        aligned: whether all modalities have the same number of steps.
    """

    columns: dict[str, Column]
    lengths: dict[str, NDArray[np.int64]]
    labels: NDArray[np.float32]
    rows: dict[str, int]
    ids: list[str]
    tokens: Column | None = None
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    treatment: str = "zero"
    aligned: bool = True

    def numbers(self) -> dict[str, NDArray[np.int64]]:
        """Split → its row numbers."""
        ends = np.cumsum([0, *self.rows.values()])
        return {split: np.arange(ends[place], ends[place + 1]) for place, split in enumerate(self.rows)}


def find_pickle(path: Path) -> Path | None:
    """The path itself if it is a file, or the only pickle of a folder; otherwise None."""
    if path.is_file():
        return path
    pickles = sorted(path.glob("*.pkl")) if path.is_dir() else []
    return pickles[0] if len(pickles) == 1 else None


def open_pickle(
    path: Path,
    report: Report,
    *,
    modalities: Sequence[str] = MODALITIES,
    treatment: str = "zero",
    labelled: bool = True,
) -> Source | None:
    """The content of a published pickle; None if it cannot be used.

    Args:
        path: the pickle.
        report: receives errors and warnings.
        modalities: modalities to read.
        treatment: what to do with non-finite values, see `cleaned`.
        labelled: whether labels are expected.
    """
    try:
        content = read_pickle(path)
    except InputError as error:
        report.errors += error.problems
        return None
    return from_content(content, path.name, report, modalities=modalities, treatment=treatment, labelled=labelled)


def from_content(
    content: Any,
    where: str,
    report: Report,
    *,
    modalities: Sequence[str] = MODALITIES,
    treatment: str = "zero",
    labelled: bool = True,
) -> Source | None:
    """The content of unpickled splits; None if it cannot be used.

    Args:
        content: split → key → array.
        where: name of the file in messages.
        report: receives errors and warnings.
        modalities: modalities to read.
        treatment: what to do with non-finite values, see `cleaned`.
        labelled: whether labels are expected.
    """
    errors_before = len(report.errors)
    needed = [*modalities, *[LABELS] * labelled]
    read = {split: _part(content, split, where, needed, report) for split in SPLITS}
    parts = {split: part for split, part in read.items() if part is not None}
    _check_sides(parts, modalities, where, report)
    if len(report.errors) > errors_before:
        return None
    source = Source(
        columns={
            name: Sequences([part.arrays[name] for part in parts.values()], name, treatment) for name in modalities
        },
        lengths={},
        labels=np.concatenate([part.labels for part in parts.values()]).astype(np.float32),
        rows={split: len(part.ids) for split, part in parts.items()},
        ids=[name for part in parts.values() for name in part.ids],
        treatment=treatment,
    )
    source.tokens = _tokens(parts)
    source.aligned = len({column.shape[2] for column in source.columns.values()}) == 1
    _add_lengths(source, parts, where, report)
    _check_labels(source, where, report)
    _check_ids(source, where, report)
    source.counts = {name: not_finite([part.arrays[name] for part in parts.values()]) for name in modalities}
    report_counts(source.counts, treatment, where, report)
    return source if len(report.errors) == errors_before else None


@dataclass
class _Part:
    """A split of a file."""

    arrays: dict[str, Numbers]
    labels: Numbers
    ids: list[str]
    lengths: dict[str, Numbers]
    tokens: Numbers | None


def _part(content: Any, split: str, where: str, needed: Sequence[str], report: Report) -> _Part | None:
    """A split, if its arrays have the right shapes and equal numbers of samples; otherwise None and errors."""
    splits = content if isinstance(content, dict) else {}
    if split in splits and not isinstance(splits[split], dict):
        report.errors.append(f"{where}: the split '{split}' is a {_kind(splits[split])}, a dictionary was expected.")
        return None
    if split not in splits:
        present = _listed(splits) if isinstance(content, dict) else f"a {_kind(content)}"
        report.errors.append(
            f"{where} has no split '{split}': {', '.join(SPLITS)} were expected, and there is {present}."
        )
        return None
    values, label = splits[split], f"{where}, {split}"
    missing = [key for key in needed if key not in values]
    if missing:
        report.errors.append(f"{label} has no {' and no '.join(missing)}. There is {_listed(values)}.")
        return None
    modalities = [key for key in needed if key != LABELS]
    problems: list[str] = []
    arrays = {key: _array(values[key], 3, f"{label}, {key}", "(samples, time, width)", problems) for key in modalities}
    labels = _array(values[LABELS], 1, f"{label}, {LABELS}", "(samples,)", problems) if LABELS in needed else None
    tokens = _read_tokens(values, label, problems) if "text" in modalities and TOKENS in values else None
    lengths = {
        name: _array(values[f"{name}_lengths"], 1, f"{label}, {name}_lengths", "(samples,)", problems)
        for name in modalities
        if f"{name}_lengths" in values
    }
    ids = _texts(values["id"], f"{label}, id", problems) if "id" in values else None
    counted_arrays = {
        **arrays,
        LABELS: labels,
        TOKENS: tokens,
        **{f"{name}_lengths": each for name, each in lengths.items()},
    }
    counts = {key: len(array) for key, array in counted_arrays.items() if array is not None}
    counts |= {} if ids is None else {"id": len(ids)}
    if len(set(counts.values())) > 1:
        sizes = ", ".join(f"{key} {count}" for key, count in counts.items())
        problems.append(f"{label} holds different numbers of samples ({sizes}): row i of each must be the same sample.")
    elif 0 in counts.values():
        problems.append(f"{label} holds no samples ({', '.join(f'{key} 0' for key in counts)}).")
    report.errors += problems
    if problems:
        return None
    samples = next(iter(counts.values()))
    labels = np.zeros(0) if labels is None else labels
    kept = {key: array for key, array in arrays.items() if array is not None}
    kept_lengths = {key: array for key, array in lengths.items() if array is not None}
    return _Part(kept, labels, ids or [f"{split} {row}" for row in range(samples)], kept_lengths, tokens)


def _array(value: Any, axes: int, where: str, shape: str, problems: list[str]) -> Numbers | None:
    """An array of numbers with the given number of axes; None and a problem if the value is something else.

    Also accepted: a list of numbers, a list of arrays of equal shape, and (samples, 1) in place of (samples,).
    """
    array = opened(value)
    if isinstance(array, list) and axes == 1 and all(isinstance(entry, int | float) for entry in array):
        array = np.asarray(array)
    if isinstance(array, list) and axes > 1 and array and all(isinstance(entry, Array | np.ndarray) for entry in array):
        entries = [opened(entry) for entry in array]
        shape_of_first = getattr(entries[0], "shape", None)
        if all(isinstance(entry, np.ndarray) and entry.shape == shape_of_first for entry in entries):
            array = np.stack(entries)
    if isinstance(array, np.ndarray) and axes == 1 and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        problems.append(f"{where} is not an array of numbers: {shape} was expected.")
        return None
    if array.ndim != axes or not all(array.shape[1:]):
        problems.append(f"{where} has the shape {array.shape}: {shape} was expected.")
        return None
    return array


def _texts(value: Any, where: str, problems: list[str]) -> list[str] | None:
    array = opened(value)
    entries = array.tolist() if isinstance(array, np.ndarray) and array.ndim == 1 else array
    if isinstance(entries, list) and all(isinstance(entry, str | int) for entry in entries):
        return [str(entry) for entry in entries]
    problems.append(f"{where} is not a list of strings: a name for each sample was expected.")
    return None


def _read_tokens(values: Mapping[str, Any], place: str, problems: list[str]) -> Numbers | None:
    tokens = _array(values[TOKENS], 3, f"{place}, {TOKENS}", "(samples, 3, time)", problems)
    if tokens is None:
        return None
    advice = "Leave the key out to use the features in text (the option text=features)."
    if tokens.shape[1] != 3:
        problems.append(f"{place}, {TOKENS} has the shape {tokens.shape}: (samples, 3, time) was expected. {advice}")
        return None
    # The types of the published arrays are not documented: ids that are stored as floats are accepted.
    if not np.isin(tokens[:, 1], (0, 1)).all() or not np.array_equal(tokens, np.trunc(tokens)):
        problems.append(f"{place}, {TOKENS}: integer ids and a mask of 0 and 1 were expected. {advice}")
        return None
    return tokens


def _check_sides(parts: Mapping[str, _Part], modalities: Sequence[str], where: str, report: Report) -> None:
    """Report modalities whose width or number of steps differs between the splits."""
    for name in modalities:
        for axis, label in ((2, "width"), (1, "number of steps")):
            sides = {split: part.arrays[name].shape[axis] for split, part in parts.items()}
            if len(set(sides.values())) > 1:
                sides_text = ", ".join(f"{side} in {split}" for split, side in sides.items())
                report.errors.append(f"{where}: the {label} of {name} differs between the splits: {sides_text}.")


def _tokens(parts: Mapping[str, _Part]) -> Column | None:
    arrays = [part.tokens for part in parts.values() if part.tokens is not None]
    if len(arrays) < len(parts) or len({array.shape[2] for array in arrays}) > 1:
        return None
    return np.concatenate(arrays).astype(np.int64)


def _add_lengths(source: Source, parts: Mapping[str, _Part], where: str, report: Report) -> None:
    """Add the true lengths: for text those of the mask, for others those of the file; without them, all steps."""
    without_lengths = []
    for name, column in source.columns.items():
        steps = int(column.shape[2])
        if name == "text" and source.tokens is not None:
            lengths = np.asarray(source.tokens[:, 1]).sum(axis=1)
            origin = "the mask of text_bert"
        elif all(name in part.lengths for part in parts.values()):
            lengths = np.concatenate([part.lengths[name] for part in parts.values()])
            origin = f"{name}_lengths"
        else:
            without_lengths += [name] if name != "text" else []
            lengths, origin = np.full(len(source.ids), steps), ""
        if not np.isfinite(lengths).all() or not np.array_equal(lengths, np.trunc(lengths)):
            report.errors.append(f"{where}: {origin} holds {lengths.dtype} values: integers were expected.")
            continue
        source.lengths[name] = clipped_lengths(lengths.astype(np.int64), steps, f"{where}: {origin}", report)
    # The published aligned files have no lengths: a warning would appear for each of them.
    if without_lengths and not source.aligned:
        report.warnings.append(
            f"{where} is unaligned and has no {' and no '.join(f'{name}_lengths' for name in without_lengths)}: all "
            "steps are treated as data, including padding."
        )


def clipped_lengths(lengths: NDArray[np.int64], steps: int, where: str, report: Report) -> NDArray[np.int64]:
    """Lengths clipped to [1, steps], with a warning if any are outside."""
    # At least 1: attention over a sequence without any unmasked step is NaN.
    kept = np.clip(lengths, 1, steps)
    wrong = int((kept != lengths).sum())
    if wrong:
        report.warnings.append(f"{where} of {wrong} samples is below 1 or above {steps} and was clipped.")
    return kept


def _check_labels(source: Source, where: str, report: Report) -> None:
    labels = source.labels
    rows = np.flatnonzero(~np.isfinite(labels))
    if len(rows):
        names = named([source.ids[row] for row in rows[: NAMED + 1]], len(rows))
        report.errors.append(f"{where}: the label of {names} is NaN or infinite. Remove or label these samples.")
    outside = int((np.abs(labels) > LARGEST).sum())
    if outside and not len(rows):
        report.warnings.append(
            f"{where}: {outside} of {len(labels)} labels are outside [-3, 3]. They are kept; metrics of classes clip "
            "them."
        )


def _check_ids(source: Source, where: str, report: Report) -> None:
    rows = source.numbers()
    ids = {split: {source.ids[row] for row in numbers} for split, numbers in rows.items()}
    for place, first in enumerate(SPLITS):
        for second in SPLITS[place + 1 :]:
            common = sorted(ids[first] & ids[second])
            if common:
                report.warnings.append(
                    f"{where}: {len(common)} ids are in {first} and in {second}, {common[0]} among them: a sample may "
                    "be in only one split."
                )


def report_counts(counts: Mapping[str, Mapping[str, int]], treatment: str, where: str, report: Report) -> None:
    """A warning or an error for each modality with non-finite values."""
    for name, by_kind in counts.items():
        if not any(by_kind.values()):
            continue
        text = f"{where}: {name} holds {counted(by_kind)}"
        if treatment == "refuse":
            report.errors.append(f"{text}. Repair the file, or replace them by 0 (the option nonfinite=zero).")
        elif treatment == "zero":
            report.warnings.append(f"{text}; all were replaced by 0.")
        else:
            replaced = by_kind["-inf"] if name == "audio" else 0
            remaining = sum(by_kind.values()) - replaced
            report.warnings.append(
                f"{text}; as published, {replaced} were replaced by 0"
                + (f", and {remaining} are kept: the loss will not be finite." if remaining else ".")
            )


def named(ids: Sequence[str], count: int) -> str:
    """The first ids, and the number of further ones.

    Example:
        >>> named(["a", "b"], 2), named(["a"] * 7, 20)
        ('a, b', 'a, a, a, a, a, a and 14 more')
    """
    shown = ", ".join(ids[:NAMED])
    return shown if count <= NAMED else f"{shown} and {count - NAMED} more"


def _listed(values: Mapping[Any, Any]) -> str:
    return ", ".join(str(key)[:40] for key in list(values)[:20]) or "nothing"


def _kind(value: Any) -> str:
    return "single array" if isinstance(value, Array) else type(value).__name__
