"""A teacher's outputs as a further input of the data.

The rows with an answer are rows that *have* this input. So everything that holds for rows that lack a modality holds
for rows without an answer: the teacher's terms leave them out, and every batch has some rows with one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xmodal.data.base import Data
from xmodal.data.present import PartialColumn
from xmodal.data.split import Column
from xmodal.errors import InputError
from xmodal.types import InputInfo

ANSWERS = "teacher_answers"  # name of the input


def attached(data: Data, answers: NDArray[np.float32], rows: NDArray[np.int64]) -> tuple[Data, bool]:
    """The data with a teacher's outputs as the input `ANSWERS`, and whether all rows of validation and test have one.

    Args:
        data: paired.
        answers: (answers, width), of the rows that have one.
        rows: their numbers in the data.
    """
    if ANSWERS in data.info.inputs:
        raise InputError(f"The data has a modality called '{ANSWERS}', which is the name of the teacher's. Rename it.")
    total = next(iter(data.train.columns.values())).shape[0]
    column: Column = PartialColumn(answers, rows, total)
    there = np.zeros(total, dtype=bool)
    there[rows] = True
    numbers = {split: next(iter(data.split(split).numbers.values())) for split in ("train", "valid", "test")}
    if not there[numbers["train"]].any():
        raise InputError("The teacher has no answer for any training row, so there is nothing to learn from it.")
    train = data.train.with_modality(ANSWERS, column)
    complete = {split: bool(there[numbers[split]].all()) for split in ("valid", "test")}
    valid, test = (
        data.split(name).with_modality(ANSWERS, column) if complete[name] else data.split(name)
        for name in ("valid", "test")
    )
    info = data.info
    first = next(iter(info.rows["train"]))
    info = replace(
        info,
        inputs={**info.inputs, ANSWERS: InputInfo(tuple(answers.shape[1:]), "float32", "vector")},
        rows={split: {**counts, ANSWERS: counts[first]} for split, counts in info.rows.items()},
        train_targets={**info.train_targets, ANSWERS: info.train_targets[first]} if info.train_targets else {},
        labelled={**info.labelled, ANSWERS: info.labelled[first]} if info.labelled else {},
        present={name: int(mask.sum()) for name, mask in train.present.items()},
    )
    return replace(data, train=train, valid=valid, test=test, info=info), all(complete.values())
