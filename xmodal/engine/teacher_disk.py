"""A teacher's answers on disk, for tables that are too large for the memory.

    answers/<key>/answers.json    names, types and shapes, and the key in words
    answers/<key>/0.npy …         one array (training rows, …) per answer, memory-mapped

The key is a hash of all that the answers depend on: weights and buffers of the teacher, the rows of the split and how
they are normalised, the number format, and the teacher's answers to some rows spread over the split, so that whatever
else changes what it says (a mask, a place, other files under the same names) leads to another table. A table that was
written whole is used again by a resumed run, by all processes, and by every training of a run that asks the same.
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
    from lightning_fabric import Fabric

INDEX = "answers.json"
Ask = Callable[[Batch], dict[str, Tensor]]


class Answers:
    """A table on disk, read where it is asked for.

    Args:
        folder: one that `stored` has filled.
        device: where rows are handed out.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.device = device
        self.columns = {
            name: (np.load(folder / one["file"], mmap_mode="r", allow_pickle=False), getattr(torch, one["dtype"]))
            for name, one in files.read_json(folder / INDEX)["answers"].items()
        }

    def __call__(self, rows: Tensor) -> dict[str, Tensor]:
        """The answers of some rows."""
        numbers = rows.cpu().numpy()
        return {
            name: torch.from_numpy(column[numbers]).view(dtype).to(self.device)
            for name, (column, dtype) in self.columns.items()
        }


def stored(
    place: Path,
    method: Method,
    split: Split,
    *,
    ask: Ask,
    block: int,
    fabric: Fabric,
) -> Path | None:
    """The folder of the answers of all rows, which are asked for if they are not there: each process its share.

    None where the disk has no room for them.
    """
    probe = ask(_spread(split, block).to(fabric.device))
    told = {"code": __version__, "weights": weights_of(method), "rows": rows_of(split), "probe": _hash(probe)}
    told["precision"] = str(next(iter(probe.values())).dtype)
    key: str = gather_json(hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24], fabric.device)[0]
    found = place / key
    if gather_json((found / INDEX).exists(), fabric.device)[0]:
        return found
    if gather_json(room(place) < bytes_of(probe, _length(split)), fabric.device)[0]:
        return None
    beside = place / f".{key}.part"
    if fabric.global_rank == 0:
        _open(beside, probe, _length(split))
    fabric.barrier()
    _fill(beside, probe, _blocks(split, block, fabric), lambda batch: ask(batch.to(fabric.device)))
    fabric.barrier()
    if fabric.global_rank == 0:
        files.write_json(beside / INDEX, {"answers": _described(probe), "key": told})
        files.sync_folder(beside)
        os.replace(beside, found)
        files.sync_folder(place)
    fabric.barrier()
    return found


def bytes_of(answers: Mapping[str, Tensor], rows: int) -> int:
    """How much the answers of so many rows take, from those of some."""
    one = sum(answer[0].nelement() * answer.element_size() for answer in answers.values())
    return one * rows


def room(place: Path) -> int:
    """Free bytes where a folder is, or will be."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def weights_of(method: Method) -> str:
    """Hash of the frozen parts, and of what the method itself keeps beside its networks, such as masks."""
    found = hashlib.sha256(type(method).__qualname__.encode())
    own = {name: buffer for name, buffer in method.named_buffers(recurse=False) if buffer is not None}
    for state in (own, *(module.state_dict() for module in method.frozen)):
        found.update(_hash(state).encode())
    return found.hexdigest()


def rows_of(split: Split) -> str:
    """Hash of which rows there are, in which order, and how they are normalised."""
    found = hashlib.sha256()
    for modality, numbers in split.numbers.items():
        found.update(modality.encode() + numbers.tobytes())
    for name, column in split.columns.items():
        found.update(f"{name} {column.shape} {column.dtype}".encode())
    for name, statistics in split._statistics.items():
        found.update(name.encode() + b"".join(part.tobytes() for part in statistics))
    return found.hexdigest()


def _length(split: Split) -> int:
    return max(split.rows.values())


def _spread(split: Split, block: int) -> Batch:
    """Rows from the first to the last, at equal distances, as they are."""
    count = min(_length(split), block)
    rows = torch.arange(count) * (_length(split) - 1) // max(count - 1, 1)
    return split[Pick(dict.fromkeys(split.rows, rows), epoch=None)]


def _hash(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(_numbers(tensor).tobytes())
    return found.hexdigest()


def _numbers(tensor: Tensor) -> Any:
    """A tensor as an array; NumPy has no bfloat16, so that goes by its bits."""
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _described(answers: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    return {
        name: {"file": f"{number}.npy", "dtype": str(answer.dtype).removeprefix("torch.")}
        for number, (name, answer) in enumerate(answers.items())
    }


def _open(folder: Path, answers: Mapping[str, Tensor], rows: int) -> None:
    """Empty files of the right size."""
    for leftover in folder.parent.glob(".*.part"):  # of one who was killed here
        shutil.rmtree(leftover)
    folder.mkdir(parents=True)
    for name, one in _described(answers).items():
        like = _numbers(answers[name])
        np.lib.format.open_memmap(folder / one["file"], mode="w+", dtype=like.dtype, shape=(rows, *like.shape[1:]))


def _fill(folder: Path, answers: Mapping[str, Tensor], blocks: Iterator[tuple[slice, Batch]], ask: Ask) -> None:
    """Write the answers of some blocks of rows."""
    columns = {
        name: np.lib.format.open_memmap(folder / one["file"], mode="r+") for name, one in _described(answers).items()
    }
    for rows, batch in blocks:
        for name, answer in ask(batch).items():
            columns[name][rows] = _numbers(answer)
    for column in columns.values():
        column.flush()


def _blocks(split: Split, block: int, fabric: Fabric) -> Iterator[tuple[slice, Batch]]:
    """Blocks of rows in their order, every ``world``-th one: the same blocks whatever the number of processes."""
    for number in range(fabric.global_rank, math.ceil(_length(split) / block), fabric.world_size):
        rows = slice(number * block, min((number + 1) * block, _length(split)))
        picked = torch.arange(rows.start, rows.stop)
        yield rows, split[Pick(dict.fromkeys(split.rows, picked), epoch=None)]
