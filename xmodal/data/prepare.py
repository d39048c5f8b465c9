"""From raw files to arrays: parallel, resumable, and never half a file.

Each item (a clip, a scan, a picture) becomes one .npy per modality, ``out/<modality>/<item>.npy``, which is the layout
of `xmodal.data.own.layout`, or a file of another kind where the work returns a `Content`. A marker in ``out/.prepared``
says which files were made from which sources; an item whose marker still fits is not made again. Items that can't be
read are listed in ``out/skipped.json``.
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

from xmodal.data.worker import end_with_owner
from xmodal.errors import InputError
from xmodal.files import parse_json, sweep, write_json, written_whole

A = TypeVar("A")
R = TypeVar("R")
SCHEMA = 1  # as in xmodal.types, which would bring torch into every worker
MARKERS = ".prepared"


@dataclass(frozen=True)
class Item:
    """One thing to prepare.

    Attributes:
        name: becomes the file name; unique.
        sources: raw files it is made from; a change of their size or time makes it anew.
        facts: JSON that the work needs besides, such as a start time.
    """

    name: str
    sources: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """A file that is no array.

    Attributes:
        suffix: of its name, with the dot.
        data: all of its bytes.
        name: of the file, without suffix; empty: that of the item.
    """

    suffix: str
    data: bytes
    name: str = ""


@dataclass(frozen=True)
class Prepared:
    """What became of the items.

    Attributes:
        done: names of the items that were made now.
        reused: names of the items that were there already.
        skipped: (name, reason) of the items that can't be read.
        warnings: sentences on what was made, for whoever asked for it.
    """

    done: list[str]
    reused: list[str]
    skipped: list[tuple[str, str]]
    warnings: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """All items that are there, in the order of their rows."""
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
    """Make one file per item and modality.

    Args:
        items: what to prepare.
        work: item → modality → array or `Content`; a function at the top of a module, so that worker processes find
            it. A ``ValueError`` or ``OSError`` skips the item, anything else stops.
        out: folder that receives the files; run again with the same one to go on.
        workers: processes; 0: this one.
        version: text that changes when the work would give other files for the same sources.
        refused: (name, reason) of what is no item at all; listed among the skipped ones.
        progress: is told (items so far, items in all).
    """
    _refuse_names(items)
    out.mkdir(parents=True, exist_ok=True)
    sweep(out)
    stamps = {item.name: _stamp(item, version) for item in items}
    reused = [item.name for item in items if _is_done(out, item.name, stamps[item.name])]
    there = set(reused)
    todo = [item for item in items if item.name not in there]
    _remove_stale(out, keep=there)
    done: list[str] = []
    skipped = list(refused)
    for name, reason in _results(todo, work, out, stamps, workers):
        if reason is None:
            done.append(name)
        else:
            skipped.append((name, reason))
        if progress is not None:
            progress(len(reused) + len(done) + len(skipped) - len(refused), len(items))
    listed = [{"name": name, "reason": reason} for name, reason in sorted(skipped)]
    write_json(out / "skipped.json", {"skipped": listed})
    return Prepared(sorted(done), sorted(reused), sorted(skipped))


def _results(
    todo: Sequence[Item], work: Work, out: Path, stamps: Mapping[str, str], workers: int
) -> Iterator[tuple[str, str | None]]:
    jobs = [(item, work, out, stamps[item.name]) for item in todo]
    return ((job[0].name, reason) for job, reason in in_processes(_finish, jobs, workers))


def in_processes(function: Callable[[A], R], jobs: Sequence[A], workers: int) -> Iterator[tuple[A, R]]:
    """Each job and its result, in the order in which they are finished.

    Args:
        function: job → result; at the top of a module, so that worker processes find it.
        jobs: what is given to it.
        workers: processes; 0: this one.
    """
    if not workers:
        for job in jobs:
            yield job, function(job)
        return
    # spawn: a forked worker would inherit the locks of whatever threads this process has
    pool = ProcessPoolExecutor(
        min(workers, len(jobs) or 1), mp_context=get_context("spawn"), initializer=_leave_decisions_to_the_owner
    )
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
        pool.shutdown(wait=True, cancel_futures=True)  # what runs is finished, what waits is left for the next time


def _leave_decisions_to_the_owner() -> None:
    end_with_owner()  # killed, it would leave workers behind that write beside those of the next time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides, and lets running items finish


def _finish(job: tuple[Item, Work, Path, str]) -> str | None:
    """Prepare one item; the reason if it has to be skipped."""
    item, work, out, stamp = job
    try:
        made = dict(work(item))
    except InputError as error:
        return " ".join(error.problems)
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    files = []
    for modality, content in made.items():
        named, suffix = (content.name, content.suffix) if isinstance(content, Content) else ("", ".npy")
        path = out / modality / f"{named or item.name}{suffix}"
        if isinstance(content, Content):
            with written_whole(path) as beside:
                beside.write_bytes(content.data)
        else:
            write_npy(path, content)
        files.append(f"{modality}/{path.name}")
    # last, so that a marker stands for complete files
    write_json(out / MARKERS / f"{item.name}.json", {"stamp": stamp, "files": sorted(files)})
    return None


def _stamp(item: Item, version: str) -> str:
    """Text that changes when the item would have to be made again."""
    sources = []
    for source in item.sources:
        path = Path(source)
        state = path.stat() if path.exists() else None
        sources.append([path.name, state.st_size if state else -1, state.st_mtime_ns if state else -1])
    return json.dumps([version, sources, dict(item.facts)], sort_keys=True)


def _marker(out: Path, name: str) -> dict[str, Any]:
    path = out / MARKERS / f"{name}.json"
    if not path.exists():
        return {}
    try:
        found = parse_json(path.read_text(encoding="utf-8"), str(path))
    except (InputError, UnicodeDecodeError):  # damaged: the item is made again
        return {}
    files = found.get("files")
    named = isinstance(files, list) and all(isinstance(file, str) for file in files)
    return found if found.get("schema") == SCHEMA and named else {}


def _is_done(out: Path, name: str, stamp: str) -> bool:
    marker = _marker(out, name)
    return marker.get("stamp") == stamp and all((out / file).exists() for file in marker["files"])


def _remove_stale(out: Path, *, keep: set[str]) -> None:
    """Forget what an earlier run made of items that changed or are gone: their rows would shift all others."""
    for path in sorted((out / MARKERS).glob("*.json")):
        if path.stem not in keep:
            for file in _marker(out, path.stem).get("files", []):
                (out / file).unlink(missing_ok=True)
            path.unlink()


def _refuse_names(items: Sequence[Item]) -> None:
    problems, seen = [], set()
    for item in items:
        if not item.name or item.name.startswith(".") or Path(item.name).name != item.name:
            problems.append(f"'{item.name}' can't be the name of an item: it has to serve as a file name. Rename it.")
        if item.name in seen:
            problems.append(f"Two items are called '{item.name}': give each a name of its own.")
        seen.add(item.name)
    if problems:
        raise InputError(problems)


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Write an array beside, flush it, and rename: the file is complete or not there. Never pickles."""
    with written_whole(path) as beside, beside.open("wb") as file:
        np.save(file, np.asarray(array), allow_pickle=False)
