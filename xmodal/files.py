"""Files that are written completely or not at all, and JSON documents with a schema version."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodal.errors import InputError

# The mask can only be read by setting it, which is not safe once other threads run: done once, at import.
UMASK = os.umask(0)
os.umask(UMASK)
SCHEMA = 1  # version of every file that xmodal writes; readers refuse other versions


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path next to ``path``; renamed to ``path`` when the block succeeds, removed when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.part-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # Content before name: after a power cut a renamed file whose content was not flushed can be empty.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read
        os.chmod(temporary, 0o666 & ~UMASK)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove temporary files of processes that were killed inside `written_whole`."""
    for leftover in folder.rglob(".*.part-*"):
        if leftover.is_file():
            leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that renames in it survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain(value: Any) -> Any:
    """A value that JSON can hold: NaN and infinity become None, paths become text, keys become strings."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON document with the schema version, completely or not at all."""
    write_text(path, json.dumps(plain({"schema": SCHEMA, **content}), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a document that `write_json` wrote."""
    document = parse_json(read_text(path), str(path))
    if document.get("schema") != SCHEMA:
        raise InputError(
            f"{path} has schema {document.get('schema', 'none')}, and this version of xmodal reads schema {SCHEMA}. "
            "Use the version of xmodal that wrote the run (see environment.json), or run it again."
        )
    return document


def read_text(path: Path) -> str:
    """Read a text file of a run folder."""
    if not path.is_file():
        raise InputError(f"{path} is missing, so {path.parent} is not a complete run folder. Run it again or --resume.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}). Restore the file or run it again.") from error


def parse_json(text: str, where: str) -> dict[str, Any]:
    """A JSON object from text; ``where`` names its source in the error message."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where} is damaged: not valid JSON ({error}). Restore the file or run it again.") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is damaged: an object was expected. Restore the file or run it again.")
    return value


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    with written_whole(path) as temporary:
        # newline="\n": the same bytes on every system
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSON-lines file, completely or not at all."""
    write_text(path, "".join(json.dumps(plain(row)) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a JSON-lines file.

    A process that is killed here may leave half a line; `Loop.resume` rewrites the file from the checkpoint.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(plain(row)) + "\n")
