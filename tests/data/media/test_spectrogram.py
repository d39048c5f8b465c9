import cmath
import math

import pytest
import torch
from torch import nn

from xmodal.data.media.spectrogram import clip_spectrogram, magnitudes, scaled_by_peak, stretched
from xmodal.errors import InputError

torch.set_num_threads(1)


def slow_magnitudes(waveform, window, hop):
    """The transform as sums over samples, without torch: frequencies, frames."""
    half, samples = window // 2, len(waveform)
    padded = [waveform[half - n] for n in range(half)] + waveform + [waveform[samples - 2 - n] for n in range(half)]
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * t / window) for t in range(window)]
    return [
        [
            abs(
                sum(
                    hann[t] * padded[hop * frame + t] * cmath.exp(-2j * math.pi * k * t / window) for t in range(window)
                )
            )
            for frame in range(1 + samples // hop)
        ]
        for k in range(half + 1)
    ]


def test_magnitudes_are_the_sums_of_the_definition():
    waveform = torch.randn(50, dtype=torch.float64)

    found = magnitudes(waveform, window=16, hop=8)

    torch.testing.assert_close(found, torch.tensor(slow_magnitudes(waveform.tolist(), 16, 8), dtype=torch.float64))


def test_a_tone_between_the_edges_stands_in_its_own_row():
    """Hann's window of n samples sums up to n / 2; a tone of size 1 at row k has half of that."""
    tone = torch.sin(2 * math.pi * 4 / 64 * torch.arange(640))

    found = magnitudes(tone, window=64, hop=32)

    inside = found[:, 2:-2]
    assert inside.argmax(dim=0).tolist() == [4] * inside.shape[1]
    torch.testing.assert_close(inside[4], torch.full_like(inside[4], 16.0), rtol=1e-4, atol=0)


def test_peaks_are_at_one_over_one_point_one_and_silence_stays_silent():
    loud = torch.randn(3, 1, 4096)
    loud[1] = 0.0

    scaled = scaled_by_peak(loud)

    torch.testing.assert_close(scaled.abs().amax(dim=(1, 2)), torch.tensor([1 / 1.1, 0.0, 1 / 1.1]))
    assert not clip_spectrogram(loud)[1].any()


def test_the_loudness_of_a_recording_does_not_matter():
    waveform = torch.randn(1, 4096)

    torch.testing.assert_close(clip_spectrogram(64 * waveform), clip_spectrogram(waveform))


def test_many_clips_are_as_one_by_one():
    clips = torch.randn(2, 3, 1, 2048)

    together = clip_spectrogram(clips, frames=7)

    assert together.shape == (2, 3, 1, 513, 7)
    for first in range(2):
        for second in range(3):
            torch.testing.assert_close(together[first, second, 0], clip_spectrogram(clips[first, second, 0], frames=7))


def test_stretching_is_the_interpolation_of_pictures_without_aligned_corners():
    spectrograms = torch.rand(2, 1, 5, 9)

    found = stretched(spectrograms, 20)

    expected = nn.functional.interpolate(spectrograms, size=(5, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)
    assert stretched(spectrograms, 9) is spectrograms


def test_ten_seconds_have_the_published_shape():
    assert clip_spectrogram(torch.zeros(1, 160_000)).shape == (1, 513, 313)


def test_double_precision_is_kept():
    assert clip_spectrogram(torch.randn(2048, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("samples", [0, 512])
def test_clips_shorter_than_half_a_window_are_refused(samples):
    with pytest.raises(InputError, match=f"{samples} samples: more than 512"):
        magnitudes(torch.zeros(2, samples))


class Hears(nn.Module):
    """A network of one's own that takes waveforms."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(513, 2)

    def forward(self, waveform):
        return self.head(clip_spectrogram(waveform).mean(dim=-1))


def test_an_exported_network_may_begin_with_waveforms():
    network, waveforms = Hears().eval(), torch.randn(3, 4096)
    waveforms[2] = 0.0
    batch = torch.export.Dim("batch", min=1, max=64)

    exported = torch.export.export(network, (torch.zeros(2, 4096),), dynamic_shapes=({0: batch},)).module()

    torch.testing.assert_close(exported(waveforms), network(waveforms))
