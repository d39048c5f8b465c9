"""Teachers that are code: a function in a file, a module, or any callable that takes raw inputs.

A function receives modality → NumPy array (rows, …) as it is in the data, a module the same as tensors. Neither is
normalised: a pretrained network has a preprocessing of its own. The result is an array or tensor (rows, outputs), or an
object or dictionary with ``logits``.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xmodal.errors import InputError, did_you_mean
from xmodal.models.network import evaluating
from xmodal.seeding import kept

Raw = Mapping[str, NDArray[Any]]
Function = Callable[[Raw], NDArray[Any]]
_files: dict[tuple[str, int], ModuleType] = {}  # path and time of its last change → the module


def function_in(text: str) -> Any:
    """The object that ``file.py:name`` names. The file is run: it is the user's own code."""
    file, _, name = text.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"There is no file {path}. Name a function of a file as path/file.py:function.")
    # once in a process: a model that the file loads is loaded once, and its outputs are found again for every seed
    key = (str(path.resolve()), path.stat().st_mtime_ns)
    if key not in _files:
        _files[key] = _run(path)
    module = _files[key]
    if not hasattr(module, name):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{path} has nothing called '{name}'. {did_you_mean(name, public)}")
    return getattr(module, name)


def _run(path: Path) -> ModuleType:
    """A file as a module."""
    specification = importlib.util.spec_from_file_location(f"teacher_{path.stem}", path)
    assert specification is not None and specification.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(specification)
    # known under its name while it runs, as dataclasses and pickling within the file need it
    sys.modules[specification.name] = module
    try:
        specification.loader.exec_module(module)
    # whatever the user's file raises is a problem of that file
    except (Exception, SystemExit) as error:
        raise InputError(f"{path} can't be run: {type(error).__name__}: {error}.") from error
    return module


def as_function(teacher: Any, where: str) -> Function:
    """A callable of NumPy arrays from a module or a function of the user; its errors become sentences."""
    if not callable(teacher) or isinstance(teacher, type):
        raise InputError(
            f"{where} is {type(teacher).__name__}: a function or module that takes a dictionary of raw inputs was "
            "expected."
        )

    def run(inputs: Raw) -> NDArray[Any]:
        try:
            # a teacher that draws numbers must not shift those of the trainings
            with kept():
                return _array(_call(teacher, inputs), where)
        except InputError:
            raise
        # a user's teacher may raise anything, or end the program; whatever it is, it concerns these inputs
        except (Exception, SystemExit) as error:
            shapes = ", ".join(f"'{name}' {array.shape} {array.dtype}" for name, array in inputs.items())
            raise InputError(f"{where} cannot read {shapes}: {type(error).__name__}: {error}.") from error

    return run


def _call(teacher: Any, inputs: Raw) -> Any:
    if not isinstance(teacher, nn.Module):
        return teacher(dict(inputs))
    device = next((parameter.device for parameter in teacher.parameters()), torch.device("cpu"))
    with evaluating(teacher):
        return teacher({name: torch.from_numpy(np.ascontiguousarray(part)).to(device) for name, part in inputs.items()})


def _array(returned: Any, where: str) -> NDArray[Any]:
    if isinstance(returned, Mapping) and "logits" in returned:
        returned = returned["logits"]
    elif hasattr(returned, "logits"):
        returned = returned.logits
    if isinstance(returned, Tensor):
        returned = returned.detach().cpu()
        returned = (returned.float() if returned.dtype == torch.bfloat16 else returned).numpy()
    try:
        array: NDArray[Any] = np.asarray(returned)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biufU":
        raise InputError(f"{where} returns {type(returned).__name__}: an array or tensor (rows, outputs) was expected.")
    return array
