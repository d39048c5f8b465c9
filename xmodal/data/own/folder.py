"""Own data: arrays and index files in one folder, whose layout is in `xmodal.data.own.layout`.

Arrays are mapped to memory and read row by row, statistics come from the training split, and nothing is unpickled.
Without index files the splits are drawn class by class (70 % training, 10 % validation, 20 % test) from the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.data.base import Data, assemble, typed_target
from xmodal.data.columns import open_column
from xmodal.data.draw import draw_splits
from xmodal.data.groups import drawn_groups
from xmodal.data.own.check import Contents, inspect
from xmodal.data.own.check_arrays import check_auxiliary, check_column, check_splits
from xmodal.data.own.ids import shared_ids
from xmodal.data.own.layout import TREE, find_auxiliary, find_sources
from xmodal.data.own.repair import Rules, bad_rows, without, zeroed
from xmodal.data.present import complete, masks_of, present_problems
from xmodal.data.report import Report
from xmodal.data.request import DataRequest
from xmodal.data.split import Column
from xmodal.data.unlabelled import label_of
from xmodal.errors import InputError, did_you_mean
from xmodal.names import UNLABELLED
from xmodal.types import TASKS, owner

# shares of the drawn training, validation and test split
FRACTIONS = (0.7, 0.1, 0.2)
# bytes of each modality that opening searches for NaN; `check_folder` searches all. Opening happens before every run,
# and reading hundreds of gigabytes would take longer than some trainings
SCAN_BYTES = 256 * 2**20


class FolderSettings(BaseModel):
    """Options of a folder with own data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modalities: tuple[str, ...] = Field(
        (), description="modalities to use; none named: those of data.json, or else all"
    )
    split: int | None = Field(
        None, ge=0, description="number of the index files, such as 3 for train_idx_3.npy; None: those without a number"
    )
    nan: Literal["refuse", "drop", "zero"] = Field(
        "refuse", description="samples with NaN or infinite values: refuse, drop (leave them out), or zero the values"
    )
    allow_overlap: bool = Field(False, description="allow a row in two splits")
    repeated: Literal["count", "once"] = Field(
        "count", description="a row that is listed twice in a split: count it twice, or use it once"
    )
    unlabelled_label: int | None = Field(
        UNLABELLED,
        description="integer that stands for a missing label of a training row; none: only NaN does. "
        "The default leaves the choice to data.json",
    )
    split_by_group: bool = Field(
        False, description="draw splits in which each group of groups.npy is in one split only"
    )

    @property
    def rules(self) -> Rules:
        """The options as the checks take them."""
        return Rules(self.split, self.nan, self.allow_overlap, self.repeated, self.unlabelled_label)

    @model_validator(mode="before")
    @classmethod
    def _without_renumber(cls, given: Any) -> Any:
        # run folders of earlier versions name this option; classes are numbered without gaps now in any case
        return (
            {key: value for key, value in given.items() if key != "renumber"} if isinstance(given, Mapping) else given
        )


def load_folder(
    root: str | Path,
    settings: FolderSettings | None = None,
    request: DataRequest | None = None,
) -> Data:
    """Check a folder and open it as three splits.

    Args:
        root: the folder.
        settings: options of the folder; None: the defaults.
        request: without a task, data.json decides, or else the labels; the seed draws splits where there are no index
            files.
    """
    settings, request = settings or FolderSettings(), request or DataRequest()
    task = request.task
    if task and task not in TASKS:
        raise InputError(f"There is no task '{task}'. {did_you_mean(task, TASKS)}")
    rules = settings.rules
    contents = inspect(
        Path(root),
        modalities=settings.modalities,
        scan_bytes=SCAN_BYTES,
        task=task,
        rules=rules,
        divided=bool(request.folds),
    )
    report, layout = contents.report, contents.layout
    report.stop_on_errors()
    # a folder without a layout has an error, so it was refused above
    assert layout is not None
    names, data_file = tuple(layout.sources), layout.settings
    task = contents.task
    # by identity: paired modalities share one array of targets
    typed = {id(target): typed_target(target, task) for target in contents.targets.values()}
    targets = {name: typed[id(contents.targets[name])] for name in names}
    columns: dict[str, Column] = dict(contents.columns)
    splits, label = contents.rows, label_of(data_file.ignore)
    if settings.split_by_group:
        _check_split_by_group(contents)
    if not splits and request.folds:
        # all rows, which `assemble` divides
        every = {name: np.arange(len(target)) for name, target in targets.items()}
        nothing = dict.fromkeys(every, np.zeros(0, dtype=np.int64))
        splits = {"train": every, "valid": nothing, "test": nothing}
    elif not splits:
        splits = drawn(contents, targets, request.seed, by_group=settings.split_by_group)
        report.stop_on_errors()
    if rules.nan == "zero":
        columns = {name: zeroed(column) for name, column in columns.items()}
    if rules.nan == "drop":
        splits = without(splits, {name: bad_rows(column) for name, column in columns.items()}, paired=layout.paired)
        # those of folds are drawn, and checked, later
        if not request.folds:
            _check_without_bad_rows(splits, targets, report, label)
    data = assemble(
        {**columns, **contents.auxiliary},
        targets,
        splits,
        task=task,
        paired=layout.paired,
        normalise={name: layout.normalise(name) for name in names},
        layouts=data_file.layout,
        class_names=contents.classes.names,
        label_values=contents.classes.labels,
        request=request,
        ignore=data_file.ignore,
        label_losses=data_file.label_losses,
        class_weights=data_file.class_weights,
        groups=contents.groups,
    )
    data.warnings.extend(report.warnings)
    data.ids, data.labels_from = contents.ids, contents.classes.source
    return data


