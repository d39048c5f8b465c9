"""Files of MOSI and MOSEI: preparing a published pickle, opening and checking a prepared folder, synthetic files.

    mosi_root/
    ├── text.npy  vision.npy  audio.npy          (samples, width, time) float32, cleaned; mapped to memory
    ├── text.lengths.npy  vision.lengths.npy  audio.lengths.npy          (samples,) true lengths
    ├── text.tokens.npy                          (samples, 3, time): ids, mask, segments; if the pickle has text_bert
    ├── labels.npy                               (samples,) from -3 to 3
    ├── train_idx.npy  valid_idx.npy  test_idx.npy
    ├── data.json                                makes the folder readable as a folder of arrays (`data.own`) too
    └── mosi.json                                written last: source, hashes, counts, ids

To open a single modality, only its files are needed; those of the others may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from xmodal.data.columns import ArrayFile
from xmodal.data.mosi.columns import BLOCK, TREATMENTS
from xmodal.data.mosi.pickle_writer import write_pickle
from xmodal.data.mosi.source import Source, clipped_lengths, find_pickle, open_pickle
from xmodal.data.mosi.synthetic import MODALITIES, SyntheticSettings, draw
from xmodal.data.options import validated
from xmodal.data.prepare import MARKERS, Prepared
from xmodal.data.report import Report
from xmodal.data.split import Column
from xmodal.errors import InputError, did_you_mean
from xmodal.files import read_json, sweep, write_json, written_whole
from xmodal.names import SPLITS

FACTS = "mosi.json"
# Part of the stamp of every prepared array: increase it when `prepare` writes other values for the same pickle.
VERSION = 1
# SHA-256 → name of the published file, from the README of MMSA.
PUBLIC = {
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": "MOSI aligned_50",
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": "MOSI unaligned_50",
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": "MOSEI aligned_50",
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": "MOSEI unaligned_50",
}
EXPECTED = "the pickle of MOSI or MOSEI (aligned_50.pkl or unaligned_50.pkl), or a folder prepared from it"


class ArrayFacts(BaseModel):
    """The entry of an array file in mosi.json.

    Attributes:
        shape: shape of the array.
        dtype: NumPy's name of its type.
        sha256: SHA-256 of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[int, ...]
    dtype: str
    sha256: str


