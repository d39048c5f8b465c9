"""What the library needs of devices: one process on one device, or several that train together.

`OneProcess` is the case without a launcher. For several processes, and for mixed precision, `launch` returns a Fabric
of the package lightning-fabric, which has the same members; its import takes seconds.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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
