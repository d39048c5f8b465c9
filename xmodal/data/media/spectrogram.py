r"""Spectrograms for the VGGSound networks: magnitudes of the short-time Fourier transform of a scaled waveform.

$$\bar w = \frac{w}{1.1 \max_t |w_t|}, \qquad S_{kf} = \Big| \sum_{t=0}^{n-1} h_t \, \bar w_{t + hop \cdot f - n/2}
\, e^{-2 \pi i k t / n} \Big|$$

| symbol | argument | shape |
|---|---|---|
| w | ``waveform`` | (…, samples) |
| n, hop | ``window``, ``hop`` | samples |
| h | | periodic Hann window (n,) |
| S | | (…, n/2 + 1, 1 + samples // hop) |

Edges are reflected. All functions are tensor operations without branches on values, so a loader, a module of your own
and its export may call them, on any device and for a batch of clips.

Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; details from the authors' code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmodal.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# of the authors' code, as all constants here
WINDOW, HOP, RATE = 1024, 512, 16_000
# frames of ten seconds: 1 + 160,000 // 512
FRAMES = 313
HEADROOM = 1.1


def clip_spectrogram(waveform: Tensor, *, window: int = WINDOW, hop: int = HOP, frames: int | None = None) -> Tensor:
    """The input of the audio network: (…, samples) → (…, window / 2 + 1, frames).

    Args:
        waveform: one channel at 16 kHz, in any unit.
        window: samples of a transform.
        hop: samples from one transform to the next.
        frames: number of frames to which the result is interpolated; None: ``1 + samples // hop``. The authors
            interpolate the clips of the test split, but not those of the training split, which all have one length.

    Example:
        >>> import torch
        >>> tuple(clip_spectrogram(torch.zeros(1, 160_000)).shape)
        (1, 513, 313)
    """
    spectrogram = magnitudes(scaled_by_peak(waveform), window=window, hop=hop)
    return spectrogram if frames is None else stretched(spectrogram, frames)


def scaled_by_peak(waveform: Tensor) -> Tensor:
    """Each clip (…, samples) with its peak at 1 / 1.1; a silent clip stays silent.

    Example:
        >>> import torch
        >>> scaled_by_peak(torch.tensor([[0.0, -2.2], [0.0, 0.0]])).tolist()
        [[0.0, -0.9090908765792847], [0.0, 0.0]]
    """
    # the authors divide a silent clip by 0, and one NaN makes the weights of a whole network NaN
    peak = waveform.abs().amax(dim=-1, keepdim=True)
    return waveform / (HEADROOM * peak).where(peak > 0, 1.0)


def magnitudes(waveform: Tensor, *, window: int = WINDOW, hop: int = HOP) -> Tensor:
    """Magnitudes of the short-time Fourier transform: (…, samples) → (…, window / 2 + 1, 1 + samples // hop)."""
    import torch

    samples = waveform.shape[-1]
    # the reflection at either edge takes half a window of samples
    if samples <= window // 2:
        raise InputError(
            f"A clip has {samples} samples: more than {window // 2} were expected for a window of {window}. Leave "
            "clips out that are this short, or choose a smaller window."
        )
    hann = torch.hann_window(window, periodic=True, dtype=waveform.dtype, device=waveform.device)
    # torch.stft takes one batch axis at most
    flat = waveform.reshape(-1, samples)
    stft = torch.stft(flat, window, hop_length=hop, window=hann, center=True, pad_mode="reflect", return_complex=True)
    return stft.abs().reshape(*waveform.shape[:-1], *stft.shape[1:])


def stretched(spectrogram: Tensor, frames: int = FRAMES) -> Tensor:
    """Spectrograms (…, frequencies, frames) with another number of frames, by linear interpolation.

    Example:
        >>> import torch
        >>> stretched(torch.tensor([[0.0, 4.0]]), 4).tolist()
        [[0.0, 1.0, 3.0, 4.0]]
    """
    from torch.nn.functional import interpolate

    if spectrogram.shape[-1] == frames:
        return spectrogram
    flat = spectrogram.reshape(-1, 1, spectrogram.shape[-1])
    resized: Tensor = interpolate(flat, size=frames, mode="linear", align_corners=False)
    return resized.reshape(*spectrogram.shape[:-1], frames)
