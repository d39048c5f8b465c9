"""Raw samples for a student: from a data set, an own-data folder or a single array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmodal.cards import load
from xmodal.data import DATA, open_data
from xmodal.errors import InputError, did_you_mean
from xmodal.types import owner

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.data.split import Column


@dataclass(frozen=True)
class Samples:
    """Some rows of raw columns.

    Attributes:
        columns: input → all samples.
        rows: numbers of the selected rows.
        ids: names of all rows; empty if they have none.
    """

    columns: Mapping[str, Column]
    rows: NDArray[np.int64]
    ids: Sequence[str] = ()

    def take(self, first: int, last: int) -> dict[str, Any]:
        """Raw arrays of selected rows; a value that is not finite raises an error with its row."""
        rows = self.rows[first:last]
        part = {name: np.asarray(column[rows]) for name, column in self.columns.items()}
        for name, array in part.items():
            # integers are always finite, and np.isfinite refuses text
            finite = np.isfinite(array).reshape(len(array), -1).all(axis=1) if array.dtype.kind == "f" else []
            if not np.all(finite):
                row = rows[int(np.argmin(finite))]
                raise InputError(f"Row {row} of '{name}' holds NaN or infinite values. Fill or drop such rows first.")
        return part


def open_samples(
    data: str,
    needs: Sequence[str],
    *,
    split: str = "all",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Samples:
    """The rows of some data, with the inputs that a student reads.

    Args:
        data: name of a data set, a folder, or a ``.npy`` file for students of one input.
        needs: inputs of the student; nothing else is read.
        split: ``all`` rows, for which no labels are needed, or those of a split.
        seed: seed of splits that are drawn.
        options: options of the data set.
    """
    if Path(data).suffix == ".npy" and data not in DATA:
        return _one_array(Path(data), needs, split)
    if data in DATA or not Path(data).exists():
        options = _only(data, needs, options)
        return samples_of(open_data(data, options=options, seed=seed), needs, split)
    if split == "all":
        from xmodal.data.nyu.dataset import is_frames, open_frames

        # frames of rooms in a folder by themselves, which need no labels and no second split
        if is_frames(Path(data)):
            columns, ids = open_frames(Path(data), needs)
            return replace(_all_rows(columns), ids=ids)
        return _whole(Path(data), needs)
    # inputs such as audio.lengths belong to a modality and are opened with it
    modalities = [name for name in needs if "." not in name]
    return samples_of(open_data(data, options={"modalities": modalities}, seed=seed), needs, split)


def _only(data: str, needs: Sequence[str], options: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Options that open only the modalities that are needed, if a data set has such an option."""
    if data not in DATA or "modalities" not in load(DATA[data].settings).model_fields:
        return options
    changed = dict(options or {})
    # files of other modalities may be missing on the machine where a student is deployed
    if not changed.get("modalities"):
        changed["modalities"] = list(dict.fromkeys(map(owner, needs)))
    return changed


def samples_of(data: Data, needs: Sequence[str], split: str) -> Samples:
    """The same as `open_samples`, from data that is open."""
    data.info.require(tuple(dict.fromkeys(map(owner, needs))), "student")
    absent = [name for name in needs if name not in data.info.inputs]
    if absent:
        hint = did_you_mean(absent[0], data.info.inputs)
        raise InputError(f"The student reads '{absent[0]}', which this data does not have. {hint}")
    # columns of a split hold all samples, also those of other splits
    columns = {name: data.test.columns[name] for name in needs}
    if split == "all":
        return replace(_all_rows(columns), ids=data.ids)
    numbers = data.split(split).numbers
    if any(not np.array_equal(numbers[owner(name)], numbers[owner(needs[0])]) for name in needs):
        raise InputError(f"The rows of the {split} split differ between {', '.join(needs)}: paired data was expected.")
    return Samples(columns, numbers[owner(needs[0])], data.ids)


def _whole(folder: Path, needs: Sequence[str]) -> Samples:
    from xmodal.data.own.folder import read_inputs
    from xmodal.data.own.ids import read_ids

    samples = _all_rows(read_inputs(folder, needs))
    return replace(samples, ids=read_ids(folder, len(samples.rows)))


def _one_array(path: Path, needs: Sequence[str], split: str) -> Samples:
    from xmodal.data.columns import open_column

    if not path.is_file():
        raise InputError(f"There is no file {path}. Give an array of samples, a data folder or a data set's name.")
    if len(needs) != 1:
        raise InputError(
            f"The student reads {', '.join(needs)}, and {path} is one array. Give a folder with all of them."
        )
    if split != "all":
        raise InputError(f"{path} is one array without splits. Leave --split out, or give a data folder.")
    return _all_rows({needs[0]: open_column(path)})


def _all_rows(columns: Mapping[str, Column]) -> Samples:
    shapes = {name: column.shape for name, column in columns.items()}
    if any(not shape for shape in shapes.values()):
        raise InputError(f"{', '.join(shapes)}: samples along the first axis were expected, got a single number.")
    counts = {shape[0] for shape in shapes.values()}
    if counts == {0}:
        raise InputError(f"There are no samples: {', '.join(f'{name} has {shape}' for name, shape in shapes.items())}.")
    return Samples(columns, np.arange(min(counts), dtype=np.int64))