class Facts(BaseModel):
    """The content of mosi.json.

    Attributes:
        source: name of the file that the folder was prepared from.
        sha256: SHA-256 of that file.
        public: which of the published files it is; empty if it is none of them.
        stamp: identifies source and options; if it changes, the folder is written again.
        aligned: whether all modalities have the same number of steps.
        rows: split → number of samples, in the order of the rows.
        nonfinite: what was done with non-finite values.
        counts: modality → kind → number of non-finite values in the source.
        files: array file → its facts.
        ids: ids of the samples, in the order of the rows.
        warnings: warnings about the source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    sha256: str
    public: str
    stamp: str
    aligned: bool
    rows: dict[str, int]
    nonfinite: Literal["zero", "refuse", "published"]
    counts: dict[str, dict[str, int]]
    files: dict[str, ArrayFacts]
    ids: list[str]
    warnings: list[str]


def read_facts(root: Path) -> Facts:
    """Read and check mosi.json of a prepared folder."""
    content = read_json(root / FACTS)
    content.pop("schema")
    facts = validated(Facts, content, str(root / FACTS))
    if tuple(facts.rows) != SPLITS or sum(facts.rows.values()) != len(facts.ids):
        raise InputError(
            f"{root / FACTS} is inconsistent: {facts.rows} rows and {len(facts.ids)} ids. Prepare the folder again."
        )
    return facts


def open_prepared(root: Path, report: Report, *, modalities: Sequence[str] = MODALITIES) -> Source | None:
    """The content of a prepared folder, from the files of the given modalities; None if it cannot be used."""
    try:
        facts = read_facts(root)
    except InputError as error:
        report.errors += error.problems
        return None
    samples, errors_before = len(facts.ids), len(report.errors)
    columns: dict[str, Column] = {}
    for name in modalities:
        column = _opened(root, f"{name}.npy", facts, report)
        if column is not None:
            columns[name] = column
    lengths = {name: _opened(root, f"{name}.lengths.npy", facts, report) for name in modalities}
    labels = _opened(root, "labels.npy", facts, report)
    tokens = _opened(root, "text.tokens.npy", facts, report) if _has_tokens(facts, modalities) else None
    if len(report.errors) > errors_before or labels is None:
        return None
    true_lengths = {
        name: clipped_lengths(
            np.asarray(file.array, dtype=np.int64), int(columns[name].shape[2]), f"{root}: {file.path.name}", report
        )
        for name, file in lengths.items()
        if file is not None
    }
    values = np.asarray(labels.array, dtype=np.float32)
    if not np.isfinite(values).all() or samples != len(values):
        report.errors.append(f"{root / 'labels.npy'} was changed since it was prepared. Prepare the folder again.")
        return None
    report.warnings += facts.warnings
    counts = {name: facts.counts.get(name, {}) for name in modalities}
    return Source(
        columns, true_lengths, values, dict(facts.rows), list(facts.ids), tokens, counts, facts.nonfinite, facts.aligned
    )


def _has_tokens(facts: Facts, modalities: Sequence[str]) -> bool:
    return "text" in modalities and "text.tokens.npy" in facts.files


def _opened(root: Path, name: str, facts: Facts, report: Report) -> ArrayFile | None:
    """An array file that agrees with mosi.json; otherwise None and an error."""
    expected = facts.files.get(name)
    if expected is None:
        report.errors.append(f"{root / FACTS} has no entry for {name}. Prepare the folder again.")
        return None
    if not (root / name).is_file():
        report.errors.append(f"{root} has no {name}, which {FACTS} names. Prepare the folder again.")
        return None
    try:
        file = ArrayFile(root / name)
    except InputError as error:
        report.errors += error.problems
        return None
    if file.shape != expected.shape or file.dtype.name != expected.dtype:
        report.errors.append(
            f"{root / name} holds {file.dtype.name} of shape {file.shape}, and {FACTS} says {expected.dtype} of shape "
            f"{expected.shape}. Prepare the folder again."
        )
        return None
    return file


def check(root: Path) -> Report | None:
    """Check a pickle or a prepared folder; None if it is neither."""
    report = Report()
    if (root / FACTS).exists():
        if open_prepared(root, report) is not None:
            for name, facts in read_facts(root).files.items():
                if (root / name).is_file() and sha256_of(root / name) != facts.sha256:
                    report.errors.append(f"{root / name} was changed since it was prepared. Prepare the folder again.")
        return report
    pickles = [root] if root.is_file() else sorted(root.glob("*.pkl"))
    if not pickles or (root.is_file() and root.suffix != ".pkl"):
        return None
    for path in pickles:
        open_pickle(path, report)
    return report


# ---- preparing


def prepare(
    raw: str | Path,
    root: str | Path,
    *,
    nonfinite: str = "zero",
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Convert a published pickle to arrays that can be memory-mapped; nothing in it is executed.

    Args:
        raw: the pickle, or a folder that contains it.
        root: folder to write; run again with the same folder to continue an interrupted preparation.
        nonfinite: what to do with NaN and infinite values: zero replaces them by 0; refuse stops; published replaces
            only -inf in audio.
        progress: called with (files done, files in total).
    """
    root, path = Path(root), find_pickle(Path(raw))
    if nonfinite not in TREATMENTS:
        raise InputError(f"There is no nonfinite '{nonfinite}'. {did_you_mean(nonfinite, TREATMENTS)}")
    if path is None:
        raise InputError(
            f"{raw} is neither a file nor a folder with one .pkl: {EXPECTED.partition(',')[0]} was expected."
        )
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not _was_prepared(root))):
        raise InputError(f"{root} already exists: an empty or new folder was expected. Choose another folder.")
    stamp = _stamp(path, nonfinite)
    if (finished := _finished(root, stamp)) is not None:
        return Prepared([], finished, [])
    report = Report()
    source = open_pickle(path, report, treatment=nonfinite)
    report.stop_on_errors()
    assert source is not None
    # Written last. An old one goes first, so that an interrupted preparation does not look complete.
    (root / FACTS).unlink(missing_ok=True)
    (root / MARKERS).mkdir(parents=True, exist_ok=True)
    sweep(root)
    files: dict[str, ArrayFacts] = {}
    done: list[str] = []
    reused: list[str] = []
    arrays = _arrays(source)
    for name in _outdated(root, arrays):
        (root / name).unlink()
    for name, column in arrays.items():
        marker = _marked(root, name, stamp)
        (done if marker is None else reused).append(name)
        files[name] = marker or _write(root, name, column, stamp)
        if progress is not None:
            progress(len(files), len(arrays))
    write_json(root / "data.json", _folder_description())
    digest = sha256_of(path)
    facts = Facts(
        source=path.name,
        sha256=digest,
        public=PUBLIC.get(digest, ""),
        stamp=stamp,
        aligned=source.aligned,
        rows=source.rows,
        nonfinite=nonfinite,
        counts=source.counts,
        files=files,
        ids=source.ids,
        warnings=report.warnings,
    )
    write_json(root / FACTS, facts.model_dump(mode="json"))
    return Prepared(done, reused, [])


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _was_prepared(root: Path) -> bool:
    return (root / FACTS).exists() or (root / MARKERS).is_dir()


