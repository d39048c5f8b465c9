"""Devices and processes: one process by itself, several through Lightning Fabric.

Call `launch` before anything is read, written or printed: with several devices it starts the whole command again, once
per device, and waits for these processes (`engine.processes.spawn`). In them only rank 0 may print and write.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
import socket
import sys
from typing import Any

import torch
import torch.distributed

from xmodal.collectives import gather_json
from xmodal.devices import Devices, OneProcess
from xmodal.engine.processes import spawn
from xmodal.engine.run.folder import what_is_saved
from xmodal.engine.settings import MachineSettings, Precision
from xmodal.errors import InputError, ProcessDied


def launch(machine: MachineSettings | None = None, *, precision: Precision = "32-true") -> Devices:
    """The started devices; under `torchrun` and SLURM this process joins those that the launcher started.

    With several devices and no such launcher, this function returns in the started processes only; the process that
    called it waits for them and exits.
    """
    machine = machine or MachineSettings()
    # early: until now signals to a started process wait
    spawn.follow()
    if machine.threads:
        torch.set_num_threads(machine.threads)
    _check_devices(machine, precision)
    if spawn.leads(machine.devices):
        sys.exit(_spawned_status(machine.devices))
    local, nodes = _processes(machine)
    on_cpu = machine.accelerator == "cpu" or not torch.cuda.is_available()
    several = local * nodes > 1
    if not several and precision != "bf16-mixed":
        return OneProcess(_device(machine.accelerator))
    from lightning_fabric import Fabric

    from xmodal.engine.processes.strategy import PerMethod

    # without this it prints a line per process
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # Buffers need no broadcast, they are equal in all processes: batch statistics are computed over all processes, and
    # memories are updated with gathered rows.
    buffers: dict[str, Any] = {_buffers_option(): False}
    backend = "gloo" if on_cpu else None
    fabric = Fabric(
        accelerator="cpu" if on_cpu and machine.accelerator != "mps" else machine.accelerator,
        devices=local,
        num_nodes=nodes,
        # for float64 data and networks are converted (`as_precise`); Fabric has nothing to do
        precision="32-true" if precision == "64-true" else precision,
        strategy=PerMethod(process_group_backend=backend, **buffers) if several else "auto",
    )
    fabric.launch()
    if several:
        atexit.register(_destroy_process_group)
        # a rank can later find out which other one has died
        spawn.remember(gather_json([socket.gethostname(), os.getpid()], fabric.device))
    started: Devices = fabric
    return started


def _device(accelerator: str) -> torch.device:
    """The device of a single process; ``auto``: a GPU of either kind if there is one."""
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(accelerator, 0) if accelerator == "cuda" else torch.device(accelerator)


def _spawned_status(processes: int) -> int:
    """Run this command as several processes, and return the exit status."""
    try:
        return spawn.lead(spawn.same_command(), processes)
    except ProcessDied as error:
        print(f"{error} {what_is_saved(error.saved)}", file=sys.stderr)
        return error.exit_status


def _processes(machine: MachineSettings) -> tuple[int, int]:
    """Number of processes per machine and number of machines, from the environment that the launcher set."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, max(int(os.environ.get("WORLD_SIZE", local)) // local, 1)
    if spawn.under_slurm():
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        return int(os.environ.get("SLURM_NTASKS_PER_NODE", int(os.environ["SLURM_NTASKS"]) // nodes)), nodes
    return machine.devices, 1


def _destroy_process_group() -> None:
    # its threads must end first: an interpreter that exits while they run sometimes aborts
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _check_devices(machine: MachineSettings, precision: Precision) -> None:
    """Check that the requested devices exist and support the floating-point format."""
    available = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if machine.accelerator == "mps" and precision == "64-true":
        raise InputError("--precision 64 needs float64, which mps does not have. Use --accelerator cpu.")
    kind = "cuda" if machine.accelerator == "auto" and available["cuda"] else machine.accelerator
    # as many CPU processes as requested can be started
    count = available.get(kind, machine.devices)
    # under a launcher the number of processes is the launcher's
    if count < machine.devices and "LOCAL_WORLD_SIZE" not in os.environ and not spawn.under_slurm():
        raise InputError(
            f"--accelerator {machine.accelerator} --devices {machine.devices} asks for {machine.devices} {kind} "
            f"device(s), and this machine has {count}. Lower --devices, or use --accelerator cpu."
        )


def _buffers_option() -> str:
    """Name of DDP's option for the broadcast of buffers; newer versions of torch have renamed it."""
    parameters = inspect.signature(torch.nn.parallel.DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
