"""Worker processes that end when the process that started them does, however it ends."""

from __future__ import annotations

import ctypes
import os
import sys
from multiprocessing import parent_process

DIE_WITH_PARENT, KILL = 1, 9  # as <sys/prctl.h> and <signal.h> say


def end_with_owner() -> None:
    """Call first in a worker: Linux kills it when its owner has died, even by a signal that nobody can catch.

    Signals for the whole process group of its owner (Ctrl-C, SIGTERM from `torchrun`) do not reach it: the owner needs
    it to finish the step. On other systems a worker ends when it next asks its owner for something.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, KILL)
    owner = parent_process()
    if owner is not None and os.getppid() != owner.pid:  # it died while this process was started
        os._exit(1)
    os.setpgid(0, 0)
