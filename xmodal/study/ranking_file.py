"""Files with the ranking of a teacher's channels: our ``saliency.npz``, and the arrays of the authors' codes."""

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


def read_array(path: Path, layer: str, *, distance: str, disturb: str) -> Saliency:
    """The ranking in a .npy file of an authors' code: a number for each channel, in any unit.

    Args:
        path: of the array (channels,).
        layer: whose channels these are.
        distance: by which the file was computed.
        disturb: how its channels were disturbed.
    """
    if not path.is_file():
        raise InputError(
            f"There is no file {path}. Expected: a NumPy array with a number for each channel. Name another, or leave "
            "the flag out to rank the channels here."
        )
    try:
        raw = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} can't be read as a NumPy array ({error}). Leave the flag out to rank the channels here."
        ) from None
    if raw.ndim != 1 or raw.dtype.kind not in "fiu" or not len(raw) or not np.isfinite(raw).all():
        raise InputError(
            f"{path} holds {raw.shape} of {raw.dtype}: finite numbers (channels,) were expected. Name another file, or "
            "leave the flag out to rank the channels here."
        )
    raw = raw.astype(np.float64)
    # values that are normalised already stay as they are
    span = np.ptp(raw)
    unknown = np.full(len(raw), np.nan)
    return Saliency(
        place=layer,
        side="teacher",
        distance=distance,
        disturb=disturb,
        population="batch",
        raw=raw,
        value=(raw - raw.min()) / span if span else np.zeros(len(raw)),
        baseline=float("nan"),
        deviation=unknown,
        standard_error=unknown,
        draws=None,
        exact=False,
        form="read",
        rows=0,
        note=f"The ranking was read from {path.name}.",
    )


def _plain(value: Any) -> Any:
    """A Python scalar for an array without axes; other arrays are returned unchanged."""
    return value if value is None or value.ndim else value.item()
