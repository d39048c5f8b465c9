"""A Dask cluster as the place of the jobs, through joblib's backend: one that runs already, or a local one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xmodal.errors import InputError, MissingExtra

LOCAL, REMOTE = "dask", "dask:"
CONNECT = "10s"  # time to reach a scheduler


def require_cluster() -> None:
    """Raise an error if the package of the cluster is missing, before a run folder exists."""
    if importlib.util.find_spec("distributed") is None:
        raise MissingExtra("--cluster", "distributed", "cluster", instead="use --jobs on this machine")


@contextmanager
def on_cluster(where: str, jobs: int) -> Iterator[Any]:
    """What runs the tasks, on a cluster.

    Args:
        where: ``dask:tcp://HOST:PORT``, the address of a scheduler; ``dask``: a cluster of this machine, for the run.
        jobs: processes of a local cluster; another one has its own.
    """
    import distributed
    from joblib import Parallel, parallel_config

    address = where.removeprefix(REMOTE) if where.startswith(REMOTE) else ""
    if not address and where != LOCAL:
        raise InputError(f"--cluster {where}: 'dask', or 'dask:' and the address of a scheduler was expected.")
    start: Any = distributed.Client
    # without a web page, which would need a port
    local = {"n_workers": jobs, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    try:
        client = start(address, timeout=CONNECT) if address else start(**local)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at {address} ({error}). Start one with `dask scheduler`, or correct --cluster."
        ) from error
    with client:
        _check(client, address)
        with parallel_config("dask", client=client, n_jobs=jobs):
            yield Parallel(batch_size=1, return_as="generator_unordered")


def _check(client: Any, address: str) -> None:
    """Raise an error about a cluster on which seeds could not be trained, or not apart from each other."""
    threads = client.nthreads()
    if not threads:
        raise InputError(f"The cluster at {address} has no workers. Start some with `dask worker {address}`.")
    if several := {worker: count for worker, count in threads.items() if count > 1}:
        raise InputError(
            f"{len(several)} of the {len(threads)} workers of the cluster run several tasks in one process, which "
            "would share one stream of random numbers. Start them with --nthreads 1."
        )
