"""The file ``saliency.npz`` with the ranking of a teacher's channels and the name under which a kit keeps it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from xmodal.diagnostics.saliency import Saliency
from xmodal.errors import InputError
from xmodal.files import written_whole

SALIENCY = "saliency.npz"


def write_ranking(folder: Path, saliency: Saliency, name: str) -> None:
    """Write a ranking, and the name of its measurement (`Bench.once`)."""
    values = {field.name: getattr(saliency, field.name) for field in fields(saliency)}
    # NumPy's format has no None: a field without a value is left out, and read back as None
    arrays: dict[str, Any] = {key: np.asarray(value) for key, value in values.items() if value is not None}
    with written_whole(folder / SALIENCY) as file:
        np.savez(file, name=np.asarray(name), **arrays)


def read_ranking(path: Path) -> tuple[str, Saliency]:
    """Name and ranking, as `write_ranking` wrote them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        values = {field.name: _plain(arrays.get(field.name)) for field in fields(Saliency)}
        return str(arrays["name"]), Saliency(**values)
    # all that NumPy and zipfile raise about a file that is cut off or of another kind
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}). Delete it and run the same command again, which ranks the "
            "channels again."
        ) from error


def _plain(value: Any) -> Any:
    """A Python scalar for an array without axes; other arrays are returned unchanged."""
    return value if value is None or value.ndim else value.item()
