"""Sums of the loss terms: over the processes in each step, and over the steps of an epoch."""

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
    from xmodal.devices import Devices

_BLOCK = 64  # the vector that processes exchange in each step is padded to a multiple of it
_SIGNALS = (int(signal.SIGINT), int(signal.SIGTERM))


@dataclass(slots=True)
class Agreement:
    """What all processes know about a step.

    Attributes:
        loss: this process's share of the sum of all terms.
        finite: whether every term is finite in every process.
        broken: names of terms that are infinite or NaN.
        signal: number of a signal that any process received; 0: none.
        save: whether a checkpoint is due.
    """

    loss: Tensor
    finite: bool
    broken: list[str]
    signal: int
    save: bool


def agree(step: Step, batch: Batch, fabric: Devices, *, signal: int, save: bool) -> Agreement:
    """Sum the loss terms; with several processes weight each by its count, in one exchange of a short vector."""
    if not step.losses:
        raise InputError("The method returned a step without losses: at least one term was expected.")
    if fabric.world_size > 1:
        return _agree_all(step, batch, fabric, signal=signal, save=save)
    terms = list(step.losses.values())
    loss = terms[0] if len(terms) == 1 else sum(terms[1:], terms[0])
    # One check, of the sum: each waits for the device and costs time in every step. Terms are checked after it failed;
    # all are named where each is finite and only the sum overflows.
    finite = math.isfinite(loss.item())
    broken = [] if finite else [name for name, term in step.losses.items() if not math.isfinite(term.item())]
    return Agreement(loss, finite, broken or ([] if finite else list(step.losses)), signal, save)


def _agree_all(step: Step, batch: Batch, fabric: Devices, *, signal: int, save: bool) -> Agreement:
    names = sorted(step.losses)
    counts = [float(step.counts.get(name, batch.rows)) for name in names]
    broken = [float(not math.isfinite(step.losses[name].item())) for name in names]
    # rank 0 alone decides when to save: the clocks of processes differ
    flags = [float(signal == number) for number in _SIGNALS] + [float(save and fabric.global_rank == 0)]
    # The vector has a checksum of the names and its square. Their sums show whether all checksums are equal: a variance
    # of zero. 20 bits keep the squares exact in float64. Vectors are padded to whole blocks, because an exchange of
    # vectors of different length, by processes with different names, would hang.
    checksum = float(mix(*names) % 2**20)
    head = [checksum, checksum * checksum, *flags]
    values = [*head, *counts, *broken]
    padded = values + [0.0] * (-len(values) % _BLOCK)
    vector = torch.tensor(padded, dtype=torch.float64, device=fabric.device)
    torch.distributed.all_reduce(vector)
    total = vector.tolist()
    if total[1] * fabric.world_size != total[0] ** 2:
        raise InputError(
            f"The processes returned different loss terms in one step (in this one: {', '.join(names)}). Return every "
            "term in every step; a term without items is 0 and has the count 0."
        )
    flags, total = total[2 : len(head)], total[len(head) :]
    all_counts, all_broken = total[: len(names)], total[len(names) : 2 * len(names)]
    # Gradients are averaged over processes, so a mean over n of N items is weighted by n × processes / N. A term that
    # counts nothing in any process has n = N = 0 and the weight 0.
    shares = [
        step.losses[name] * (count * fabric.world_size / max(all_count, 1e-12))
        for name, count, all_count in zip(names, counts, all_counts, strict=True)
    ]
    stop = next((number for number, flag in zip(_SIGNALS, flags, strict=False) if flag), 0)
    broken_names = [name for name, flag in zip(names, all_broken, strict=True) if flag]
    return Agreement(sum(shares[1:], shares[0]), not broken_names, broken_names, stop, bool(flags[-1]))


def any_signal(fabric: Devices, received: int) -> int:
    """The number of a signal that any process received; 0: none. ``received`` is that of this process."""
    if fabric.world_size == 1:
        return received
    largest = torch.tensor([received], device=fabric.device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest.item())


class StepSums:
    """Means over an epoch: every term weighted by its count, every log by rows.

    Args:
        saved: a state that `state` returned; None: an epoch begins.
    """

    def __init__(self, saved: Mapping[str, Mapping[str, list[float]]] | None = None) -> None:
        saved = saved or {}
        self.losses = {name: list(pair) for name, pair in saved.get("losses", {}).items()}
        self.logs = {name: list(pair) for name, pair in saved.get("logs", {}).items()}
        self._steps: list[tuple[dict[str, Tensor], dict[str, Tensor | int], dict[str, Tensor], int]] = []

    def add(self, step: Step, batch: Batch) -> None:
        """Store a step; its numbers are read from the device in `fold`."""
        losses = {name: loss.detach() for name, loss in step.losses.items()}
        logs = {name: value.detach() for name, value in step.logs.items()}
        self._steps.append((losses, dict(step.counts), logs, batch.rows))

    def fold(self) -> None:
        """Add up the stored steps one by one, so that the result does not depend on when `fold` is called."""
        for losses, counts, logs, rows in self._steps:
            for name, loss in losses.items():
                _add(self.losses, name, loss, float(counts.get(name, rows)))
            for name, value in logs.items():
                _add(self.logs, name, value, float(rows))
        self._steps.clear()

    def state(self) -> dict[str, dict[str, list[float]]]:
        """The sums so far, for JSON; call `fold` first."""
        return {"losses": self.losses, "logs": self.logs}

    def means(self, fabric: Devices) -> dict[str, Any]:
        """``loss``, ``losses`` and ``logs`` of the epoch, over all processes."""
        self.fold()
        means: dict[str, dict[str, float]] = {}
        for kind, sums in (("losses", self.losses), ("logs", self.logs)):
            names = sorted(sums)
            # a value that is logged in some steps only may be unknown to a process
            if fabric.world_size > 1:
                names = sorted(set().union(*gather_json(names, fabric.device)))
            table = torch.tensor(
                [sums.get(name, (0.0, 0.0)) for name in names], dtype=torch.float64, device=fabric.device
            )
            if fabric.world_size > 1 and names:
                torch.distributed.all_reduce(table)
            means[kind] = {
                name: total / max(weight, 1e-300) for name, (total, weight) in zip(names, table.tolist(), strict=True)
            }
        return {"loss": sum(means["losses"].values()), **means}


def _add(sums: dict[str, list[float]], name: str, value: Tensor, weight: float) -> None:
    pair = sums.setdefault(name, [0.0, 0.0])
    pair[0] += value.item() * weight
    pair[1] += weight
