"""Bring your own: arrays and index files in one folder, see `xmodal.data.own.layout` for what goes where.

Arrays are mapped to memory and read row by row, statistics come from the training split, nothing is ever unpickled.
Without index files the splits are drawn class by class (70 % training, 10 % validation, 20 % test) from the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from xmodal.data.base import Data, assemble, draw_splits, infer_task, typed_target
from xmodal.data.columns import open_column
from xmodal.data.own.check import inspect
from xmodal.data.own.check_arrays import check_beside, check_column, check_splits
from xmodal.data.own.layout import TREE, find_beside, find_sources
from xmodal.data.own.repair import Rules, Zeroed, bad_rows, without
from xmodal.data.report import Report
from xmodal.data.split import Column
from xmodal.errors import InputError, did_you_mean
from xmodal.types import TASKS, owner

FRACTIONS = (0.7, 0.1, 0.2)
SCAN_BYTES = 256 * 2**20  # loading looks for NaN in this much of each modality; `check_folder` in all of it


class FolderSettings(BaseModel):
    """Options of a folder with own data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modalities: tuple[str, ...] = Field((), description="which to use; empty: those of data.json, or else all")
    split: int | None = Field(
        None,
        ge=0,
        description="number of the index files, for example 3 for train_idx_3.npy; None: those without a number",
    )
    nan: Literal["refuse", "drop", "zero"] = Field(
        "refuse",
        description="what becomes of samples with NaN or infinite values: refuse, drop (leave them out) or zero",
    )
    allow_overlap: bool = Field(False, description="a row may be in two splits")
    repeated: Literal["count", "once"] = Field(
        "count", description="a row listed twice in a split counts twice (count) or once"
    )
    renumber: bool = Field(False, description="count classes anew without gaps; their old numbers become their names")

    @property
    def rules(self) -> Rules:
        """The part that checks need."""
        return Rules(self.split, self.nan, self.allow_overlap, self.repeated, self.renumber)


def load_folder(
    root: str | Path,
    settings: FolderSettings | None = None,
    *,
    task: str = "",
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
) -> Data:
    """Three splits of a folder, once it is known to hold no error.

    Args:
        root: the folder.
        settings: its options.
        task: kind of target; empty: as in data.json, or else as the labels suggest.
        train_fraction: share of the training rows to keep.
        augment: operations for training batches, see `Augment.parse`.
        seed: of drawn splits, of the train fraction and of the augmentation.
    """
    settings = settings or FolderSettings()
    if task and task not in TASKS:
        raise InputError(f"There is no task '{task}'. {did_you_mean(task, TASKS)}")
    rules = settings.rules
    contents = inspect(Path(root), modalities=settings.modalities, scan_bytes=SCAN_BYTES, task=task, rules=rules)
    report, layout = contents.report, contents.layout
    report.stop_on_errors()
    assert layout is not None  # a folder without layout is an error
    names, said = tuple(layout.sources), layout.settings
    task = task or said.task or infer_task(next(iter(contents.targets.values())))
    typed = {id(target): typed_target(target, task) for target in contents.targets.values()}
    targets = {name: typed[id(contents.targets[name])] for name in names}
    columns: dict[str, Column] = dict(contents.columns)
    splits = contents.rows
    if not splits:
        splits = draw_splits(targets, FRACTIONS, seed)
        drawn = {split: f"The drawn {split} split" for split in splits}
        check_splits(drawn, {split: rows[names[0]] for split, rows in splits.items()}, targets[names[0]], report)
        report.stop_on_errors()
    if rules.nan == "zero":
        columns = {name: Zeroed(column) for name, column in columns.items()}
    if rules.nan == "drop":
        splits = _dropped(columns, splits, targets, layout.paired, report)
    data = assemble(
        {**columns, **contents.beside},
        targets,
        splits,
        task=task,
        paired=layout.paired,
        normalise={name: layout.normalise(name) for name in names},
        layouts=said.layout,
        class_names=said.class_names or tuple(map(str, contents.class_values)),
        train_fraction=train_fraction,
        augment=augment,
        seed=seed,
        ignore=said.ignore,
        label_losses=said.label_losses,
        class_weights=said.class_weights,
    )
    data.warnings.extend(report.warnings)
    return data


def _dropped(
    columns: dict[str, Column],
    splits: dict[str, dict[str, NDArray[np.int64]]],
    targets: dict[str, NDArray[Any]],
    paired: bool,
    report: Report,
) -> dict[str, dict[str, NDArray[np.int64]]]:
    """The splits without the samples that hold NaN or infinite values."""
    left = without(splits, {name: bad_rows(column) for name, column in columns.items()}, paired=paired)
    for name in columns:
        where = {split: f"Of the {split} split of {name}, what is left" for split in left}
        mine = {split: rows[name] for split, rows in left.items()}
        report.errors.extend(f"{where[split]} is empty." for split, rows in mine.items() if not len(rows))
        check_splits(where, mine, targets[name], report, overlap=True)
    report.stop_on_errors()
    return left


def read_inputs(root: str | Path, needs: Sequence[str]) -> dict[str, Column]:
    """The raw columns that a student reads, without labels or splits.

    Args:
        root: a folder with at least the needed modalities.
        needs: their names.
    """
    folder, report = Path(root), Report()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. {_expected(needs)}")
    found = find_sources(folder, Report())
    found |= find_beside(folder, found)
    missing = [name for name in needs if name not in found]
    if missing:
        report.errors.extend(f"{folder} has no {name}.npy. {did_you_mean(name, found)}" for name in missing)
        report.errors.append(_expected(needs))
    report.stop_on_errors()
    columns: dict[str, Column] = {}
    for name in needs:
        columns[name] = open_column(found[name])
        if name != owner(name):
            check_beside(name, found[name].name, columns[name], report, samples=columns[name].shape[0])
            continue
        # a layout is the student's business here, so a shape that could be two things is no error
        check_column(name, found[name].name, columns[name], report, layout="other", scan_bytes=SCAN_BYTES)
    counts = {name: column.shape[0] for name, column in columns.items() if column.shape}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        report.errors.append(f"The numbers of samples disagree: {listed}. Row i of each must be the same sample.")
    report.stop_on_errors()
    return columns


def _expected(needs: Sequence[str]) -> str:
    return f"Needed: {', '.join(f'{name}.npy' for name in needs)}; labels are not. {TREE.split(';')[0]}."
