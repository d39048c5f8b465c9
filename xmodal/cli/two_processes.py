"""One of the two processes that `xmodal doctor` starts: they connect through a file and add up a tensor."""

from __future__ import annotations

import sys
from datetime import timedelta


def meet(file: str, rank: int) -> float:
    """1 from the first process plus 2 from the second one."""
    import torch
    import torch.distributed as dist

    # a file instead of a port: a busy port would look like a machine that cannot run two processes
    dist.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    number = torch.tensor([float(rank + 1)])
    dist.all_reduce(number)
    dist.destroy_process_group()
    return float(number)


if __name__ == "__main__":
    print(meet(sys.argv[1], int(sys.argv[2])))
