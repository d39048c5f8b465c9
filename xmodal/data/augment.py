"""Augmentation of training batches, drawn as a function of (seed, epoch, index, modality).

So a resumed run, a run with workers and a run on two processes see the same samples, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError, did_you_mean
from xmodal.seeding import mix

Array = NDArray[np.float32]


def noise(sample: Array, strength: float, random: np.random.Generator) -> Array:
    """Add Gaussian noise of this standard deviation (in normalised units)."""
    return sample + strength * random.standard_normal(sample.shape, dtype=np.float32)


def shift(sample: Array, strength: float, random: np.random.Generator) -> Array:
    """Move an image or a video (last two axes) or a sequence (last axis) by up to ``strength`` steps, padded with 0."""
    for axis in range(max(1, sample.ndim - 2), sample.ndim):
        step = int(random.integers(-int(strength), int(strength) + 1))
        sample = np.roll(sample, step, axis=axis)
        # np.roll is circular: what left at one end and entered at the other is cleared
        gap = [slice(None)] * sample.ndim
        gap[axis] = slice(0, step) if step > 0 else slice(sample.shape[axis] + step, None)
        sample[tuple(gap)] = 0.0
    return sample


def scale(sample: Array, strength: float, random: np.random.Generator) -> Array:
    """Multiply by a factor from ``1 - strength`` to ``1 + strength``."""
    return sample * np.float32(random.uniform(1 - strength, 1 + strength))


def geometric(sample: Array, strength: float, random: np.random.Generator) -> Array:
    """With probability ``strength``: flip an image horizontally and vertically, each in half of the cases, and turn it.

    Half of those images are turned by 0, 90, 180 or 270 degrees, images that are not square by 0 or 180. Vectors and
    sequences do not change. This is the augmentation of DisCoM-KD's released code.
    """
    if sample.ndim != 3 or random.random() >= strength:
        return sample
    for axis in (2, 1):
        if random.random() < 0.5:
            sample = np.flip(sample, axis=axis)
    if random.random() < 0.5:
        quarters = int(random.integers(4)) if sample.shape[1] == sample.shape[2] else 2 * int(random.integers(2))
        sample = np.rot90(sample, quarters, axes=(1, 2))
    return sample


OPERATIONS: dict[str, Callable[[Array, float, np.random.Generator], Array]] = {
    "noise": noise,
    "shift": shift,
    "scale": scale,
    "geometric": geometric,
}
MOVING = ("shift", "geometric")


@dataclass(frozen=True)
class Augment:
    """A list of (operation, strength) for training batches.

    An operation applies to every modality, ``modality.operation`` to one of them.

    Example:
        >>> Augment.parse("noise:0.1,image.shift:2").operations
        (('noise', 0.1), ('image.shift', 2.0))
    """

    operations: tuple[tuple[str, float], ...] = field(default_factory=tuple)
    seed: int = 0

    @classmethod
    def parse(cls, text: str, *, seed: int = 0) -> Augment:
        """Read ``name:strength`` pairs separated by commas; an empty text augments nothing."""
        operations = []
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, _, strength = part.partition(":")
            operation = name.rpartition(".")[2]
            if operation not in OPERATIONS:
                raise InputError(
                    f"There is no augmentation called '{operation}'. {did_you_mean(operation, OPERATIONS)}"
                )
            operations.append((name, _strength(part, strength)))
        return cls(tuple(operations), seed)

    @property
    def moves(self) -> bool:
        """Whether an operation moves the content of a sample, which dense targets would have to follow."""
        return any(name.rpartition(".")[2] in MOVING for name, _ in self.operations)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that have operations of their own."""
        return tuple(name.rpartition(".")[0] for name, _ in self.operations if "." in name)

    def changes(self, modality: str) -> bool:
        """Whether any operation applies to this modality."""
        return any(name.rpartition(".")[0] in ("", modality) for name, _ in self.operations)

    def __call__(self, modality: str, samples: Array, *, epoch: int, index: NDArray[np.int64]) -> Array:
        """Augment the rows of one modality; row i is number ``index[i]`` of the split."""
        operations = [
            (OPERATIONS[name.rpartition(".")[2]], strength)
            for name, strength in self.operations
            if name.rpartition(".")[0] in ("", modality)
        ]
        if not operations:
            return samples
        out = np.empty_like(samples)
        for position, row in enumerate(index.tolist()):
            # Philox starts from its key alone, so a generator per sample is cheap
            random = np.random.Generator(np.random.Philox(key=mix(self.seed, epoch, row, modality)))
            # a copy, because an operation may work in place and the samples belong to the caller
            sample = samples[position].copy()
            for operation, strength in operations:
                sample = operation(sample, strength, random)
            out[position] = sample
        return out


def _strength(part: str, text: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = math.nan
    if not (math.isfinite(strength) and strength >= 0):
        raise InputError(
            f"Augmentation '{part}': expected NAME:STRENGTH with a strength of at least 0, as in noise:0.1."
        )
    return strength
