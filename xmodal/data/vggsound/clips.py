"""Clips of VGGSound as columns: frames and spectrograms, read when a batch asks for them.

Frames come from one tall picture of all of them, from an array, or straight from a video; sound comes from an array, a
sound file, or the track of a video. Of the S frames that are stored (or the length of a video), n are shown,

    frame i = the one shown at (i + u_i) / n,    u_i = 1/2,  or u_i ~ U[0, 1] in a training pass with ``random_frames``

and a training pass with ``mirror`` turns half of the clips around. Both are functions of (seed, epoch, row).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xmodal.data.columns import read_header
from xmodal.data.media.spectrogram import RATE
from xmodal.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

PICTURES = (".jpg", ".jpeg", ".png")
DAMAGED = (OSError, ValueError, SyntaxError)  # what Pillow raises for files that are none of its own
LEAST = 0.05  # seconds of sound, for any window in use
Pixels = NDArray[np.uint8]
Wave = NDArray[np.float32]


def read_waveform(path: Path, *, seconds: float, shortest: float = LEAST) -> Wave:
    """The sound of a clip, (samples,) at 16 kHz, as far as ``seconds``.

    Args:
        path: .npy with (samples,) or (1, samples) at 16 kHz, a sound file or a video.
        seconds: where longer ones are cut.
        shortest: seconds that have to be there.
    """
    from xmodal.data.media.sound import read_sound, resample

    if path.suffix == ".npy":
        shape, _ = read_header(path)
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] != 1):
            raise InputError(f"{path.name} has the shape {shape}: one channel, (1, samples), was expected.")
        found = np.asarray(np.load(path, allow_pickle=False).reshape(-1)[: round(seconds * RATE)], np.float32)
        if not np.isfinite(found).all():
            raise InputError(f"{path.name} holds samples that are not finite numbers.")
    else:
        sound = read_sound(path, seconds=seconds + 1)  # the low-pass at the end sees what comes behind
        found = resample(sound.waveform, sound.rate, RATE)[: round(seconds * RATE)]
    if len(found) < shortest * RATE:
        raise InputError(
            f"{path.name} is too short: its sound lasts {len(found) / RATE:.2f} s; {shortest:g} s were expected."
        )
    return found


def stored_frames(path: Path) -> tuple[int, int]:
    """How many frames a prepared file holds, and the length of their sides."""
    if path.suffix == ".npy":
        shape, dtype = read_header(path)
        if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or dtype != np.uint8 or not all(shape):
            raise InputError(
                f"{path.name} holds {shape} of {dtype}: (frames, side, side, 3) of uint8 was expected, as in "
                "(32, 256, 256, 3)."
            )
        return shape[0], shape[1]
    from PIL import Image

    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except DAMAGED as error:
        raise InputError(f"{path.name} is no picture that can be read ({error}).") from None
    if height % width:
        raise InputError(
            f"{path.name} is {width} wide and {height} high: square frames, one below the other, were expected, as in "
            "256 and 8192."
        )
    return height // width, width


def read_frames(path: Path, shares: Sequence[float], *, size: int, seconds: float | None = None) -> Pixels:
    """The frames at some shares of a clip's length, (shares, size, size, 3).

    Args:
        path: a tall picture, an array (frames, side, side, 3), or a video.
        shares: from 0 to 1, ascending.
        size: to which they are resized.
        seconds: of a longer video that count.
    """
    if path.suffix.lower() not in (*PICTURES, ".npy"):
        from xmodal.data.media.video import frames_at

        return frames_at(path, shares, height=size, width=size, seconds=seconds)
    stored, side = stored_frames(path)
    chosen = [min(int(share * stored), stored - 1) for share in shares]
    if path.suffix == ".npy":
        frames = np.load(path, mmap_mode="r", allow_pickle=False)[chosen]
    else:
        frames = _pixels(path).reshape(stored, side, side, 3)[chosen]
    if side == size:
        return np.asarray(frames, np.uint8)
    from PIL import Image

    resized = [Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR) for frame in frames]
    return np.stack([np.asarray(frame, np.uint8) for frame in resized])


def _pixels(path: Path) -> Pixels:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"), np.uint8)
    except DAMAGED as error:
        raise InputError(f"{path.name} is no picture that can be read ({error}).") from None


class Frames:
    """The frames of clips, (n, frames, 3, size, size); see `xmodal.data.base.Redrawn`.

    Args:
        files: one for each clip.
        frames: that are shown of each.
        size: of a frame's sides.
        seconds: of a video that count.
        random_frames: at random moments in training passes.
        mirror: half of the clips in training passes.
        seed: of both.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        frames: int,
        size: int,
        seconds: float,
        random_frames: bool = False,
        mirror: bool = False,
        seed: int = 0,
    ) -> None:
        self.files, self.seconds, self.seed = list(files), seconds, seed
        self.random_frames, self.mirror = random_frames, mirror
        self.redraws = random_frames or mirror
        self.shape, self.dtype = (len(self.files), frames, 3, size, size), np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Pixels:
        chosen = np.arange(len(self))[rows]
        found = self._read(np.atleast_1d(chosen), None)
        return found if chosen.ndim else found[0]

    def redrawn(self, rows: NDArray[np.int64], epoch: int) -> Pixels:
        """Rows as a training pass of this epoch sees them."""
        return self._read(rows, epoch if self.redraws else None)

    def _read(self, rows: NDArray[np.int64], epoch: int | None) -> Pixels:
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, row in enumerate(rows.tolist()):
            shares, turned = self._drawn(row, epoch)
            frames = read_frames(self.files[row], shares, size=self.shape[-1], seconds=self.seconds)
            found[place] = (frames[:, :, ::-1] if turned else frames).transpose(0, 3, 1, 2)
        return found

    def _drawn(self, row: int, epoch: int | None) -> tuple[list[float], bool]:
        """The moments of a clip, and whether it is turned around."""
        count = self.shape[1]
        within, turned = np.full(count, 0.5), False
        if epoch is not None:
            from xmodal.seeding import mix

            random = np.random.Generator(np.random.Philox(key=mix(self.seed, epoch, row, "video")))
            drawn, side = random.random(count), random.random()  # both, so that one does not change the other
            within, turned = drawn if self.random_frames else within, self.mirror and side < 0.5
        return ((np.arange(count) + within) / count).tolist(), bool(turned)


