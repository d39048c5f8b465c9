import struct

import numpy as np
import pytest
import torch
from recordings import chunk, coded, level, tone, wav, write_mp4

from xmodal.data.media.sound import fit_frames, log_mel, mel_filters, mfcc, read_sound
from xmodal.data.media.spectrogram import magnitudes
from xmodal.errors import InputError

STEREO = np.stack([tone(440), tone(660)], axis=1)


@pytest.mark.parametrize(
    ("bits", "code", "tolerance"), [(16, 1, 5e-5), (24, 1, 3e-7), (32, 1, 1e-7), (32, 3, 1e-7), (64, 3, 1e-7)]
)
@pytest.mark.parametrize("extensible", [False, True])
def test_wav_files_written_by_hand_hold_the_mean_of_their_channels(tmp_path, bits, code, tolerance, extensible):
    path = tmp_path / "x.wav"
    path.write_bytes(wav(coded(STEREO, bits, code), channels=2, bits=bits, code=code, extensible=extensible))

    sound = read_sound(path)

    assert (sound.rate, sound.waveform.dtype, sound.seconds) == (48000, np.float32, 0.5)
    assert np.abs(sound.waveform - STEREO.mean(axis=1)).max() < tolerance
    assert sound.peak == np.abs(sound.waveform).max()


@pytest.mark.parametrize("padded", [True, False])
def test_chunks_before_and_behind_the_samples_and_an_odd_number_of_bytes_do_no_harm(tmp_path, padded):
    listed = chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 5) + b"hand\0" + b"\0")
    odd = coded(tone(440)[:4801], 24)  # 14,403 bytes
    (tmp_path / "x.wav").write_bytes(wav(odd, bits=24, before=listed + chunk(b"junk", b"abc"), padded=padded))

    sound = read_sound(tmp_path / "x.wav")

    assert np.abs(sound.waveform - tone(440)[:4801]).max() < 3e-7


def test_other_rates_and_unknown_sizes_are_read(tmp_path):
    content = wav(coded(tone(440, rate=44100), 16), rate=44100)
    (tmp_path / "x.wav").write_bytes(content[:4] + b"\xff\xff\xff\xff" + content[8:])  # as a pipe writes it

    assert read_sound(tmp_path / "x.wav").rate == 44100 and read_sound(str(tmp_path / "x.wav")).seconds == 0.5


def test_the_sound_track_of_a_video_is_read(tmp_path):
    write_mp4(tmp_path / "x.mp4", [0] * 25, sound=tone(440, 1.0))

    sound = read_sound(tmp_path / "x.mp4")

    assert sound.rate == 48000 and 0.9 < sound.seconds < 1.1
    assert level(sound.waveform, 440, 48000) == pytest.approx(20 * np.log10(0.5), abs=0.5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"these are words\n" * 9, "no sound file that can be read"),
        (b"", "no sound file that can be read"),
        (wav(coded(tone(440), 16))[:20_000], "cut off: its header promises 48044 bytes, the file has 20000"),
        (wav(b""), "holds no sound: it has no samples"),
        (wav(np.array([0.0, np.nan], "<f4").tobytes(), bits=32, code=3), "not finite"),
        (wav(coded(tone(440), 16), code=0x1234), "no sound file that can be read"),
    ],
)
def test_what_can_not_be_heard_is_a_sentence(tmp_path, content, said):
    (tmp_path / "x.wav").write_bytes(content)

    with pytest.raises(InputError, match=said):
        read_sound(tmp_path / "x.wav")


def test_a_video_without_sound_is_a_sentence(tmp_path):
    write_mp4(tmp_path / "x.mp4", [0] * 5)

    with pytest.raises(InputError, match="x.mp4 has no sound track"):
        read_sound(tmp_path / "x.mp4")


