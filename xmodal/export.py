"""Writing students to files: safetensors for xmodal, ONNX for other runtimes, torch.export for other PyTorch users.

Student ──Deployed (statistics inside)──▶ file in a temporary folder ──compared on real samples──▶ final name

A written file is read back and compared with the student on real samples; only if the outputs agree is it renamed.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import Dim, ExportedProgram

from xmodal.deploy import (
    Deployed,
    Run,
    check_inputs,
    deployed,
    on_cpu,
    open_onnx,
    open_safetensors,
    read_batch,
    run_torch,
)
from xmodal.errors import InputError, MissingExtra, did_you_mean
from xmodal.files import written_whole
from xmodal.models.description import HEADER, describe, readable
from xmodal.models.network import zeros
from xmodal.models.student_file import STUDENT, load_student, save_student
from xmodal.types import DataInfo, Student

__all__ = ["Deployed", "ExportMismatch", "describe", "export_student", "load_student", "save_student"]

# Several sizes, one sample among them: a graph that was traced with a fixed batch size works for that size only.
BATCH_SIZES = (1, 4, 7)
# relative to the largest output, or to 1 if that is larger; other kernels, which add in another order, differ by 1e-6
TOLERANCE = 1e-4


class ExportMismatch(RuntimeError):
    """The outputs of an exported file differ from those of the student; the file was removed."""


def export_student(
    student: Student, info: DataInfo, out: Path | str, *, format: str, samples: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a student into a folder, and compare the written file with the student on real samples.

    Args:
        student: what to export; it is not changed.
        info: of the data it was trained on.
        out: folder for ``student.safetensors``, ``student.pt2`` or ``student.onnx``, and ``student.json``.
        format: ``safetensors``, ``torch`` or ``onnx``.
        samples: name → raw rows of the data.

    Returns:
        ``format``, ``files`` (paths, the student first), ``difference`` (the largest), and the ``rows`` and
        ``batch_sizes`` that were compared.

    Raises:
        ExportMismatch: the outputs of the file differ from those of the student; the file was removed.
    """
    if format not in FORMATS:
        raise InputError(f"There is no export format called '{format}'. {did_you_mean(format, FORMATS)}")
    student, info = on_cpu(student), info.typed("float32")
    description = describe(student, info)
    arrays = check_inputs(samples, description)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        file, run = FORMATS[format](student, info, Path(temporary))
        (Path(temporary) / "student.json").write_text(readable(description), encoding="utf-8")
        original = run_torch(deployed(student))
        difference, sizes = _compare(original, run, arrays, description)
        files = [folder / file.name, folder / "student.json"]
        for final in files:
            with written_whole(final) as partial:
                shutil.copyfile(Path(temporary) / final.name, partial)
    rows = len(arrays[student.needs[0]])
    return {
        "format": format,
        "files": [str(path) for path in files],
        "difference": difference,
        "rows": rows,
        "batch_sizes": sizes,
    }


def _compare(
    original: Run, exported: Run, arrays: Mapping[str, Any], description: Mapping[str, Any]
) -> tuple[float, list[int]]:
    """Largest difference over batches of several sizes, the last with all rows; and the sizes."""
    rows = len(next(iter(arrays.values())))
    sizes = sorted({min(size, rows) for size in (*BATCH_SIZES, rows)})
    largest = 0.0
    for size in sizes:
        batch = read_batch(arrays, description, 0, size)
        expected, outputs = original(batch), exported(batch)
        if expected.shape != outputs.shape:
            raise ExportMismatch(
                f"For {size} sample(s) the student's outputs have shape {expected.shape} and those of the exported "
                f"file {outputs.shape}, so the file was removed. The network must not depend on the size of a batch."
            )
        difference = _difference(expected, outputs)
        allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
        # not `>`, which is False for NaN
        if not difference <= allowed:
            raise ExportMismatch(
                f"On {size} sample(s) the exported file differs from the student by {difference:.3g} (allowed: "
                f"{allowed:.3g}), so it was removed. A network that draws random numbers or depends on other samples "
                "of its batch when it predicts cannot be exported."
            )
        largest = max(largest, difference)
    return largest, sizes


