"""Checking a folder with own data: all problems are collected and reported together, one sentence each.

`check_folder` returns the report; `inspect` returns what was opened as well. The checks of a single array are in
`xmodal.data.own.check_arrays`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.columns import ArrayFile, ArrayFolder, open_column, read_header, sample_files
from xmodal.data.groups import group_numbers, shared_groups
from xmodal.data.own.check_arrays import (
    check_auxiliary,
    check_column,
    check_rows,
    check_splits,
)
from xmodal.data.own.check_target import check_maps, check_target, differing_kinds
from xmodal.data.own.ids import ids_of, shared_ids
from xmodal.data.own.layout import Layout, find_layout
from xmodal.data.own.repair import Rules, once
from xmodal.data.own.scan import Scan, distinct
from xmodal.data.present import PartialColumn, masks_of, present_problems, sample_numbers
from xmodal.data.report import Report
from xmodal.data.split import Column
from xmodal.data.targets import Classes, read_target
from xmodal.data.unlabelled import label_of
from xmodal.errors import InputError
from xmodal.names import UNLABELLED, owner

__all__ = ["Contents", "Report", "check_folder", "inspect"]

# problems of a folder of samples that are listed; the others are counted, as thousands of files may share a problem
LISTED = 3


@dataclass
class Contents:
    """The contents of a folder, complete if the report holds no error.

    Attributes:
        report: errors and warnings.
        layout: files by role; None if there is no folder or no modality in it.
        columns: modality → column.
        auxiliary: ``<modality>.<name>`` → column of an auxiliary input.
        targets: modality → targets; modalities that share a file share the array.
        rows: split → modality → row numbers; empty if the splits have to be drawn.
        task: kind of target; empty: the labels are not valid.
        classes: the labels that the class numbers in ``targets`` stand for.
        groups: number of the group of each sample; None if there are no groups.
        ids: name of each sample; empty: they have none.
        scans: modality → what was found in all of its samples; empty: nothing was looked for.
    """

    report: Report
    layout: Layout | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    auxiliary: dict[str, Column] = field(default_factory=dict)
    targets: dict[str, NDArray[Any]] = field(default_factory=dict)
    rows: dict[str, dict[str, NDArray[np.int64]]] = field(default_factory=dict)
    task: str = ""
    classes: Classes = Classes()
    groups: NDArray[np.int64] | None = None
    ids: list[str] = field(default_factory=list)
    scans: dict[str, Scan] = field(default_factory=dict)


def check_folder(root: str | Path) -> Report:
    """All problems of a data folder."""
    return inspect(Path(root)).report


def inspect(
    root: Path,
    *,
    modalities: Sequence[str] = (),
    scan_bytes: int | None = None,
    task: str = "",
    rules: Rules | None = None,
    scan: bool = False,
    divided: bool = False,
) -> Contents:
    """Check a folder and return its contents.

    Args:
        root: the folder.
        modalities: names of those to check; empty: all.
        scan_bytes: bytes of each modality that are searched for NaN; None: all.
        task: kind of target, if it differs from the one in data.json.
        rules: how strict to be.
        scan: whether to look for constant values and equal samples as well.
        divided: whether the rows are divided into folds, so that groups in two of the given splits do not matter.
    """
    report, rules = Report(), rules or Rules()
    layout = find_layout(root, report, only=modalities, number=rules.split)
    contents = Contents(report, layout)
    if layout is None:
        return contents
    held = _held_rows(layout, report)
    for name, path in layout.sources.items():
        if path.is_dir() and not _check_files(path, report, scan_bytes):
            continue
        column = _opened(path, report)
        if column is not None:
            numbers = held.get(name)
            contents.columns[name] = column
            if scan and column.shape and 0 not in column.shape:
                contents.scans[name] = Scan()
            check_column(
                name,
                path.name,
                column,
                report,
                layout=layout.settings.layout.get(name, ""),
                normalised=layout.normalise(name) != "none",
                scan_bytes=scan_bytes,
                used=_used_rows(layout, name),
                nan=rules.nan,
                # another number of rows is reported below
                numbers=numbers if numbers is not None and len(numbers) == len(column) else None,
                scan=contents.scans.get(name),
            )
    _check_auxiliary(contents, layout, held)
    _lay_out(contents, layout, held)
    if layout.paired:
        _check_names_agree(layout, report)
    # the default of the option leaves the choice to data.json
    if rules.label == UNLABELLED:
        rules = replace(rules, label=layout.settings.unlabelled_label)
    _check_labels(contents, layout, task or layout.settings.task, rules)
    _check_indices(contents, layout, rules)
    _check_groups(contents, layout, warn=not divided)
    _check_ids(contents, layout, warn=not divided)
    for sentences in (report.errors, report.warnings):
        # a file that several modalities use is reported once
        sentences[:] = dict.fromkeys(sentences)
    return contents


def _held_rows(layout: Layout, report: Report) -> dict[str, NDArray[np.int64]]:
    """Modality → numbers of the samples that its file holds, where some samples lack it."""
    opened = _open_arrays(layout.rows.values(), report)
    samples = _samples(layout)
    held = {}
    for name, path in layout.rows.items():
        if path not in opened:
            continue
        # without labels, which is an error of its own, any number is possible
        problems = sample_numbers(path.name, opened[path], None, samples or np.iinfo(np.int64).max)
        report.errors += problems
        if not problems:
            held[name] = opened[path].astype(np.int64)
    return held


def _samples(layout: Layout) -> int:
    """The number of samples of paired data: that of the labels; 0 if there are none."""
    # problems of the labels are reported by `_check_labels`, so this report is thrown away
    targets = _open_arrays(layout.labels.values(), Report(), text=True).values()
    return next((len(target) for target in targets if target.ndim), 0)


def _lay_out(contents: Contents, layout: Layout, held: Mapping[str, NDArray[np.int64]]) -> None:
    """Columns of some samples become columns of all samples, of which the others read as NaN."""
    samples = _samples(layout)
    for name in layout.rows:
        # taken out, so that a column of unknown rows is not compared with labels and splits
        column = contents.columns.pop(name, None)
        auxiliary = {each: contents.auxiliary.pop(each) for each in list(contents.auxiliary) if owner(each) == name}
        if column is None or name not in held or not column.shape or not samples:
            continue
        numbers = held[name]
        problems = sample_numbers(layout.rows[name].name, numbers, column.shape[0], samples)
        contents.report.errors += problems
        if not problems:
            contents.columns[name] = PartialColumn(column, numbers, samples)
            contents.auxiliary |= {
                each: PartialColumn(stored, numbers, samples, auxiliary=True) for each, stored in auxiliary.items()
            }
    # in the order of the modalities again
    contents.columns = {name: contents.columns[name] for name in layout.sources if name in contents.columns}


def _check_auxiliary(contents: Contents, layout: Layout, held: Mapping[str, NDArray[np.int64]]) -> None:
    for name, path in layout.auxiliary.items():
        modality, column = contents.columns.get(owner(name)), _opened(path, contents.report)
        if modality is None or column is None or len(modality.shape) < 2:
            continue
        samples, steps = modality.shape[0], modality.shape[-1]
        numbers = held.get(owner(name))
        if numbers is not None and len(numbers) != samples:
            numbers = None
        if check_auxiliary(name, path.name, column, contents.report, samples=samples, steps=steps, numbers=numbers):
            contents.auxiliary[name] = column


def _opened(path: Path, report: Report, *, text: bool = False) -> ArrayFile | ArrayFolder | None:
    try:
        return ArrayFile(path, text=True) if text else open_column(path)
    except InputError as error:
        report.errors.extend(error.problems)
        return None


def _check_files(folder: Path, report: Report, scan_bytes: int | None) -> bool:
    """Whether the files of a folder of samples are readable and have one shape."""
    problems: list[str] = []
    others = sorted(path.name for path in folder.iterdir() if path.suffix != ".npy" and not path.name.startswith("."))
    if others:
        problems.append(f"The folder {folder.name} holds {others[0]}: one .npy file per sample was expected. Move it.")
    files = sample_files(folder)
    first_shape: tuple[int, ...] | None = None
    # each file counts as 4096 bytes, a block of most file systems: a header can't be read with less
    limit = len(files) if scan_bytes is None else max(1, scan_bytes // 4096)
    for path in files[:limit]:
        try:
            shape, _ = read_header(path)
        except InputError as error:
            problems.extend(error.problems)
            continue
        first_shape = shape if first_shape is None else first_shape
        if shape != first_shape:
            problems.append(f"{folder.name}/{path.name} has the shape {shape}, the first sample has {first_shape}.")
    if problems[LISTED:]:
        problems[LISTED:] = [f"… and {len(problems) - LISTED} more problems in the folder {folder.name}."]
    report.errors.extend(problems)
    # 10.npy comes before 2.npy, which is rarely what the writer of the labels meant
    stems = [path.stem for path in files]
    if all(stem.isdecimal() for stem in stems) and len({len(stem) for stem in stems}) > 1:
        report.warnings.append(
            f"The files in {folder.name} are ordered by name, so {stems[0]}.npy is followed by {stems[1]}.npy. Write "
            "the numbers with leading zeros if the labels follow the numbers."
        )
    return not problems


def _check_names_agree(layout: Layout, report: Report) -> None:
    # row i of a modality that some samples lack is another sample
    folders = {name: path for name, path in layout.sources.items() if path.is_dir() and name not in layout.rows}
    if not folders:
        return
    first, *others = folders
    expected = [path.name for path in sample_files(folders[first])]
    for other in others:
        names = [path.name for path in sample_files(folders[other])]
        # different numbers of files are reported as different numbers of samples
        for row, (left, right) in enumerate(zip(expected, names, strict=False)):
            if left != right:
                report.warnings.append(
                    f"Row {row} is {left} in {first} and {right} in {other}: paired samples usually carry one name."
                )
                break


def _used_rows(layout: Layout, name: str) -> NDArray[np.int64] | None:
    """Rows of a modality that are in any split; None: all rows, or index files that can't be read."""
    files = [layout.indices[split][name] for split in layout.indices if name in layout.indices[split]]
    # problems of index files are reported by `_check_indices`, so this report is thrown away
    parts = [np.asarray(column.array) for path in files if (column := _opened(path, Report())) is not None]  # type: ignore[union-attr]
    if not parts or len(parts) < len(files) or any(part.ndim != 1 or part.dtype.kind not in "iu" for part in parts):
        return None
    return distinct(np.concatenate(parts)).astype(np.int64)


