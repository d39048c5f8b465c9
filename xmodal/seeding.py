"""The global random generators of Python, NumPy and torch: seeding, and their states as tensors for checkpoints."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def mix(*parts: object) -> int:
    """A 63-bit seed from several values; neighbouring seeds give unrelated streams, and every machine the same ones.

    Example:
        >>> mix(0, "noise") == mix(0, "noise"), mix(0, "noise") == mix(1, "noise")
        (True, False)
    """
    # not `hash`, which is salted per process for strings; 63 bits because torch takes a signed 64-bit seed
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_all(*parts: object) -> None:
    """Seed Python, NumPy and torch from several values."""
    seed = mix(*parts)
    random.seed(seed)
    # NumPy's legacy generator takes 32 bits
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """A block with generators seeded from these values; their previous states are restored after it."""
    with kept():
        seed_all(*parts)
        yield


@contextmanager
def kept() -> Iterator[None]:
    """A block (or a decorated function) after which the generators have the states from before it."""
    before = states()
    try:
        yield
    finally:
        restore(before)


def states() -> dict[str, Tensor]:
    """The states of all global generators."""
    # Both generators draw normal numbers in pairs and keep the second one for the next call (`gauss`, `cached`).
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    generators = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_gauss": torch.tensor(float("nan") if gauss is None else gauss, dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_position": torch.tensor([position, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor(cached, dtype=torch.float64),
    }
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state()
    return generators


def restore(generators: dict[str, Tensor]) -> None:
    """Restore the states that `states` returned."""
    # clones: torch reads the state from the start of the storage, even if the tensor is a view that starts later
    torch.set_rng_state(generators["torch"].clone())
    version, *words = generators["python"].tolist()
    gauss = generators["python_gauss"].item()
    # NaN stands for None: tensors hold no None
    random.setstate((version, tuple(words), None if gauss != gauss else gauss))
    position, has_gauss = generators["numpy_position"].tolist()
    keys = generators["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, generators["numpy_gauss"].item()))
    # a checkpoint from a GPU can be resumed without one, and the other way round
    if "cuda" in generators and torch.cuda.is_available():
        torch.cuda.set_rng_state(generators["cuda"].clone())
