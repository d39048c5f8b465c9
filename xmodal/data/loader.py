"""From a split to batches, in a seeded order.

The order of an epoch is a function of (seed, epoch), the rows of a batch are a function of (order, step), the share of
a process is a function of (batch, rank). There is no other state, so a resumed run continues at ``start``, the number
of *finished* batches, however many batches a worker had fetched ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from xmodal.data.worker import end_with_parent
from xmodal.errors import InputError
from xmodal.seeding import mix
from xmodal.types import Batch


@dataclass(slots=True)
class Pick:
    """The rows of a batch.

    Attributes:
        rows: modality → positions within the split.
        epoch: seeds the augmentation; None: no augmentation.
    """

    rows: dict[str, Tensor]
    epoch: int | None


class Rows(Protocol):
    """The interface of a split that loaders use."""

    rows: Mapping[str, int]
    paired: bool

    def __getitem__(self, pick: Pick) -> Batch: ...


class Batches(Sampler[Pick]):
    """Picks of one epoch: global batches, of which each process takes every ``world``-th row.

    Modalities of unpaired data are shuffled independently; the shorter ones start over (``recycle``) or the longer
    ones stop early (``cut``).

    Args:
        rows: modality → number of rows in the split.
        paired: whether all modalities follow one order.
        batch_size: rows of a global batch, over all processes.
        seed: of the order.
        shuffle: False: rows in the order of the split.
        augment: whether picks carry the epoch, which augmentation needs.
        unequal: ``recycle`` or ``cut``, for unpaired modalities with different numbers of rows.
        rank: number of this process.
        world: number of processes.
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
        # every process computes the order of all rows and takes its share of each global batch: one process and several
        # train on the same batches. torch's DistributedSampler would repeat rows to make the shares equal
        self.length = max(rows.values()) if unequal == "recycle" else min(rows.values())
        self.epoch, self.start = 0, 0
        if not self.length or (shuffle and self.length < world):
            raise InputError(f"The split has {self.length} rows, at least {max(world, 1)} were expected. Add rows.")

    def at(self, epoch: int, start: int = 0) -> Batches:
        """This sampler, set to yield ``epoch`` from batch number ``start`` on."""
        self.epoch, self.start = epoch, start
        return self

    def __len__(self) -> int:
        full, tail = divmod(self.length, self.batch_size)
        # a tail of one row has no batch statistics, and one of fewer rows than processes would leave a process without
        # a row: in training such a tail joins the batch before it
        joins = self.shuffle and tail < max(2, self.world) and full
        return full + bool(tail and not joins)

    def rows_in(self, step: int) -> int:
        """Number of rows of batch ``step``, over all processes."""
        begin = step * self.batch_size
        return (self.length if step == len(self) - 1 else begin + self.batch_size) - begin

    def parts(self, step: int, every: int) -> float:
        """Rows of the ``every`` batches that share one update, divided by the rows of batch ``step`` among them.

        Gradients of accumulated batches are weighted with it, so that every row counts alike.

        Example:
            >>> batches = Batches({"x": 25}, paired=True, batch_size=10, seed=0)
            >>> batches.parts(0, 2), batches.parts(2, 2), batches.parts(2, 3), batches.parts(0, 1)
            (2.0, 1.0, 5.0, 1.0)
        """
        first = step // every * every
        # the last group of an epoch may have fewer batches
        group = range(first, min(first + every, len(self)))
        return sum(map(self.rows_in, group)) / self.rows_in(step)

    def _order(self, modality: str) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.rows[modality])
        # without the name of the modality, unpaired modalities with equally many rows would stay paired
        key = (self.seed, self.epoch) if self.paired else (self.seed, self.epoch, modality)
        generator = torch.Generator().manual_seed(mix(*key))
        laps: list[Tensor] = []
        while sum(len(lap) for lap in laps) < self.length:
            laps.append(torch.randperm(self.rows[modality], generator=generator))
        return torch.cat(laps)[: self.length]

    def __iter__(self) -> Iterator[Pick]:
        # modalities with one order share one tensor of rows, by which a split recognises what to select once
        groups = [list(self.rows)] if self.paired else [[modality] for modality in self.rows]
        orders = [(group, self._order(group[0])) for group in groups]
        last, epoch = len(self) - 1, self.epoch if self.augment else None
        for step in range(self.start, last + 1):
            begin = step * self.batch_size
            stop = self.length if step == last else begin + self.batch_size
            rows: dict[str, Tensor] = {}
            for group, order in orders:
                rows |= dict.fromkeys(group, order[begin + self.rank : stop : self.world])
            yield Pick(rows, epoch)


class _Indexed(Dataset[Batch]):
    """A split as a dataset whose indices are picks, for torch's `DataLoader`."""

    def __init__(self, split: Rows) -> None:
        self.split = split

    def __getitem__(self, pick: Pick) -> Batch:
        return self.split[pick]


def _start_worker(worker: int) -> None:
    # a forked worker holds copies of its parent's connections: if it lived on after a kill of the parent, the other
    # ranks would wait for that parent instead of noticing its death
    end_with_parent()


# functions of a module, because workers may have to unpickle them
def _unchanged(batch: Any) -> Any:
    return batch


class Loader:
    """Batches of one split, epoch by epoch.

    Args:
        split: the rows.
        sampler: which of them are in which batch.
        workers: processes that read them, bit for bit the same; 0: this one.
        pinned: whether batches of other processes arrive in memory from which a GPU copies while the program goes on.
    """

    def __init__(self, split: Rows, sampler: Batches, *, workers: int = 0, pinned: bool = False) -> None:
        self.split, self.sampler = split, sampler
        self._loader: DataLoader[Batch] | None = None
        if workers:
            self._loader = DataLoader(
                _Indexed(split),
                sampler=sampler,
                batch_size=None,
                collate_fn=_unchanged,
                num_workers=workers,
                persistent_workers=True,
                pin_memory=pinned,
                worker_init_fn=_start_worker,
                # without a generator, each epoch would draw a base seed from the global one, and a run with workers
                # would differ from a run without
                generator=torch.Generator().manual_seed(0),
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
    """Every row of a split once, in order, never augmented: for evaluation and for cached teacher outputs.

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
        # an empty share of the last batch is yielded too: the process still has to join the collective operations
        for pick in sampler:
            yield split[pick]
