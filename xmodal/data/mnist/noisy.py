r"""Pictures behind noise that is drawn anew at every access, as a function of what is asked for alone.

$$\tilde x = \lfloor 255 \cdot clip(x / 255 + level \cdot u, 0, 1) \rfloor, \qquad u \sim U[0, 1]$$

u is drawn per pixel and channel from (seed, epoch, row, modality). A training pass sees other noise in every epoch; all
else (validation, test, a teacher's table, diagnostics) sees one fixed draw per sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.split import Column
from xmodal.seeding import mix

ROWS = 1024  # noised in one go
STILL = "still"  # in place of an epoch: the fixed draw
Pixels = NDArray[np.uint8]


def noisy(pixels: NDArray[Any], uniform: NDArray[Any], level: float) -> Pixels:
    """Pictures (…) of 0 to 255 with noise from 0 to 1 (…) of this strength on them, cut off at white.

    Example:
        >>> noisy(np.array([0, 200]), np.array([0.5, 0.5]), 0.5).tolist()
        [63, 255]
    """
    return (255 * np.clip(pixels / 255 + level * uniform, 0, 1)).astype(np.uint8)


class NoisyColumn:
    """A column of pictures behind noise; see `xmodal.data.base.Redrawn`.

    Args:
        pixels: column with the clean ones (rows, channels, height, width), 0 to 255.
        modality: name, so that two modalities get unlike noise.
        level: strength; 0: the pictures as they are.
        seed: of the noise.
        fresh: False: the fixed draw in training as well.
    """

    def __init__(self, pixels: Column, modality: str, *, level: float, seed: int, fresh: bool = True) -> None:
        self.pixels, self.modality, self.level, self.seed = pixels, modality, level, seed
        self.redraws = bool(fresh and level)
        self.shape, self.dtype = tuple(pixels.shape), np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Pixels:
        chosen = np.arange(len(self))[rows]
        found = self._drawn(np.atleast_1d(chosen), STILL)
        return found if chosen.ndim else found[0]

    def redrawn(self, rows: NDArray[np.int64], epoch: int) -> Pixels:
        """Rows as a training pass of this epoch sees them."""
        return self._drawn(rows, epoch if self.redraws else STILL)

    def _drawn(self, rows: NDArray[np.int64], epoch: int | str) -> Pixels:
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            clean = self.pixels[part]
            found[first : first + ROWS] = noisy(clean, self._uniform(part, epoch), self.level) if self.level else clean
        return found

    def _uniform(self, rows: NDArray[np.int64], epoch: int | str) -> NDArray[np.float32]:
        uniform = np.empty((len(rows), *self.shape[1:]), np.float32)
        for place, row in enumerate(rows.tolist()):
            random = np.random.Generator(np.random.Philox(key=mix(self.seed, epoch, row, self.modality)))
            random.random(out=uniform[place], dtype=np.float32)
        return uniform
