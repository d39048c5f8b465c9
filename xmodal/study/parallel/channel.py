"""What the processes of a run tell each other, through files in a folder that all of them can see.

parent.json     machine and process number of the parent, which is alive as long as it touches this file
stop            number of the signal after which everybody saves and ends
<task>.jsonl    what the process of a task tells: it begins, an epoch is over, a sentence for the user, …

Files work on one machine and on a cluster with a shared file system alike, need no port, and survive whoever is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmodal.engine.processes.spawn import runs
from xmodal.files import read_json, write_json, write_text

PREFIX = ".jobs-"  # hidden: a folder with nothing else counts as empty
SILENCE = 60.0  # seconds without a sign of the parent after which it counts as dead, on another machine
PATIENCE = 60.0  # seconds that a resumed run waits for processes of the run before


class Channel:
    """The folder, as the parent sees it.

    Args:
        folder: does not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, int] = {}  # file → bytes of it that were read
        folder.mkdir(parents=True)
        write_json(folder / "parent.json", {"host": socket.gethostname(), "pid": os.getpid()})

    def beat(self) -> None:
        """Show that the parent is alive."""
        (self.folder / "parent.json").touch()

    def stop(self, number: int) -> None:
        """Ask all processes to save and end."""
        write_text(self.folder / "stop", str(number))

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Task and event, of everything that was told since the last call; a line that is being written is left."""
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, _, _ = file.read().rpartition(b"\n")
            if whole:
                self._read[path] = self._read.get(path, 0) + len(whole) + 1
                for line in whole.split(b"\n"):
                    if event := _parsed(line):
                        yield path.stem, event

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)


class Voice:
    """The folder, as the process of a task sees it: it tells, and hears when to stop.

    Args:
        folder: of the `Channel`.
        task: name of the task.

    Attributes:
        parent: process number of the parent, on its machine.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self.folder, self.file = folder, folder / f"{task}.jsonl"
        described = read_json(folder / "parent.json")
        self.parent = int(described["pid"])
        self._here = described["host"] == socket.gethostname()
        self._beat, self._heard = 0.0, time.monotonic()

    def tell(self, kind: str, **values: Any) -> None:
        """Tell an event."""
        line = json.dumps({"kind": kind, **values})
        # one call for a whole line; it begins on a line of its own even after half a line of a killed process
        with self.file.open("ab") as file:
            file.write(f"\n{line}\n".encode())

    def begin(self) -> int:
        """Tell that a process works on this task; returns how many have begun before, and not ended."""
        told = self.file.read_bytes().count(b'{"kind": "begin"') if self.file.exists() else 0
        self.tell("begin", host=socket.gethostname(), pid=os.getpid())
        return told

    def stopped(self) -> int:
        """Number of the signal after which to stop; 0: continue."""
        try:
            return int((self.folder / "stop").read_text())
        except FileNotFoundError:
            pass
        # SIGTERM where the parent is gone: nobody is left who would collect a result
        return 0 if self._parent_lives() else 15

    def _parent_lives(self) -> bool:
        if self._here:
            return runs(self.parent) and self.folder.is_dir()
        try:
            beat = (self.folder / "parent.json").stat().st_mtime
        except FileNotFoundError:
            return False
        # by the clock of this machine: those of two machines differ
        if beat != self._beat:
            self._beat, self._heard = beat, time.monotonic()
        return time.monotonic() - self._heard < SILENCE


def await_earlier(out: Path) -> None:
    """Wait for processes of an earlier run in this folder whose parent was killed, and remove what they left.

    They notice that they are alone, save and end; two processes must not write one training.
    """
    for folder in out.glob(f"{PREFIX}*"):
        until = time.monotonic() + PATIENCE
        while _at_work(folder) and time.monotonic() < until:
            time.sleep(0.1)
        shutil.rmtree(folder)


def _at_work(folder: Path) -> bool:
    here = socket.gethostname()
    pids: set[int] = set()
    for path in folder.glob("*.jsonl"):
        events = map(_parsed, path.read_bytes().splitlines())
        pids |= {event["pid"] for event in events if event.get("kind") == "begin" and event["host"] == here}
    return any(map(runs, pids))


def _parsed(line: bytes) -> dict[str, Any]:
    """The event of a line; empty for half a line, which a process that was killed may leave."""
    try:
        event: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return event
