"""Batches on the device: a GPU copies the next batch while it trains on the present one.

Pinned memory, a stream of its own for copies and `non_blocking` let program, copies and training go on side by side.
The order of the batches and their content are the same everywhere, so the results are too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from xmodal.types import Batch

T = TypeVar("T")
U = TypeVar("U")


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches, which are in the memory of the CPU, on a device."""
    if device.type == "cpu":
        return iter(batches)
    if device.type != "cuda":
        return (batch.to(device) for batch in batches)
    return _copied(batches, device)


def _copied(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(copying):
            # pinned here, unless a thread of the loader has done it
            return batch.pin_memory().to(device, non_blocking=True), copying.record_event()

    for batch, copied in one_ahead(batches, copy):
        training = torch.cuda.current_stream(device)
        training.wait_event(copied)
        # the memory belongs to the copying stream, which must not use it again before the training has read it
        for part in batch.parts().values():
            for tensor in part.values():
                tensor.record_stream(training)
        yield batch


def one_ahead(items: Iterable[T], prepare: Callable[[T], U]) -> Iterator[U]:
    """``map(prepare, items)``, of which one more is prepared than was asked for.

    Example:
        >>> prepared = []
        >>> results = one_ahead("abc", lambda letter: prepared.append(letter) or letter.upper())
        >>> next(results), prepared
        ('A', ['a', 'b'])
    """
    waiting: list[U] = []
    for item in items:
        waiting.append(prepare(item))
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
