"""Differentiable sum and concatenation over all processes; with one process they return their argument.

Each process computes the loss from the rows of all processes, so each row receives a gradient from each process. The
backward passes here add these gradients up. Distributed training then averages them over the processes, as it does
with the loss itself.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        # all_gather needs equal shapes, and the last batch of an epoch may be split unevenly: pad to the longest share
        sizes = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(processes())]
        distributed.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
        counts = [int(size) for size in sizes]
        padding = rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])
        parts = [torch.empty_like(torch.cat([rows, padding])) for _ in counts]
        distributed.all_gather(parts, torch.cat([rows, padding]))
        first = sum(counts[: distributed.get_rank()])
        ctx.local = slice(first, first + len(rows))
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total[ctx.local]


def sum_over_processes(values: Tensor) -> Tensor:
    """The elementwise sum of every process's tensor (the same shape everywhere)."""
    if processes() == 1:
        return values
    total: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
    return total


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes in the order of their ranks; the processes may have different numbers of rows."""
    if processes() == 1:
        return rows
    # neither gloo nor NCCL supports int16
    if rows.dtype == torch.int16:
        return gather_rows(rows.int()).to(rows.dtype)
    joined: Tensor = _Joined.apply(rows)  # type: ignore[no-untyped-call]
    return joined


def gather_json(value: Any, device: torch.device | str = "cpu") -> list[Any]:
    """The JSON value of every process, in the order of their ranks."""
    if processes() == 1:
        return [value]
    # torch's all_gather_object would unpickle what it receives, and xmodal reads no pickles
    encoded = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=device)
    counts = gather_rows(torch.tensor([len(encoded)], device=device)).tolist()
    parts = torch.split(gather_rows(encoded).cpu(), counts)
    return [json.loads(bytes(part.tolist())) for part in parts]
