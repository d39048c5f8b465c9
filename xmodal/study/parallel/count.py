"""How many seeds are trained at the same time.

The default uses every core: as many jobs as there are seeds, physical cores (divided by the threads of each), or
multiples of 2 GB of free memory, whichever is least. Each job gets its share of the cores. On a GPU, with several
devices and on a cluster of another launcher there is one job: the device, or the launcher, is shared already.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from xmodal.errors import InputError

if TYPE_CHECKING:
    from xmodal.devices import Devices

MEMORY = 2 * 10**9  # bytes that a job is expected to need
LIMIT, USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def jobs_of(asked: int | None, *, tasks: int, threads: int | None, fabric: Devices) -> int:
    """How many jobs to start.

    Args:
        asked: by the user; None: as many as fit.
        tasks: seeds to train.
        threads: of each job; None: its share of the cores, at least one.
        fabric: started devices.
    """
    if fabric.world_size > 1:
        if asked is not None and asked > 1:
            raise InputError(
                f"--jobs {asked} trains several seeds at the same time, and {fabric.world_size} processes train each "
                "of these together. Leave --jobs or --devices out."
            )
        return 1
    if asked is not None:
        return min(asked, tasks)
    if tasks == 1 or fabric.device.type != "cpu":
        return 1
    memory = free_memory()
    by_memory = tasks if memory is None else int(memory / MEMORY)
    return max(min(tasks, cores() // (threads or 1), by_memory), 1)


def cores() -> int:
    """Physical cores that this process may use."""
    # imported here: runs with one seed do without it
    import joblib

    count: int = joblib.cpu_count(only_physical_cores=True)
    return count


def free_memory() -> int | None:
    """Bytes that can be used without swapping; None where the system does not tell."""
    amounts = []
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        amounts.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if Path("/proc/meminfo").exists():
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        # memory of caches counts as free, which the number of free pages leaves out
        amounts = [1024 * int(facts["MemAvailable"].split()[0])] if "MemAvailable" in facts else amounts
    # a container has a limit of its own
    if LIMIT.exists() and USED.exists() and (limit := LIMIT.read_text().strip()).isdigit():
        amounts.append(int(limit) - int(USED.read_text()))
    return min(amounts, default=None)
