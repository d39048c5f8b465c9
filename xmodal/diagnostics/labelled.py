"""The labelled rows of batches, for diagnostics that compare rows by their targets or estimate what labels teach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xmodal.types import Batch


def labelled_rows(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Paired batches without the rows that have no label; a batch without any label is left out.

    Example:
        >>> import torch
        >>> labelled = torch.tensor([True, False])
        >>> batch = Batch({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([0, -1])}, labelled={"a": labelled})
        >>> [found.inputs["a"].tolist() for found in labelled_rows([batch])]
        [[1.0]]
    """
    for batch in batches:
        mask = next(iter(batch.labelled.values()), None)
        if mask is None or bool(mask.all()):
            yield batch
        elif bool(mask.any()):
            yield batch.take(mask)