def slow_power(waveform, window, hop):
    """Squared magnitudes by the definition, frame by frame."""
    padded = np.concatenate([waveform[window // 2 : 0 : -1], waveform, waveform[-2 : -window // 2 - 2 : -1]])
    shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    turning = np.exp(-2j * np.pi * np.outer(np.arange(window // 2 + 1), np.arange(window)) / window)
    frames = [padded[first : first + window] * shape for first in range(0, len(waveform) + 1, hop)]
    return np.abs(turning @ np.array(frames).T) ** 2


def slow_mel(rate, bands, window):
    """Triangles one frequency at a time."""

    def hertz(mel):
        return mel * 200 / 3 if mel < 15 else 1000 * np.exp(np.log(6.4) * (mel - 15) / 27)

    top = 15 + 27 * np.log(rate / 2 / 1000) / np.log(6.4)
    corners = [hertz(top * k / (bands + 1)) for k in range(bands + 2)]
    found = np.zeros((bands, window // 2 + 1))
    for band in range(bands):
        low, middle, high = corners[band : band + 3]
        for place in range(window // 2 + 1):
            f = place * rate / window
            if low < f <= middle:
                found[band, place] = (f - low) / (middle - low)
            elif middle < f < high:
                found[band, place] = (high - f) / (high - middle)
        found[band] *= 2 / (high - low)
    return found


def slow_mfcc(waveform, rate, coefficients, bands, window, hop):
    """By the definition, sum by sum."""
    decibels = 10 * np.log10(np.maximum(slow_mel(rate, bands, window) @ slow_power(waveform, window, hop), 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    found = np.zeros((coefficients, decibels.shape[1]))
    for k in range(coefficients):
        scale = np.sqrt((1 if k == 0 else 2) / bands)
        for band in range(bands):
            found[k] += scale * np.cos(np.pi * k * (band + 0.5) / bands) * decibels[band]
    return found


def test_features_equal_their_definition():
    random = np.random.default_rng(0)
    waveform = (tone(300, 0.2, 16000) + 0.01 * random.normal(size=3200)).astype(np.float32)

    found = mfcc(waveform, 16000, coefficients=20, bands=40, window=512, hop=160)
    bands = log_mel(waveform, 16000, bands=40, window=512, hop=160)

    expected = slow_mfcc(waveform.astype(float), 16000, 20, 40, 512, 160)
    assert found.shape == (20, 21) == expected.shape and bands.shape == (40, 21)
    assert np.abs(found - expected).max() < 1e-9
    np.testing.assert_allclose(mel_filters(16000, 40, 512), slow_mel(16000, 40, 512), atol=1e-15)


def test_all_coefficients_are_a_rotation_of_the_bands():
    waveform = np.random.default_rng(1).normal(size=4000).astype(np.float32)

    bands, coefficients = log_mel(waveform, 16000, bands=24), mfcc(waveform, 16000, coefficients=24, bands=24)

    np.testing.assert_allclose((bands**2).sum(axis=0), (coefficients**2).sum(axis=0))


def test_a_louder_sound_moves_the_first_coefficient_alone():
    waveform = np.random.default_rng(2).normal(size=4000).astype(np.float32)

    quiet, loud = mfcc(waveform, 22050), mfcc(4 * waveform, 22050)  # 4 is exact in floats

    np.testing.assert_allclose(loud[0] - quiet[0], 20 * np.log10(4) * np.sqrt(128))
    np.testing.assert_allclose(loud[1:], quiet[1:], atol=1e-9)


def test_nothing_lies_more_than_eighty_decibels_below_the_loudest():
    waveform = np.concatenate([tone(1000, 0.1), np.zeros(4800)]).astype(np.float32)

    found = log_mel(waveform, 48000, bands=40)

    assert found.max() - found.min() == pytest.approx(80) and np.isfinite(found).all()


def test_the_type_of_a_spectrogram_is_that_of_the_sound():
    for kind in (torch.float32, torch.float64):
        assert magnitudes(torch.ones(2000, dtype=kind), window=1024, hop=512).dtype == kind


def test_frames_are_cut_off_or_filled_with_zeros():
    features = np.arange(6.0).reshape(2, 3)

    assert fit_frames(features, 2).tolist() == [[0, 1], [3, 4]]
    assert fit_frames(features, 4).tolist() == [[0, 1, 2, 0], [3, 4, 5, 0]]


def test_sounds_shorter_than_half_a_window_and_too_many_coefficients_are_sentences():
    with pytest.raises(InputError, match="1024 samples: more than 1024 were expected for a window of 2048"):
        mfcc(np.ones(1024, np.float32), 22050)
    with pytest.raises(InputError, match="coefficients is 41 and bands is 40"):
        mfcc(np.ones(4096, np.float32), 22050, coefficients=41, bands=40)
