"""Numbers that stop being numbers stop the run, with everything one needs to look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from xmodal.collectives import gather_json
from xmodal.errors import NonFinite
from xmodal.types import Batch, Step

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SHOWN = 16


def non_finite(
    step_result: Step, batch: Batch, fabric: Fabric, *, epoch: int, step: int, broken: Sequence[str]
) -> NonFinite:
    """The error that names the loss terms, the epoch, the step and the samples, whichever process had them."""
    values = {name: loss.item() for name, loss in step_result.losses.items()}
    told = gather_json([values, samples_of(batch)], fabric.device)
    guilty = [(found, rows) for found, rows in told if not all(map(math.isfinite, found.values()))] or told
    terms = "; ".join(", ".join(f"{name} = {value:g}" for name, value in found.items()) for found, _ in guilty)
    samples = " ".join(rows for _, rows in guilty)
    return NonFinite(
        f"The loss term{'s' if len(broken) > 1 else ''} {', '.join(broken)} became non-finite in epoch {epoch + 1}, "
        f"step {step + 1} ({terms}). {samples} Lower the learning rate, clip the gradient, or look at them."
    )


def samples_of(batch: Batch) -> str:
    """Rows whose input or target is not finite; all rows of the batch when every one is."""
    bad: list[str] = []
    for part in (batch.inputs, batch.targets):
        for name, tensor in part.items():
            index = batch.index.get(name)
            if index is None or not tensor.is_floating_point():
                continue
            rows = index[~torch.isfinite(tensor).flatten(1).all(dim=1)]
            if len(rows):
                bad.append(f"{name} is not finite in training rows {_listed(rows.tolist())}.")
    if bad:
        return " ".join(bad)
    index = next(iter(batch.index.values()), None)
    rows_seen = _listed(index.tolist()) if index is not None else "unknown"
    return f"All inputs are finite; the batch held training rows {rows_seen}."


def _listed(rows: Sequence[int]) -> str:
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return ", ".join(map(str, rows[:SHOWN])) + more
