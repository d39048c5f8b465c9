"""Spectrograms of VGGSound against the published implementation.

Reads every ``*mfh*.json`` of tests/golden, or of the folder that XMODAL_GOLDEN names.
"""

import re

import numpy as np
import pytest
import torch
from hash_fill import golden_files

from xmodal.data.media.spectrogram import RATE, clip_spectrogram

FILES = {name: file["vggsound"]["stft"] for name, file in golden_files().items() if "stft" in file.get("vggsound", {})}
every_file = pytest.mark.parametrize("name", FILES)


def waveform_of(case):
    """Two tones and a chirp in float32, (1, samples)."""
    t = np.arange(case["samples"]) / RATE
    tones = 0.5 * np.sin(2 * np.pi * case["f1"] * t) + 0.25 * np.sin(2 * np.pi * case["f2"] * t + 0.3)
    size, rate = case["chirp"]
    return torch.tensor(tones + size * np.sin(2 * np.pi * rate * t**2), dtype=torch.float32)[None]


def numbers_in(key):
    return list(map(int, re.findall(r"\d+", key)))


def check(case, found, prefix):
    """Every entry of the case that starts with the prefix, by what its name says."""
    checked = 0
    for key, wanted in case.items():
        if not key.startswith(prefix):
            continue
        numbers = numbers_in(key)
        if key == f"{prefix}shape":
            assert list(found.shape) == wanted
        elif key == f"{prefix}sum":
            assert float(found.double().sum()) == pytest.approx(wanted, rel=1e-4)
        elif match := re.fullmatch(prefix + r"frame\d+_(bins|first)[\d_]+", key):
            first, last = numbers[1:] if match[1] == "bins" else (0, numbers[1])
            assert found[0, first:last, numbers[0]].numpy() == pytest.approx(np.array(wanted), rel=1e-4, abs=1e-4)
        elif re.fullmatch(prefix + r"bin\d+_frames_\d+_\d+", key):
            row, first, last = numbers
            assert found[0, row, first:last].numpy() == pytest.approx(np.array(wanted), rel=1e-4, abs=1e-4)
        else:
            continue
        checked += 1
    return checked


@every_file
def test_golden_vggsound_stft(name):
    case = FILES[name]

    assert check(case, clip_spectrogram(waveform_of(case)), "")


@pytest.mark.parametrize("name", [name for name, case in FILES.items() if "interp_shape" in case])
def test_golden_vggsound_stft_stretched(name):
    case = FILES[name]
    frames = case["interp_shape"][-1]

    assert check(case, clip_spectrogram(waveform_of(case), frames=frames), "interp_")
