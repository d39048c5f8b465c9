"""The magnitudes that the VGGSound networks of MFH listen to, against the golden files."""

import numpy as np
import pytest
import torch
from hash_fill import golden_files

from xmodal.data.sound import spectrogram

FILES = {name: file["vggsound"]["stft"] for name, file in golden_files().items() if "stft" in file.get("vggsound", {})}


@pytest.mark.parametrize("name", FILES)
def test_golden_mfh_spectrogram(name):
    case = FILES[name]
    time = np.arange(case["samples"]) / 16000
    strength, rate = case["chirp"]
    waveform = 0.5 * np.sin(2 * np.pi * case["f1"] * time) + 0.25 * np.sin(2 * np.pi * case["f2"] * time + 0.3)
    waveform = (waveform + strength * np.sin(2 * np.pi * rate * time**2)).astype(np.float32)

    found = spectrogram(torch.from_numpy(waveform / (1.1 * np.abs(waveform).max())), window=1024, hop=512)

    assert list(found[None].shape) == case["shape"]
    assert float(found.double().sum()) == pytest.approx(case["sum"], rel=1e-4)
    np.testing.assert_allclose(found[20:80, 10], case["frame10_bins_20_80"], atol=1e-4)
    np.testing.assert_allclose(found[:10, 0], case["frame0_first10"], rtol=1e-4, atol=1e-4)
