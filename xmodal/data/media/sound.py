"""Sound: reading files, and features: log-mel spectrograms and mel-frequency cepstral coefficients.

S (window/2 + 1, frames) are the magnitudes of `data.media.spectrogram`, M (bands, window/2 + 1) the triangular filters
of `mel_filters`, and D (coefficients, bands) the first rows of the orthonormal cosine transform:

    log_mel = 10 log10 max(M S², 1e-10),  raised to its largest value - 80 dB
    mfcc = D log_mel,                     D[k, b] = √(c_k / bands) cos(π k (b + 1/2) / bands),  c_0 = 1, else c_k = 2

| symbol | argument | shape |
|---|---|---|
| S | ``waveform``, ``window``, ``hop`` | (samples,) → (window/2 + 1, 1 + samples // hop) |
| M | ``rate``, ``bands`` | (bands, window/2 + 1) |
| D | ``coefficients`` | (coefficients, bands) |

The mel scale is Slaney's: f / (200/3) below 1 kHz and logarithmic above; each triangle has the area 1. Everything is
computed in float64 from torch.stft with a periodic Hann window, centred frames and reflected edges.

Slaney: Auditory Toolbox, Interval Research technical report 1998-010.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError, MissingExtra

# smallest power before the logarithm, and decibels that are kept below the loudest value: the defaults of librosa's
# power_to_db, with which such features are usually computed
FLOOR, RANGE = 1e-10, 80.0
# sizes in the header of a wav file that was streamed: the writer did not know the length yet
STREAMED = (0, 0xFFFFFFFF)
# endings of the files that PyAV reads; soundfile reads all others
CONTAINERS = (".mp4", ".m4a", ".mov", ".mkv", ".webm", ".avi", ".aac")
Wave = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sound:
    """One channel of sound.

    Attributes:
        waveform: (samples,) with ±1 as full scale.
        rate: samples per second.
    """

    waveform: Wave
    rate: int

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.waveform) / self.rate

    @property
    def peak(self) -> float:
        """The largest magnitude; 0 for an empty waveform."""
        return float(np.abs(self.waveform).max(initial=0.0))


def soundfile_module() -> Any:
    """The package soundfile; if it is missing, an error that says how to install it."""
    try:
        import soundfile
    except ImportError:
        raise MissingExtra("Reading and writing sound", "soundfile", "audio") from None
    return soundfile


def read_sound(path: str | Path, *, seconds: float | None = None) -> Sound:
    """Read a sound file (wav, flac, ogg, …) or the first sound track of a video, and average its channels.

    Args:
        path: of the file.
        seconds: duration to read from the beginning; None: all.
    """
    path = Path(path)
    if path.suffix.lower() in CONTAINERS:
        from xmodal.data.media.video import read_track

        waveform, rate = read_track(path, seconds=seconds)
    else:
        waveform, rate = _read_soundfile(path, seconds)
    if not len(waveform):
        raise InputError(f"{path.name} holds no sound: it has no samples.")
    if not np.isfinite(waveform).all():
        raise InputError(f"{path.name} holds samples that are not finite numbers.")
    return Sound(np.ascontiguousarray(waveform.mean(axis=1), dtype=np.float32), rate)


def _read_soundfile(path: Path, seconds: float | None) -> tuple[Wave, int]:
    soundfile = soundfile_module()
    _refuse_cut_off(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate = int(file.samplerate)
            frames = -1 if seconds is None else math.ceil(seconds * rate)
            waveform = file.read(frames, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        reason = str(error).rpartition(": ")[2].rstrip(".") or "unknown reason"
        raise InputError(f"{path.name} is no sound file that can be read ({reason}).") from None
    return waveform, rate


def _refuse_cut_off(path: Path) -> None:
    # libsndfile reads a truncated wav file up to its end without an error: the clip would be silently shorter
    with path.open("rb") as file:
        head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return
    # the size in the header leaves out its own first 8 bytes
    promised, size = int.from_bytes(head[4:8], "little"), path.stat().st_size
    # minus 1: many writers leave out the byte of padding after a last chunk of odd length
    if promised not in STREAMED and size < promised + 8 - 1:
        raise InputError(f"{path.name} is cut off: its header promises {promised + 8} bytes, the file has {size}.")


def log_mel(waveform: Wave, rate: int, *, bands: int, window: int = 2048, hop: int = 512) -> NDArray[np.float64]:
    """Loudness per mel band in decibels, (bands, frames); see the equation above."""
    import torch

    from xmodal.data.media.spectrogram import magnitudes

    spectrum = magnitudes(torch.from_numpy(np.asarray(waveform, np.float64)), window=window, hop=hop)
    power = torch.from_numpy(mel_filters(rate, bands, window)) @ spectrum.square()
    decibels = 10 * power.clamp(min=FLOOR).log10()
    loudness: NDArray[np.float64] = decibels.clamp(min=float(decibels.max()) - RANGE).numpy()
    return loudness


def mfcc(
    waveform: Wave, rate: int, *, coefficients: int = 40, bands: int = 128, window: int = 2048, hop: int = 512
) -> NDArray[np.float64]:
    """Mel-frequency cepstral coefficients, (coefficients, frames); see the equation above."""
    if coefficients > bands:
        raise InputError(f"coefficients is {coefficients} and bands is {bands}: at most as many were expected.")
    loudness = log_mel(waveform, rate, bands=bands, window=window, hop=hop)
    order, band = np.arange(coefficients)[:, None], np.arange(bands)[None]
    cosines = np.sqrt(2 / bands) * np.cos(np.pi * order * (band + 0.5) / bands)
    # the constant first row would have the norm √2, all others have 1
    cosines[0] /= np.sqrt(2)
    coefficient: NDArray[np.float64] = cosines @ loudness
    return coefficient


@functools.lru_cache(maxsize=8)
def mel_filters(rate: int, bands: int, window: int) -> NDArray[np.float64]:
    """Triangular filters over the frequencies of a spectrogram, (bands, window/2 + 1), equally wide in mel."""
    frequency = np.arange(window // 2 + 1) * rate / window
    corner = _hertz(np.linspace(0.0, _mel(rate / 2), bands + 2))
    rising = (frequency - corner[:-2, None]) / np.diff(corner)[:-1, None]
    falling = (corner[2:, None] - frequency) / np.diff(corner)[1:, None]
    # height of a triangle with the area 1: without it, the wide bands of high frequencies would look louder
    height = 2 / (corner[2:] - corner[:-2])
    filters: NDArray[np.float64] = height[:, None] * np.maximum(0.0, np.minimum(rising, falling))
    return filters


def _mel(frequency: float) -> float:
    """Slaney's scale: 15 mels up to 1 kHz, then 27 for each factor of 6.4."""
    return 3 * frequency / 200 if frequency < 1000 else 15 + 27 * math.log(frequency / 1000) / math.log(6.4)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def fit_frames(features: NDArray[np.float64], frames: int) -> NDArray[np.float32]:
    """Features cut to (…, frames), or padded with zeros at the end.

    Example:
        >>> fit_frames(np.ones((1, 2)), 3), fit_frames(np.ones((1, 5)), 3).shape
        (array([[1., 1., 0.]], dtype=float32), (1, 3))
    """
    fitted = np.zeros((*features.shape[:-1], frames), np.float32)
    kept = min(frames, features.shape[-1])
    fitted[..., :kept] = features[..., :kept]
    return fitted
