"""From raw files to arrays: parallel, resumable, and without half-written files.

Each item (a clip, a scan, a picture) becomes one .npy per modality, ``out/<modality>/<item>.npy``, which is the layout
of `xmodal.data.own.layout`, or another file where the work returns a `Content`. A marker in ``out/.prepared`` records
which files were written from which sources; an item whose sources have not changed is not prepared again. Items that
can't be read are listed in ``out/skipped.json``.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xmodal.data.worker import end_with_parent
from xmodal.errors import InputError
from xmodal.files import SCHEMA, parse_json, sweep, write_json, written_whole

A = TypeVar("A")
R = TypeVar("R")
MARKERS = ".prepared"


@dataclass(frozen=True)
class Item:
    """One thing to prepare.

    Attributes:
        name: unique; becomes the file name.
        sources: its raw files; when their size or time changes, the item is prepared again.
        facts: JSON values that the work needs besides its sources, such as a start time.
    """

    name: str
    sources: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """A file that is not an array.

    Attributes:
        suffix: ending of its name, with the dot.
        data: its bytes.
        name: its name without suffix; empty: the name of the item.
    """

    suffix: str
    data: bytes
    name: str = ""


@dataclass(frozen=True)
class Prepared:
    """Result of preparing some items.

    Attributes:
        done: names of the items that were prepared by this call.
        reused: names of the items that an earlier call had prepared.
        skipped: (name, reason) of the items that can't be read.
        warnings: sentences for the user.
    """

    done: list[str]
    reused: list[str]
    skipped: list[tuple[str, str]]
    warnings: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """All prepared items, in the order of their rows."""
        # rows follow the order of file names, where "a.npy" comes after "a-2.npy": the suffix takes part
        return sorted(self.done + self.reused, key=lambda name: f"{name}.npy")


Work = Callable[[Item], Mapping[str, NDArray[Any] | Content]]


def prepare_items(
    items: Sequence[Item],
    work: Work,
    out: Path,
    *,
    workers: int = 0,
    version: str = "",
    refused: Sequence[tuple[str, str]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write one file per item and modality.

    Args:
        items: what to prepare.
        work: item → modality → array or `Content`; a function at the top of a module, so that worker processes can
            import it. A ``ValueError`` or ``OSError`` skips the item, any other exception stops.
        out: folder for the files; the same folder again continues an interrupted run.
        workers: number of processes; 0: the current one.
        version: text that changes when the work would write other files for the same sources.
        refused: (name, reason) of raw files that are not items; they are listed as skipped.
        progress: called with (items so far, items in all).
    """
    _refuse_names(items)
    out.mkdir(parents=True, exist_ok=True)
    # temporary files of a killed run, which nothing else would remove
    sweep(out)
    stamps = {item.name: _stamp(item, version) for item in items}
    reused = [item.name for item in items if _is_done(out, item.name, stamps[item.name])]
    kept = set(reused)
    todo = [item for item in items if item.name not in kept]
    _remove_stale(out, keep=kept)
    done: list[str] = []
    skipped = list(refused)
    jobs = [(item, work, out, stamps[item.name]) for item in todo]
    for (item, *_), reason in in_processes(_finish, jobs, workers):
        if reason is None:
            done.append(item.name)
        else:
            skipped.append((item.name, reason))
        if progress is not None:
            progress(len(reused) + len(done) + len(skipped) - len(refused), len(items))
    listed = [{"name": name, "reason": reason} for name, reason in sorted(skipped)]
    write_json(out / "skipped.json", {"skipped": listed})
    return Prepared(sorted(done), sorted(reused), sorted(skipped))


def in_processes(function: Callable[[A], R], jobs: Sequence[A], workers: int) -> Iterator[tuple[A, R]]:
    """Yield each job with its result, in the order in which they finish.

    Args:
        function: job → result; a function at the top of a module, so that worker processes can import it.
        jobs: arguments of the function.
        workers: number of processes; 0: the current one.
    """
    if not workers:
        for job in jobs:
            yield job, function(job)
        return
    # spawn: a forked worker inherits the locks of all threads of this process, and may wait for them forever
    pool = ProcessPoolExecutor(min(workers, len(jobs) or 1), mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        futures = {pool.submit(function, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise InputError(
            "A worker process ended without an answer: it was killed, perhaps because memory ran out. Finished items "
            "are kept; run the same command again, with fewer workers."
        ) from None
    finally:
        # running jobs finish, so that their items need not be prepared again; waiting jobs are dropped
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # workers of a killed process would write to the same folder as those of the next run
    end_with_parent()
    # Ctrl-C reaches all processes of the terminal; the main process handles it and lets running items finish
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _finish(job: tuple[Item, Work, Path, str]) -> str | None:
    """Prepare one item; returns the reason if it has to be skipped."""
    item, work, out, stamp = job
    try:
        contents = dict(work(item))
    except InputError as error:
        return " ".join(error.problems)
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    files = []
    for modality, content in contents.items():
        if isinstance(content, Content):
            path = out / modality / f"{content.name or item.name}{content.suffix}"
            with written_whole(path) as temporary:
                temporary.write_bytes(content.data)
        else:
            path = out / modality / f"{item.name}.npy"
            write_npy(path, content)
        files.append(f"{modality}/{path.name}")
    # the marker is written last: where it exists, the files are complete
    write_json(out / MARKERS / f"{item.name}.json", {"stamp": stamp, "files": sorted(files)})
    return None


def _stamp(item: Item, version: str) -> str:
    """Text that changes when the item has to be prepared again."""
    sources = []
    # size and time in place of a hash: hashing would read all raw files, often tens of gigabytes
    for source in item.sources:
        path = Path(source)
        state = path.stat() if path.exists() else None
        sources.append([path.name, state.st_size if state else -1, state.st_mtime_ns if state else -1])
    return json.dumps([version, sources, dict(item.facts)], sort_keys=True)


def _marker(out: Path, name: str) -> dict[str, Any]:
    path = out / MARKERS / f"{name}.json"
    if not path.exists():
        return {}
    # a damaged marker counts as missing: its item is prepared again
    try:
        marker = parse_json(path.read_text(encoding="utf-8"), str(path))
    except (InputError, UnicodeDecodeError):
        return {}
    files = marker.get("files")
    has_names = isinstance(files, list) and all(isinstance(file, str) for file in files)
    return marker if marker.get("schema") == SCHEMA and has_names else {}


def _is_done(out: Path, name: str, stamp: str) -> bool:
    marker = _marker(out, name)
    return marker.get("stamp") == stamp and all((out / file).exists() for file in marker["files"])


def _remove_stale(out: Path, *, keep: set[str]) -> None:
    """Remove the files of items that changed or no longer exist."""
    # rows are the files of a folder in the order of their names: a file too many would shift the rows after it
    for path in sorted((out / MARKERS).glob("*.json")):
        if path.stem not in keep:
            for file in _marker(out, path.stem).get("files", []):
                (out / file).unlink(missing_ok=True)
            path.unlink()


def _refuse_names(items: Sequence[Item]) -> None:
    problems, names = [], set()
    for item in items:
        if not item.name or item.name.startswith(".") or Path(item.name).name != item.name:
            problems.append(f"'{item.name}' can't be the name of an item: it has to serve as a file name. Rename it.")
        if item.name in names:
            problems.append(f"Two items are called '{item.name}': give each a name of its own.")
        names.add(item.name)
    if problems:
        raise InputError(problems)


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Write an array to a temporary file, flush it, and rename it: the file is complete or missing. Never pickles."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(array), allow_pickle=False)