def _stamp(path: Path, nonfinite: str) -> str:
    # Size and time instead of a hash: the published pickles have several GB, and every start would read them.
    state = path.stat()
    return json.dumps([VERSION, path.name, state.st_size, state.st_mtime_ns, nonfinite])


def _finished(root: Path, stamp: str) -> list[str] | None:
    """The files of a folder that is completely prepared from the same source; otherwise None."""
    if not (root / FACTS).exists():
        return None
    try:
        facts = read_facts(root)
    except InputError:
        return None
    complete = facts.stamp == stamp and all(_opened(root, name, facts, Report()) is not None for name in facts.files)
    return list(facts.files) if complete else None


def _arrays(source: Source) -> dict[str, Column]:
    """Array file → its content."""
    arrays: dict[str, Column] = {f"{name}.npy": column for name, column in source.columns.items()}
    arrays |= {f"{name}.lengths.npy": lengths for name, lengths in source.lengths.items()}
    arrays |= {} if source.tokens is None else {"text.tokens.npy": source.tokens}
    return {
        **arrays,
        "labels.npy": source.labels,
        **{f"{split}_idx.npy": rows for split, rows in source.numbers().items()},
    }


def _outdated(root: Path, arrays: dict[str, Column]) -> list[str]:
    """Files of a previous source that the new one does not have."""
    return [path.name for path in root.glob("text.tokens.npy") if path.name not in arrays]


def _write(root: Path, name: str, column: Column, stamp: str) -> ArrayFacts:
    """Write an array block by block, and then the marker of its completion."""
    shape = tuple(column.shape)
    with written_whole(root / name) as partial:
        mapped = np.lib.format.open_memmap(partial, mode="w+", dtype=column.dtype, shape=shape)
        for first in range(0, shape[0], BLOCK):
            rows = np.arange(first, min(first + BLOCK, shape[0]))
            mapped[rows] = column[rows]
        mapped.flush()
        # Releases the mapping, without which Windows does not rename the file.
        del mapped
    facts = ArrayFacts(shape=shape, dtype=np.dtype(column.dtype).name, sha256=sha256_of(root / name))
    write_json(root / MARKERS / f"{name}.json", {"stamp": stamp, "facts": facts.model_dump(mode="json")})
    return facts


def _marked(root: Path, name: str, stamp: str) -> ArrayFacts | None:
    """The facts of an array that an earlier, interrupted call completed; otherwise None."""
    path = root / MARKERS / f"{name}.json"
    if not path.exists() or not (root / name).exists():
        return None
    marker: dict[str, Any] = read_json(path)
    return ArrayFacts.model_validate(marker["facts"]) if marker.get("stamp") == stamp else None


def _folder_description() -> dict[str, Any]:
    """The content of data.json."""
    return {
        "modalities": list(MODALITIES),
        "task": "regression",
        "normalise": dict.fromkeys(MODALITIES, "none"),
        "layout": dict.fromkeys(MODALITIES, "sequence"),
    }


# ---- synthetic data


def make(root: str | Path, *, format: str = "raw", seed: int = 0, settings: SyntheticSettings | None = None) -> Path:
    """Write a synthetic trimodal set in the layout of MOSI.

    Args:
        root: a folder that is empty or does not exist.
        format: ``raw``: aligned_50.pkl or unaligned_50.pkl; ``prepared``: the folder that prepare writes from it.
        seed: seed of all random draws.
        settings: options of the set.
    """
    root, settings = Path(root), settings or SyntheticSettings()
    if format not in ("raw", "prepared"):
        raise InputError(f"There is no format '{format}'. {did_you_mean(format, ('raw', 'prepared'))}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} already exists: an empty or new folder was expected. Choose another folder.")
    name = f"{'unaligned' if settings.unaligned else 'aligned'}_50.pkl"
    if format == "raw":
        write_pickle(root / name, draw(settings, seed))
        return root
    with tempfile.TemporaryDirectory() as folder:
        write_pickle(Path(folder) / name, draw(settings, seed))
        prepare(Path(folder) / name, root)
    return root
