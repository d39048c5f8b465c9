"""A run on disk, and the rules by which a folder is opened.

settings.json      resolved settings, enough to replay
environment.json   versions, devices, threads
history.jsonl      one row per epoch
log.txt, events.*  the same for people and for TensorBoard, with ``tracking``
result.json        final metrics; its presence says that training is finished
checkpoints/       where to go on
best/              weights that each student keeps: of its best epoch, or the last
students/          what to deploy
predictions/       outputs on the test split
answers/           what a frozen teacher said, where that is too large for the memory; may be deleted
"""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.engine.processes import spawn
from xmodal.errors import InputError
from xmodal.files import SCHEMA, plain, read_json, sweep, write_json
from xmodal.version import __version__

FREE = ("workers", "save_every", "save_seconds", "tracking")  # settings on which no bit of the result depends

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def environment() -> dict[str, Any]:
    """What the numbers may depend on besides the settings."""
    import numpy
    import torch

    return {
        "xmodal": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def resume_command(out: Path | None) -> str:
    """The command that continues this one."""
    words = ["xmodal", *sys.argv[1:]]
    if out is not None and "--out" not in words and not any(word.startswith("--out=") for word in words):
        words += ["--out", str(out)]
    if "--resume" not in words:
        words.append("--resume")
    return shlex.join(words)


def what_is_saved(out: str | Path | None) -> str:
    """A sentence on what a run that ended all of a sudden left behind."""
    folder = Path(out) if out is not None else None
    if folder is None or not (folder / "settings.json").exists():
        return "Nothing had been saved yet: start it again."
    done = sorted(path.parent for path in folder.rglob("result.json"))
    finished = f"{len(done)} finished training{'s' * (len(done) != 1)}"
    going = [path for path in folder.rglob("checkpoints/step-*") if not (path.parents[1] / "result.json").exists()]
    if not going:
        return f"{folder} holds {finished} and no checkpoint."
    newest = max(going, key=lambda path: (path.stat().st_mtime, path.name))
    return f"{folder} holds {finished} and the checkpoint {newest.relative_to(folder)}."


def open_folder(out: Path, settings: Mapping[str, Any], *, resume: bool, free: Sequence[str] = ()) -> None:
    """Start a run in ``out``, or go on with the one that is there.

    A folder with anything in it is never written over; a resumed run must have the same settings. Those that are
    ``free`` may be others, of a run that does more or less in the same folder; the folder then tells the latest ones.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: expected a folder, or a name that is free. Give another --out.")
    spawn.tell(out)
    found = out / "settings.json"
    used = out.exists() and any(not path.name.startswith(".") for path in out.iterdir())
    if used and not resume:
        raise InputError(
            f"The folder {out} is not empty, and a run never writes over another. "
            "Add --resume to go on with the run in it, or name another folder with --out."
        )
    if used:
        same_settings(read_json(found), settings, found, free=free)
        sweep(out)
        if free:
            write_json(found, settings)
    else:
        write_json(found, settings)
    if not (out / "environment.json").exists():
        write_json(out / "environment.json", environment())


def restore_threads(out: Path) -> None:
    """The thread count that a run was started with, before anything is computed: its bits depend on it."""
    import torch

    if (out / "environment.json").exists():
        torch.set_num_threads(read_json(out / "environment.json")["threads"])


def same_settings(saved: Mapping[str, Any], wanted: Mapping[str, Any], path: Path, *, free: Sequence[str] = ()) -> None:
    """Refuse to go on with other settings than those the run was started with, but for some that are free."""
    before, now = _flat(saved), _flat(plain({"schema": SCHEMA, **wanted}))
    keys = [key for key in {**before, **now} if key.rpartition(".")[2] not in (*FREE, *free)]
    changed = [key for key in keys if before.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(f"{key} was {before.get(key)!r} and is now {now.get(key)!r}" for key in changed)
        raise InputError(
            f"The run in {path.parent} was started with other settings: {listed}. Give the same, or --out."
        )


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def choose_folder(out: Path | None, name: str, fabric: Fabric, *, resume: bool = False) -> Path:
    """The folder asked for, or the first free ``runs/name-001``; the same on all processes."""
    if out is None and resume:
        raise InputError("--resume goes on with the run in --out, and no --out was given. Add that run's folder.")
    if out is not None:
        return out
    number = 1
    while (Path("runs") / f"{name}-{number:03d}").exists():
        number += 1
    from xmodal.collectives import gather_json  # brings torch, which a help text must not wait for

    return Path(gather_json(str(Path("runs") / f"{name}-{number:03d}"), fabric.device)[0])
