"""Sums and joins over all processes that gradients flow through; with one process they change nothing.

Gradients of distributed training are averaged over processes, so a value that every process computes from everybody's
rows must send each row the sum of all processes' gradients: that is what the backward passes here do.
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
        sizes = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(processes())]
        distributed.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
        counts = [int(size) for size in sizes]
        padding = rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])
        parts = [torch.empty_like(torch.cat([rows, padding])) for _ in counts]
        distributed.all_gather(parts, torch.cat([rows, padding]))
        first = sum(counts[: distributed.get_rank()])
        ctx.mine = slice(first, first + len(rows))
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total[ctx.mine]


def sum_over_processes(values: Tensor) -> Tensor:
    """The elementwise sum of every process's tensor (the same shape everywhere)."""
    if processes() == 1:
        return values
    total: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
    return total


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes joined in the order of their ranks; their numbers may differ."""
    if processes() == 1:
        return rows
    if rows.dtype == torch.int16:  # neither gloo nor NCCL sends numbers of 16 bits
        return gather_rows(rows.int()).to(rows.dtype)
    joined: Tensor = _Joined.apply(rows)  # type: ignore[no-untyped-call]
    return joined


def gather_json(value: Any, device: torch.device | str = "cpu") -> list[Any]:
    """The JSON value of every process, in the order of their ranks; as bytes, since nothing here is ever unpickled."""
    if processes() == 1:
        return [value]
    letters = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=device)
    counts = gather_rows(torch.tensor([len(letters)], device=device)).tolist()
    parts = torch.split(gather_rows(letters).cpu(), counts)
    return [json.loads(bytes(part.tolist())) for part in parts]
