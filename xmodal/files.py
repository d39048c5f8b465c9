"""Files that appear whole or not at all, and JSON documents that say which schema they follow."""

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

UMASK = os.umask(0)
os.umask(UMASK)
SCHEMA = 1  # version of every file that we write; a reader refuses what it doesn't know


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it is flushed and renamed when the block ends well, removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.part-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~UMASK)  # mkstemp makes private files
        os.replace(beside, path)
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes killed inside `written_whole` have left behind."""
    for leftover in folder.rglob(".*.part-*"):
        if leftover.is_file():
            leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames within a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain(value: Any) -> Any:
    """JSON without NaN: what isn't finite becomes null, paths become text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """One JSON document with our schema version, whole or not at all."""
    write_text(path, json.dumps(plain({"schema": SCHEMA, **content}), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A document that `write_json` wrote; anything else is one sentence."""
    document = parse_json(read_text(path), str(path))
    if document.get("schema") != SCHEMA:
        raise InputError(
            f"{path} has schema {document.get('schema', 'none')}, and this version of xmodal reads schema {SCHEMA}. "
            "Use the version of xmodal that wrote the run (see environment.json), or run it again."
        )
    return document


def read_text(path: Path) -> str:
    """A text file of a run folder."""
    if not path.is_file():
        raise InputError(f"{path} is missing, so {path.parent} is not a complete run folder. Run it again or --resume.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}). Restore the file or run it again.") from error


def parse_json(text: str, where: str) -> dict[str, Any]:
    """A JSON object from text, or a sentence that names the place."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where} is damaged: not valid JSON ({error}). Restore the file or run it again.") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is damaged: an object was expected. Restore the file or run it again.")
    return value


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSON-lines file, whole or not at all."""
    write_text(path, "".join(json.dumps(plain(row)) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """One more row; a process killed here leaves at most half a line, which a resume cuts off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(plain(row)) + "\n")