def drawn(
    contents: Contents, targets: Mapping[str, NDArray[Any]], seed: int, *, by_group: bool = False
) -> dict[str, dict[str, NDArray[np.int64]]]:
    """The splits of a folder without index files; their problems go into the report of the contents.

    Args:
        contents: of a folder without errors.
        targets: modality → targets in the type of their task.
        seed: of the draw.
        by_group: whether each group is in one split only.
    """
    # a folder without a layout has an error
    assert contents.layout is not None
    report, label, masks = contents.report, label_of(contents.layout.settings.ignore), masks_of(contents.columns)
    groups = contents.groups if by_group else None
    splits = draw_splits(targets, FRACTIONS, seed, groups=groups, label=label, complete=complete(masks))
    where = {split: f"The drawn {split} split" for split in splits}
    first = next(iter(targets))
    shown = {split: rows[first] for split, rows in splits.items()}
    check_splits(where, shown, targets[first], report, label=label, class_names=contents.classes.names)
    report.errors += present_problems(where, shown, masks)
    if not report.errors:
        report.warnings += drawn_groups(contents.groups, shown) if contents.groups is not None else []
        report.warnings += shared_ids("ids.npy", contents.ids, shown) if contents.ids else []
    return splits


def _check_split_by_group(contents: Contents) -> None:
    if contents.groups is None:
        raise InputError(
            "The splits are to be drawn by group, and the folder has no groups. Add groups.npy with the group of each "
            "sample, or leave split_by_group out."
        )
    if contents.rows:
        raise InputError(
            "The splits are to be drawn by group, and the folder has index files, which say what the splits are. "
            "Remove them, or leave split_by_group out."
        )


def _check_without_bad_rows(
    splits: Mapping[str, Mapping[str, NDArray[np.int64]]],
    targets: Mapping[str, NDArray[Any]],
    report: Report,
    label: int | None,
) -> None:
    """Check the splits once more, without the samples that hold NaN or infinite values."""
    for name in targets:
        where = {split: f"The {split} split of {name} without samples that hold NaN" for split in splits}
        rows_of = {split: rows[name] for split, rows in splits.items()}
        report.errors.extend(f"{where[split]} is empty." for split, rows in rows_of.items() if not len(rows))
        # overlaps were reported before, for all rows
        check_splits(where, rows_of, targets[name], report, overlap=True, label=label)
    report.stop_on_errors()


def read_inputs(root: str | Path, needs: Sequence[str]) -> dict[str, Column]:
    """The raw columns that a student needs for prediction, without labels or splits.

    Args:
        root: a folder with at least these inputs.
        needs: names of the inputs.
    """
    folder, report = Path(root), Report()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. {_expected(needs)}")
    # problems of inputs that the student does not need are no problems here, so this report is thrown away
    paths = find_sources(folder, Report())
    paths |= find_auxiliary(folder, paths)
    report.errors += [
        f"{name}_rows.npy says that some samples lack {name}, and a prediction needs all of {', '.join(needs)}. Give a "
        f"folder of samples that have them, without {name}_rows.npy."
        for name in dict.fromkeys(map(owner, needs))
        if (folder / f"{name}_rows.npy").exists()
    ]
    missing = [name for name in needs if name not in paths]
    if missing:
        report.errors.extend(f"{folder} has no {name}.npy. {did_you_mean(name, paths)}" for name in missing)
        report.errors.append(_expected(needs))
    report.stop_on_errors()
    columns: dict[str, Column] = {}
    for name in needs:
        columns[name] = open_column(paths[name])
        if name != owner(name):
            check_auxiliary(name, paths[name].name, columns[name], report, samples=columns[name].shape[0])
            continue
        # the student knows its layout, so a shape that fits two layouts is no error
        check_column(name, paths[name].name, columns[name], report, layout="other", scan_bytes=SCAN_BYTES)
    counts = {name: column.shape[0] for name, column in columns.items() if column.shape}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        report.errors.append(f"The numbers of samples disagree: {listed}. Row i of each must be the same sample.")
    report.stop_on_errors()
    return columns


def _expected(needs: Sequence[str]) -> str:
    return f"Needed: {', '.join(f'{name}.npy' for name in needs)}; labels are not. {TREE.split(';')[0]}."
