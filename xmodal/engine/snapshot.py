"""A running fit as a checkpoint, and back: everything that the next step depends on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xmodal import files
from xmodal.collectives import gather_json, gather_rows
from xmodal.engine import checkpoint
from xmodal.engine.seeding import restore as restore_generators
from xmodal.engine.seeding import states
from xmodal.engine.sums import Sums
from xmodal.errors import InputError

if TYPE_CHECKING:
    from xmodal.engine.loop import Loop


def save(loop: Loop) -> None:
    """A checkpoint of everything that the next step depends on."""
    assert loop.folder is not None
    loop.saved_at = time.monotonic()
    loop.sums.fold()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {
        "epoch": loop.epoch,
        "step": loop.step,
        "history": files.plain(loop.history),
        "sums": _sums(loop),
        "threads": torch.get_num_threads(),
        "world": loop.fabric.world_size,
        "method": loop.method.extra_state(),
    }
    for name, part in (("optimizer", loop.optimisers), ("best", loop.selection)):
        found, plain[name] = part.state()
        tensors.update({f"{name}/{key}": value for key, value in found.items()})
    tensors.update({f"method/{key}": value for key, value in loop.method.state_dict().items()})
    for key, value in _generators(loop).items():
        tensors[f"generators/{key}"] = value
    if loop.writes:
        number = loop.epoch * len(loop.loader) + loop.step
        checkpoint.save(loop.folder / "checkpoints", number, tensors, plain)
    loop.fabric.barrier()


def _sums(loop: Loop) -> list[Any]:
    """Sums of the epoch so far, one entry per process."""
    mine = loop.sums.state()
    return gather_json(mine, loop.fabric.device)


def _generators(loop: Loop) -> dict[str, Tensor]:
    """Generator states of all processes, (processes, …) each."""
    if loop.fabric.world_size == 1:
        return {key: value[None] for key, value in states().items()}
    device, world = loop.fabric.device, loop.fabric.world_size
    gathered = {key: gather_rows(value[None].to(device)).cpu() for key, value in states().items()}
    return {key: value.reshape(world, -1) for key, value in gathered.items()}


def restore(loop: Loop) -> None:
    """Go back to the newest complete checkpoint, if there is one."""
    assert loop.folder is not None
    if loop.fabric.global_rank == 0:
        checkpoint.sweep(loop.folder / "checkpoints")
    loop.fabric.barrier()
    found = checkpoint.load_newest(loop.folder / "checkpoints")
    tensors, plain, notes = found if found is not None else ({}, {}, [])
    for note in notes:
        loop.progress.say(note)
    loop.notes += notes
    if plain:
        _take_back(loop, tensors, plain)
    if loop.writes:
        files.write_rows(loop.folder / "history.jsonl", loop.history)


def _take_back(loop: Loop, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    if plain["world"] != loop.fabric.world_size:
        raise InputError(
            f"The run in {loop.folder} was started with {plain['world']} processes and is resumed with "
            f"{loop.fabric.world_size}. Give --devices {plain['world']}."
        )
    torch.set_num_threads(plain["threads"])  # the bits depend on it
    loop.epoch, loop.step, loop.history = plain["epoch"], plain["step"], plain["history"]
    loop.sums = Sums(plain["sums"][loop.fabric.global_rank])
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        owner, _, name = key.partition("/")
        parts.setdefault(owner, {})[name] = value
    loop.method.load_state_dict(parts.get("method", {}))
    loop.method.load_extra_state(plain["method"])
    loop.optimisers.load_state(parts.get("optimizer", {}), plain["optimizer"])
    loop.selection.load_state(parts.get("best", {}), plain["best"], loop.fabric.device)
    # clones: torch reads a generator's state from the start of the storage, whatever row a view begins at
    mine = {key: value[loop.fabric.global_rank].clone() for key, value in parts["generators"].items()}
    scalars = ("python_gauss", "numpy_gauss")
    restore_generators({key: value.reshape(()) if key in scalars else value for key, value in mine.items()})
