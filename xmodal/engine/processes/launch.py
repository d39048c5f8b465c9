"""Devices and processes, through Lightning Fabric.

Call `launch` before data, run folder and output are touched: with several devices it starts the whole command again,
once per device, and waits as their small parent (`engine.processes.spawn`). In the processes that go on only rank 0 may
print and write.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed

from xmodal.collectives import gather_json
from xmodal.engine.processes import spawn
from xmodal.engine.run.folder import what_is_saved
from xmodal.engine.settings import MachineSettings, Precision
from xmodal.errors import InputError, ProcessDied

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def launch(machine: MachineSettings | None = None, *, precision: Precision = "32-true") -> Fabric:
    """A started Fabric; under `torchrun` and SLURM it joins the processes that are there.

    With several devices and no such launcher it does not return in the process that calls it, but in those started.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    machine = machine or MachineSettings()
    spawn.follow()
    if machine.threads:
        torch.set_num_threads(machine.threads)
    _check_devices(machine, precision)
    if spawn.leads(machine.devices):
        sys.exit(_led(machine.devices))
    local, nodes = _processes(machine)
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
        precision="32-true" if precision == "64-true" else precision,  # of 64 bits are data and networks, not a context
        strategy=DDPStrategy(find_unused_parameters=True, process_group_backend=backend, **buffers)
        if several
        else "auto",
    )
    fabric.launch()
    if several:
        atexit.register(_part)
        here = [socket.gethostname(), os.getpid()]
        spawn.remember(gather_json(here, fabric.device))
    return fabric


def _led(processes: int) -> int:
    """Exit status of a script whose processes have ended."""
    try:
        return spawn.lead(spawn.same_command(), processes)
    except ProcessDied as error:
        print(f"{error} {what_is_saved(error.saved)}", file=sys.stderr)
        return error.exit_status


def _processes(machine: MachineSettings) -> tuple[int, int]:
    """How many processes run on each machine, and on how many machines, as the launcher says."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, max(int(os.environ.get("WORLD_SIZE", local)) // local, 1)
    if spawn.under_slurm():
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        return int(os.environ.get("SLURM_NTASKS_PER_NODE", int(os.environ["SLURM_NTASKS"]) // nodes)), nodes
    return machine.devices, 1


def _part() -> None:
    """End the threads of the process group: an interpreter that exits while they run aborts now and then."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _check_devices(machine: MachineSettings, precision: Precision) -> None:
    """Devices that are asked for by name must be there, and know the number format."""
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if machine.accelerator == "mps" and precision == "64-true":
        raise InputError("--precision 64 needs numbers of 64 bits, and mps has none. Say --accelerator cpu.")
    kind = "cuda" if machine.accelerator == "auto" and there["cuda"] else machine.accelerator
    found = there.get(kind, machine.devices)
    if found < machine.devices and "LOCAL_WORLD_SIZE" not in os.environ and not spawn.under_slurm():
        raise InputError(
            f"--accelerator {machine.accelerator} --devices {machine.devices} asks for {machine.devices} {kind} "
            f"device(s), and {found} are here. Lower --devices, or say --accelerator cpu."
        )


def _buffers_option() -> str:
    """What this torch calls the option that leaves buffers alone between steps."""
    known = inspect.signature(torch.nn.parallel.DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
