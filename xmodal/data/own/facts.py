"""What is in some data: rows, labels, shapes, classes and their shares, constant values, repeated samples, groups.

`xmodal data check` prints these facts below the problems, for folders with own data and for data sets.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.base import Data, count_classes, typed_target
from xmodal.data.own.check import Contents, inspect
from xmodal.data.own.folder import drawn
from xmodal.data.own.scan import Scan, repeated, scanned
from xmodal.data.present import stored_of
from xmodal.data.split import Column, Partial
from xmodal.data.targets import as_text, target_sentence
from xmodal.data.unlabelled import SINGLE, has_label, label_of
from xmodal.errors import InputError
from xmodal.types import DataInfo

LISTED = 12  # positions or classes in a line of the terminal
Rows = Mapping[str, Mapping[str, NDArray[np.int64]]]


@dataclass(frozen=True)
class ModalityFacts:
    """One modality.

    Attributes:
        rows: samples that have it.
        shape: of one sample.
        dtype: of the stored values.
        constant: positions of a sample that have the same value in all samples; None: nobody looked.
        positions: the first of them, counted over the flattened sample.
    """

    rows: int
    shape: tuple[int, ...]
    dtype: str
    constant: int | None = None
    positions: tuple[int, ...] = ()

    def line(self, name: str, width: int) -> str:
        """One line for the terminal."""
        size = int(np.prod(self.shape))
        text = f"{name:<{width}}  {self.rows} rows of {self.shape}, {self.dtype}"
        if not self.constant:
            return text
        shown = ", ".join(map(str, self.positions)) + ", …" * (self.constant > len(self.positions))
        return f"{text}; constant: {self.constant} of {size} values ({shown})"


@dataclass(frozen=True)
class SplitFacts:
    """One split.

    Attributes:
        rows: in it.
        labelled: those with a label.
        classes: class or label → rows with it; empty for other tasks.
        present: modality → rows that have it; empty: all have all.
        complete: rows with all modalities.
        groups: how many groups are in it; 0: there are none.
        mean: of the values of a regression; empty for other tasks.
        spread: their standard deviation.
    """

    rows: int
    labelled: int
    classes: dict[str, int] = field(default_factory=dict)
    present: dict[str, int] = field(default_factory=dict)
    complete: int = 0
    groups: int = 0
    mean: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()

    @property
    def shares(self) -> dict[str, float]:
        """Class → its share of the labelled rows."""
        return {name: count / max(1, self.labelled) for name, count in self.classes.items()}

    def line(self, name: str, width: int) -> str:
        """One line for the terminal."""
        text = f"{name:<{width}}  {self.rows} rows"
        if self.labelled < self.rows:
            text += f", {self.labelled} labelled, {self.rows - self.labelled} unlabelled"
        if self.present:
            counts = ", ".join(f"{modality}: {count}" for modality, count in self.present.items())
            text += f", {self.complete} with all modalities ({counts})"
        if self.groups:
            text += f", {self.groups} groups"
        if self.mean:
            values = ", ".join(f"{mean:.4g} ± {std:.3g}" for mean, std in zip(self.mean[:3], self.spread, strict=False))
            return f"{text}: {values}{', …' if len(self.mean) > 3 else ''}"
        shown = [f"{label} {count} ({self.shares[label]:.1%})" for label, count in self.classes.items()]
        more = f", … ({len(shown)} in all)" if len(shown) > LISTED else ""
        # a space before the per cent sign, as elsewhere
        return text + f": {', '.join(shown[:LISTED])}{more}".replace("%", " %") * bool(shown)


@dataclass(frozen=True)
class Facts:
    """What is in some data.

    Attributes:
        modalities: name → facts.
        splits: name, with the modality in unpaired data → facts.
        target: one sentence on the targets.
        drawn: whether the splits were drawn, since the data has none.
        majority: class that is most frequent in training → its share of the test rows: the accuracy of always
            predicting it; empty for other tasks.
        groups: how many there are; 0: none.
        shared_groups: how many are in more than one split.
        repeats: pair of splits, such as ``test in train`` → modality → rows of the first that equal one of the second;
            ``all`` counts rows that do so in all modalities. None: nobody looked.
    """

    modalities: dict[str, ModalityFacts]
    splits: dict[str, SplitFacts]
    target: str
    drawn: bool = False
    majority: dict[str, float] = field(default_factory=dict)
    groups: int = 0
    shared_groups: int = 0
    repeats: dict[str, dict[str, int]] | None = None

    def lines(self) -> list[str]:
        """The facts for the terminal."""
        width = max(map(len, [*self.modalities, *self.splits]))
        lines = [facts.line(name, width) for name, facts in self.modalities.items()]
        lines.append(self.target)
        if self.drawn:
            lines.append("The data has no splits: they are drawn, here with seed 0.")
        lines += [facts.line(name, width) for name, facts in self.splits.items()]
        for label, share in self.majority.items():
            lines.append(f"Always predicting {label}, the most frequent class, is right in {share:.1%} of test.")
        if self.groups:
            shared = (
                f"{self.shared_groups} of them in more than one split" if self.shared_groups else "each in one split"
            )
            lines.append(f"{self.groups} groups, {shared}.")
        for pair, counts in (self.repeats or {}).items():
            if any(counts.values()):
                lines.append(f"Equal rows, {pair}: {', '.join(f'{name} {count}' for name, count in counts.items())}.")
        return [line.replace("%", " %") if line.startswith("Always") else line for line in lines]

    def warnings(self) -> list[str]:
        """The facts that should not be: values that never change, and rows that are in two splits."""
        found = [
            f"All samples of {name} are equal: it holds no information. Check the file."
            for name, facts in self.modalities.items()
            if facts.constant is not None and facts.constant == int(np.prod(facts.shape))
        ]
        for pair, counts in (self.repeats or {}).items():
            if counts.get("all"):
                first, _, second = pair.partition(" in ")
                found.append(
                    f"{counts['all']} rows of {first} equal a row of {second} in all modalities, so the score of "
                    f"{first} is too good. Remove them from one of the two."
                )
        return found

    def described(self) -> dict[str, Any]:
        """The facts as JSON values."""
        splits = {
            name: {**{key: value for key, value in vars(facts).items() if value}, "shares": facts.shares}
            for name, facts in self.splits.items()
        }
        modalities = {
            name: {**vars(facts), "shape": list(facts.shape), "positions": list(facts.positions)}
            for name, facts in self.modalities.items()
        }
        return {**vars(self), "modalities": modalities, "splits": splits}


def folder_facts(root: Path) -> tuple[Contents, Facts | None]:
    """The checked contents of a folder with own data, and what is in it; None if it has an error.

    Each array is read once, in blocks. Problems of splits that are drawn, and warnings of the facts, are added to the
    report.
    """
    contents = inspect(root, scan=True)
    layout, report = contents.layout, contents.report
    if layout is None or report.errors:
        return contents, None
    targets = {name: typed_target(target, contents.task) for name, target in contents.targets.items()}
    rows = contents.rows
    if not rows:
        try:
            rows = drawn(contents, targets, 0)
        except InputError as error:
            report.errors += error.problems
    if report.errors:
        return contents, None
    names, ignore = contents.classes.names, layout.settings.ignore
    dense = contents.task == "multiclass" and next(iter(targets.values())).ndim > 1
    info = DataInfo(
        {},
        contents.task,
        count_classes(targets, contents.task, names, ignore=ignore),
        {},
        class_names=names,
        label_values=contents.classes.labels,
        dense=dense,
        ignore=ignore,
    )
    of_split = {
        split: {name: targets[name][numbers] for name, numbers in parts.items()} for split, parts in rows.items()
    }
    facts = _facts(
        contents.columns,
        rows,
        of_split,
        info,
        contents.scans,
        paired=layout.paired,
        source=contents.classes.source,
        groups=contents.groups,
        drawn=not contents.rows,
    )
    report.warnings += facts.warnings()
    return contents, facts


def data_facts(data: Data) -> Facts:
    """What is in an opened data set; arrays that are in memory are searched for constant and repeated values."""
    parts = {name: data.split(name) for name in ("train", "valid", "test")}
    columns = {name: parts["train"].columns[name] for name in data.info.modalities}
    # columns that decode files take minutes to read
    quick = all(isinstance(stored_of(column)[0], np.ndarray) for column in columns.values())
    scans = {name: scanned(stored_of(column)[0]) for name, column in columns.items()} if quick else {}
    targets = {split: {name: target.numpy() for name, target in part.targets.items()} for split, part in parts.items()}
    return _facts(
        columns,
        {split: part.numbers for split, part in parts.items()},
        targets,
        data.info,
        scans,
        paired=data.info.paired,
        source=data.labels_from,
        groups=data.groups,
    )


def _facts(
    columns: Mapping[str, Column],
    rows: Rows,
    targets: Mapping[str, Mapping[str, NDArray[Any]]],
    info: DataInfo,
    scans: Mapping[str, Scan],
    *,
    paired: bool,
    source: str,
    groups: NDArray[np.int64] | None,
    drawn: bool = False,
) -> Facts:
    first = next(iter(columns))
    splits = {
        split if paired else f"{split} ({name})": _split_facts(
            columns, rows[split][name], targets[split].get(name), info, paired=paired, groups=groups
        )
        for name in ([first] if paired else columns)
        for split in rows
    }
    members = [np.unique(groups[rows[split][first]]) for split in rows] if groups is not None else []
    counted = np.unique(np.concatenate(members), return_counts=True)[1] if members else np.zeros(0, dtype=int)
    return Facts(
        {name: _modality(column, scans.get(name)) for name, column in columns.items()},
        splits,
        target_sentence(info, source),
        drawn,
        _majority(splits, info, paired=paired),
        len(counted),
        int((counted > 1).sum()),
        _repeats(columns, rows, scans, paired=paired) if len(scans) == len(columns) else None,
    )


def _modality(column: Column, scan: Scan | None) -> ModalityFacts:
    stored, _ = stored_of(column)
    shape, dtype = tuple(map(int, stored.shape)), str(stored.dtype)
    if scan is None:
        return ModalityFacts(shape[0], shape[1:], dtype)
    constant = np.flatnonzero(scan.constant)
    return ModalityFacts(shape[0], shape[1:], dtype, len(constant), tuple(constant[:LISTED].tolist()))


def _split_facts(
    columns: Mapping[str, Column],
    rows: NDArray[np.int64],
    target: NDArray[Any] | None,
    info: DataInfo,
    *,
    paired: bool,
    groups: NDArray[np.int64] | None,
) -> SplitFacts:
    present = {name: column.present[rows] for name, column in columns.items() if isinstance(column, Partial)}
    whole = np.ones(len(rows), dtype=bool)
    for mask in present.values():
        whole = whole & mask
    counts = {name: int(present[name].sum()) if name in present else len(rows) for name in columns}
    labelled = np.ones(len(rows), dtype=bool) if target is None else has_label(target, label_of(info.ignore))
    known = None if target is None else target[labelled]
    return SplitFacts(
        len(rows),
        int(labelled.sum()),
        {} if known is None else _classes(known, info),
        counts if paired and not whole.all() else {},
        int(whole.sum()),
        0 if groups is None else len(np.unique(groups[rows])),
        *(() if known is None or info.task != "regression" else _values(known)),
    )


def _values(known: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    flat = known.reshape(len(known), -1).astype(np.float64)
    return tuple(flat.mean(axis=0).tolist()), tuple(flat.std(axis=0).tolist())


def _classes(known: NDArray[Any], info: DataInfo) -> dict[str, int]:
    """Class or label → rows; nothing for other tasks, and for maps, which would have to be read whole."""
    if info.dense or info.task == "regression":
        return {}
    names = info.class_names or tuple(map(as_text, info.label_values or range(info.classes)))
    counts = (
        known.sum(axis=0) if info.task == "multilabel" else np.bincount(known.astype(np.int64), minlength=len(names))
    )
    return {name: int(count) for name, count in zip(names, counts, strict=False)}


def _majority(splits: Mapping[str, SplitFacts], info: DataInfo, *, paired: bool) -> dict[str, float]:
    if info.task not in SINGLE or not paired or not splits["train"].classes:
        return {}
    counts = splits["train"].classes
    name = max(counts, key=lambda each: counts[each])
    return {name: splits["test"].shares[name]}


def _repeats(
    columns: Mapping[str, Column], rows: Rows, scans: Mapping[str, Scan], *, paired: bool
) -> dict[str, dict[str, int]]:
    """Pair of splits → modality → rows of the later one that equal a row of the earlier one."""
    digests = {name: scan.digests for name, scan in scans.items()}
    numbers = {name: _numbers(column) for name, column in columns.items()}
    found: dict[str, dict[str, int]] = {}
    for earlier, later in itertools.combinations(rows, 2):
        found[f"{later} in {earlier}"] = {
            name: repeated(digests[name], numbers[name], rows[later][name], rows[earlier][name]) for name in columns
        }
    if paired and len(columns) > 1:
        samples = columns[next(iter(columns))].shape[0]
        combined, whole = np.zeros(samples, dtype=np.uint64), np.ones(samples, dtype=bool)
        for name, each in digests.items():
            # an odd factor, so that equal digests of two modalities do not cancel each other
            combined[numbers[name]] = combined[numbers[name]] * np.uint64(0x9E3779B97F4A7C15) + each
            whole &= np.isin(np.arange(samples), numbers[name])
        first = next(iter(columns))
        for earlier, later in itertools.combinations(rows, 2):
            found[f"{later} in {earlier}"]["all"] = repeated(
                combined[whole], np.flatnonzero(whole), rows[later][first], rows[earlier][first]
            )
    elif paired:
        for counts in found.values():
            counts["all"] = next(iter(counts.values()))
    return found


def _numbers(column: Column) -> NDArray[np.int64]:
    """Numbers of the samples that a column holds."""
    stored, numbers = stored_of(column)
    return np.arange(stored.shape[0]) if numbers is None else numbers
