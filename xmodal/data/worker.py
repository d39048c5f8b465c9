"""Worker processes that end when the process that started them does, however it ends."""

from __future__ import annotations

import ctypes
import os
import sys
from multiprocessing import parent_process

# PR_SET_PDEATHSIG of <sys/prctl.h> and SIGKILL of <signal.h>; Python's os and signal modules have no prctl
PARENT_DEATH_SIGNAL, KILL = 1, 9


def end_with_parent() -> None:
    """Call first in a worker: Linux then kills it when its parent dies, even if SIGKILL ends the parent.

    Signals for the parent's process group (Ctrl-C, SIGTERM from `torchrun`) do not reach a worker: the parent needs it
    to finish the step. On other systems a worker ends at its next attempt to communicate with the parent.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, KILL)
    # a parent that died before the call above sends no signal any more; its children have got another parent
    parent = parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
    os.setpgid(0, 0)
