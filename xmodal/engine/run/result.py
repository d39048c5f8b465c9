"""The result of a training: in memory, written to its folder, and loaded from it."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from xmodal import files
from xmodal.method import Method, Reports
from xmodal.models.student_file import load_weights_into, save_student, save_weights
from xmodal.types import DataInfo, Student

if TYPE_CHECKING:
    from xmodal.engine.loop import Loop

# Weights of the whole method: a later stage may continue with more of it than its students.
LAST = "last.safetensors"


@dataclass
class Run:
    """The result of a training; `folder` holds the same on disk.

    Attributes:
        method: the method with its weights after the last epoch.
        students: with their final weights (``settings.keep``: of the best epoch, or of the last), in eval mode.
        history: one row per epoch.
        best: student → epoch of its weights, score and validation metrics.
        seconds: training time of this process, without that before a resume.
    """

    method: Method
    students: dict[str, Student]
    history: Sequence[dict[str, Any]]
    best: dict[str, dict[str, Any]]
    seconds: float = 0.0
    folder: Path | None = None
    notes: list[str] = field(default_factory=list)


def save_best(loop: Loop) -> None:
    """Write the best weights so far, of a training that can't continue."""
    if loop.writes and loop.folder is not None and loop.history:
        write_students(loop.folder, _kept(loop)[0], loop.data.info)


def write_students(folder: Path, students: Mapping[str, Student], info: DataInfo) -> None:
    """Write the final weights of each student, alone and in a file that can be deployed."""
    for name, student in students.items():
        save_weights(folder / "best" / f"{name}.safetensors", student.module)
        save_student(folder / "students" / name / "student.safetensors", student, info)


def finish(loop: Loop) -> Run:
    """The result of a training that is over, written to its folder."""
    students, best = _kept(loop)
    seconds = time.monotonic() - loop.began
    run = Run(loop.method, students, loop.history, best, seconds, loop.folder, loop.notes)
    if loop.writes:
        write_run(run, loop.data.info, seed=loop.seed, stopped=loop.stopped)
    loop.fabric.barrier()
    loop.progress.end()
    return run


def write_run(run: Run, info: DataInfo, *, seed: int, stopped: str = "") -> None:
    """Write the files of a finished training, besides settings and history."""
    assert run.folder is not None
    write_students(run.folder, run.students, info)
    with files.written_whole(run.folder / LAST) as temporary:
        save_file({name: tensor.cpu().contiguous().clone() for name, tensor in _trained(run.method).items()}, temporary)
    result = {
        "seed": seed,
        "epochs": len(run.history),
        "stopped": stopped or "epochs",
        "seconds": run.seconds,
        "method": run.method.extra_state() | (run.method.report() if isinstance(run.method, Reports) else {}),
        "students": {
            name: {
                "needs": list(student.needs),
                "best_epoch": run.best[name]["epoch"],
                "valid": run.best[name]["valid"],
            }
            for name, student in run.students.items()
        },
    }
    # last: its presence says that everything else is there
    files.write_json(run.folder / "result.json", result)


def _trained(method: Method) -> dict[str, Tensor]:
    """The state of a method without its frozen parts, which are built and loaded with it."""
    frozen = {id(tensor) for module in method.frozen for tensor in module.state_dict(keep_vars=True).values()}
    state = method.state_dict(keep_vars=True)
    return {name: tensor.detach() for name, tensor in state.items() if id(tensor) not in frozen}


def _copy(student: Student) -> Student:
    copied = copy.copy(student)
    copied.module = copy.deepcopy(student.module).eval()
    return copied


def with_weights(student: Student, weights: Mapping[str, Tensor] | None) -> Student:
    """A copy of a student in eval mode, with these weights; None: with its present weights."""
    copied = _copy(student)
    if weights is not None:
        copied.module.load_state_dict({**copied.module.state_dict(), **weights})
    return copied


def _kept(loop: Loop) -> tuple[dict[str, Student], dict[str, dict[str, Any]]]:
    """The students with their final weights, and the epochs, scores and metrics of these."""
    students = loop.method.students()
    if loop.settings.keep == "last":
        best = loop.selection.last(len(loop.history) - 1, loop.history[-1]["valid"])
        return {name: with_weights(student, None) for name, student in students.items()}, best
    best = loop.selection.best
    return {name: with_weights(student, loop.selection.weights[name]) for name, student in students.items()}, best


def read_back(loop: Loop) -> Run:
    """Load a finished run from its folder."""
    assert loop.folder is not None
    result = files.read_json(loop.folder / "result.json")
    method = loop.method.to(loop.fabric.device).eval()
    method.load_state_dict({**method.state_dict(), **load_file(loop.folder / LAST)})
    method.load_extra_state(result["method"])
    students = {name: _copy(student) for name, student in method.students().items()}
    for name, student in students.items():
        load_weights_into(student.module, loop.folder / "best" / f"{name}.safetensors")
    best = {
        name: {
            "epoch": student["best_epoch"],
            "valid": student["valid"],
            "score": student["valid"][loop.selection.metric],
        }
        for name, student in result["students"].items()
    }
    loop.progress.end()
    history = files.read_rows(loop.folder / "history.jsonl")
    return Run(loop.method, students, history, best, 0.0, loop.folder)