def _difference(expected: NDArray[Any], outputs: NDArray[Any]) -> float:
    return float(np.abs(expected.astype(np.float64) - outputs).max())


def _safetensors(student: Student, info: DataInfo, folder: Path) -> tuple[Path, Run]:
    if student.builder is None:
        raise InputError(
            "This student is a module that xmodal did not build, so weights alone cannot rebuild it. Export it to onnx."
        )
    file = save_student(folder / STUDENT, student, info)
    return file, open_safetensors(file)[0]


def _torch(student: Student, info: DataInfo, folder: Path) -> tuple[Path, Run]:
    file = folder / "student.pt2"
    description = json.dumps(describe(student, info), allow_nan=False)
    torch.export.save(_trace(student, info), file, extra_files={f"{HEADER}.json": description})
    # loading a .pt2 can run code: this is the file that was just written, and no other is ever loaded
    loaded = torch.export.load(file).module()
    return file, run_torch(_Program(loaded))


class _Program(nn.Module):
    """An exported program as a module; it is always in eval mode, and its ``eval()`` and ``train()`` raise."""

    def __init__(self, program: Callable[..., Any]) -> None:
        super().__init__()
        # in a tuple, so that it is not a submodule, which `eval()` of this module would reach
        self._call = (program,)

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        return self._call[0](inputs)


def _onnx(student: Student, info: DataInfo, folder: Path) -> tuple[Path, Run]:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra("Exporting to ONNX", package, "export")
    file = folder / "student.onnx"
    traced = _trace(student, info)
    with _quiet():
        program = torch.onnx.export(
            traced,
            dynamo=True,
            verbose=False,
            input_names=list(student.needs),
            output_names=["outputs"],
            dynamic_shapes=(_axes(student, info, names=True),),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.model.metadata_props[HEADER] = json.dumps(describe(student, info), allow_nan=False)
    # weights inside the file, whatever their size: `export_student` moves this one file
    program.save(file, external_data=False)
    return file, open_onnx(file)[0]


FORMATS: dict[str, Callable[[Student, DataInfo, Path], tuple[Path, Run]]] = {
    "safetensors": _safetensors,
    "torch": _torch,
    "onnx": _onnx,
}


def _trace(student: Student, info: DataInfo) -> ExportedProgram:
    """The graph of a student with its statistics, for any number of rows."""
    module = deployed(student).eval()
    # A program stores its example inputs, so they are zeros and not samples; torch.export takes an axis of length 1
    # for a constant, so there are two rows.
    examples = zeros({name: info.inputs[name] for name in student.needs}, 2)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(module, (examples,), dynamic_shapes=(_axes(student, info),))
    # the exceptions of torch.export have no common base class
    except Exception as error:
        raise InputError(
            f"torch.export cannot trace this student, so it has no torch or onnx form: {error} Write its forward "
            "without branches on values and without a fixed batch size, or use --format safetensors."
        ) from error


def _axes(student: Student, info: DataInfo, *, names: bool = False) -> dict[str, dict[int, Any]]:
    """Dynamic axes of each input: the rows, and those of its `InputInfo`; ONNX files keep the names."""
    rows = "batch" if names else Dim("batch")
    return {
        name: {
            0: rows,
            **{1 + axis: f"{name}_axis{axis}" if names else Dim.DYNAMIC for axis in info.inputs[name].dynamic},
        }
        for name in student.needs
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide messages of the exporters about which a user can do nothing; all others are shown."""
    # it reports at each export that torchvision's operators are missing; none are used
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)
            # all inputs share the axis of the rows, and its name is used once
            warnings.filterwarnings("ignore", message=r"# The axis name: .* will not be used", category=UserWarning)
            warnings.filterwarnings("ignore", message=r".*_flat_weights.* were assigned", category=UserWarning)  # GRU
            yield
    finally:
        logger.setLevel(level)
