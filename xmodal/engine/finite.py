"""Numbers that stop being numbers stop the run, with everything one needs to look."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from xmodal.errors import NonFinite
from xmodal.types import Batch, Step

SHOWN = 16


def non_finite(step_result: Step, batch: Batch, *, epoch: int, step: int, broken: Sequence[str]) -> NonFinite:
    """The error that names the loss terms, the epoch, the step and the samples."""
    terms = ", ".join(f"{name} = {loss.item():g}" for name, loss in step_result.losses.items())
    return NonFinite(
        f"The loss term{'s' if len(broken) > 1 else ''} {', '.join(broken)} became non-finite in epoch {epoch + 1}, "
        f"step {step + 1} ({terms}). {_samples(batch)} Lower the learning rate, clip the gradient, or look at them."
    )


def _samples(batch: Batch) -> str:
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
