r"""Spectrograms as the VGGSound networks hear them: magnitudes of short-time transforms, scaled by the peak.

$$\bar w = \frac{w}{1.1 \max_t |w_t|}, \qquad S_{kf} = \Big| \sum_{t=0}^{n-1} h_t \, \bar w_{t + hop \cdot f - n/2}
\, e^{-2 \pi i k t / n} \Big|$$

| symbol | argument | shape |
|---|---|---|
| w | ``waveform`` | (…, samples) |
| n, hop | ``window``, ``hop`` | samples |
| h | | periodic Hann window (n,) |
| S | | (…, n/2 + 1, 1 + samples // hop) |

Edges are reflected. All is tensors, without a decision in Python about their values, so that a loader, a module of your
own and what is exported of it may call the same functions, on any device and for many clips at a time.

Xue et al.: The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487; read from the authors' code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmodal.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

WINDOW, HOP, RATE = 1024, 512, 16_000
FRAMES = 313  # of ten seconds
HEADROOM = 1.1


def clip_spectrogram(waveform: Tensor, *, window: int = WINDOW, hop: int = HOP, frames: int | None = None) -> Tensor:
    """What the audio network hears of clips: (…, samples) → (…, window / 2 + 1, frames).

    Args:
        waveform: one channel at 16 kHz, in any unit.
        window: samples of a transform.
        hop: samples from one transform to the next.
        frames: to which the result is stretched; None leaves ``1 + samples // hop``. The authors stretch the clips of
            the test split, not those of the training split, which all have the same length.

    Example:
        >>> import torch
        >>> tuple(clip_spectrogram(torch.zeros(1, 160_000)).shape)
        (1, 513, 313)
    """
    found = magnitudes(scaled_by_peak(waveform), window=window, hop=hop)
    return found if frames is None else stretched(found, frames)


def scaled_by_peak(waveform: Tensor) -> Tensor:
    """Each clip (…, samples) with its peak at 1 / 1.1; a silent one stays silent (the authors divide it by 0).

    Example:
        >>> import torch
        >>> scaled_by_peak(torch.tensor([[0.0, -2.2], [0.0, 0.0]])).tolist()
        [[0.0, -0.9090908765792847], [0.0, 0.0]]
    """
    peak = waveform.abs().amax(dim=-1, keepdim=True)
    return waveform / (HEADROOM * peak).where(peak > 0, 1.0)


def magnitudes(waveform: Tensor, *, window: int = WINDOW, hop: int = HOP) -> Tensor:
    """Magnitudes of the short-time Fourier transform: (…, samples) → (…, window / 2 + 1, 1 + samples // hop)."""
    import torch

    samples = waveform.shape[-1]
    if samples <= window // 2:  # reflection at the edges needs them
        raise InputError(
            f"A clip has {samples} samples: more than {window // 2} were expected for a window of {window}. Leave "
            "clips out that are this short, or choose a smaller window."
        )
    shape = torch.hann_window(window, periodic=True, dtype=waveform.dtype, device=waveform.device)
    flat = waveform.reshape(-1, samples)  # torch takes one axis for clips at most
    found = torch.stft(flat, window, hop_length=hop, window=shape, center=True, pad_mode="reflect", return_complex=True)
    return found.abs().reshape(*waveform.shape[:-1], *found.shape[1:])


def stretched(spectrogram: Tensor, frames: int = FRAMES) -> Tensor:
    """Spectrograms (…, frequencies, frames) with another number of frames, interpolated between the nearest two.

    Example:
        >>> import torch
        >>> stretched(torch.tensor([[0.0, 4.0]]), 4).tolist()
        [[0.0, 1.0, 3.0, 4.0]]
    """
    from torch.nn.functional import interpolate

    if spectrogram.shape[-1] == frames:
        return spectrogram
    flat = spectrogram.reshape(-1, 1, spectrogram.shape[-1])
    found: Tensor = interpolate(flat, size=frames, mode="linear", align_corners=False)
    return found.reshape(*spectrogram.shape[:-1], frames)
