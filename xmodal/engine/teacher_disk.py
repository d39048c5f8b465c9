"""Teacher outputs on disk, for tables that are too large for memory.

    answers/<key>/answers.json    names, types and shapes, and what the key was computed from
    answers/<key>/0.npy …         one array (training rows, …) per output, memory-mapped

The key is a hash of everything that the outputs depend on: weights and buffers of the teacher, the rows of the split
and their normalisation, the floating-point format, and the teacher's outputs for some rows spread over the split. The
latter notice other causes (a mask, another layer, different files under the same names). A complete table is used again
by a resumed run, by all processes, and by every training of a run with the same key.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xmodal import files
from xmodal.collectives import gather_json
from xmodal.data.loader import Pick
from xmodal.data.split import Split
from xmodal.method import Method
from xmodal.types import Batch
from xmodal.version import __version__

if TYPE_CHECKING:
    from xmodal.devices import Devices

INDEX = "answers.json"
Compute = Callable[[Batch], dict[str, Tensor]]


class DiskTable:
    """A table on disk, of which only the requested rows are read.

    Args:
        folder: as `disk_table` returned it.
        device: of the tensors that are returned.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.device = device
        self.columns = {
            name: (np.load(folder / entry["file"], mmap_mode="r", allow_pickle=False), getattr(torch, entry["dtype"]))
            for name, entry in files.read_json(folder / INDEX)["answers"].items()
        }

    def __call__(self, rows: Tensor) -> dict[str, Tensor]:
        """The outputs for some rows."""
        numbers = rows.cpu().numpy()
        return {
            name: torch.from_numpy(column[numbers]).view(dtype).to(self.device)
            for name, (column, dtype) in self.columns.items()
        }


def disk_table(
    parent: Path,
    method: Method,
    split: Split,
    *,
    compute: Compute,
    block: int,
    fabric: Devices,
) -> Path | None:
    """The folder in ``parent`` with the outputs for all rows; None: the disk has no room for them.

    A table that does not exist yet is computed, by each process a share of the rows.
    """
    probe = compute(_spread(split, block).to(fabric.device))
    facts = {"code": __version__, "weights": weights_of(method), "rows": rows_of(split), "probe": _hash(probe)}
    facts["precision"] = str(next(iter(probe.values())).dtype)
    key: str = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    # Rank 0 decides in all three cases: the probe's last bits and the free space may differ between machines, and
    # processes that disagree would wait in different exchanges.
    key = gather_json(key, fabric.device)[0]
    folder = parent / key
    if gather_json((folder / INDEX).exists(), fabric.device)[0]:
        return folder
    if gather_json(free_bytes(parent) < bytes_of(probe, _length(split)), fabric.device)[0]:
        return None
    # Filled under a hidden name and renamed when complete: a table of a process that was killed is never read.
    partial = parent / f".{key}.part"
    if fabric.global_rank == 0:
        _create(partial, probe, _length(split))
    fabric.barrier()
    _fill(partial, probe, blocks_of(split, block, fabric), lambda rows: compute(rows_at(split, rows).to(fabric.device)))
    fabric.barrier()
    if fabric.global_rank == 0:
        files.write_json(partial / INDEX, {"answers": _index(probe), "key": facts})
        files.sync_folder(partial)
        os.replace(partial, folder)
        files.sync_folder(parent)
    fabric.barrier()
    return folder


def bytes_of(outputs: Mapping[str, Tensor], rows: int) -> int:
    """Size of a table of so many rows, given the outputs for some rows."""
    per_row = sum(output[0].nelement() * output.element_size() for output in outputs.values())
    return per_row * rows


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def weights_of(method: Method) -> str:
    """Hash of the frozen networks, and of the method's own buffers, such as masks."""
    digest = hashlib.sha256(type(method).__qualname__.encode())
    buffers = {name: buffer for name, buffer in method.named_buffers(recurse=False) if buffer is not None}
    for state in (buffers, *(module.state_dict() for module in method.frozen)):
        digest.update(_hash(state).encode())
    return digest.hexdigest()


def rows_of(split: Split) -> str:
    """Hash of the rows of a split, their order and their normalisation."""
    digest = hashlib.sha256()
    for modality, numbers in split.numbers.items():
        digest.update(modality.encode() + numbers.tobytes())
    for name, column in split.columns.items():
        digest.update(f"{name} {column.shape} {column.dtype}".encode())
    for name, statistics in split._statistics.items():
        digest.update(name.encode() + b"".join(part.tobytes() for part in statistics))
    return digest.hexdigest()


def _length(split: Split) -> int:
    return max(split.rows.values())


def _spread(split: Split, block: int) -> Batch:
    """Rows at equal distances from the first to the last, without augmentation."""
    count = min(_length(split), block)
    rows = torch.arange(count) * (_length(split) - 1) // max(count - 1, 1)
    return split[Pick(dict.fromkeys(split.rows, rows), epoch=None)]


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_array(tensor).tobytes())
    return digest.hexdigest()


def _array(tensor: Tensor) -> Any:
    """A tensor as a NumPy array; bfloat16, which NumPy does not have, as int16 with the same bits."""
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _index(outputs: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """File and type of each output. Files are numbered, since a name may hold characters that paths can't."""
    return {
        name: {"file": f"{number}.npy", "dtype": str(output.dtype).removeprefix("torch.")}
        for number, (name, output) in enumerate(outputs.items())
    }


def _create(folder: Path, outputs: Mapping[str, Tensor], rows: int) -> None:
    """Create empty files of the right size."""
    # of processes that were killed while they filled a table
    for leftover in folder.parent.glob(".*.part"):
        shutil.rmtree(leftover)
    folder.mkdir(parents=True)
    for name, entry in _index(outputs).items():
        like = _array(outputs[name])
        np.lib.format.open_memmap(folder / entry["file"], mode="w+", dtype=like.dtype, shape=(rows, *like.shape[1:]))


def _fill(
    folder: Path,
    outputs: Mapping[str, Tensor],
    blocks: Iterator[slice],
    compute: Callable[[slice], Mapping[str, Tensor]],
) -> None:
    """Write the outputs for some blocks of rows."""
    columns = {
        name: np.lib.format.open_memmap(folder / entry["file"], mode="r+") for name, entry in _index(outputs).items()
    }
    for rows in blocks:
        for name, output in compute(rows).items():
            columns[name][rows] = _array(output)
    for column in columns.values():
        column.flush()


def blocks_of(split: Split, block: int, fabric: Devices) -> Iterator[slice]:
    """Every ``world``-th block of rows. The blocks are the same for any number of processes, and so are the bits."""
    for number in range(fabric.global_rank, math.ceil(_length(split) / block), fabric.world_size):
        yield slice(number * block, min((number + 1) * block, _length(split)))


def rows_at(split: Split, rows: slice) -> Batch:
    """Consecutive rows of a split, without augmentation."""
    return split[Pick(dict.fromkeys(split.rows, torch.arange(rows.start, rows.stop)), epoch=None)]
