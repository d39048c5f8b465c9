"""Random generators: one seed for all of them, and their states as tensors for a checkpoint."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def mix(*parts: object) -> int:
    """One 63-bit seed from several values: near seeds give unrelated streams, on every machine the same.

    Example:
        >>> mix(0, "noise") == mix(0, "noise"), mix(0, "noise") == mix(1, "noise")
        (True, False)
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_all(*parts: object) -> None:
    """Seed Python, NumPy and torch from several values."""
    seed = mix(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """A block with generators seeded from these values; afterwards they go on as if nothing had happened."""
    with kept():
        seed_all(*parts)
        yield


@contextmanager
def kept() -> Iterator[None]:
    """A block (or a decorated function) that leaves the generators as it found them."""
    before = states()
    try:
        yield
    finally:
        restore(before)


def states() -> dict[str, Tensor]:
    """The states of all global generators."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    found = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_gauss": torch.tensor(float("nan") if gauss is None else gauss, dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_position": torch.tensor([position, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor(cached, dtype=torch.float64),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def restore(found: dict[str, Tensor]) -> None:
    """Take back what `states` gave."""
    # clones: torch reads the storage of a view from its beginning, and crashes
    torch.set_rng_state(found["torch"].clone())
    version, *words = found["python"].tolist()
    gauss = found["python_gauss"].item()
    random.setstate((version, tuple(words), None if gauss != gauss else gauss))
    position, has_gauss = found["numpy_position"].tolist()
    keys = found["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, found["numpy_gauss"].item()))
    if "cuda" in found and torch.cuda.is_available():
        torch.cuda.set_rng_state(found["cuda"].clone())
