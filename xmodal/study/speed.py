"""How large a student is, and how long it takes for one sample on this machine: batches of one, one CPU thread."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xmodal.types import DataInfo, Student

WARM_UP = 5  # calls before the clock runs: the first ones allocate memory
CALLS, FEWEST, SECONDS = 200, 10, 1.0  # at most so many calls within so many seconds, and at least a few


def measure(student: Student, info: DataInfo) -> dict[str, Any]:
    """Size and speed of a student as it is deployed, with its normalisation; it is not changed.

    Args:
        student: on any device; a copy in float32 is measured on the CPU.
        info: of its data.

    Returns:
        ``bytes`` (of its tensors), ``parameters``, and ``ms_median`` and ``ms_p95`` for one sample.
    """
    import torch

    from xmodal.deploy import deployed
    from xmodal.models.capacity import count_parameters
    from xmodal.models.network import evaluating, zeros
    from xmodal.types import Student

    network = copy.deepcopy(student.module).cpu().float()
    inputs = info.typed("float32").inputs
    whole = deployed(Student(network, student.needs, student.target, normalisation=student.normalisation))
    sample = zeros({name: inputs[name] for name in student.needs}, 1)
    threads = torch.get_num_threads()
    times: list[float] = []
    torch.set_num_threads(1)
    try:
        with evaluating(whole):
            for _ in range(WARM_UP):
                whole(sample)
            end = time.perf_counter() + SECONDS
            while len(times) < FEWEST or (len(times) < CALLS and time.perf_counter() < end):
                start = time.perf_counter()
                whole(sample)
                times.append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    times.sort()
    return {
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in whole.state_dict().values()),
        "parameters": count_parameters(network),
        "ms_median": times[len(times) // 2],
        "ms_p95": times[min(len(times) - 1, round(0.95 * len(times)))],
    }


def measure_file(path: Path) -> dict[str, Any]:
    """`measure` of a student on disk; its ``bytes`` are those of the file."""
    from xmodal.models.description import info_of
    from xmodal.models.student_file import load_student

    student, description = load_student(path)
    return {**measure(student, info_of(description)), "bytes": path.stat().st_size}
