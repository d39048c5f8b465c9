"""Batches where some training rows lack a label or a modality: a fixed number of labelled and of unlabelled rows each.

Both kinds of rows are *streams*, each shuffled by itself, and an epoch is as many updates as it takes to read all rows
of the split once, whatever a method reads of them. So every training that is compared gets the same number of updates,
whether it reads 30 labelled rows or 30 labelled and 2,000 unlabelled ones. Of the rows that lack a modality a stream
has those alone that the method can use.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from xmodal.data.loader import Batches, Pick
from xmodal.errors import InputError, listed
from xmodal.seeding import mix
from xmodal.types import owner, rows_with


@dataclass(frozen=True, slots=True)
class Needs:
    """The modalities that a row must have to be of use to a training; None: all of the data.

    Attributes:
        labelled: of a row with a label.
        unlabelled: of a row without one.
    """

    labelled: Collection[str] | None = None
    unlabelled: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """Rows that fill a fixed part of every batch.

    Attributes:
        name: of the stream, which seeds its order.
        rows: positions within the split.
        size: how many of them are in a global batch.
    """

    name: str
    rows: Tensor
    size: int


ALL = Needs()


def labelled_per_batch(labelled: int, unlabelled: int, batch_size: int) -> tuple[int, int]:
    """How many labelled and how many unlabelled rows are in a batch: half of it each, or as many as there are.

    Example:
        >>> labelled_per_batch(30, 2000, 128), labelled_per_batch(500, 2000, 128), labelled_per_batch(500, 20, 128)
        ((30, 98), (64, 64), (64, 20))
        >>> labelled_per_batch(500, 0, 128)
        (128, 0)
    """
    first = min(labelled, batch_size // 2 if unlabelled else batch_size)
    return first, min(unlabelled, batch_size - first)


def divided(size: int, whole: int, partly: int) -> tuple[int, int]:
    """How many of the labelled rows of a batch have all that a method reads, and how many lack some of it.

    In the shares of all labelled rows, so that each row is used about equally often; where there are any of the first
    kind, every batch has some, since the terms of a teacher read these alone.

    Example:
        >>> divided(64, 300, 100), divided(64, 1, 999), divided(30, 20, 10), divided(64, 300, 0)
        ((48, 16), (1, 63), (20, 10), (64, 0))
    """
    if not whole or not partly:
        return (size, 0) if whole else (0, size)
    lacking = min(partly, size - max(1, round(size * whole / (whole + partly))))
    return size - lacking, lacking


def batches_of(size: int, rows: int, batches: int, generator: torch.Generator) -> Tensor:
    """(batches, size) positions below ``rows``: no row is twice in a batch, and each is used about equally often.

    Rows are taken from one random order after another. Where an order ends within a batch, the next one has the rows
    of that batch at its end.

    Example:
        >>> found = batches_of(2, 3, 3, torch.Generator().manual_seed(0))
        >>> [len(set(batch.tolist())) for batch in found], found.flatten().bincount().tolist()
        ([2, 2, 2], [2, 2, 2])
    """
    queue = torch.empty(0, dtype=torch.long)
    picked = []
    for _ in range(batches):
        if len(queue) < size:
            order = torch.randperm(rows, generator=generator)
            again = torch.isin(order, queue)
            queue = torch.cat([queue, order[~again], order[again]])
        picked.append(queue[:size])
        queue = queue[size:]
    return torch.stack(picked)


class Streams(Batches):
    """Picks of one epoch, composed of streams; each process takes every ``world``-th row of a global batch.

    Args:
        streams: modality → its streams; in paired data all modalities have the same ones.
        rows: modality → number of rows of the split, labelled or not, which determines the length of an epoch.
        paired: whether all modalities follow one order.
        batch_size: rows of a global batch, of which the streams fill a part.
        seed: of the order.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(
        self,
        streams: Mapping[str, list[Stream]],
        rows: Mapping[str, int],
        *,
        paired: bool,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(rows, paired=paired, batch_size=batch_size, seed=seed, rank=rank, world=world)
        self.streams = {modality: [stream for stream in parts if stream.size] for modality, parts in streams.items()}
        for modality, parts in self.streams.items():
            size = sum(stream.size for stream in parts)
            if size < max(2, world):
                raise InputError(
                    f"A batch would have {size} rows of {modality}: at least {max(2, world)} were expected. Raise "
                    "--batch-size, or label more rows."
                )

    def __len__(self) -> int:
        return math.ceil(self.length / self.batch_size)

    def rows_in(self, step: int) -> int:
        """Number of rows of batch ``step``, over all processes: the same for every step."""
        return sum(stream.size for stream in next(iter(self.streams.values())))

    def __iter__(self) -> Iterator[Pick]:
        if self.paired:
            shared = self._composed(next(iter(self.streams)))
            orders = dict.fromkeys(self.streams, shared)
        else:
            orders = {modality: self._composed(modality) for modality in self.streams}
        for step in range(self.start, len(self)):
            # modalities with one order share one tensor of rows, by which a split recognises what to select once
            shares = {id(order): order[step, self.rank :: self.world] for order in orders.values()}
            yield Pick({modality: shares[id(order)] for modality, order in orders.items()}, self.epoch)

    def _composed(self, modality: str) -> Tensor:
        """(batches, rows) positions within the split, labelled rows first."""
        parts = []
        for stream in self.streams[modality]:
            key = (self.seed, self.epoch, stream.name, *([] if self.paired else [modality]))
            generator = torch.Generator().manual_seed(mix(*key))
            parts.append(stream.rows[batches_of(stream.size, len(stream.rows), len(self), generator)])
        return torch.cat(parts, dim=1)


def batches_for(
    rows: Mapping[str, int],
    labelled: Mapping[str, Tensor],
    *,
    unlabelled: bool,
    paired: bool,
    batch_size: int,
    seed: int,
    present: Mapping[str, Tensor] | None = None,
    needs: Needs = ALL,
    unequal: str = "recycle",
    rank: int = 0,
    world: int = 1,
) -> Batches:
    """The batches of a training.

    Args:
        rows: modality → number of rows of the training split.
        labelled: modality → mask of the rows with a label; empty: all have one.
        unlabelled: whether the method uses rows without a label.
        paired: whether all modalities follow one order.
        batch_size: rows of a global batch, over all processes.
        seed: of the order.
        present: modality → mask of the rows that have it; empty or None: all rows have all modalities.
        needs: the modalities of the rows that the method can use.
        unequal: ``recycle`` or ``cut``, see `Batches`; composed batches always recycle.
        rank: number of this process.
        world: number of processes.
    """
    if not labelled and not present:
        return Batches(rows, paired=paired, batch_size=batch_size, seed=seed, unequal=unequal, rank=rank, world=world)
    streams = {}
    for modality, count in rows.items():
        with_label = labelled[modality] if labelled else torch.ones(count, dtype=torch.bool)
        without = ~with_label & unlabelled
        # rows with a label of which only some terms can use what they have
        partly = torch.zeros_like(with_label)
        if present:
            whole = rows_with(present, needs.unlabelled)
            partly = with_label & rows_with(present, needs.labelled) & ~whole
            with_label, without = with_label & whole, without & whole
            found = int((with_label | partly | without).sum())
            if found < max(2, world):
                raise InputError(_too_few(found, max(2, world), present, needs, unlabelled=unlabelled))
        groups = {"labelled": with_label, "labelled, lacking": partly, "unlabelled": without}
        numbers = {name: mask.nonzero().flatten() for name, mask in groups.items()}
        known = len(numbers["labelled"]), len(numbers["labelled, lacking"])
        first, last = labelled_per_batch(sum(known), len(numbers["unlabelled"]), batch_size)
        sizes = (*divided(first, *known), last)
        streams[modality] = [Stream(name, numbers[name], size) for name, size in zip(numbers, sizes, strict=True)]
    return Streams(streams, rows, paired=paired, batch_size=batch_size, seed=seed, rank=rank, world=world)


def _too_few(found: int, least: int, present: Mapping[str, Tensor], needs: Needs, *, unlabelled: bool) -> str:
    """The error sentence about too few rows that have what a training needs."""
    first, second = (
        listed(dict.fromkeys(map(owner, present if names is None else names)))
        for names in (needs.labelled, needs.unlabelled)
    )
    without = f", or {second} and no label" * unlabelled
    return (
        f"{found} training rows have a label and {first}{without}: this training can use no others, and at least "
        f"{least} were expected. Add such rows, or choose other modalities."
    )
