"""The error for a loss that is infinite or NaN: it names the terms, the step and the samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from xmodal.collectives import gather_json
from xmodal.errors import NonFinite
from xmodal.types import Batch, Step

if TYPE_CHECKING:
    from xmodal.devices import Devices

SHOWN = 16  # row numbers in the error message


def non_finite(
    step_result: Step, batch: Batch, fabric: Devices, *, epoch: int, step: int, broken: Sequence[str]
) -> NonFinite:
    """The error with loss terms, epoch, step and samples of the processes in which they are not finite."""
    values = {name: loss.item() for name, loss in step_result.losses.items()}
    reports = gather_json([values, samples_of(batch)], fabric.device)
    # all of them where each term is finite and only their sum overflows
    reports = [(terms, rows) for terms, rows in reports if not all(map(math.isfinite, terms.values()))] or reports
    listed = "; ".join(", ".join(f"{name} = {value:g}" for name, value in terms.items()) for terms, _ in reports)
    samples = " ".join(rows for _, rows in reports)
    return NonFinite(
        f"The loss term{'s' if len(broken) > 1 else ''} {', '.join(broken)} became non-finite in epoch {epoch + 1}, "
        f"step {step + 1} ({listed}). {samples} Lower the learning rate, clip the gradient, or check these samples."
    )


def samples_of(batch: Batch) -> str:
    """A sentence on the rows with a non-finite input or target; on all rows of the batch if there are none."""
    bad: list[str] = []
    for part in (batch.inputs, batch.targets):
        # rows without a label, or without this modality, are NaN on purpose
        there = batch.present if part is batch.inputs else batch.labelled
        for name, tensor in part.items():
            index = batch.index.get(name)
            # an input such as ``audio.lengths`` has no index, and integers are always finite
            if index is None or not tensor.is_floating_point():
                continue
            broken = ~torch.isfinite(tensor).flatten(1).all(dim=1)
            rows = index[broken & there[name] if name in there else broken]
            if len(rows):
                bad.append(f"{name} is not finite in training rows {_listed(rows.tolist())}.")
    if bad:
        return " ".join(bad)
    index = next(iter(batch.index.values()), None)
    listed = _listed(index.tolist()) if index is not None else "unknown"
    return f"All inputs are finite; the batch held training rows {listed}."


def _listed(rows: Sequence[int]) -> str:
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return ", ".join(map(str, rows[:SHOWN])) + more
