"""Adding up a step over its terms and its processes, and an epoch over its steps."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch import Tensor

from xmodal.collectives import gather_json
from xmodal.errors import InputError
from xmodal.seeding import mix
from xmodal.types import Batch, Step

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(slots=True)
class Agreement:
    """What all processes know of a step.

    Attributes:
        loss: this process's share of the sum of all terms.
        finite: whether every term is, everywhere.
        broken: names of those that are not.
        signal: number of a signal that reached any process, 0 if none.
        save: whether a checkpoint is due.
    """

    loss: Tensor
    finite: bool
    broken: list[str]
    signal: int
    save: bool


def agree(step: Step, batch: Batch, fabric: Fabric, *, signal: int, save: bool) -> Agreement:
    """Sum the terms; with several processes weigh each by what it counted, in one exchange of a short vector."""
    if not step.losses:
        raise InputError("The method returned a step without losses: at least one term was expected.")
    if fabric.world_size > 1:
        return _agree_all(step, batch, fabric, signal=signal, save=save)
    terms = list(step.losses.values())
    loss = terms[0] if len(terms) == 1 else sum(terms[1:], terms[0])
    finite = math.isfinite(loss.item())
    broken = [] if finite else [name for name, term in step.losses.items() if not math.isfinite(term.item())]
    return Agreement(loss, finite, broken or ([] if finite else list(step.losses)), signal, save)


def _agree_all(step: Step, batch: Batch, fabric: Fabric, *, signal: int, save: bool) -> Agreement:
    names = sorted(step.losses)
    mine = [float(step.counts.get(name, batch.rows)) for name in names]
    broken = [float(not math.isfinite(step.losses[name].item())) for name in names]
    flags = [float(signal == number) for number in _SIGNALS] + [float(save and fabric.global_rank == 0)]
    # the names go along as a number and its square, whose variance over the processes tells whether they are the same;
    # a length of whole blocks lets processes meet that would otherwise wait for vectors of unlike length
    told = float(mix(*names) % 2**20)
    head = [told, told * told, *flags]
    values = [*head, *mine, *broken]
    padded = values + [0.0] * (-len(values) % _BLOCK)
    vector = torch.tensor(padded, dtype=torch.float64, device=fabric.device)
    torch.distributed.all_reduce(vector)
    total = vector.tolist()
    if total[1] * fabric.world_size != total[0] ** 2:
        raise InputError(
            f"The processes returned unlike loss terms in one step (here: {', '.join(names)}). Return every term in "
            "every step; one that nothing counts for is 0 with a count of 0."
        )
    flags, total = total[2 : len(head)], total[len(head) :]
    counts, bad = total[: len(names)], total[len(names) : 2 * len(names)]
    # gradients are averaged over processes, so a mean over n of N things weighs n × processes / N
    shares = [
        step.losses[name] * (count * fabric.world_size / max(everywhere, 1e-12))
        for name, count, everywhere in zip(names, mine, counts, strict=True)
    ]
    stop = next((number for number, flag in zip(_SIGNALS, flags, strict=False) if flag), 0)
    wrong = [name for name, flag in zip(names, bad, strict=True) if flag]
    return Agreement(sum(shares[1:], shares[0]), not wrong, wrong, stop, bool(flags[-1]))


def any_signal(fabric: Fabric, mine: int) -> int:
    """The signal that reached any process, 0 if none did."""
    if fabric.world_size == 1:
        return mine
    found = torch.tensor([mine], device=fabric.device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return int(found.item())


_BLOCK = 64
_SIGNALS = (int(signal.SIGINT), int(signal.SIGTERM))


class Sums:
    """Means of an epoch: every term weighted by what it counted, every log by rows.

    Args:
        saved: what `state` gave before a kill.
    """

    def __init__(self, saved: Mapping[str, Mapping[str, list[float]]] | None = None) -> None:
        saved = saved or {}
        self.losses = {name: list(pair) for name, pair in saved.get("losses", {}).items()}
        self.logs = {name: list(pair) for name, pair in saved.get("logs", {}).items()}
        self._steps: list[tuple[dict[str, Tensor], dict[str, Tensor | int], dict[str, Tensor], int]] = []

    def add(self, step: Step, batch: Batch) -> None:
        """Remember a step; nothing is read from the device until `fold`."""
        losses = {name: loss.detach() for name, loss in step.losses.items()}
        logs = {name: value.detach() for name, value in step.logs.items()}
        self._steps.append((losses, dict(step.counts), logs, batch.rows))

    def fold(self) -> None:
        """Add up what was remembered, step after step, so that the moment of folding changes no bit."""
        for losses, counts, logs, rows in self._steps:
            for name, loss in losses.items():
                _add(self.losses, name, loss, float(counts.get(name, rows)))
            for name, value in logs.items():
                _add(self.logs, name, value, float(rows))
        self._steps.clear()

    def state(self) -> dict[str, dict[str, list[float]]]:
        """JSON of the sums so far; `fold` first."""
        return {"losses": self.losses, "logs": self.logs}

    def means(self, fabric: Fabric) -> dict[str, Any]:
        """``loss``, ``losses`` and ``logs`` of the epoch, over all processes."""
        self.fold()
        found: dict[str, dict[str, float]] = {}
        for kind, sums in (("losses", self.losses), ("logs", self.logs)):
            names = sorted(sums)
            if fabric.world_size > 1:  # a process may never have met what is logged now and then
                everybody = gather_json(names, fabric.device)
                names = sorted(set().union(*everybody))
            table = torch.tensor(
                [sums.get(name, (0.0, 0.0)) for name in names], dtype=torch.float64, device=fabric.device
            )
            if fabric.world_size > 1 and names:
                torch.distributed.all_reduce(table)
            found[kind] = {
                name: total / max(weight, 1e-300) for name, (total, weight) in zip(names, table.tolist(), strict=True)
            }
        return {"loss": sum(found["losses"].values()), **found}


def _add(sums: dict[str, list[float]], name: str, value: Tensor, weight: float) -> None:
    pair = sums.setdefault(name, [0.0, 0.0])
    pair[0] += value.item() * weight
    pair[1] += weight
