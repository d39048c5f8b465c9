"""The file with the ranking of a teacher's channels, ``saliency.npz``: all its numbers, and the kit's name for it."""

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


def write_ranking(folder: Path, found: Saliency, name: str) -> None:
    """Write a ranking; ``name`` is the one under which a kit keeps it."""
    content = {one.name: getattr(found, one.name) for one in fields(found)}
    arrays: dict[str, Any] = {key: np.asarray(value) for key, value in content.items() if value is not None}
    with written_whole(folder / SALIENCY) as beside:
        np.savez(beside, name=np.asarray(name), **arrays)


def read_ranking(path: Path) -> tuple[str, Saliency]:
    """Name and ranking that `write_ranking` wrote."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            known = {key: arrays[key] for key in arrays.files}
        content = {one.name: _plain(known.get(one.name)) for one in fields(Saliency)}
        return str(known["name"]), Saliency(**content)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}). Delete it and run the same command again: the channels are "
            "ranked anew."
        ) from error


def _plain(value: Any) -> Any:
    return value if value is None or value.ndim else value.item()
