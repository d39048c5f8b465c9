"""From a split to batches, in an order that a number reproduces.

The order of an epoch is a function of (seed, epoch), the rows of a batch one of (order, step), the share of a process
one of (batch, rank). Nothing else is remembered, so a resumed run goes on at `start`, the number of batches that were
*finished*, whatever had been fetched ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from xmodal.data.worker import end_with_owner
from xmodal.errors import InputError
from xmodal.seeding import mix
from xmodal.types import Batch


@dataclass(slots=True)
class Pick:
    """Which rows a batch is made of.

    Attributes:
        rows: modality → positions within the split.
        epoch: seeds the augmentation; None: the samples as they are.
    """

    rows: dict[str, Tensor]
    epoch: int | None


class Rows(Protocol):
    """What a loader asks of a split."""

    rows: Mapping[str, int]
    paired: bool

    def __getitem__(self, pick: Pick) -> Batch: ...


class Batches(Sampler[Pick]):
    """Picks of one epoch: global batches, of which each process takes every ``world``-th row.

    A last batch too short for batch statistics (one row), or for all processes to have a row, joins the one before.
    Modalities of unpaired data are shuffled independently; the shorter ones start over (``recycle``) or the longer
    ones stop early (``cut``).
    """

    def __init__(
        self,
        rows: Mapping[str, int],
        *,
        paired: bool,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        augment: bool = True,
        unequal: str = "recycle",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.rows, self.paired, self.seed = dict(rows), paired, seed
        self.batch_size, self.shuffle, self.augment = batch_size, shuffle, augment
        self.rank, self.world = rank, world
        self.length = max(rows.values()) if unequal == "recycle" else min(rows.values())
        self.epoch, self.start = 0, 0
        if not self.length or (shuffle and self.length < world):
            raise InputError(f"The split has {self.length} rows, at least {max(world, 1)} were expected. Add rows.")

    def at(self, epoch: int, start: int = 0) -> Batches:
        """The same sampler, ready to yield ``epoch`` from its batch number ``start``."""
        self.epoch, self.start = epoch, start
        return self

    def __len__(self) -> int:
        full, tail = divmod(self.length, self.batch_size)
        joins = self.shuffle and tail < max(2, self.world) and full
        return full + bool(tail and not joins)

    def rows_in(self, step: int) -> int:
        """Rows of batch number ``step``, over all processes."""
        begin = step * self.batch_size
        return (self.length if step == len(self) - 1 else begin + self.batch_size) - begin

    def parts(self, step: int, every: int) -> float:
        """Rows of the ``every`` batches that update together, by those of batch number ``step`` among them.

        Example:
            >>> batches = Batches({"x": 25}, paired=True, batch_size=10, seed=0)
            >>> batches.parts(0, 2), batches.parts(2, 2), batches.parts(2, 3), batches.parts(0, 1)
            (2.0, 1.0, 5.0, 1.0)
        """
        first = step // every * every
        group = range(first, min(first + every, len(self)))
        return sum(map(self.rows_in, group)) / self.rows_in(step)

    def _order(self, modality: str) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.rows[modality])
        key = (self.seed, self.epoch) if self.paired else (self.seed, self.epoch, modality)
        generator = torch.Generator().manual_seed(mix(*key))
        laps: list[Tensor] = []
        while sum(len(lap) for lap in laps) < self.length:
            laps.append(torch.randperm(self.rows[modality], generator=generator))
        return torch.cat(laps)[: self.length]

    def __iter__(self) -> Iterator[Pick]:
        if self.paired:
            shared = self._order(next(iter(self.rows)))
            orders = dict.fromkeys(self.rows, shared)
        else:
            orders = {modality: self._order(modality) for modality in self.rows}
        last = len(self) - 1
        for step in range(self.start, len(self)):
            stop = None if step == last else (step + 1) * self.batch_size
            part = slice(step * self.batch_size, stop)
            cut = {id(order): order[part][self.rank :: self.world] for order in orders.values()}
            picked = {modality: cut[id(order)] for modality, order in orders.items()}
            yield Pick(picked, self.epoch if self.augment else None)


class _Indexed(Dataset[Batch]):
    """A split as a worker process sees it."""

    def __init__(self, split: Rows) -> None:
        self.split = split

    def __getitem__(self, pick: Pick) -> Batch:
        return self.split[pick]


def _ends_with_its_owner(worker: int) -> None:
    """A worker holds the connections of the process it was forked from: the others would not notice its death."""
    end_with_owner()


def _as_it_is(batch: Any) -> Any:
    return batch


class Loader:
    """Batches of one split, epoch by epoch; with ``workers`` they are made in other processes, bit for bit the same."""

    def __init__(self, split: Rows, sampler: Batches, *, workers: int = 0) -> None:
        self.split, self.sampler = split, sampler
        self._loader: DataLoader[Batch] | None = None
        if workers:
            self._loader = DataLoader(
                _Indexed(split),
                sampler=sampler,
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=workers,
                persistent_workers=True,
                worker_init_fn=_ends_with_its_owner,
                generator=torch.Generator().manual_seed(0),  # else it draws from the global one
            )

    def __len__(self) -> int:
        return len(self.sampler)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from number ``start`` on."""
        self.sampler.at(epoch, start)
        if self._loader is not None:
            return iter(self._loader)
        return (self.split[pick] for pick in self.sampler)


def in_order(split: Rows, *, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """Every row of a split once, in order, never augmented: for evaluation and for tables.

    Paired batches carry all modalities. Unpaired splits yield one modality after the other.
    """
    groups = [list(split.rows)] if split.paired else [[modality] for modality in split.rows]
    for group in groups:
        sampler = Batches(
            {modality: split.rows[modality] for modality in group},
            paired=True,
            batch_size=batch_size,
            seed=0,
            shuffle=False,
            augment=False,
            rank=rank,
            world=world,
        )
        for pick in sampler:  # a process may get an empty share of the last batch; it still has to meet the others
            yield split[pick]