class Spectrograms:
    """What is heard in clips, (n, 1, frequencies, frames); see `xmodal.data.media.spectrogram`.

    Args:
        files: one for each clip.
        seconds: that a clip lasts; longer ones are cut.
        window: samples of a transform.
        hop: samples from one transform to the next.
        short: shorter clips are followed by silence (``pad``), or their spectrograms stretched (``stretch``).
    """

    def __init__(self, files: Sequence[Path], *, seconds: float, window: int, hop: int, short: str) -> None:
        self.files, self.seconds, self.short = list(files), seconds, short
        self.window, self.hop = window, hop
        samples = round(seconds * RATE)
        self.samples = samples
        self.shape = (len(self.files), 1, window // 2 + 1, 1 + samples // hop)
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        chosen = np.arange(len(self))[rows]
        found = self._read(np.atleast_1d(chosen))
        return found if chosen.ndim else found[0]

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        import torch

        least = max(LEAST, (self.window // 2 + 1) / RATE)
        waveforms = [read_waveform(self.files[row], seconds=self.seconds, shortest=least) for row in rows.tolist()]
        if self.short == "pad":
            waveforms = [np.pad(waveform, (0, self.samples - len(waveform))) for waveform in waveforms]
        lengths = np.array([len(waveform) for waveform in waveforms])
        found = torch.empty(len(rows), *self.shape[1:])
        for length in np.unique(lengths):  # clips of one length are transformed together
            places = np.flatnonzero(lengths == length)
            found[places, 0] = self._transformed(torch.from_numpy(np.stack([waveforms[place] for place in places])))
        heard: NDArray[np.float32] = found.numpy()
        return heard

    def _transformed(self, waveforms: Tensor) -> Tensor:
        from xmodal.data.media.spectrogram import clip_spectrogram

        return clip_spectrogram(waveforms, window=self.window, hop=self.hop, frames=self.shape[-1])
