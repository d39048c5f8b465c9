"""Runs the fit that gets killed, each attempt in a process of its own.

Reads lines ``FOLDER RESUME KILL_AT`` on standard input. For each it forks (torch is imported once), prints the pid of
the child, waits, and prints how it ended. ``KILL_AT`` n > 0 makes the child kill itself in the n-th flush or rename of
a checkpoint, so that death inside the writing of one is hit for sure; 0 leaves the killing to whoever reads the pid.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import lightning_fabric  # noqa: F401 - imported before forking
import torch
from networks import image_student, pictures, vector_student

from xmodal import files
from xmodal.engine.fit import Run, fit
from xmodal.engine.run import checkpoint
from xmodal.engine.settings import FitSettings
from xmodal.method import Method
from xmodal.methods.kd import KD
from xmodal.methods.options import DistillationOptions

SETTINGS = FitSettings(
    epochs=6,
    batch_size=16,
    accumulate=3,
    schedule="cosine",
    warmup=1.0,
    workers=2,
    save_every=2,
    clip=5.0,
    optimizer="adamw",
    learning_rate=5e-3,
)


def attempt(folder: Path, *, resume: bool, kill_at: int) -> None:
    torch.set_num_threads(1)
    if kill_at:
        die_inside_checkpoints(kill_at)
    data = pictures(augment="noise:0.2,shift:1")
    method: Method = KD(image_student(), vector_student().module, data.info, DistillationOptions(temperature=2.0))
    run = fit(method, data, SETTINGS, seed=3, folder=folder, resume=resume)
    files.write_json(folder / "digest.json", {"digest": digest(run)})


def die_inside_checkpoints(kill_at: int) -> None:
    """Let the kernel kill us in the middle of the ``kill_at``-th system call that makes a checkpoint durable."""
    calls = 0

    class Deadly:
        def __getattr__(self, name: str) -> object:
            nonlocal calls
            if name in ("fsync", "replace"):
                calls += 1
                if calls == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return getattr(os, name)

    checkpoint.os = Deadly()  # type: ignore[assignment]


def digest(run: Run) -> str:
    """Every bit of the result: best and last weights, and the history without its clock."""
    digest = hashlib.sha256()
    for module in (run.method, *(student.module for student in run.students.values())):
        for name, tensor in module.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in run.history]
    digest.update(json.dumps(rows, sort_keys=True).encode())
    return digest.hexdigest()


def serve() -> None:
    for line in sys.stdin:
        folder, resume, kill_at = line.split()
        child = os.fork()
        if not child:
            status = 1
            try:
                attempt(Path(folder), resume=resume == "1", kill_at=int(kill_at))
                status = 0
            finally:
                os._exit(status)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


if __name__ == "__main__":
    serve()
