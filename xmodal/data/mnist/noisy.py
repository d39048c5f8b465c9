r"""Images with added noise, drawn anew in every epoch.

$$\tilde x = \lfloor 255 \cdot clip(x / 255 + level \cdot u, 0, 1) \rfloor, \qquad u \sim U[0, 1]$$

u is drawn per pixel and channel, as a function of (seed, epoch, row, modality). Training gets new noise in every epoch;
everything else (validation, test, cached teacher outputs, diagnostics) gets one fixed draw per sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.split import Column
from xmodal.seeding import mix

# rows for which noise is drawn at a time: float noise takes four times the memory of the pixels
ROWS = 1024
# the fixed draw, in place of an epoch; the text seeds the noise, so another text would be other data
FIXED = "still"
Pixels = NDArray[np.uint8]


def noisy(pixels: NDArray[Any], uniform: NDArray[Any], level: float) -> Pixels:
    """Images (…) of 0 to 255 with noise (…) of 0 to 1 times this level, clipped at white.

    Example:
        >>> noisy(np.array([0, 200]), np.array([0.5, 0.5]), 0.5).tolist()
        [63, 255]
    """
    # astype truncates, as the authors' code does
    return (255 * np.clip(pixels / 255 + level * uniform, 0, 1)).astype(np.uint8)


class NoisyColumn:
    """A column of images with added noise; see `xmodal.data.split.Redrawn`.

    Args:
        pixels: column of the clean images (rows, channels, height, width), 0 to 255.
        modality: its name, so that two modalities get different noise.
        level: of the noise; 0: the clean images.
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
        images = self._drawn(np.atleast_1d(chosen), FIXED)
        return images if chosen.ndim else images[0]

    def redrawn(self, rows: NDArray[np.int64], epoch: int) -> Pixels:
        """Rows with the noise of this epoch of training."""
        return self._drawn(rows, epoch if self.redraws else FIXED)

    def _drawn(self, rows: NDArray[np.int64], epoch: int | str) -> Pixels:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            clean = self.pixels[part]
            images[first : first + ROWS] = noisy(clean, self._uniform(part, epoch), self.level) if self.level else clean
        return images

    def _uniform(self, rows: NDArray[np.int64], epoch: int | str) -> NDArray[np.float32]:
        uniform = np.empty((len(rows), *self.shape[1:]), np.float32)
        # a generator per row, so that neither batch size nor order nor the number of workers changes the noise
        for position, row in enumerate(rows.tolist()):
            random = np.random.Generator(np.random.Philox(key=mix(self.seed, epoch, row, self.modality)))
            random.random(out=uniform[position], dtype=np.float32)
        return uniform