def _check_labels(contents: Contents, layout: Layout, task: str, rules: Rules) -> None:
    report, ignore = contents.report, layout.settings.ignore
    names, label = layout.settings.class_names, None if rules.label == ignore else rules.label
    opened = {
        path: read_target(path.name, values, label)
        for path, values in _open_arrays(layout.labels.values(), report, text=True).items()
    }
    problems = differing_kinds({path.name: raw for path, raw in opened.items()}, task)
    report.errors += problems
    usable = {
        path: check_target(path.name, raw, report, task=task, class_names=names, ignore=ignore, label=label)
        and not problems
        for path, raw in opened.items()
    }
    # maps may be shared by modalities of several sizes: it is an error only if they fit none of them
    for path in filter(usable.get, opened):
        owners = [name for name in contents.columns if layout.labels.get(name) == path]
        shapes = {layout.sources[name].name: tuple(contents.columns[name].shape) for name in owners}
        check_maps(path.name, opened[path], shapes, report, task=task)
    if valid := {path: raw for path, raw in opened.items() if usable[path]}:
        contents.task = task or next(iter(valid.values())).task
        contents.classes = Classes.of(valid.values(), contents.task, class_names=names, ignore=ignore, label=label)
        numbers = {path: contents.classes.numbers(raw, contents.task, label) for path, raw in valid.items()}
        contents.targets = {name: numbers[path] for name, path in layout.labels.items() if path in numbers}
    # a modality that some samples lack has fewer, and `_lay_out` compares them with their numbers
    counts = {
        layout.sources[name].name: column.shape[0]
        for name, column in contents.columns.items()
        if column.shape and name not in layout.rows
    }
    counts |= {path.name: len(raw.values) for path, raw in opened.items() if raw.values.ndim}
    if layout.paired and len(set(counts.values())) > 1:
        report.errors.append(_lengths_sentence(counts))
    for name, path in layout.labels.items():
        source = layout.sources[name].name
        if not layout.paired and {source, path.name} <= counts.keys() and counts[source] != counts[path.name]:
            report.errors.append(_lengths_sentence({source: counts[source], path.name: counts[path.name]}))


