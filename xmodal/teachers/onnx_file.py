"""A teacher in an ONNX file: raw inputs by name, the first output (or the one called logits) as the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.deploy import onnx_session
from xmodal.errors import InputError
from xmodal.models.description import HEADER, read_description
from xmodal.teachers.functions import Function, Raw

TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
}
PREFERRED = ("logits", "probabilities")


def onnx_function(path: Path) -> tuple[Function, tuple[str, ...]]:
    """A function that runs the graph of a file, and the names of its classes; an input reads the modality of its name.

    A graph with one input reads the only modality, whatever it is called.
    """
    session = onnx_session(path)
    wanted, returned = session.get_inputs(), [node.name for node in session.get_outputs()]
    output = next((name for name in PREFERRED if name in returned), returned[0])

    def run(inputs: Raw) -> NDArray[Any]:
        given = _feeds(wanted, inputs, path)
        rows = len(next(iter(given.values())))
        # a graph may be exported for batches of one size
        fixed = wanted[0].shape[0] if wanted[0].shape and isinstance(wanted[0].shape[0], int) else rows
        # the last batch is filled up with its last row
        padded = {name: np.concatenate([part, part[-1:].repeat(-rows % fixed, axis=0)]) for name, part in given.items()}
        parts = [
            session.run([output], {name: part[first : first + fixed] for name, part in padded.items()})[0]
            for first in range(0, rows, fixed)
        ]
        outputs: NDArray[Any] = np.concatenate(parts)[:rows]
        return outputs

    return run, _class_names(session.get_modelmeta().custom_metadata_map.get(HEADER), path)


def _class_names(header: str | None, path: Path) -> tuple[str, ...]:
    """The classes in the description of a student that xmodal exported; empty for other files."""
    return () if header is None else tuple(read_description(header, str(path))["class_names"])


def _feeds(wanted: Any, inputs: Raw, path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a graph's inputs, in their types."""
    names = [node.name for node in wanted]
    single = len(names) == 1 and len(inputs) == 1
    missing = [] if single else [name for name in names if name not in inputs]
    if missing:
        raise InputError(
            f"{path} reads {', '.join(names)}, and the teacher's modalities are {', '.join(inputs)}: the same names "
            "were expected, or one input and one modality (--teacher NAME)."
        )
    feeds = {}
    for node in wanted:
        array = next(iter(inputs.values())) if single else inputs[node.name]
        if node.type not in TYPES:
            raise InputError(f"{path} reads {node.type} for '{node.name}': one of {', '.join(TYPES)} was expected.")
        feeds[node.name] = np.ascontiguousarray(array, dtype=TYPES[node.type])
    return feeds
