"""The description of a student in its file: JSON that suffices to rebuild, feed and interpret it, without code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xmodal.errors import InputError
from xmodal.files import SCHEMA
from xmodal.types import DataInfo, InputInfo, Normalisation, Student
from xmodal.version import __version__

HEADER = "xmodal"  # key of the JSON in the metadata of a file
Length = Annotated[int, Field(ge=1)]


def describe(student: Student, info: DataInfo) -> dict[str, Any]:
    """The description of a student as JSON values."""
    return {
        "schema": SCHEMA,
        "needs": list(student.needs),
        "target": student.target,
        "builder": student.builder,
        "arguments": student.arguments,
        "task": info.task,
        "classes": info.classes,
        "class_names": list(info.class_names),
        "label_values": list(info.label_values),
        "dense": info.dense,
        "inputs": {name: _input(info, name) for name in student.needs},
        "normalisation": {
            name: {"mean": statistics.mean, "std": statistics.std, "empty": statistics.empty}
            for name, statistics in student.normalisation.items()
            if name in student.needs
        },
        "versions": {"xmodal": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }


def info_of(description: Mapping[str, Any]) -> DataInfo:
    """The facts about the training data that a description contains."""
    inputs = {
        name: InputInfo(tuple(facts["shape"]), facts["dtype"], facts["layout"], tuple(facts["dynamic"]))
        for name, facts in description["inputs"].items()
    }
    return DataInfo(
        inputs=inputs,
        task=description["task"],
        classes=description["classes"],
        rows={},
        class_names=tuple(description["class_names"]),
        label_values=tuple(description["label_values"]),
        dense=description["dense"],
        normalisation={name: Normalisation(**part) for name, part in description["normalisation"].items()},
    )


def _input(info: DataInfo, name: str) -> dict[str, Any]:
    # float32 also after training in float64, since the weights are saved in float32.
    sample = info.typed("float32").inputs[name]
    return {
        "shape": list(sample.shape),
        "dtype": sample.dtype,
        "layout": sample.layout,
        "dynamic": list(sample.dynamic),
    }


class _Part(BaseModel):
    # Strict: without it pydantic would turn the text "3" into the number 3 and accept a damaged file.
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Input(_Part):
    shape: tuple[Length, ...]
    dtype: Literal["float32", "float64", "float16", "int64", "int32", "uint8", "bool"]
    layout: str
    dynamic: tuple[int, ...] = ()


class _Statistics(_Part):
    mean: Any
    std: Any
    empty: bool = False


class _Description(_Part):
    schema_: int = Field(alias="schema")
    needs: Annotated[tuple[str, ...], Field(min_length=1)]
    target: str
    builder: str | None
    arguments: dict[str, Any] | None
    task: Literal["multiclass", "binary", "multilabel", "regression"]
    classes: Length
    class_names: tuple[str, ...] = ()
    # students of earlier versions do not have it: their classes are numbers
    label_values: tuple[str, ...] | tuple[bool, ...] | tuple[int, ...] | tuple[float, ...] = ()
    dense: bool = False
    inputs: dict[str, _Input]
    normalisation: dict[str, _Statistics] = {}
    versions: dict[str, str] = {}


def read_description(text: str, where: str) -> dict[str, Any]:
    """The description in a student's file, after a check of all its entries.

    Args:
        text: the JSON.
        where: the file, for error messages.
    """
    # RecursionError: thousands of nested brackets are valid JSON, and exhaust the stack of the parser.
    try:
        stored = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"The description inside {where} is not JSON ({error}). Export the student again.") from error
    version = stored.get("schema") if isinstance(stored, dict) else None
    if version != SCHEMA:
        raise InputError(
            f"{where} is of version {version!r}, and this xmodal reads version {SCHEMA}. Install the xmodal that wrote "
            "it, or export the student again."
        )
    try:
        description = _Description.model_validate_json(text).model_dump(mode="json", by_alias=True)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise InputError([f"The description inside {where} is wrong at {problem}." for problem in problems]) from error
    problems = [*_inconsistent(description)]
    if problems:
        raise InputError([f"The description inside {where} is wrong: {problem}." for problem in problems])
    return description


def _inconsistent(description: Mapping[str, Any]) -> list[str]:
    inputs = description["inputs"]
    problems = [f"it needs '{name}' but has no shape for it" for name in description["needs"] if name not in inputs]
    names, classes = description["class_names"], description["classes"]
    if names and len(names) != classes:
        problems.append(f"it has {classes} classes and {len(names)} names for them")
    labels = description["label_values"]
    if labels and len(set(labels)) != classes:
        problems.append(f"it has {classes} classes and {len(set(labels))} different labels for them")
    for name, statistics in description["normalisation"].items():
        if name in inputs and not _fits(statistics, inputs[name]["shape"]):
            problems.append(f"mean and std of '{name}' must be finite, std not zero, and fit {inputs[name]['shape']}")
    return problems


def _fits(statistics: Mapping[str, Any], shape: Sequence[int]) -> bool:
    try:
        mean, std = Normalisation(**statistics).tensors()
        same = np.broadcast_shapes(mean.shape, std.shape, tuple(shape)) == tuple(shape)
    # Lists of unequal lengths, or entries that are no numbers.
    except (TypeError, ValueError, RuntimeError):
        return False
    return same and bool(mean.isfinite().all() and std.isfinite().all() and (std != 0).all())


def readable(description: Mapping[str, Any]) -> str:
    """The description as indented JSON."""
    return json.dumps(description, indent=2, allow_nan=False) + "\n"
