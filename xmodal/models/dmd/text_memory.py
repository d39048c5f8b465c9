"""Features of texts that a frozen encoder has computed: each text is encoded once, not once per epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOST_BYTES = 4 * 2**30  # MOSEI's 22,856 texts of 50 tokens with 768 float32 numbers each are 3.5 GB


class TextMemory:
    """Features by text, in the memory of the CPU.

    A text is encoded alone, so its features do not depend on the texts beside it in a batch: these change with the
    order of the batches, and with them the last digits of matrix products. A resumed training has the same features.

    Args:
        most_bytes: texts beyond this size are encoded each time.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self.features: dict[tuple[str, bytes], Tensor] = {}

    def look_up(self, tokens: Tensor, encode: Callable[[Tensor], Tensor], kind: str) -> Tensor:
        """Features (rows, width, T) of tokens (rows, 3, T).

        Args:
            tokens: of the texts.
            encode: tokens (1, 3, T) to features (1, width, T).
            kind: what else the features depend on, such as the precision.
        """
        # one transfer for all rows
        keys = [(kind, row.tobytes()) for row in tokens.detach().to("cpu", torch.int64).numpy()]
        return torch.stack([self._one(key, tokens[number : number + 1], encode) for number, key in enumerate(keys)])

    def _one(self, key: tuple[str, bytes], tokens: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        known = self.features.get(key)
        if known is not None:
            return known.to(tokens.device, non_blocking=True)
        found = encode(tokens)[0]
        if self.bytes + found.nbytes <= self.most_bytes:
            # a copy: a view would keep the memory of the whole output
            self.features[key] = found.detach().to("cpu", copy=True)
            self.bytes += found.nbytes
        return found

    def forget(self) -> None:
        """Drop all features, after a change of the weights."""
        self.features.clear()
        self.bytes = 0

    def __deepcopy__(self, memo: Any) -> TextMemory:
        """An empty memory: a copy of a network need not copy gigabytes."""
        return TextMemory(self.most_bytes)

    def __reduce__(self) -> tuple[type[TextMemory], tuple[int]]:
        """The same for a network that is sent to another process."""
        return TextMemory, (self.most_bytes,)
