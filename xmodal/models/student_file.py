"""Students on disk: one safetensors file with the weights and, in its header, the description.

A file is checked before a network is allocated for it, and nothing in it is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xmodal.errors import InputError
from xmodal.files import written_whole
from xmodal.models.description import HEADER, describe, read_description, readable
from xmodal.models.network import rebuild, wrap
from xmodal.models.resnet import load_checked, mismatches
from xmodal.types import DataInfo, Normalisation, Student

STUDENT = "student.safetensors"


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all tensors of a module, on the CPU."""
    # Cloned, because safetensors refuses tensors that share memory.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}


def save_weights(path: Path, module: nn.Module) -> None:
    """Write all tensors of a module; an interrupted write leaves no partial file."""
    with written_whole(path) as temporary:
        save_file(tensors_of(module), temporary)


def load_weights_into(module: nn.Module, path: Path) -> None:
    """Load the tensors that `save_weights` wrote."""
    try:
        load_checked(module, load_file(path), str(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is missing or damaged ({error}). Run again in a new folder.") from error


def save_student(path: Path | str, student: Student, info: DataInfo) -> Path:
    """Write a student's weights and description as one safetensors file and, for people, a copy of the description.

    Weights in float64 are saved in float32: every student is deployed in float32.

    Args:
        path: of the file, usually ``student.safetensors``; ``student.json`` is written to the same folder.
        student: its weights are saved. A student around a user's own module needs that module again for loading.
        info: description of the data it was trained on.

    Returns:
        The path of the safetensors file, which contains the description too.
    """
    file = Path(path)
    description = describe(student, info)
    with written_whole(file) as temporary:
        tensors = tensors_of(student.module)
        if info.doubled:
            tensors = {name: part.float() if part.dtype == torch.float64 else part for name, part in tensors.items()}
        save_file(tensors, temporary, metadata={HEADER: json.dumps(description, allow_nan=False)})
    # A copy for people. Only the header is ever read back, so an edit of this file changes nothing.
    with written_whole(file.with_suffix(".json")) as temporary:
        temporary.write_text(readable(description), encoding="utf-8")
    return file


def load_student(path: Path | str, *, module: nn.Module | None = None) -> tuple[Student, dict[str, Any]]:
    """Rebuild a student from its file.

    Args:
        path: ``student.safetensors`` or its folder.
        module: the user's own module, for a student without a builder; its weights are replaced.

    Returns:
        The student in eval mode, and its description.
    """
    file = Path(path) / STUDENT if Path(path).is_dir() else Path(path)
    tensors, description = _read_safetensors(file)
    if module is not None:
        student = _of_module(module, description, tensors)
    else:
        student = _rebuilt(description, tensors, file)
    load_checked(student.module, tensors, str(file))
    student.module.eval()
    statistics = description["normalisation"].items()
    student.normalisation = {name: Normalisation(**parts) for name, parts in statistics}
    return student, description


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not file.is_file():
        raise InputError(f"There is no file {file}. Give the path of a {STUDENT} or of its folder.")
    try:
        with safe_open(file, framework="pt") as stored:
            header = (stored.metadata() or {}).get(HEADER)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file} is damaged or not a safetensors file ({error}). Copy or export it again.") from error
    if header is None:
        raise InputError(f"{file} contains weights but no description of a student. Write it with `xmodal export`.")
    return tensors, read_description(header, str(file))


def _rebuilt(description: Mapping[str, Any], tensors: Mapping[str, Tensor], file: Path) -> Student:
    """A new network, allocated only after its tensors were compared with those of the file."""
    if description["builder"] is None:
        raise InputError(
            f"{file} has the weights of a module that xmodal did not build, so it cannot be rebuilt from the file. "
            "Export it to ONNX in Python, with the module: load_student(path, module=…), then "
            "export_student(…, format='onnx')."
        )
    try:
        # On the meta device a network has shapes but no memory, however large the sizes in the file are.
        with torch.device("meta"):
            expected = rebuild(description).module.state_dict()
        problems = mismatches(expected, tensors)
        if not problems:
            # The initial weights are replaced right away, so their random draws must not shift those of the caller.
            with torch.random.fork_rng(devices=[]):
                return rebuild(description)
    except InputError as error:
        raise InputError([f"{file} cannot be rebuilt: {problem}" for problem in error.problems]) from error
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{file} cannot be rebuilt, no network fits its description: {error}") from error
    raise InputError([f"The weights in {file} do not fit its description: {problem}" for problem in problems])


def _of_module(module: nn.Module, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Student:
    needs = tuple(description["needs"])
    # The names in the file belong to the wrapped module, or to this one if it takes a dictionary already.
    fits = set(module.state_dict()) == set(tensors)
    return Student(module if fits else wrap(module, needs), needs, description["target"])
