"""Several benches side by side: the same method for each seed or split, trained together.

Small networks of several seeds have the same shapes, so `fit_many` stacks them and trains all in one step. Each bench
gets the run that it would have trained by itself, in the same folder: the same initial weights, the same batches, and
results that agree up to rounding errors, which training amplifies. `apart_because` names what prevents this.
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
    from xmodal.devices import Devices

# Bytes of training and validation rows that are held together: `fit_many` keeps the rows of all seeds in memory.
MEMORY = 2**30


def train_side_by_side(benches: Sequence[Bench], name: str, methods: Sequence[Method], *, role: str) -> None:
    """Train one method on every bench, under the name and role of its row; a single bench trains as usual."""
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
        # as on a bench: `Study.start` has checked the folder
        resume=True,
        fabric=first.fabric,
        progress=first.progress,
        title=name,
    )
    for bench, run in zip(benches, runs, strict=True):
        bench.runs[name], bench.roles[name] = run, role


def apart_because(method: Method, data: Data, plan: Plan, *, count: int, fabric: Devices) -> str:
    """The reason why seeds are trained one by one; empty if they can be trained side by side.

    Args:
        method: of the first seed, before training.
        data: of the first seed.
        plan: of the benches.
        count: number of seeds.
        fabric: started devices.
    """
    if fabric.world_size > 1:
        return "several processes share each training"
    if reason := hindrance(method, data, plan.fit()):
        return reason
    if count * _bytes(data) > MEMORY:
        return f"the rows of all of them need more than {MEMORY / 2**30:g} GiB"
    return ""


def unlike(data: Sequence[Data]) -> str:
    """The reason why the data of several seeds can't be stacked; empty if they can."""
    return "they have different numbers of rows" if any(_rows(other) != _rows(data[0]) for other in data) else ""


def _rows(data: Data) -> list[tuple[int, ...]]:
    return [tuple(data.info.rows[split].values()) for split in ("train", "valid")]


def _bytes(data: Data) -> int:
    return sum(
        4 * data.info.rows[split][name] * int(np.prod(info.shape))
        for split in ("train", "valid")
        for name, info in data.info.inputs.items()
    )
