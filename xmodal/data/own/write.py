"""Writing a data set in the folder layout of own data, as the built-in data sets do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xmodal.data.prepare import write_npy
from xmodal.errors import InputError
from xmodal.files import write_json


def check_new_folder(root: Path) -> None:
    """Raise an `InputError` unless a path is an empty folder or does not exist."""
    # files of another data set would be read as modalities of this one
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} is there already: an empty or new folder was expected. Choose another one.")


def write_description(
    root: Path,
    *,
    name: str,
    modalities: Sequence[str],
    labels: NDArray[Any],
    rows: Mapping[str, NDArray[Any]],
    class_names: Sequence[str],
) -> None:
    """Everything but the modalities: ``labels.npy``, the three index files and ``data.json``.

    Args:
        root: the folder.
        name: title of the data set.
        modalities: in the order in which they are listed.
        labels: class of each row.
        rows: split → row numbers.
        class_names: one name per class.
    """
    write_npy(root / "labels.npy", labels)
    for split, numbers in rows.items():
        write_npy(root / f"{split}_idx.npy", numbers)
    write_json(
        root / "data.json",
        {
            "name": name,
            "modalities": list(modalities),
            "task": "multiclass",
            "class_names": list(class_names),
            "paired": True,
            # the built-in data sets return their columns unchanged, and so does the folder
            "normalise": dict.fromkeys(modalities, "none"),
        },
    )
