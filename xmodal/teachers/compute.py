"""The outputs of a teacher that is code, for the rows of some data: computed once, and kept.

    <cache>/teachers/<key>.npy    the key is a hash of the teacher, the rows, their inputs and some of the outputs

The cache is the folder in the environment variable XMODAL_CACHE, or else ``~/.cache/xmodal``. It holds the outputs of
files. What a function or a module computes depends on more than a hash can see, such as its code and files that it
loads: its outputs are kept in memory, for the process that called it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from xmodal.data.base import Data
from xmodal.errors import InputError
from xmodal.files import written_whole
from xmodal.teachers.fingerprint import compared_rows, digest, row_hashes
from xmodal.teachers.functions import Function

PROBED = 8  # rows that are computed twice: equal rows must have equal outputs
BLOCK = 256  # rows of one call, fewer where samples are large; not the batch size of the training
Say = Callable[[str], None]
IN_MEMORY = 8  # tables of outputs that are kept for functions and modules
# key of a teacher in memory → the teacher and its outputs; the object is kept, so that no other has its identity
_kept: dict[tuple[int, str], tuple[object, NDArray[Any]]] = {}


def cache_folder() -> Path:
    """The folder for what is kept from one run to the next."""
    chosen = os.environ.get("XMODAL_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(chosen) if chosen else (Path(base) if base else Path.home() / ".cache") / "xmodal"


def computed(
    teacher: Function,
    data: Data,
    rows: NDArray[np.int64],
    *,
    inputs: Sequence[str],
    identity: str,
    where: str,
    owner: object = None,
    say: Say | None = None,
) -> NDArray[Any]:
    """What a teacher returns for these rows, (rows, …), read from the cache if it was computed before.

    Args:
        teacher: takes raw inputs.
        data: whose rows they are.
        rows: numbers of the rows.
        inputs: those that the teacher receives, auxiliary ones among them.
        identity: of the teacher, a hash of its files or weights.
        where: name of the teacher for sentences.
        owner: the function or module, by which outputs in memory are found again; None: a file, with outputs on disk.
        say: shows a message to the user.
    """
    columns = {name: data.train.columns[name] for name in inputs}

    def call(numbers: NDArray[np.int64]) -> NDArray[Any]:
        outputs = teacher({name: np.asarray(column[numbers]) for name, column in columns.items()})
        if not outputs.ndim or len(outputs) != len(numbers):
            raise InputError(
                f"{where} returns {outputs.shape} for {len(numbers)} rows: (rows, outputs) was expected, or (rows,)."
            )
        return outputs

    probe = rows[np.unique(np.linspace(0, len(rows) - 1, PROBED).astype(np.int64))]
    first, second = call(probe), call(probe)
    if not _alike(first, second):
        raise InputError(
            f"{where} returns different outputs for the same rows, so it draws random numbers or remembers its calls. "
            "Switch off dropout and augmentation in it."
        )
    hashes = [row_hashes(column, rows[compared_rows(column, rows)]) for column in columns.values()]
    names = np.array(list(columns))
    key = hashlib.sha256(f"{identity} {digest([first, rows, names, *hashes])}".encode()).hexdigest()[:32]
    memory = (id(owner), key)
    if memory in _kept:
        return _kept[memory][1]
    file = cache_folder() / "teachers" / f"{key}.npy"
    if owner is None and (stored := _read(file, len(rows))) is not None:
        return stored
    block = data.info.block(BLOCK)
    if say is not None:
        say(f"Outputs of {where} for {len(rows)} rows are computed once.")
    outputs = np.concatenate([call(rows[start : start + block]) for start in range(0, len(rows), block)])
    if owner is not None:
        _kept[memory] = (owner, outputs)
        if len(_kept) > IN_MEMORY:
            del _kept[next(iter(_kept))]
        return outputs
    with written_whole(file) as temporary, open(temporary, "wb") as stream:
        np.save(stream, outputs, allow_pickle=False)
    return outputs


def _read(file: Path, rows: int) -> NDArray[Any] | None:
    """Stored outputs; None: there are none, or the file is damaged and is computed again."""
    if not file.is_file():
        return None
    try:
        stored: NDArray[Any] = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return stored if stored.ndim and len(stored) == rows else None


def _alike(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.dtype.kind != "f":
        return np.array_equal(first, second)
    # kernels of accelerators may differ in the last digits from call to call
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True))


def identity_of(teacher: Any) -> str:
    """A hash of what a teacher consists of: the files of a path, the tensors of a module; empty for a function."""
    if isinstance(teacher, nn.Module):
        tensors = [tensor.detach().cpu() for tensor in teacher.state_dict().values()]
        return digest([tensor.float().numpy() for tensor in tensors])
    if not isinstance(teacher, Path):
        return ""
    total = hashlib.sha256()
    for file in sorted(teacher.rglob("*")) if teacher.is_dir() else [teacher]:
        if file.is_file():
            with file.open("rb") as stream:
                while part := stream.read(2**20):
                    total.update(part)
    return total.hexdigest()
