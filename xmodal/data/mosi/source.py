"""What a file of MOSI or MOSEI holds, once everything that is wrong with it has been said.

    {"train": split, "valid": split, "test": split}, and in each split

    text vision audio       (n, time, width)   features; vision and audio may have more steps than text
    regression_labels       (n,)               from -3 to 3
    text_bert               (n, 3, time)       optional: token ids, mask, segments
    audio_lengths vision_lengths               optional: n true lengths; those of text come from the mask
    id                      n texts            optional

Other keys are not used. Lengths and widths are those of the arrays, whatever they are.
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
LARGEST = 3.0  # labels run from minus this to this
NAMED = 6  # samples that are named one by one; the others are counted
Numbers = NDArray[Any]


@dataclass
class Source:
    """Splits behind one another: row i of everything is the same sample.

    Attributes:
        columns: modality → (samples, width, time).
        lengths: modality → true length of each sample, (samples,).
        labels: (samples,), empty where none were asked for.
        rows: split → how many samples.
        ids: of the samples.
        tokens: (samples, 3, time), None where the file has no ``text_bert``.
        counts: modality → how many values are not finite, by kind.
        treatment: what became of those, see `cleaned`.
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
    """The pickle that a path means: itself, or the only one in a folder; None if it means none."""
    if path.is_file():
        return path
    found = sorted(path.glob("*.pkl")) if path.is_dir() else []
    return found[0] if len(found) == 1 else None


