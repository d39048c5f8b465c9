"""Several benches side by side: the same method for each seed or split, trained as one where that pays.

Small networks of several seeds differ in numbers alone, so `fit_many` moves them all in one step. Each bench gets the
run that it would have trained by itself, in the same folder: the same initial weights, the same batches, and numbers
that agree up to rounding, which training enlarges. `apart_because` says when seeds are rather trained one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xmodal.data.base import Data
from xmodal.engine.stacked.fit_many import fit_many
from xmodal.engine.stacked.stackable import hindrance
from xmodal.method import Method
from xmodal.study.bench import Bench, folder_name
from xmodal.study.plan import Plan

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MEMORY = 2**30  # bytes of training and validation rows that may be held at once


def train_side_by_side(benches: Sequence[Bench], name: str, methods: Sequence[Method], *, role: str) -> None:
    """Train something that is to be scored on every bench; one bench alone trains as usual."""
    first = benches[0]
    if len(benches) == 1:
        first.train(name, methods[0], role=role)
        return
    runs = fit_many(
        methods,
        [bench.data for bench in benches],
        first.plan.fit(),
        seeds=[bench.seed for bench in benches],
        folders=[bench.folder / folder_name(name) for bench in benches if bench.folder is not None] or None,
        resume=True,  # as on a bench
        fabric=first.fabric,
        progress=first.progress,
        title=name,
    )
    for bench, run in zip(benches, runs, strict=True):
        bench.runs[name], bench.roles[name] = run, role


def apart_because(method: Method, data: Data, plan: Plan, *, count: int, fabric: Fabric) -> str:
    """Why seeds are trained one by one; empty where they can be trained side by side.

    Args:
        method: of the first seed, as it begins.
        data: of the first seed.
        plan: of the benches.
        count: how many seeds there are.
        fabric: started devices.
    """
    if fabric.world_size > 1:
        return "several processes share each training"
    if reason := hindrance(method, data, plan.fit()):
        return reason
    if count * _bytes(data) > MEMORY:
        return f"the rows of all of them take more than {MEMORY / 2**30:g} GiB"
    return ""


def unlike(data: Sequence[Data]) -> str:
    """What keeps the data of several seeds out of one stack; empty where nothing does."""
    return "they have other numbers of rows" if any(_rows(other) != _rows(data[0]) for other in data) else ""


def _rows(data: Data) -> list[tuple[int, ...]]:
    return [tuple(data.info.rows[split].values()) for split in ("train", "valid")]


def _bytes(data: Data) -> int:
    return sum(
        4 * data.info.rows[split][name] * int(np.prod(known.shape))
        for split in ("train", "valid")
        for name, known in data.info.inputs.items()
    )
