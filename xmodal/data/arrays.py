"""Data from Python objects: arrays, a `torch.utils.data.Dataset`, or batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from xmodal.data.base import Data, assemble, typed_target
from xmodal.data.draw import draw_splits
from xmodal.data.groups import drawn_groups, group_numbers, shared_groups
from xmodal.data.own.check_arrays import check_auxiliary, check_column, check_rows, check_splits
from xmodal.data.own.check_target import check_target, differing_kinds
from xmodal.data.own.ids import ids_of, shared_ids
from xmodal.data.own.layout import is_name, name_sentence
from xmodal.data.present import PartialColumn, complete, masks_of, present_problems, stored_of
from xmodal.data.report import Report
from xmodal.data.request import DataRequest
from xmodal.data.samples import DatasetColumn, as_array, as_column, joined, read_once
from xmodal.data.split import READY_BYTES, Column
from xmodal.data.targets import Classes, RawTarget, read_target
from xmodal.data.unlabelled import label_of
from xmodal.errors import InputError, did_you_mean, listed
from xmodal.names import UNLABELLED
from xmodal.types import SPLITS, TASKS, Batch, owner

# shares of the drawn training, validation and test split
FRACTIONS = (0.7, 0.1, 0.2)
Rows = Mapping[str, Mapping[str, NDArray[np.int64]]]


def from_arrays(
    inputs: Mapping[str, Any],
    target: Any,
    *,
    splits: Mapping[str, Any] | None = None,
    task: str = "",
    class_names: Sequence[str] = (),
    normalise: str | Mapping[str, str] = "standard",
    layouts: Mapping[str, str] | None = None,
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
    ignore: int | None = None,
    unlabelled: Mapping[str, Any] | None = None,
    unlabelled_label: int | None = UNLABELLED,
    groups: Any = None,
    split_by_group: bool = False,
    ids: Any = None,
    folds: int = 0,
) -> Data:
    """Data from arrays or tensors.

    Args:
        inputs: modality → array (samples, …); ``<modality>.<name>`` → auxiliary input, such as ``audio.lengths``. A
            training row lacks a modality where its sample is None, or NaN in all of its values.
        target: array (samples,) or (samples, values); maps of class numbers (samples, height, width) or (samples,
            depth, height, width) for dense prediction; modality → array for unpaired data. Classes are text, booleans,
            integers of any values, whole floats or a pandas column, and `DataInfo.label_values` keeps them. None, NaN
            and pandas' NA, -1 among integers and empty text mean that a training row has no label; where there are
            several values, all of them.
        splits: ``train``, ``valid`` and ``test`` → row numbers (unpaired: → modality → row numbers); None draws 70, 10
            and 20 % of the rows with a label, class by class; those without one are for training.
        task: kind of target; empty: ``multilabel`` for a table of zeros and ones, ``regression`` for other floats, else
            ``multiclass``; floats are classes if they look like class numbers, see `infer_task`.
        class_names: one name per class or label; those of text are the labels, in the order of the classes.
        normalise: ``standard`` or ``none``, for all modalities or by name.
        layouts: modality → ``vector``, ``sequence``, ``image`` or ``other``, where the shape leaves it open.
        train_fraction: share of the training rows to keep.
        augment: operations for training batches, see `Augment.parse`.
        seed: of drawn splits, the train fraction and the augmentation.
        ignore: class number of dense targets that neither losses nor metrics count, such as 255 for unlabelled pixels.
        unlabelled: modality → further samples without a label, of the names and shapes of ``inputs``: training rows.
        unlabelled_label: integer in ``target`` that means "no label"; None: no integer does.
        groups: a value per sample, such as the speaker; those of ``unlabelled`` come last.
        split_by_group: whether drawn splits keep each group in one split.
        ids: a name per sample, text or integer; those of ``unlabelled`` come last.
        folds: divide the labelled rows of all splits into so many folds, by group where there are groups; fold number
            ``seed`` is the test split. 0: no folds.

    Example:
        >>> x = np.arange(40.0).reshape(20, 2)
        >>> data = from_arrays({"left": x, "right": -x}, np.arange(20) % 2)
        >>> data.info.modalities, data.info.classes, dict(data.info.rows["train"])
        (('left', 'right'), 2, {'left': 14, 'right': 14})
    """
    if not isinstance(inputs, Mapping) or not inputs:
        raise InputError(
            "There are no inputs: a dictionary from modality to array was expected"
            + ("." if isinstance(inputs, Mapping) else f", and a {type(inputs).__name__} was given.")
        )
    columns = {name: as_column(f"inputs['{name}']", value) for name, value in inputs.items()}
    return _data(
        columns,
        target,
        splits,
        class_names=class_names,
        normalise=normalise,
        layouts=layouts,
        request=DataRequest(
            task=task, train_fraction=train_fraction, augment=augment, **DataRequest.drawn(seed, folds)
        ),
        scan_bytes=None,
        ignore=ignore,
        unlabelled={name: as_column(f"unlabelled['{name}']", value) for name, value in (unlabelled or {}).items()},
        unlabelled_label=unlabelled_label,
        groups=groups,
        split_by_group=split_by_group,
        ids=ids,
    )


def from_dataset(
    dataset: Dataset[Any],
    *,
    splits: Mapping[str, Any] | None = None,
    task: str = "",
    class_names: Sequence[str] = (),
    normalise: str | Mapping[str, str] = "standard",
    layouts: Mapping[str, str] | None = None,
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
    keep_bytes: int = READY_BYTES,
    unlabelled_label: int | None = UNLABELLED,
    groups: Any = None,
    split_by_group: bool = False,
    ids: Any = None,
    folds: int = 0,
) -> Data:
    """Data from a dataset with a length whose samples are paired.

    Every sample is read once, to collect the targets. Inputs are kept if all of them fit into ``keep_bytes`` and are
    read again in each epoch otherwise, so ``dataset[i]`` has to return the same sample each time.

    Args:
        dataset: its samples are ``(inputs, target)``, ``{"inputs": inputs, "target": target}`` or a dictionary of the
            modalities and ``target``; ``inputs`` is a dictionary from modality to array.
        splits: see `from_arrays`.
        task: see `from_arrays`.
        class_names: see `from_arrays`.
        normalise: see `from_arrays`.
        layouts: see `from_arrays`.
        train_fraction: see `from_arrays`.
        augment: see `from_arrays`.
        seed: see `from_arrays`.
        keep_bytes: memory that the inputs may take, in bytes.
        unlabelled_label: see `from_arrays`.
        groups: see `from_arrays`.
        split_by_group: see `from_arrays`.
        ids: see `from_arrays`.
        folds: see `from_arrays`.
    """
    columns, target = read_once(dataset, keep_bytes)
    return _data(
        columns,
        target,
        splits,
        class_names=class_names,
        normalise=normalise,
        layouts=layouts,
        request=DataRequest(
            task=task, train_fraction=train_fraction, augment=augment, **DataRequest.drawn(seed, folds)
        ),
        scan_bytes=0 if any(isinstance(column, DatasetColumn) for column in columns.values()) else None,
        unlabelled_label=unlabelled_label,
        groups=groups,
        split_by_group=split_by_group,
        ids=ids,
    )


def from_batches(
    train: Iterable[Batch],
    valid: Iterable[Batch],
    test: Iterable[Batch],
    *,
    task: str = "",
    class_names: Sequence[str] = (),
    normalise: str | Mapping[str, str] = "none",
    layouts: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Data:
    """Data from batches, which are read once and concatenated in memory; by default inputs are not normalised.

    Args:
        train: batches of the training split.
        valid: batches of the validation split.
        test: batches of the test split.
        task: see `from_arrays`.
        class_names: see `from_arrays`.
        normalise: see `from_arrays`.
        layouts: see `from_arrays`.
        seed: see `from_arrays`.
    """
    batches_of = {split: list(batches) for split, batches in zip(SPLITS, (train, valid, test), strict=True)}
    everything = [batch for batches in batches_of.values() for batch in batches]
    for split, batches in batches_of.items():
        if not batches:
            raise InputError(f"The {split} split has no batches: at least one was expected.")
    names = list(everything[0].inputs)
    modalities = [name for name in names if name == owner(name)]
    for batch in everything:
        if list(batch.inputs) != names or set(batch.targets) != set(modalities):
            inputs_listed, targets_listed = ", ".join(batch.inputs), ", ".join(batch.targets) or "none"
            raise InputError(
                f"A batch has the inputs {inputs_listed} and targets of {targets_listed}: "
                f"both were expected for {', '.join(modalities)}, as in the first batch."
            )
        if batch.valid or batch.scored:
            raise InputError(
                "A batch marks parts as invalid or scored, which concatenated batches can't keep. Remove those samples."
            )
    inputs = {name: torch.cat([batch.inputs[name] for batch in everything]) for name in names}
    targets = {name: torch.cat([batch.targets[name] for batch in everything]) for name in modalities}
    paired = all(batch.paired for batch in everything)
    rows: dict[str, dict[str, NDArray[np.int64]]] = {split: {} for split in SPLITS}
    for name in modalities:
        start = 0
        for split, batches in batches_of.items():
            count = sum(len(batch.inputs[name]) for batch in batches)
            rows[split][name] = np.arange(start, start + count)
            start += count
    return from_arrays(
        inputs,
        targets[modalities[0]] if paired else targets,
        splits={split: rows[split][modalities[0]] for split in SPLITS} if paired else rows,
        task=task,
        class_names=class_names,
        normalise=normalise,
        layouts=layouts,
        seed=seed,
    )


def _data(
    columns: Mapping[str, Column],
    target: Any,
    splits: Mapping[str, Any] | None,
    *,
    class_names: Sequence[str],
    normalise: str | Mapping[str, str],
    layouts: Mapping[str, str] | None,
    request: DataRequest,
    scan_bytes: int | None,
    ignore: int | None = None,
    unlabelled: Mapping[str, Column] | None = None,
    unlabelled_label: int | None = UNLABELLED,
    groups: Any = None,
    split_by_group: bool = False,
    ids: Any = None,
) -> Data:
    """Check the arrays, report all problems together, and assemble the data."""
    report, paired, task = Report(), not isinstance(target, Mapping), request.task
    # an array or pandas' Index of names has no truth value
    class_names = tuple(map(str, class_names))
    report.errors += [name_sentence(name) for name in columns if not isinstance(name, str)]
    report.stop_on_errors()
    auxiliary = {name: column for name, column in columns.items() if owner(name) != name and owner(name) in columns}
    columns = {name: column for name, column in columns.items() if name not in auxiliary}
    choices = dict.fromkeys(columns, normalise) if isinstance(normalise, str) else dict(normalise)
    _check_choices(task, choices, layouts or {}, columns, report)
    for name, column in columns.items():
        if not is_name(name):
            report.errors.append(name_sentence(name))
        layout = (layouts or {}).get(name, "")
        stored, held = stored_of(column)
        check_column(name, f"inputs['{name}']", stored, report, layout=layout, scan_bytes=scan_bytes, numbers=held)
    auxiliary = _follow(auxiliary, columns, "inputs", report)
    for name, column in auxiliary.items():
        shape = tuple(columns[owner(name)].shape)
        if len(shape) > 1:
            _check_auxiliary(name, f"inputs['{name}']", column, columns[owner(name)], report)
    # a misspelt task is reported already; targets are then checked for the task that they suggest
    valid_task = task if task in TASKS else ""
    label = None if ignore == unlabelled_label else unlabelled_label
    given_targets = _targets(
        columns, target, report, task=valid_task, class_names=class_names, ignore=ignore, label=label
    )
    further = dict(unlabelled or {})
    further |= _follow({name: further[name] for name in further if owner(name) != name}, further, "unlabelled", report)
    _check_further(further, {**columns, **auxiliary}, report, paired=paired, scan_bytes=scan_bytes)
    report.stop_on_errors()
    task = task or next(iter(given_targets.values())).task
    classes = Classes.of(given_targets.values(), task, class_names=class_names, ignore=ignore, label=label)
    # by identity: paired modalities share one array of targets
    typed = {id(raw): typed_target(classes.numbers(raw, task, label), task) for raw in given_targets.values()}
    targets = {name: typed[id(raw)] for name, raw in given_targets.items()}
    label = label_of(ignore)
    given = None if splits is None else _rows(columns, splits, report, paired=paired)
    report.stop_on_errors()
    if not paired and (lacking := masks_of(columns)):
        names = listed(name for name, mask in lacking.items() if not mask.all())
        report.errors.append(
            f"Some samples lack {names}, and this data is unpaired: its modalities have samples of their own. Leave "
            "them out."
        )
    report.stop_on_errors()
    if further:
        given = given and _with_further(given, columns, further)
        targets = _longer(targets, {name: further[name].shape[0] for name in columns}, task)
        columns = {name: joined(column, further[name]) for name, column in columns.items()}
        auxiliary = {name: joined(column, further[name], auxiliary=True) for name, column in auxiliary.items()}
    masks = masks_of(columns)
    row_names = _ids(ids, columns, paired=paired)
    numbers = _groups(groups, columns, paired=paired, split_by_group=split_by_group, drawn=given is None)
    if request.folds:
        # their splits are drawn by `assemble`, and these are put together there
        rows: Rows = given or _whole({name: column.shape[0] for name, column in columns.items()}, paired=paired)
    elif given is None:
        by_group = numbers if split_by_group else None
        rows = draw_splits(targets, FRACTIONS, request.seed, groups=by_group, label=label, complete=complete(masks))
    else:
        rows = given
    for name in () if request.folds else list(columns)[:1] if paired else columns:
        where = {split: f"splits['{split}']" + ("" if paired else f"['{name}']") for split in SPLITS}
        of_name = {split: rows[split][name] for split in SPLITS}
        check_splits(where, of_name, targets[name], report, label=label, class_names=classes.names)
        report.errors += present_problems(where, of_name, masks)
    report.stop_on_errors()
    of_first = {} if request.folds else {split: next(iter(rows[split].values())) for split in SPLITS}
    report.warnings += shared_ids("ids", row_names, of_first) if row_names else []
    if numbers is not None and of_first:
        report.warnings += drawn_groups(numbers, of_first) if given is None else shared_groups(numbers, of_first)
    data = assemble(
        {**columns, **auxiliary},
        targets,
        rows,
        task=task,
        paired=paired,
        normalise=choices,
        layouts=layouts,
        class_names=classes.names,
        label_values=classes.labels,
        request=request,
        ignore=ignore,
        groups=numbers,
    )
    data.labels_from, data.ids = classes.source, row_names
    data.warnings.extend(report.warnings)
    return data


def _whole(counts: Mapping[str, int], *, paired: bool) -> Rows:
    """All rows as training rows of data without splits."""
    shared = {count: np.arange(count) for count in counts.values()}
    every = {name: shared[count] if paired else np.arange(count) for name, count in counts.items()}
    nothing = {name: np.zeros(0, dtype=np.int64) for name in counts}
    return {"train": every, "valid": nothing, "test": nothing}


def _follow(
    auxiliary: Mapping[str, Column], columns: Mapping[str, Column], what: str, report: Report
) -> dict[str, Column]:
    """Auxiliary inputs that lack the samples that their modality lacks, whatever stands in these."""
    followed: dict[str, Column] = {}
    for name, column in auxiliary.items():
        modality = columns.get(owner(name))
        # different numbers of samples are reported elsewhere
        if modality is None or column.shape[:1] != modality.shape[:1]:
            followed[name] = column
            continue
        stored, rows = stored_of(modality)
        rows = np.arange(modality.shape[0]) if rows is None else rows
        absent = rows[~column.present[rows]] if isinstance(column, PartialColumn) else rows[:0]
        if len(absent):
            report.errors.append(
                f"{what}['{name}'] lacks sample {absent[0]}, and {owner(name)} has it: a value for each sample of "
                f"{owner(name)} was expected."
            )
        elif stored is not modality:
            column = PartialColumn(np.asarray(column[rows]), rows, column.shape[0], auxiliary=True)
        followed[name] = column
    return followed


def _check_auxiliary(name: str, where: str, column: Column, modality: Column, report: Report) -> None:
    stored, numbers = stored_of(column)
    steps = int(modality.shape[-1])
    samples = modality.shape[0] if numbers is None else len(numbers)
    check_auxiliary(name, where, stored, report, samples=samples, steps=steps, numbers=numbers)


def _ids(ids: Any, columns: Mapping[str, Column], *, paired: bool) -> list[str]:
    """The names of all rows; empty if they have none."""
    if ids is None:
        return []
    if not paired:
        raise InputError(
            "ids names each sample of all modalities, and this data is unpaired: its modalities have samples of their "
            "own. Leave ids out."
        )
    return ids_of("ids", ids, next(iter(columns.values())).shape[0])


def _groups(
    groups: Any, columns: Mapping[str, Column], *, paired: bool, split_by_group: bool, drawn: bool
) -> NDArray[np.int64] | None:
    """The groups of all rows as integers; None if there are none."""
    if groups is None:
        if split_by_group:
            raise InputError("split_by_group keeps groups together, and there are none. Give groups=, or leave it out.")
        return None
    if not paired:
        raise InputError(
            "groups has a value for each sample of all modalities, and this data is unpaired: its modalities have "
            "samples of their own. Leave groups out."
        )
    if split_by_group and not drawn:
        raise InputError("split_by_group draws splits, and splits were given. Leave one of the two out.")
    return group_numbers("groups", groups, next(iter(columns.values())).shape[0])


def _check_further(
    further: Mapping[str, Column],
    columns: Mapping[str, Column],
    report: Report,
    *,
    paired: bool,
    scan_bytes: int | None,
) -> None:
    """Check the samples without a label that are added to ``columns``, auxiliary inputs among them."""
    if not further:
        return
    if further.keys() != columns.keys():
        listed = ", ".join(map(str, further))
        report.errors.append(
            f"unlabelled has the inputs {listed}, and inputs has {', '.join(columns)}: the same were expected. Give "
            "each of them."
        )
        return
    for name, column in further.items():
        where, shape = f"unlabelled['{name}']", tuple(column.shape)
        if shape[1:] != tuple(columns[name].shape[1:]) or not shape:
            report.errors.append(
                f"{where} has the shape {shape}, and inputs['{name}'] has {tuple(columns[name].shape)}: samples of one "
                "shape were expected."
            )
        elif name == owner(name):
            # the layout is that of the inputs, about which any problem is reported already
            stored, numbers = stored_of(column)
            check_column(name, where, stored, report, layout="other", scan_bytes=scan_bytes, numbers=numbers)
        else:
            _check_auxiliary(name, where, column, further[owner(name)], report)
    counts = {f"unlabelled['{name}']": column.shape[0] for name, column in further.items() if column.shape}
    if paired and len(set(counts.values())) > 1:
        listed = ", ".join(f"{where} has {count}" for where, count in counts.items())
        report.errors.append(f"The numbers of samples disagree: {listed}. Row i of each must be the same sample.")


def _with_further(rows: Rows, columns: Mapping[str, Column], further: Mapping[str, Column]) -> Rows:
    """The splits with the added samples at the end of the training split."""
    longer: dict[tuple[int, int, int], NDArray[np.int64]] = {}
    train = {}
    for name, numbers in rows["train"].items():
        # by identity: modalities that share their rows share them afterwards
        key = (id(numbers), columns[name].shape[0], further[name].shape[0])
        longer.setdefault(key, np.concatenate([numbers, key[1] + np.arange(key[2])]))
        train[name] = longer[key]
    return {**rows, "train": train}


def _longer(targets: Mapping[str, NDArray[Any]], added: Mapping[str, int], task: str) -> dict[str, NDArray[Any]]:
    """Targets with rows without a label at the end."""
    nothing = np.float32(np.nan) if task == "regression" else np.int64(UNLABELLED)
    longer: dict[tuple[int, int], NDArray[Any]] = {}
    for name, target in targets.items():
        key = (id(target), added[name])
        if key not in longer:
            longer[key] = np.concatenate([target, np.full((added[name], *target.shape[1:]), nothing)])
    return {name: longer[id(target), added[name]] for name, target in targets.items()}


def _check_choices(
    task: str, normalise: Mapping[str, str], layouts: Mapping[str, str], columns: Mapping[str, Column], report: Report
) -> None:
    if task and task not in TASKS:
        report.errors.append(f"There is no task '{task}'. {did_you_mean(task, TASKS)}")
    for value in sorted(set(normalise.values())):
        if value not in ("standard", "none"):
            report.errors.append(f"normalise is '{value}'. {did_you_mean(value, ('standard', 'none'))}")
    for key, values in (("normalise", normalise), ("layouts", layouts)):
        for name in values:
            if name not in columns:
                report.errors.append(
                    f"{key} names the modality '{name}', which is not there. {did_you_mean(name, columns)}"
                )


def _targets(
    columns: Mapping[str, Column],
    target: Any,
    report: Report,
    *,
    task: str,
    class_names: Sequence[str],
    ignore: int | None = None,
    label: int | None = UNLABELLED,
) -> dict[str, RawTarget]:
    if isinstance(target, Mapping):
        targets = {name: read_target(f"target['{name}']", value, label) for name, value in target.items()}
        if targets.keys() != columns.keys():
            report.errors.append(
                f"There are targets for {', '.join(targets)} and inputs for {', '.join(columns)}: unpaired data needs "
                "both for each modality."
            )
            return {}
        labels = {name: f"target['{name}']" for name in targets}
        report.errors += differing_kinds({labels[name]: raw for name, raw in targets.items()}, task)
    else:
        targets = dict.fromkeys(columns, read_target("target", target, label))
        labels = dict.fromkeys(columns, "target")
    counts = {f"inputs['{name}']": column.shape[0] for name, column in columns.items() if column.shape}
    # by their label, so that the targets that paired modalities share are checked once
    for where, raw in {labels[name]: raw for name, raw in targets.items()}.items():
        check_target(where, raw, report, task=task, class_names=class_names, ignore=ignore, label=label)
        counts[where] = len(raw.values) if raw.values.ndim else 0
    groups = (
        [[f"inputs['{name}']", labels[name]] for name in columns] if isinstance(target, Mapping) else [list(counts)]
    )
    for group in groups:
        lengths = {where: counts[where] for where in group if where in counts}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{where} has {count}" for where, count in lengths.items())
            report.errors.append(f"The numbers of samples disagree: {listed}. Row i of each must be the same sample.")
    return targets


def _rows(columns: Mapping[str, Column], splits: Mapping[str, Any], report: Report, *, paired: bool) -> Rows:
    if not isinstance(splits, Mapping) or set(splits) != set(SPLITS):
        splits = splits if isinstance(splits, Mapping) else {}
        report.errors.append(f"splits has the keys {', '.join(splits) or 'none'}: {', '.join(SPLITS)} were expected.")
        return {}
    rows: dict[str, dict[str, NDArray[np.int64]]] = {split: {} for split in SPLITS}
    for split in SPLITS:
        numbers = splits[split]
        if isinstance(numbers, Mapping):
            parts = {name: as_array(f"splits['{split}']['{name}']", value) for name, value in numbers.items()}
            if parts.keys() != columns.keys():
                expected = ", ".join(columns)
                report.errors.append(f"splits['{split}'] has rows for {', '.join(parts)}: {expected} was expected.")
                continue
        else:
            parts = dict.fromkeys(columns, as_array(f"splits['{split}']", numbers))
        # modalities that share their rows are checked once and still share one array afterwards
        valid: dict[tuple[int, int], NDArray[np.int64]] = {}
        checked: set[tuple[int, int]] = set()
        for name, part in parts.items():
            key = (id(part), columns[name].shape[0])
            where = f"splits['{split}']" + (f"['{name}']" if isinstance(numbers, Mapping) else "")
            if key not in checked and check_rows(where, part, columns[name].shape[0], report):
                valid[key] = part.astype(np.int64)
            checked.add(key)
            if key in valid:
                rows[split][name] = valid[key]
    return rows