def open_pickle(
    path: Path,
    report: Report,
    *,
    modalities: Sequence[str] = MODALITIES,
    treatment: str = "zero",
    labelled: bool = True,
) -> Source | None:
    """A published file; None where its splits can't be taken apart.

    Args:
        path: the pickle.
        report: receives what is wrong.
        modalities: which to read.
        treatment: of values that are not finite.
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
    """The same from what a file holds.

    Args:
        content: split → key → array.
        where: how the sentences name the file.
        report: receives what is wrong.
        modalities: which to read.
        treatment: of values that are not finite.
        labelled: whether labels are expected.
    """
    before = len(report.errors)
    needed = [*modalities, *[LABELS] * labelled]
    parts = {split: found for split in SPLITS if (found := _part(content, split, where, needed, report)) is not None}
    _check_sides(parts, modalities, where, report)
    if len(report.errors) > before:
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
    say_counts(source.counts, treatment, where, report)
    return source if len(report.errors) == before else None


@dataclass
class _Part:
    """One split of a file."""

    arrays: dict[str, Numbers]
    labels: Numbers
    ids: list[str]
    lengths: dict[str, Numbers]
    tokens: Numbers | None


def _part(content: Any, split: str, where: str, needed: Sequence[str], report: Report) -> _Part | None:
    """A split whose arrays have the right form and equal numbers of samples; says why not."""
    splits = content if isinstance(content, dict) else {}
    if split in splits and not isinstance(splits[split], dict):
        report.errors.append(f"{where}: the split '{split}' is a {_kind(splits[split])}, a dictionary was expected.")
        return None
    if split not in splits:
        there = _listed(splits) if isinstance(content, dict) else f"a {_kind(content)}"
        report.errors.append(
            f"{where} has no split '{split}': {', '.join(SPLITS)} were expected, and there is {there}."
        )
        return None
    values, place = splits[split], f"{where}, {split}"
    missing = [key for key in needed if key not in values]
    if missing:
        report.errors.append(f"{place} has no {' and no '.join(missing)}. There is {_listed(values)}.")
        return None
    modalities = [key for key in needed if key != LABELS]
    problems: list[str] = []
    arrays = {key: _array(values[key], 3, f"{place}, {key}", "(samples, time, width)", problems) for key in modalities}
    labels = _array(values[LABELS], 1, f"{place}, {LABELS}", "(samples,)", problems) if LABELS in needed else None
    tokens = _read_tokens(values, place, problems) if "text" in modalities and TOKENS in values else None
    lengths = {
        name: _array(values[f"{name}_lengths"], 1, f"{place}, {name}_lengths", "(samples,)", problems)
        for name in modalities
        if f"{name}_lengths" in values
    }
    listed = _texts(values["id"], f"{place}, id", problems) if "id" in values else None
    counted_arrays = {
        **arrays,
        LABELS: labels,
        TOKENS: tokens,
        **{f"{name}_lengths": each for name, each in lengths.items()},
    }
    counts = {key: len(array) for key, array in counted_arrays.items() if array is not None}
    counts |= {} if listed is None else {"id": len(listed)}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{key} {count}" for key, count in counts.items())
        problems.append(f"{place} holds different numbers of samples ({told}): row i of each must be the same sample.")
    elif 0 in counts.values():
        problems.append(f"{place} holds no samples ({', '.join(f'{key} 0' for key in counts)}).")
    report.errors += problems
    if problems:
        return None
    samples = next(iter(counts.values()))
    found = np.zeros(0) if labels is None else labels
    kept = {key: array for key, array in arrays.items() if array is not None}
    own = {key: array for key, array in lengths.items() if array is not None}
    return _Part(kept, found, listed or [f"{split} {row}" for row in range(samples)], own, tokens)


def _array(value: Any, axes: int, where: str, shape: str, problems: list[str]) -> Numbers | None:
    """Numbers with so many axes; None, and a sentence, if they are none."""
    found = opened(value)
    if isinstance(found, list) and axes == 1 and all(isinstance(entry, int | float) for entry in found):
        found = np.asarray(found)
    if isinstance(found, list) and axes > 1 and found and all(isinstance(entry, Array | np.ndarray) for entry in found):
        one = [opened(entry) for entry in found]
        if all(isinstance(entry, np.ndarray) and entry.shape == getattr(one[0], "shape", None) for entry in one):
            found = np.stack(one)
    if isinstance(found, np.ndarray) and axes == 1 and found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        problems.append(f"{where} is no array of numbers: {shape} was expected.")
        return None
    if found.ndim != axes or not all(found.shape[1:]):
        problems.append(f"{where} has the shape {found.shape}: {shape} was expected.")
        return None
    return found


def _texts(value: Any, where: str, problems: list[str]) -> list[str] | None:
    found = opened(value)
    entries = found.tolist() if isinstance(found, np.ndarray) and found.ndim == 1 else found
    if isinstance(entries, list) and all(isinstance(entry, str | int) for entry in entries):
        return [str(entry) for entry in entries]
    problems.append(f"{where} is no list of texts: one name per sample was expected.")
    return None


def _read_tokens(values: Mapping[str, Any], place: str, problems: list[str]) -> Numbers | None:
    found = _array(values[TOKENS], 3, f"{place}, {TOKENS}", "(samples, 3, time)", problems)
    if found is None:
        return None
    way = "Leave the key out to use the features in text (the option text=features)."
    if found.shape[1] != 3:
        problems.append(f"{place}, {TOKENS} has the shape {found.shape}: (samples, 3, time) was expected. {way}")
        return None
    if not np.isin(found[:, 1], (0, 1)).all() or not np.array_equal(found, np.trunc(found)):
        problems.append(f"{place}, {TOKENS} holds other numbers than whole ids and a mask of 0 and 1. {way}")
        return None
    return found


def _check_sides(parts: Mapping[str, _Part], modalities: Sequence[str], where: str, report: Report) -> None:
    """Width and number of steps have to be those of every split."""
    for name in modalities:
        for axis, what in ((2, "width"), (1, "number of steps")):
            sides = {split: part.arrays[name].shape[axis] for split, part in parts.items()}
            if len(set(sides.values())) > 1:
                told = ", ".join(f"{side} in {split}" for split, side in sides.items())
                report.errors.append(f"{where}: the {what} of {name} differs between the splits: {told}.")


def _tokens(parts: Mapping[str, _Part]) -> Column | None:
    found = [part.tokens for part in parts.values() if part.tokens is not None]
    if len(found) < len(parts) or len({array.shape[2] for array in found}) > 1:
        return None
    return np.concatenate(found).astype(np.int64)


def _add_lengths(source: Source, parts: Mapping[str, _Part], where: str, report: Report) -> None:
    """True lengths: text's from the mask, the others' as they are in the file; all steps where there are none."""
    bare = []
    for name, column in source.columns.items():
        steps = int(column.shape[2])
        if name == "text" and source.tokens is not None:
            found = np.asarray(source.tokens[:, 1]).sum(axis=1)
            given = "the mask of text_bert"
        elif all(name in part.lengths for part in parts.values()):
            found = np.concatenate([part.lengths[name] for part in parts.values()])
            given = f"{name}_lengths"
        else:
            bare += [name] if name != "text" else []
            found, given = np.full(len(source.ids), steps), ""
        if not np.isfinite(found).all() or not np.array_equal(found, np.trunc(found)):
            report.errors.append(f"{where}: {given} holds {found.dtype} numbers: whole numbers were expected.")
            continue
        source.lengths[name] = clipped_lengths(found.astype(np.int64), steps, f"{where}: {given}", report)
    if bare and not source.aligned:
        report.warnings.append(
            f"{where} is unaligned and has no {' and no '.join(f'{name}_lengths' for name in bare)}: all steps are "
            "taken for real ones, padding too."
        )


def clipped_lengths(lengths: NDArray[np.int64], steps: int, where: str, report: Report) -> NDArray[np.int64]:
    """Lengths between 1 and the number of steps; those that are not are counted and moved there."""
    kept = np.clip(lengths, 1, steps)
    wrong = int((kept != lengths).sum())
    if wrong:
        report.warnings.append(f"{where} of {wrong} samples is below 1 or above {steps}; it was moved there.")
    return kept


def _check_labels(source: Source, where: str, report: Report) -> None:
    labels = source.labels
    bad = np.flatnonzero(~np.isfinite(labels))
    if len(bad):
        told = named([source.ids[row] for row in bad[: NAMED + 1]], len(bad))
        report.errors.append(f"{where}: the label of {told} is NaN or infinite. Remove or label these samples.")
    outside = int((np.abs(labels) > LARGEST).sum())
    if outside and not len(bad):
        report.warnings.append(
            f"{where}: {outside} of {len(labels)} labels are outside [-3, 3]. They are kept; metrics of classes clip "
            "them."
        )


def _check_ids(source: Source, where: str, report: Report) -> None:
    rows = source.numbers()
    of = {split: {source.ids[row] for row in numbers} for split, numbers in rows.items()}
    for place, one in enumerate(SPLITS):
        for two in SPLITS[place + 1 :]:
            common = sorted(of[one] & of[two])
            if common:
                report.warnings.append(
                    f"{where}: {len(common)} ids are in {one} and in {two}, {common[0]} among them: a sample may be in "
                    "one split only."
                )


def say_counts(counts: Mapping[str, Mapping[str, int]], treatment: str, where: str, report: Report) -> None:
    """One sentence per modality with values that are not finite."""
    for name, found in counts.items():
        if not any(found.values()):
            continue
        told = f"{where}: {name} holds {counted(found)}"
        if treatment == "refuse":
            report.errors.append(f"{told}. Repair the file, or let them become 0 (the option nonfinite=zero).")
        elif treatment == "zero":
            report.warnings.append(f"{told}; 0 was put in place of each.")
        else:
            replaced = found["-inf"] if name == "audio" else 0
            left = sum(found.values()) - replaced
            report.warnings.append(
                f"{told}; as published, 0 was put in place of {replaced}"
                + (f", and {left} are left for the network, whose loss won't be finite." if left else ".")
            )


def named(ids: Sequence[str], count: int) -> str:
    """Some ids, and how many more there are.

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
