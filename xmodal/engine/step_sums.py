"""The numbers of a step, exchanged by the processes and read in one go; their sums over the steps of an epoch."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch import Tensor

from xmodal.collectives import gather_json
from xmodal.devices import read
from xmodal.errors import InputError
from xmodal.seeding import mix
from xmodal.types import Step

if TYPE_CHECKING:
    from xmodal.devices import Devices

_BLOCK = 64  # the vector that processes exchange in each step is padded to a multiple of it
_SIGNALS = (int(signal.SIGINT), int(signal.SIGTERM))


@dataclass(slots=True)
class Numbers:
    """The numbers of a step in one process.

    Attributes:
        losses: term → its value, and the count that its mean runs over.
        logs: name → value.
        rows: of the batch; the weight of the logs.
    """

    losses: dict[str, tuple[float, float]]
    logs: dict[str, float]
    rows: int


@dataclass(slots=True)
class Agreement:
    """What all processes know about a step.

    Attributes:
        loss: this process's share of the sum of all terms.
        numbers: of this process.
        broken: names of terms that are infinite or NaN in any process; empty: all are finite.
        signal: number of a signal that any process received; 0: none.
        save: whether a checkpoint is due.
    """

    loss: Tensor
    numbers: Numbers
    broken: list[str]
    signal: int
    save: bool


def agree(step: Step, rows: int, fabric: Devices, *, signal: int, save: bool) -> Agreement:
    """Sum the loss terms; with several processes weight each by its count, in one exchange of a short vector.

    Whether the terms are finite must be known before the backward pass, and reading it waits for the device. All
    numbers of the step are read at this point, so that the program waits once.

    Args:
        step: of this process.
        rows: of its batch.
        fabric: started devices.
        signal: number of a signal that this process received; 0: none.
        save: whether a checkpoint is due; the first process decides.
    """
    if not step.losses:
        raise InputError("The method returned a step without losses: at least one term was expected.")
    if fabric.world_size > 1:
        return _agree_all(step, rows, fabric, signal=signal, save=save)
    terms = list(step.losses.values())
    if len(terms) == 1:
        loss = terms[0]
        numbers, _ = _numbers(step, rows, ())
    else:
        loss = sum(terms[1:], terms[0])
        # the sum too: it may overflow where each term is finite
        numbers, (total,) = _numbers(step, rows, [loss])
        if not math.isfinite(total):
            return Agreement(loss, numbers, _broken(numbers) or list(step.losses), signal, save)
    return Agreement(loss, numbers, _broken(numbers), signal, save)


def _broken(numbers: Numbers) -> list[str]:
    return [name for name, (value, _) in numbers.losses.items() if not math.isfinite(value)]


def _numbers(step: Step, rows: int, further: Sequence[Tensor]) -> tuple[Numbers, list[float]]:
    """The numbers of a step, and the values of further scalars, from one reading of the device."""
    counts = [step.counts.get(name, rows) for name in step.losses]
    if not further and not step.logs and not isinstance(counts[0], Tensor):
        # one term alone: most trainings of small networks, whose steps take little time themselves
        ((name, loss),) = step.losses.items()
        return Numbers({name: (loss.item(), float(counts[0]))}, {}, rows), []
    tensors = [*further, *step.losses.values(), *step.logs.values()]
    tensors += [count for count in counts if isinstance(count, Tensor)]
    values = iter(read(_alike(tensors)))
    found = [next(values) for _ in further]
    terms, logs = [next(values) for _ in step.losses], {name: next(values) for name in step.logs}
    weights = [float(next(values)) if isinstance(count, Tensor) else float(count) for count in counts]
    return Numbers(dict(zip(step.losses, zip(terms, weights, strict=True), strict=True)), logs, rows), found


def _alike(scalars: list[Tensor]) -> list[Tensor]:
    """Scalars of one type on one device, so that one transfer reads them."""
    first = scalars[0]
    if all(not each.ndim and each.dtype == first.dtype and each.device == first.device for each in scalars):
        return scalars
    # losses and counts of every other type have the same values in it; mps has no float64
    exact = torch.float32 if first.device.type == "mps" else torch.float64
    return [each.detach().to(first.device, exact).reshape(()) for each in scalars]


def _agree_all(step: Step, rows: int, fabric: Devices, *, signal: int, save: bool) -> Agreement:
    names, device = sorted(step.losses), fabric.device
    # rank 0 alone decides when to save: the clocks of processes differ
    flags = [float(signal == number) for number in _SIGNALS] + [float(save and fabric.global_rank == 0)]
    # The vector has a checksum of the names and its square. Their sums show whether all checksums are equal: a variance
    # of zero. 20 bits keep the squares exact in float64. Vectors are padded to whole blocks, because an exchange of
    # vectors of different length, by processes with different names, would hang.
    checksum = float(mix(*names) % 2**20)
    head = [checksum, checksum * checksum, *flags]
    padding = [0.0] * (-(len(head) + 2 * len(names)) % _BLOCK)
    with torch.no_grad():
        losses = _column([step.losses[name] for name in names], device)
        counts = _column([step.counts.get(name, rows) for name in names], device)
        shared = [_column(head, device), counts, (~losses.isfinite()).double(), _column(padding, device)]
        vector = torch.cat(shared)
        torch.distributed.all_reduce(vector)
        # with the numbers of this process behind those of all, one transfer reads everything
        values: list[float] = torch.cat([vector, losses, counts, _column(list(step.logs.values()), device)]).tolist()
    total, own = values[: len(vector)], values[len(vector) :]
    if total[1] * fabric.world_size != total[0] ** 2:
        raise InputError(
            f"The processes returned different loss terms in one step (in this one: {', '.join(names)}). Return every "
            "term in every step; a term without items is 0 and has the count 0."
        )
    flags, total = total[2 : len(head)], total[len(head) :]
    all_counts, all_broken = total[: len(names)], total[len(names) : 2 * len(names)]
    own_counts = own[len(names) : 2 * len(names)]
    # Gradients are averaged over processes, so a mean over n of N items is weighted by n × processes / N. A term that
    # counts nothing in any process has n = N = 0 and the weight 0.
    shares = [
        step.losses[name] * (count * fabric.world_size / max(all_count, 1e-12))
        for name, count, all_count in zip(names, own_counts, all_counts, strict=True)
    ]
    pairs = dict(zip(names, zip(own[: len(names)], own_counts, strict=True), strict=True))
    numbers = Numbers(
        # in the order in which the method names its terms
        {name: pairs[name] for name in step.losses},
        dict(zip(step.logs, own[2 * len(names) :], strict=True)),
        rows,
    )
    stop = next((number for number, flag in zip(_SIGNALS, flags, strict=False) if flag), 0)
    broken = [name for name, flag in zip(names, all_broken, strict=True) if flag]
    return Agreement(sum(shares[1:], shares[0]), numbers, broken, stop, bool(flags[-1]))


def _column(values: Sequence[Tensor | float], device: torch.device) -> Tensor:
    """Scalars as a vector in float64, without waiting for the device."""
    if any(isinstance(value, Tensor) for value in values):
        scalars = [value if isinstance(value, Tensor) else _column([value], device)[0] for value in values]
        return torch.stack([scalar.to(device, torch.float64).reshape(()) for scalar in scalars])
    on_gpu = device.type == "cuda"
    return torch.tensor(values, dtype=torch.float64, pin_memory=on_gpu).to(device, non_blocking=on_gpu)


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

    def add(self, numbers: Numbers) -> None:
        """Add the numbers of a step."""
        for name, (value, count) in numbers.losses.items():
            _add(self.losses, name, value, count)
        for name, value in numbers.logs.items():
            _add(self.logs, name, value, numbers.rows)

    def state(self) -> dict[str, dict[str, list[float]]]:
        """The sums so far, for JSON."""
        return {"losses": self.losses, "logs": self.logs}

    def means(self, fabric: Devices) -> dict[str, Any]:
        """``loss``, ``losses`` and ``logs`` of the epoch, over all processes."""
        means: dict[str, dict[str, float]] = {}
        for kind, sums in (("losses", self.losses), ("logs", self.logs)):
            names, table = sorted(sums), sums
            if fabric.world_size > 1:
                names, table = _over_processes(sums, fabric)
            means[kind] = {name: table[name][0] / max(table[name][1], 1e-300) for name in names}
        return {"loss": sum(means["losses"].values()), **means}


def _over_processes(sums: Mapping[str, list[float]], fabric: Devices) -> tuple[list[str], dict[str, list[float]]]:
    """The names that any process knows, and their sums over all: a process may lack what some steps alone log."""
    names = sorted(set().union(*gather_json(sorted(sums), fabric.device)))
    table = torch.tensor([sums.get(name, (0.0, 0.0)) for name in names], dtype=torch.float64, device=fabric.device)
    if names:
        torch.distributed.all_reduce(table)
    return names, dict(zip(names, table.tolist(), strict=True))


def _add(sums: dict[str, list[float]], name: str, value: float, weight: float) -> None:
    pair = sums.setdefault(name, [0.0, 0.0])
    pair[0] += value * weight
    pair[1] += weight
