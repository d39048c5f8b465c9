"""From an opened teacher to a table of its outputs, in the blocks in which a training computes them.

So a student that learns from the table has the weights, to the last bit, of one that learns from the teacher's cached
outputs in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.base import Data
from xmodal.data.loader import in_order
from xmodal.errors import InputError
from xmodal.models.network import StoredEmbeddings, evaluating
from xmodal.teachers.compute import BLOCK
from xmodal.teachers.given import Given
from xmodal.teachers.table import write_table
from xmodal.types import SPLITS


def tabulated(given: Given, splits: Sequence[str] = SPLITS) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Outputs (rows, …) of a teacher for the rows of some splits that have an answer, and the numbers of these rows."""
    if given.data.info.dense:
        raise InputError(
            "A table of outputs for every pixel or voxel takes too much memory. Name the student file as the teacher."
        )
    parts: list[NDArray[Any]] = []
    numbers: list[NDArray[np.int64]] = []
    module, needs = given.student.module, given.student.needs
    for name in splits:
        split = given.data.split(name)
        # a table may have answers for some splits only
        if any(need not in split.columns for need in needs):
            continue
        split = split.having(needs)
        with evaluating(module):
            for batch in in_order(split, batch_size=given.data.info.block(BLOCK)):
                parts.append(module({need: batch.inputs[need] for need in needs}).numpy())
        numbers.append(next(iter(split.numbers.values())))
    return np.concatenate(parts), np.concatenate(numbers)


def write_outputs(
    path: Path, given: Given, data: Data, *, splits: Sequence[str] = SPLITS, modalities: Sequence[str] = ()
) -> list[str]:
    """Write the outputs of a teacher as a table; returns lines about it.

    Args:
        path: ``.npz``, or ``.npy`` with a file beside it.
        given: the opened teacher.
        data: that it was opened for.
        splits: names of the splits.
        modalities: whose rows are fingerprinted; empty: those that a network of ours reads, or all.
    """
    values, rows = tabulated(given, splits)
    kind = "values" if data.info.task == "regression" else "logits"
    if isinstance(given.student.module, StoredEmbeddings):
        kind = "embeddings"
    read = tuple(name for name in given.student.modalities if name in data.info.modalities)
    order = np.argsort(rows, kind="stable")
    files = write_table(
        path,
        values[order],
        data,
        rows[order],
        kind=kind,
        modalities=tuple(modalities) or read or data.info.modalities,
        class_names=() if kind != "logits" else tuple(map(str, data.info.class_names)),
    )
    shape = " x ".join(map(str, values.shape))
    return [*given.notes, f"{shape} {kind}", *(f"Written: {file}" for file in files)]