def _lengths_sentence(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{where} has {count}" for where, count in counts.items())
    return (
        f"The numbers of samples disagree: {listed}. Row i of each must be the same sample; data whose modalities have "
        "samples of their own (unpaired) needs labels per modality."
    )


def _open_arrays(paths: Iterable[Path], report: Report, *, text: bool = False) -> dict[Path, NDArray[Any]]:
    opened = {}
    for path in dict.fromkeys(paths):
        column = _opened(path, report, text=text)
        if isinstance(column, ArrayFile):
            opened[path] = np.asarray(column.array)
    return opened


def _check_indices(contents: Contents, layout: Layout, rules: Rules) -> None:
    report = contents.report
    opened = _open_arrays((path for files in layout.indices.values() for path in files.values()), report)
    usable: dict[tuple[Path, int], bool] = {}
    rows: dict[str, dict[str, NDArray[np.int64]]] = {}
    # one array per file, so that modalities that share an index file share the array
    numbers_of: dict[Path, NDArray[np.int64]] = {}
    for split, files in layout.indices.items():
        for name, path in files.items():
            if path not in opened or name not in contents.columns:
                continue
            samples = _length(contents.columns[name])
            if (path, samples) not in usable:
                usable[path, samples] = check_rows(path.name, opened[path], samples, report, repeated=rules.repeated)
            if usable[path, samples] and path not in numbers_of:
                numbers = opened[path].astype(np.int64)
                numbers_of[path] = once(numbers) if rules.repeated == "once" else numbers
            if usable[path, samples]:
                rows.setdefault(split, {})[name] = numbers_of[path]
    # without a column, rows that have it would seem to have nothing
    masks = masks_of(contents.columns) if len(contents.columns) == len(layout.sources) else {}
    checked = set()
    for name in contents.columns:
        splits = {split: rows[split][name] for split in rows if name in rows[split]}
        key = (id(contents.targets.get(name)), *(id(part) for part in splits.values()))
        if key not in checked:
            where = {split: layout.indices[split][name].name for split in splits}
            check_splits(
                where,
                splits,
                contents.targets.get(name),
                report,
                overlap=rules.overlap,
                label=label_of(layout.settings.ignore),
                class_names=contents.classes.names,
            )
            # other numbers of samples are reported already
            lengths = {len(mask) for mask in masks.values()}
            if len(lengths) == 1 and all(part.max() < min(lengths) for part in splits.values()):
                report.errors += present_problems(where, splits, masks)
        checked.add(key)
    contents.rows = rows


def _length(column: Column) -> int:
    return column.shape[0] if column.shape else 0


def _check_groups(contents: Contents, layout: Layout, *, warn: bool) -> None:
    values = _named_values(contents, layout.groups, "iuUS")
    if layout.groups is None or values is None:
        return
    name, samples = layout.groups.name, _length(next(iter(contents.columns.values())))
    try:
        contents.groups = group_numbers(name, values, samples)
    except InputError as error:
        contents.report.errors.extend(error.problems)
        return
    if warn and (rows := _rows_within(contents, samples)):
        contents.report.warnings.extend(shared_groups(contents.groups, rows))


def _check_ids(contents: Contents, layout: Layout, *, warn: bool) -> None:
    values = _named_values(contents, layout.ids, "iuU")
    if layout.ids is None or values is None:
        return
    samples = _length(next(iter(contents.columns.values())))
    try:
        contents.ids = ids_of(layout.ids.name, values, samples)
    except InputError as error:
        contents.report.errors.extend(error.problems)
        return
    # splits that are drawn have other warnings, see `folder.drawn`
    if warn and (rows := _rows_within(contents, samples)):
        contents.report.warnings.extend(shared_ids(layout.ids.name, contents.ids, rows))


def _named_values(contents: Contents, path: Path | None, kinds: str) -> NDArray[Any] | None:
    """The integers or text of a file with one value per sample; None: there is none, or it has a problem."""
    if path is None or not contents.columns:
        return None
    try:
        # text is stored without Python objects, which would have to be unpickled
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        contents.report.errors.append(f"{path.name} can't be read ({error}). Write integers or text with numpy.save.")
        return None
    if values.dtype.kind not in kinds or values.ndim != 1:
        contents.report.errors.append(
            f"{path.name} holds {values.dtype} of shape {values.shape}: integers or text were expected, one per sample."
        )
        return None
    return values


def _rows_within(contents: Contents, samples: int) -> dict[str, NDArray[np.int64]]:
    """Split → rows, if all of them exist; empty if not, which is reported elsewhere."""
    rows = {split: next(iter(parts.values())) for split, parts in contents.rows.items() if parts}
    return rows if all(part.max() < samples for part in rows.values()) else {}
