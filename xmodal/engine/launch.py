"""Devices and processes, through Lightning Fabric.

Call `launch` before data, run folder and output are touched: with several devices it starts the whole command again,
once per device, and from then on only rank 0 may print and write.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed

from xmodal.engine.settings import MachineSettings, Precision
from xmodal.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def launch(machine: MachineSettings | None = None, *, precision: Precision = "32-true") -> Fabric:
    """A started Fabric; under `torchrun` and SLURM it joins the processes that are there."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    machine = machine or MachineSettings()
    if machine.threads:
        torch.set_num_threads(machine.threads)
    _check_devices(machine)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", machine.devices))
    nodes = max(int(os.environ.get("WORLD_SIZE", local)) // local, 1) if "LOCAL_WORLD_SIZE" in os.environ else 1
    on_cpu = machine.accelerator == "cpu" or not torch.cuda.is_available()
    several = local * nodes > 1
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every process
    # the method's buffers are equal everywhere by construction: batch statistics are synchronised, memories update from
    # gathered rows
    buffers: dict[str, Any] = {_buffers_option(): False}
    backend = "gloo" if on_cpu else None
    fabric = Fabric(
        accelerator="cpu" if on_cpu and machine.accelerator != "mps" else machine.accelerator,
        devices=local,
        num_nodes=nodes,
        precision=precision,
        strategy=DDPStrategy(find_unused_parameters=True, process_group_backend=backend, **buffers)
        if several
        else "auto",
    )
    fabric.launch()
    if several:
        atexit.register(_part)
    return fabric


def _part() -> None:
    """End the threads of the process group: an interpreter that exits while they run aborts now and then."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _check_devices(machine: MachineSettings) -> None:
    """Devices that are asked for by name must be there."""
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    kind = "cuda" if machine.accelerator == "auto" and there["cuda"] else machine.accelerator
    found = there.get(kind, machine.devices)
    if found < machine.devices and "LOCAL_WORLD_SIZE" not in os.environ:
        raise InputError(
            f"--accelerator {machine.accelerator} --devices {machine.devices} asks for {machine.devices} {kind} "
            f"device(s), and {found} are here. Lower --devices, or say --accelerator cpu."
        )


def _buffers_option() -> str:
    """What this torch calls the option that leaves buffers alone between steps."""
    known = inspect.signature(torch.nn.parallel.DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
