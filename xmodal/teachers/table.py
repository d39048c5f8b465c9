"""Tables of a teacher's outputs: arrays in memory, `.npy` and `.npz` files, and how their rows find those of the data.

    outputs | logits | probabilities | log_probabilities | classes | values | embeddings    (entries, …), one of them
    indices (entries, k)      top-k: the classes of the values, in place of a column for each class
    rows (entries,)           row numbers in the data;  ids (entries,): names of the rows;  neither: all rows in order
    class_names (classes,)    names of the columns
    hash:<modality>, digest   written by xmodal: what the rows and the table itself must hash to

A row without an answer is NaN (-1 among classes), or it is left out. Beside a `.npy` file the other arrays stand in
`<name>.rows.npz`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.base import Data
from xmodal.data.samples import as_array
from xmodal.data.unlabelled import is_missing
from xmodal.errors import InputError, did_you_mean
from xmodal.files import written_whole
from xmodal.teachers.fingerprint import compared_rows, digest, row_hashes

VALUES = {  # name of an array → kind of output; "": not said
    "outputs": "",
    "logits": "logits",
    "probabilities": "probabilities",
    "log_probabilities": "log-probabilities",
    "classes": "classes",
    "values": "values",
    "embeddings": "embeddings",
}
OTHERS = ("indices", "rows", "ids", "class_names", "digest", "kind")
HASH = "hash:"


@dataclass(frozen=True)
class Table:
    """Stored outputs of a teacher.

    Attributes:
        where: its name in sentences.
        kind: of `KINDS`; ``auto``: not known yet.
        values: (entries, …).
        indices: (entries, k) classes of the values; None: there is a column for each class.
        rows: (entries,) numbers of the rows in the data; None: not given.
        ids: names of the rows; empty: not given.
        class_names: of the columns; empty: not given.
        hashes: modality → fingerprints of the rows (entries,); empty: not given.
    """

    where: str
    kind: str
    values: NDArray[Any]
    indices: NDArray[Any] | None = None
    rows: NDArray[Any] | None = None
    ids: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    hashes: Mapping[str, NDArray[np.uint64]] = field(default_factory=dict)

    @property
    def named(self) -> bool:
        """Whether the table says which rows it is about."""
        return self.rows is not None or bool(self.ids)


def beside(path: Path) -> Path:
    """The file with the rows of a ``.npy`` table."""
    return path.with_name(f"{path.stem}.rows.npz")


def read_table(path: Path, kind: str = "auto") -> Table:
    """Read a ``.npy`` or ``.npz`` file; nothing in it is executed.

    Args:
        path: of the file.
        kind: what its values are, of `KINDS`.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give the path of a table of teacher outputs.")
    if path.suffix == ".npz":
        return table_of(_arrays(path), kind, where=str(path))
    arrays = _arrays(beside(path)) if beside(path).is_file() else {}
    return table_of({**arrays, **_arrays(path)}, kind, where=str(path))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file; that of a ``.npy`` file is called ``outputs``."""
    try:
        # opened here, since numpy does not close a damaged archive
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"outputs": content}
            return {name: content[name] for name in content.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is no file of plain NumPy arrays ({error}). Write it with numpy.save or numpy.savez."
        ) from None


def table_of(value: Any, kind: str = "auto", *, where: str = "the teacher's table") -> Table:
    """A table from an array, or from a dictionary of arrays as a file has them.

    Args:
        value: the outputs (rows in the order of the data), or a dictionary.
        kind: what the values are, of `KINDS`.
        where: name for sentences.

    Example:
        >>> table_of({"logits": [[1.0, 0.0]], "rows": [7]}).kind
        'logits'
    """
    arrays = dict(value) if isinstance(value, Mapping) else {"outputs": value}
    unknown = [name for name in arrays if name not in VALUES and name not in OTHERS and not str(name).startswith(HASH)]
    if unknown:
        raise InputError(
            f"{where} holds '{unknown[0]}', which is no part of a table. {did_you_mean(unknown[0], [*VALUES, *OTHERS])}"
        )
    found = [name for name in VALUES if name in arrays]
    if len(found) != 1:
        raise InputError(
            f"{where} holds {', '.join(found) or 'no outputs'}: exactly one of {', '.join(VALUES)} was expected."
        )
    stored = str(np.asarray(arrays["kind"]).item()) if "kind" in arrays else ""
    said = VALUES[found[0]] or stored
    if said and kind not in ("auto", said):
        raise InputError(f"{where} says that it holds {said}, and {kind} were asked for. Leave one of the two out.")
    values = _text(as_array(f"{where} ({found[0]})", arrays[found[0]]))
    table = Table(
        where,
        kind if kind != "auto" else said or "auto",
        values,
        indices=_optional(arrays, "indices", where),
        rows=_optional(arrays, "rows", where),
        ids=tuple(map(str, np.asarray(arrays["ids"]).reshape(-1).tolist())) if "ids" in arrays else (),
        class_names=tuple(map(str, np.asarray(arrays["class_names"]).tolist())) if "class_names" in arrays else (),
        hashes={name.removeprefix(HASH): np.asarray(arrays[name]) for name in arrays if name.startswith(HASH)},
    )
    if "digest" in arrays and str(np.asarray(arrays["digest"]).item()) != _digest(table):
        raise InputError(
            f"{where} was changed after it was written: its outputs and the rows that they belong to do not fit any "
            "more (perhaps they were cut or put in another order). Write it again with `xmodal teacher-table`."
        )
    _check(table)
    return table


def _text(values: NDArray[Any]) -> NDArray[Any]:
    """Objects that are text, as a data frame holds them, as text; None and NaN among them as empty text."""
    if values.dtype.kind not in "OTS" or values.ndim != 1:
        return values
    entries = ["" if is_missing(value) else value for value in values.tolist()]
    return np.array(entries) if all(isinstance(entry, str) for entry in entries) else values


def _optional(arrays: Mapping[str, Any], name: str, where: str) -> NDArray[Any] | None:
    return as_array(f"{where} ({name})", arrays[name]) if name in arrays else None


def _check(table: Table) -> None:
    """Raise an error with all that is wrong with a table by itself."""
    where, values, problems = table.where, table.values, []
    if values.dtype.kind not in "biuf" and not (values.dtype.kind == "U" and values.ndim == 1):
        raise InputError(f"{where} holds {values.dtype}: numbers were expected, or names of classes as text.")
    if values.ndim not in (1, 2) or not values.size:
        raise InputError(
            f"{where} has the shape {values.shape}: (rows, classes) was expected, or (rows,) for classes or single "
            "values. Targets for every pixel need a student file as the teacher."
        )
    count = len(values)
    if table.rows is not None and table.ids:
        problems.append(f"{where} holds rows and ids: one of the two says which rows it is about. Leave one out.")
    lengths = {"rows": table.rows, "ids": table.ids or None, "indices": table.indices, **table.hashes}
    for name, part in lengths.items():
        if part is not None and len(part) != count:
            problems.append(f"{where} has {count} outputs and {len(part)} {name}: one for each output was expected.")
    if table.indices is not None and (table.indices.shape != values.shape or table.indices.dtype.kind not in "iu"):
        problems.append(
            f"{where} has indices of the shape {table.indices.shape} ({table.indices.dtype}) and values of the shape "
            f"{values.shape}: class numbers of the same shape (rows, k) were expected."
        )
    if values.dtype.kind == "f" and values.ndim == 2:
        lacking = np.isnan(values)
        some = np.flatnonzero(lacking.any(axis=1) & ~lacking.all(axis=1))
        if len(some):
            problems.append(
                f"Row {some[0]} of {where} is NaN in some of its values: a row without an answer is NaN in all of them."
            )
    if values.dtype.kind == "f" and np.isposinf(values).any():
        problems.append(f"{where} holds infinite values, first in row {np.argwhere(np.isposinf(values))[0][0]}.")
    if problems:
        raise InputError(problems)


def rows_in(table: Table, data: Data) -> NDArray[np.int64]:
    """The row of the data to which each entry of a table belongs; a table of other data is refused."""
    split, where, count = data.train, table.where, len(table.values)
    columns = {name: split.columns[name] for name in data.info.modalities}
    total = next(iter(columns.values())).shape[0]
    if table.ids:
        rows = _by_ids(table, data)
    elif table.rows is not None:
        rows = _row_numbers(table.rows, total, where)
    elif count == total:
        rows = np.arange(total)
    else:
        raise InputError(
            f"{where} has {count} rows, and the data has {total} in all splits together: an output for every row was "
            "expected, in the order of the data. For some rows alone, give their numbers in the array rows, or their "
            "names in ids."
        )
    if table.hashes:
        _compare_hashes(table, columns, rows)
    return rows


def _row_numbers(rows: NDArray[Any], total: int, where: str) -> NDArray[np.int64]:
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(f"The rows of {where} are {rows.dtype} of shape {rows.shape}: row numbers were expected.")
    outside = rows[(rows < 0) | (rows >= total)]
    if len(outside):
        raise InputError(
            f"{where} is about row {outside[0]}, and the data has {total} rows (from 0). It was made for other data."
        )
    numbers, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"{where} has two outputs for row {numbers[counts > 1][0]}: one was expected.")
    return rows.astype(np.int64)


def _by_ids(table: Table, data: Data) -> NDArray[np.int64]:
    if not len(data.ids):
        raise InputError(
            f"{table.where} names its rows by ids, and this data has none. Add ids.npy to the folder of the data, or "
            "give row numbers in the array rows."
        )
    places = {name: row for row, name in enumerate(map(str, data.ids))}
    if len(places) < len(data.ids):
        raise InputError(f"Some ids of the data occur twice, so {table.where} can't be matched by them.")
    if len(set(table.ids)) < len(table.ids):
        raise InputError(f"{table.where} has two outputs with the same id: one for each was expected.")
    unknown = [name for name in table.ids if name not in places]
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(table.ids)} ids of {table.where} are not in the data, the first is "
            f"'{unknown[0]}'. It was made for other data."
        )
    return np.array([places[name] for name in table.ids], dtype=np.int64)


def _compare_hashes(table: Table, columns: Mapping[str, Any], rows: NDArray[np.int64]) -> None:
    shared = [name for name in table.hashes if name in columns]
    if not shared:
        raise InputError(
            f"{table.where} was made from {', '.join(table.hashes)}, and this data has {', '.join(columns)}: whether "
            "its rows are the same can't be checked. Use data with one of these modalities."
        )
    for name in shared:
        places = compared_rows(columns[name], rows)
        wrong = places[row_hashes(columns[name], rows[places]) != table.hashes[name][places]]
        if len(wrong):
            raise InputError(
                f"{table.where} was made for other data: '{name}' differs in {len(wrong)} of {len(places)} compared "
                f"rows, the first is row {rows[wrong[0]]}. Write the table again for this data."
            )


def write_table(
    path: Path,
    values: NDArray[Any],
    data: Data,
    rows: NDArray[np.int64],
    *,
    kind: str,
    modalities: tuple[str, ...] = (),
    class_names: tuple[str, ...] = (),
) -> list[Path]:
    """Write a table with what is needed to refuse it elsewhere; returns the files.

    Args:
        path: ``.npy`` (the other arrays go into a file beside it) or ``.npz``.
        values: (rows, …).
        data: the rows belong to.
        rows: their numbers in the data.
        kind: of `KINDS`.
        modalities: to fingerprint; empty: all.
        class_names: of the columns.
    """
    if path.suffix not in (".npy", ".npz") or path.is_dir():
        raise InputError(f"{path}: the name of a .npy or .npz file was expected.")
    names = modalities or data.info.modalities
    hashes = {name: row_hashes(data.train.columns[name], rows) for name in names}
    ids = tuple(str(data.ids[row]) for row in rows.tolist()) if len(data.ids) else ()
    table = Table(str(path), kind, values, rows=None if ids else rows, ids=ids, class_names=class_names, hashes=hashes)
    others: dict[str, Any] = {"ids": np.array(ids)} if ids else {"rows": rows}
    others |= {"kind": np.array(kind), "digest": np.array(_digest(table))}
    others |= {"class_names": np.array(class_names)} if class_names else {}
    others |= {HASH + name: numbers for name, numbers in hashes.items()}
    # open files, because numpy appends its ending to a temporary path
    if path.suffix == ".npz":
        with written_whole(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, outputs=values, **others)
        return [path]
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.save(file, values, allow_pickle=False)
    with written_whole(beside(path)) as temporary, open(temporary, "wb") as file:
        np.savez(file, **others)
    return [path, beside(path)]


def _digest(table: Table) -> str:
    """What a table hashes to, with the rows that its entries belong to."""
    named = np.array(table.ids) if table.ids else table.rows
    return digest([table.values, *([] if named is None else [named]), *table.hashes.values()])
