"""A saliency over more samples than fit into memory: batch after batch, and nothing is kept but running sums.

`xmodal.diagnostics.saliency` keeps the features and outputs of every row, since it permutes a channel over all of them.
For a class for every pixel of thousands of frames these are hundreds of gigabytes. Here a channel is permuted within a
batch, and the distances are averaged over the batches, with their numbers of rows as weights. The expectation of such a
distance hardly differs: a channel of a frame comes from another frame of the same batch in place of any frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from xmodal.diagnostics.labelled import labelled_rows
from xmodal.diagnostics.saliency import FLAT, Saliency, measure_saliency, scaled
from xmodal.errors import InputError
from xmodal.types import Batch


def stream_saliency(
    teacher: nn.Module,
    student: nn.Module,
    batches: Iterable[Batch],
    place: str,
    *,
    seed: int = 0,
    ignore: int | None = None,
    **options: Any,
) -> Saliency:
    """`measure_saliency` of each batch alone, averaged.

    Args:
        teacher: see `measure_saliency`.
        student: see `measure_saliency`.
        batches: of two rows or more; a batch with fewer rows that count is left out, as it has nothing to permute.
        place: see `measure_saliency`.
        seed: of the permutations; each batch has its own.
        ignore: target value of unlabelled positions.
        options: further arguments of `measure_saliency`.
    """
    last: Saliency | None = None
    rows, baseline = 0, 0.0
    raw: Any = 0.0
    draws: Any = 0.0
    variance: Any = 0.0
    for number, batch in enumerate(labelled_rows(batches)):
        if _counted(batch, ignore) < 2:
            continue
        # a constant and a number of the batch: equal numbers would permute all batches alike
        part = measure_saliency(
            teacher, student, [batch], place, seed=1_000_003 * (seed + 1) + number, ignore=ignore, **options
        )
        last, rows = part, rows + part.rows
        raw = raw + part.rows * part.raw
        baseline += part.rows * part.baseline
        draws = None if part.draws is None else draws + part.rows * part.draws
        variance = variance + (part.rows * part.deviation) ** 2
    if last is None:
        raise InputError("No batch has two valid rows, and channels are ranked by exchanging them between rows.")
    raw, draws, deviation = raw / rows, None if draws is None else draws / rows, np.sqrt(variance) / rows
    value, flat = scaled(raw, 8 * float(torch.finfo(torch.float32).eps))
    return replace(
        last,
        population="batch",
        raw=raw,
        value=value,
        baseline=baseline / rows,
        deviation=deviation,
        standard_error=np.zeros_like(raw) if draws is None else deviation / math.sqrt(len(draws)),
        draws=draws,
        rows=rows,
        note=" ".join(filter(None, [last.note.replace(FLAT, "").strip(), FLAT if flat else ""])),
    )


def _counted(batch: Batch, ignore: int | None) -> int:
    """How many rows of a batch have a valid and labelled place."""
    masks = [*batch.valid.values()] + ([] if ignore is None else [batch.target != ignore])
    keep = torch.ones(len(next(iter(batch.inputs.values()))), dtype=torch.bool)
    for mask in masks:
        keep &= mask.cpu().reshape(len(mask), -1).any(dim=1)
    return int(keep.sum())
