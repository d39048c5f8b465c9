"""Run folders: their files, and how a folder is opened for a new or resumed run.

settings.json      resolved settings, enough to repeat the run
environment.json   versions, commit of the source, devices, threads
history.jsonl      one row per epoch
log.txt, events.*  the same as plain text and for TensorBoard, with ``tracking``
result.json        final metrics; it exists only if training is finished
checkpoints/       states from which training can continue
best/              final weights of each student: of its best epoch, or the last
students/          students to deploy
predictions/       outputs on the test split
answers/           outputs of a frozen teacher that are too large for memory; may be deleted
"""

from __future__ import annotations

import functools
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.engine.processes import spawn
from xmodal.errors import InputError
from xmodal.files import SCHEMA, plain, read_json, sweep, write_json
from xmodal.version import __version__

# Settings that may differ when a run is resumed: no bit of the result depends on them.
FREE = ("workers", "save_every", "save_seconds", "tracking")

if TYPE_CHECKING:
    from xmodal.devices import Devices


def environment() -> dict[str, Any]:
    """Versions, commit, devices and threads: what results depend on besides the settings."""
    import numpy
    import torch

    return {
        "xmodal": __version__,
        "commit": commit(),
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


@functools.cache
def commit() -> str | None:
    """The commit of the package's source, with ``-dirty`` after changes; None where it is installed without git."""
    source = Path(__file__).resolve().parents[3]
    # an installed copy may lie inside of a repository of the user, whose commit says nothing about this package
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    # git is not installed, is too slow, or refuses this folder
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def resume_command(out: Path | None) -> str:
    """The command line that continues this run."""
    words = ["xmodal", *sys.argv[1:]]
    if out is not None and "--out" not in words and not any(word.startswith("--out=") for word in words):
        words += ["--out", str(out)]
    if "--resume" not in words:
        words.append("--resume")
    return shlex.join(words)


def what_is_saved(out: str | Path | None) -> str:
    """A sentence on what is saved of a run that was killed."""
    folder = Path(out) if out is not None else None
    if folder is None or not (folder / "settings.json").exists():
        return "Nothing had been saved yet: start it again."
    done = sorted(path.parent for path in folder.rglob("result.json"))
    finished = f"{len(done)} finished training{'s' * (len(done) != 1)}"
    unfinished = [path for path in folder.rglob("checkpoints/step-*") if not (path.parents[1] / "result.json").exists()]
    if not unfinished:
        return f"{folder} holds {finished} and no checkpoint."
    # by time, since step numbers of different trainings do not compare; names break ties of coarse clocks
    newest = max(unfinished, key=lambda path: (path.stat().st_mtime, path.name))
    return f"{folder} holds {finished} and the checkpoint {newest.relative_to(folder)}."


def open_folder(out: Path, settings: Mapping[str, Any], *, resume: bool, free: Sequence[str] = ()) -> None:
    """Start a run in ``out``, or continue the run in it.

    A folder that is not empty is never overwritten. A resumed run must have the same settings, except those named in
    ``free``, which decide how much of an experiment is run; the folder then records the latest ones.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: expected a folder, or a path that does not exist. Give another --out.")
    spawn.tell(out)
    settings_file = out / "settings.json"
    # hidden files do not count: a run that was killed at its start leaves only temporary files
    used = out.exists() and any(not path.name.startswith(".") for path in out.iterdir())
    if used and not resume:
        raise InputError(
            f"The folder {out} is not empty, and a run never writes over another. "
            "Add --resume to continue the run in it, or give another folder with --out."
        )
    if used:
        same_settings(read_json(settings_file), settings, settings_file, free=free)
        sweep(out)
        if free:
            write_json(settings_file, settings)
    else:
        write_json(settings_file, settings)
    if not (out / "environment.json").exists():
        write_json(out / "environment.json", environment())


def restore_threads(out: Path) -> None:
    """Set the number of threads that a run was started with, on which its bits depend, before anything is computed."""
    import torch

    if (out / "environment.json").exists():
        torch.set_num_threads(read_json(out / "environment.json")["threads"])


def same_settings(saved: Mapping[str, Any], settings: Mapping[str, Any], path: Path, *, free: Sequence[str]) -> None:
    """Refuse to continue a run with other settings than it was started with; those named in ``free`` may differ."""
    # through `plain`, as the saved ones were: tuples became lists, and paths text
    before, now = _flat(saved), _flat(plain({"schema": SCHEMA, **settings}))
    # a nested setting is free by its last part: `fit.workers` as `workers`
    keys = [key for key in {**before, **now} if key.rpartition(".")[2] not in (*FREE, *free)]
    changed = [key for key in keys if before.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(f"{key} was {before.get(key)!r} and is now {now.get(key)!r}" for key in changed)
        raise InputError(
            f"The run in {path.parent} was started with other settings: {listed}. Give the same settings, or another "
            "--out."
        )


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def choose_folder(out: Path | None, name: str, fabric: Devices, *, resume: bool = False) -> Path:
    """``out``, or the first of ``runs/name-001``, ``-002`` … that does not exist; the same in all processes."""
    if out is None and resume:
        raise InputError("--resume continues the run in --out, and no --out was given. Add the folder of the run.")
    if out is not None:
        return out
    number = 1
    while (Path("runs") / f"{name}-{number:03d}").exists():
        number += 1
    # imported here: it imports torch, and this module is imported for help texts
    from xmodal.collectives import gather_json

    # Rank 0 decides: it creates the folder, which a slower process would then take for used.
    return Path(gather_json(str(Path("runs") / f"{name}-{number:03d}"), fabric.device)[0])
