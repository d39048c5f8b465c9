"""Spoken and handwritten digits as a folder with own data: audio (1, 32, 48), a log-mel picture, and image (1, 28, 28).

XMODAL_DATA=… python benchmarks/real/avdigits.py OUT

The clips (8 kHz, up to 1.3 s) become power spectra (window 256, step 80: 32 and 10 ms), then 32 mel bands from 60 to
4,000 Hz, then 48 time steps by averaging, so that each picture covers its whole clip; finally log(1e-6 + power).
"""

from __future__ import annotations

import numpy as np
import torch
from common import arguments, next_commands, write_folder

BANDS, STEPS, WINDOW, HOP = 32, 48, 256, 80


def mel_filters(rate: int) -> torch.Tensor:
    """Triangular filters (bands, frequencies), equally wide on the mel scale 2595 log10(1 + f / 700)."""
    ends = 2595 * np.log10(1 + np.array([60.0, rate / 2]) / 700)
    corners = 700 * (10 ** (np.linspace(*ends, BANDS + 2) / 2595) - 1)
    frequencies = np.linspace(0, rate / 2, WINDOW // 2 + 1)[None]
    low, middle, high = (corners[start : start + BANDS, None] for start in range(3))
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return torch.tensor(np.clip(np.minimum(rising, falling), 0, None), dtype=torch.float32)


def log_mel(wave: np.ndarray, filters: torch.Tensor) -> np.ndarray:
    samples = torch.from_numpy(wave.astype(np.float32) / 32768)
    spectrum = torch.stft(samples, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)
    bands = filters @ spectrum.abs() ** 2
    steps = torch.nn.functional.adaptive_avg_pool1d(bands[None], STEPS)
    return torch.log(steps + 1e-6).numpy()


def main() -> None:
    root, out = arguments("avdigits")
    audio, images, pairs = (np.load(root / f"{name}.npz", allow_pickle=False) for name in ("audio", "images", "pairs"))
    wave, offset, filters = audio["wave"], audio["offset"], mel_filters(int(audio["sample_rate"]))
    clips = np.stack([log_mel(wave[offset[i] : offset[i + 1]], filters) for i in pairs["audio"].tolist()])
    pictures = images["image"][pairs["image"]][:, None].astype(np.float32) / 255
    write_folder(
        out,
        {"audio": clips, "image": pictures},
        pairs["label"],
        {split: pairs[split] for split in ("train", "valid", "test")},
        {
            "name": "avdigits",
            "class_names": [str(digit) for digit in range(10)],
            "normalise": {"audio": "standard", "image": "none"},
        },
    )
    next_commands(out, ("audio", "image"), ("image", "audio"))


if __name__ == "__main__":
    main()
