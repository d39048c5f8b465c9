"""Clips of VGGSound as columns: frames and spectrograms, read when a batch needs them.

Frames are read from a tall picture that holds all of them, from an array, or directly from a video; sound is read from
an array, a sound file, or the track of a video. Of a clip whose length counts as 1, n frames are used,

    frame i = the frame at time (i + u_i) / n,    u_i = 1/2,  or u_i ~ U[0, 1] in training with ``random_frames``

and in training with ``mirror``, half of the clips are flipped horizontally. Both draws depend on (seed, epoch, row).
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
# Pillow raises any of these for damaged files, even SyntaxError (for a broken PNG chunk).
DAMAGED = (OSError, ValueError, SyntaxError)
# Shortest sound in seconds: 800 samples, more than the half window of 512 that reflect padding needs.
LEAST = 0.05
Pixels = NDArray[np.uint8]
Wave = NDArray[np.float32]


def read_waveform(path: Path, *, seconds: float, shortest: float = LEAST) -> Wave:
    """The sound of a clip, (samples,) at 16 kHz, cut to ``seconds``.

    Args:
        path: .npy with (samples,) or (1, samples) at 16 kHz, a sound file or a video.
        seconds: maximum length.
        shortest: minimum length in seconds; less raises an `InputError`.
    """
    from xmodal.data.media.resampling import resample
    from xmodal.data.media.sound import read_sound

    if path.suffix == ".npy":
        shape, _ = read_header(path)
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] != 1):
            raise InputError(f"{path.name} has the shape {shape}: one channel, (1, samples), was expected.")
        waveform = np.asarray(np.load(path, allow_pickle=False).reshape(-1)[: round(seconds * RATE)], np.float32)
        if not np.isfinite(waveform).all():
            raise InputError(f"{path.name} holds non-finite samples. Prepare the clip again, or remove it.")
    else:
        # A second more than needed: the low-pass filter of the resampling reads samples beyond the cut.
        sound = read_sound(path, seconds=seconds + 1)
        waveform = resample(sound.waveform, sound.rate, RATE)[: round(seconds * RATE)]
    if len(waveform) < shortest * RATE:
        raise InputError(
            f"{path.name} is too short: its sound lasts {len(waveform) / RATE:.2f} s; at least {shortest:g} s were "
            "expected."
        )
    return waveform


def stored_frames(path: Path) -> tuple[int, int]:
    """The number of frames in a prepared file, and their width and height."""
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
        raise InputError(f"{path.name} cannot be read as a picture ({error}).") from None
    if height % width:
        raise InputError(
            f"{path.name} is {width} wide and {height} high: square frames, stacked vertically, were expected, as in "
            "256 and 8192."
        )
    return height // width, width


def read_frames(path: Path, shares: Sequence[float], *, size: int, seconds: float | None = None) -> Pixels:
    """The frames at some times of a clip, (times, size, size, 3).

    Args:
        path: a tall picture, an array (frames, side, side, 3), or a video.
        shares: the times as shares of the length, from 0 to 1, ascending.
        size: width and height to which frames are resized.
        seconds: length to which a longer video is cut.
    """
    if path.suffix.lower() not in (*PICTURES, ".npy"):
        from xmodal.data.media.video import frames_at

        return frames_at(path, shares, height=size, width=size, seconds=seconds)
    stored, side = stored_frames(path)
    # A share of 1 would be the frame after the last.
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
        raise InputError(f"{path.name} cannot be read as a picture ({error}).") from None


class Frames:
    """The frames of clips, (n, frames, 3, size, size); see `xmodal.data.base.Redrawn`.

    Args:
        files: a file for each clip.
        frames: number of frames of each clip.
        size: width and height of the frames.
        seconds: length to which longer videos are cut.
        random_frames: take frames at random times in training.
        mirror: flip half of the clips in training.
        seed: seed of both draws.
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
        frames = self._read(np.atleast_1d(chosen), None)
        return frames if chosen.ndim else frames[0]

    def redrawn(self, rows: NDArray[np.int64], epoch: int) -> Pixels:
        """Rows as training sees them in this epoch."""
        return self._read(rows, epoch if self.redraws else None)

    def _read(self, rows: NDArray[np.int64], epoch: int | None) -> Pixels:
        clips = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, row in enumerate(rows.tolist()):
            shares, mirrored = self._drawn(row, epoch)
            frames = read_frames(self.files[row], shares, size=self.shape[-1], seconds=self.seconds)
            clips[place] = (frames[:, :, ::-1] if mirrored else frames).transpose(0, 3, 1, 2)
        return clips

    def _drawn(self, row: int, epoch: int | None) -> tuple[list[float], bool]:
        """The times of a clip's frames, and whether it is flipped."""
        count = self.shape[1]
        offsets, mirrored = np.full(count, 0.5), False
        if epoch is not None:
            from xmodal.seeding import mix

            # Keyed by the row, so that neither the order of rows nor the number of workers changes what is drawn.
            random = np.random.Generator(np.random.Philox(key=mix(self.seed, epoch, row, "video")))
            # Both are always drawn: switching one option on or off leaves the draws of the other as they were.
            moments, coin = random.random(count), random.random()
            offsets, mirrored = moments if self.random_frames else offsets, self.mirror and coin < 0.5
        return ((np.arange(count) + offsets) / count).tolist(), bool(mirrored)


class Spectrograms:
    """The spectrograms of clips, (n, 1, frequencies, frames); see `xmodal.data.media.spectrogram`.

    Args:
        files: a file for each clip.
        seconds: length of a clip; longer ones are cut.
        window: length of the window of the transform, in samples.
        hop: distance between windows, in samples.
        short: what happens to shorter clips: silence is appended (``pad``), or the spectrogram is stretched in time
            (``stretch``).
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
        spectrograms = self._read(np.atleast_1d(chosen))
        return spectrograms if chosen.ndim else spectrograms[0]

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        import torch

        shortest = max(LEAST, (self.window // 2 + 1) / RATE)
        waveforms = [read_waveform(self.files[row], seconds=self.seconds, shortest=shortest) for row in rows.tolist()]
        if self.short == "pad":
            waveforms = [np.pad(waveform, (0, self.samples - len(waveform))) for waveform in waveforms]
        lengths = np.array([len(waveform) for waveform in waveforms])
        spectrograms = torch.empty(len(rows), *self.shape[1:])
        # The transform takes a batch of equal lengths.
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            batch = torch.from_numpy(np.stack([waveforms[place] for place in places]))
            spectrograms[places, 0] = self._transformed(batch)
        result: NDArray[np.float32] = spectrograms.numpy()
        return result

    def _transformed(self, waveforms: Tensor) -> Tensor:
        from xmodal.data.media.spectrogram import clip_spectrogram

        return clip_spectrogram(waveforms, window=self.window, hop=self.hop, frames=self.shape[-1])
