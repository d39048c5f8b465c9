"""What the library needs of devices: one process on one device, or several that train together; reading from them.

`OneProcess` is the case without a launcher. For several processes, and for mixed precision, `launch` returns a Fabric
of the package lightning-fabric, which has the same members; its import takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Devices(Protocol):
    """The members of `OneProcess` and of a Fabric that the library uses."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""

    @property
    def global_rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def world_size(self) -> int:
        """How many processes there are."""

    def barrier(self) -> None:
        """Wait until all processes are here."""

    def autocast(self) -> AbstractContextManager[Any]:
        """A block with the floating-point format of the training."""

    def setup_module(self, module: nn.Module) -> Any:
        """A module whose gradients are averaged over the processes."""

    def no_backward_sync(self, module: Any, enabled: bool = True) -> AbstractContextManager[Any]:
        """A block in which gradients stay with their process."""

    def backward(self, tensor: Tensor) -> None:
        """Compute gradients."""

    def all_reduce(self, data: Any, *, reduce_op: str) -> Any:
        """A value over all processes."""


class OneProcess:
    """One process on one device, in float32 or float64.

    Args:
        device: where networks and batches are.
    """

    global_rank, world_size = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def barrier(self) -> None:
        """There is nobody to wait for."""

    def autocast(self) -> AbstractContextManager[Any]:
        """A block in the format of the tensors."""
        return nullcontext()

    def setup_module(self, module: nn.Module) -> nn.Module:
        """The module on the device."""
        return module.to(self.device)

    def no_backward_sync(self, module: Any, enabled: bool = True) -> AbstractContextManager[Any]:
        """A block like any other: there is nothing to average."""
        return nullcontext()

    def backward(self, tensor: Tensor) -> None:
        """Compute gradients."""
        tensor.backward()  # type: ignore[no-untyped-call]

    def all_reduce(self, data: Any, *, reduce_op: str) -> Any:
        """The value itself."""
        return data


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """A block in which products of float32 matrices are ``highest``, ``high`` or ``medium``, in words of torch."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def read(tensors: Iterable[Tensor]) -> list[Any]:
    """The values of tensors, as ``tolist`` returns them, in one transfer for each type of number.

    A GPU works behind the program, and each value that is read waits for all that was queued before it. So what is
    needed at one time is read at once.

    Example:
        >>> read([torch.tensor(0.5), torch.tensor([[1.0, 2.0]]), torch.tensor(3)])
        [0.5, [[1.0, 2.0]], 3]
    """
    tensors = list(tensors)
    if len(tensors) == 1 and not tensors[0].ndim:
        return [tensors[0].item()]
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype), []).append(place)
    values: list[Any] = [None] * len(tensors)
    with torch.no_grad():
        for places in groups.values():
            # without this case, scalars would be reshaped one by one, of which a training step may have fifty
            if not any(tensors[place].ndim for place in places):
                found = torch.stack([tensors[place] for place in places]).tolist()
                for place, value in zip(places, found, strict=True):
                    values[place] = value
                continue
            joined = torch.cat([tensors[place].reshape(-1) for place in places]).tolist()
            first = 0
            for place in places:
                end = first + tensors[place].numel()
                values[place] = _shaped(joined[first:end], tensors[place].shape)
                first = end
    return values


def _shaped(values: list[Any], shape: Sequence[int]) -> Any:
    """The numbers of a tensor as nested lists."""
    if not shape:
        return values[0]
    if len(shape) == 1:
        return values
    step = len(values) // shape[0] if shape[0] else 0
    return [_shaped(values[first * step : (first + 1) * step], shape[1:]) for first in range(shape[0])]
