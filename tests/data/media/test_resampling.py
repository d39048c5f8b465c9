"""Resampling: equal bits with the sums of the definition and with scipy's polyphase filter."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from recordings import level, tone
from scipy.signal import firwin, kaiser_beta, resample_poly, upfirdn

from xmodal.data.media.resampling import resample

RATES = (8000, 22050, 44100, 48000)
PAIRS = [*itertools.permutations(RATES, 2), (44100, 16000), (16000, 11025), (16000, 96000), (44100, 8001)]
# by the numbers of their samples
SHAPES = {
    "silence": lambda n: 0.0 * n,
    "silence below zero": lambda n: -0.0 * n,
    "clicks down": lambda n: -1.0 * (n % 4999 == 7),
    "a tone that is filtered out": lambda n: 0.9 * np.sin(0.97 * np.pi * n),
    "a constant": lambda n: 0.3 + 0.0 * n,
    "16-bit noise of a few steps": lambda n: np.random.default_rng(0).integers(-3, 4, len(n)) / 32768,
    "the smallest floats": lambda n: np.random.default_rng(0).integers(-3, 4, len(n)) * 2.0**-149,
}
# (1 + e)² - (1 + 2 e) is 0 if the product is rounded before it is added, and e² in a build of scipy that multiplies and
# adds in one instruction, as those for ARM do
FUSED = upfirdn([1 + 2.0**-27, -(1 + 2.0**-26)], [1.0, 1 + 2.0**-27])[1] != 0


@functools.cache
def taps_of_scipy(factor):
    half = 64 * factor
    transition = (90 - 7.95) / (2.285 * 2 * half) / math.pi
    return firwin(2 * half + 1, 1 / factor - transition / 2, window=("kaiser", kaiser_beta(90)))


def filtered_by_scipy(waveform, rate, wanted):
    """What scipy computes with the same filter."""
    up, down = wanted // math.gcd(rate, wanted), rate // math.gcd(rate, wanted)
    return resample_poly(waveform.astype(np.float64), up, down, window=taps_of_scipy(max(up, down))).astype(np.float32)


def summed_one_by_one(waveform, rate, wanted):
    """By the definition: every output is a sum over inputs, earliest first."""
    up, down = wanted // math.gcd(rate, wanted), rate // math.gcd(rate, wanted)
    half = 64 * max(up, down)
    cutoff = 1 / max(up, down) - (90 - 7.95) / (2.285 * 2 * half) / math.pi / 2
    place = np.arange(-half, half + 1)
    taps = cutoff * np.sinc(cutoff * place) * np.kaiser(2 * half + 1, kaiser_beta(90))
    taps = (taps / taps.sum() * up).tolist()
    found = []
    for output in range(math.ceil(len(waveform) * up / down)):
        total = 0.0
        for place, value in enumerate(waveform.tolist()):
            tap = half + output * down - place * up
            if 0 <= tap <= 2 * half:
                total += value * taps[tap]
        found.append(total)
    return np.array(found)


def must_be_equal(found, expected):
    assert found.dtype == np.float32 and found.shape == expected.shape
    if FUSED:
        np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-10)
    else:
        # as integers: 0 and -0 are different bits
        np.testing.assert_array_equal(found.copy().view(np.int32), expected.copy().view(np.int32))


@pytest.mark.parametrize(("rate", "wanted"), PAIRS)
def test_ordinary_sound_has_the_bits_of_scipys_filter(rate, wanted):
    waveform = np.random.default_rng(rate).normal(0, 0.1, rate + 13).astype(np.float32)
    waveform[rate // 3 : rate // 2] *= 1e-4  # a pause with a little noise

    must_be_equal(resample(waveform, rate, wanted), filtered_by_scipy(waveform, rate, wanted))


@pytest.mark.parametrize(("rate", "wanted"), PAIRS)
def test_clips_of_any_length_and_stereo_have_the_bits_of_scipys_filter(rate, wanted):
    for samples in (0, 1, 2, 3, 63, 64, 65, 441, 1001):
        stereo = np.random.default_rng(samples).normal(0, 0.1, (samples, 2)).astype(np.float32)

        must_be_equal(resample(stereo, rate, wanted), filtered_by_scipy(stereo, rate, wanted))
        must_be_equal(resample(stereo[:, 1], rate, wanted), filtered_by_scipy(stereo, rate, wanted)[:, 1])


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 16000), (48000, 8000), (8000, 48000), (22050, 44100)])
@pytest.mark.parametrize("kind", SHAPES)
def test_sound_whose_sums_cancel_has_the_bits_of_scipys_filter(rate, wanted, kind):
    waveform = SHAPES[kind](np.arange(round(0.4 * rate))).astype(np.float32)

    must_be_equal(resample(waveform, rate, wanted), filtered_by_scipy(waveform, rate, wanted))


@pytest.mark.parametrize(("rate", "wanted"), [(3, 2), (2, 3), (6, 1), (1, 6), (147, 160)])
def test_outputs_are_the_sums_of_the_definition(rate, wanted):
    waveform = np.random.default_rng(0).normal(0, 0.1, 150).astype(np.float32)

    np.testing.assert_allclose(
        resample(waveform, rate, wanted), summed_one_by_one(waveform, rate, wanted), rtol=1e-7, atol=1e-9
    )


def test_long_clips_are_filtered_in_parts_without_seams():
    waveform = np.random.default_rng(0).normal(0, 0.1, 900_000).astype(np.float32)

    must_be_equal(resample(waveform, 48000, 16000), filtered_by_scipy(waveform, 48000, 16000))


def test_a_sample_that_is_no_number_reaches_as_far_as_the_filter():
    waveform = tone(440, 2.0, 44100).astype(np.float32)
    broken = waveform.copy()
    broken[40_000] = np.nan

    whole, found = resample(waveform, 44100, 16000), resample(broken, 44100, 16000)

    middle, reach = 40_000 * 16000 / 44100, 64  # crossings of the filter, which are outputs
    near = np.abs(np.arange(len(found)) - middle) < reach
    assert np.isnan(found[near]).all() and np.array_equal(found[~near], whole[~near])


def test_the_number_of_threads_neither_matters_nor_changes():
    waveform = np.random.default_rng(0).normal(0, 0.1, 44100).astype(np.float32)
    before, found = torch.get_num_threads(), {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found[threads] = resample(waveform, 44100, 16000)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

    assert np.array_equal(found[1], found[2])


@pytest.mark.parametrize(("rate", "wanted"), [(48000, 22050), (48000, 16000), (44100, 22050), (16000, 22050)])
def test_resampling_keeps_tones_below_both_halves(rate, wanted):
    for frequency in (100, 1000, 0.9 * min(rate, wanted) / 2):
        waveform = tone(frequency, rate=rate).astype(np.float32)

        found = resample(waveform, rate, wanted)

        assert abs(len(found) - len(waveform) * wanted / rate) <= 1 and found.dtype == np.float32
        expected = tone(frequency, rate=wanted)[: len(found)]
        middle = slice(len(found) // 8, -len(found) // 8)  # the ends look beyond the sound
        assert np.abs(found[: len(expected)] - expected)[middle].max() < 2e-4


@pytest.mark.parametrize(("rate", "wanted"), [(48000, 22050), (48000, 16000), (44100, 22050)])
def test_tones_that_would_alias_are_gone(rate, wanted):
    for frequency in (wanted / 2 * 1.01, wanted / 2 * 1.2, wanted - 1000, rate / 2 * 0.99):
        found = resample(tone(frequency, level=1.0, rate=rate).astype(np.float32), rate, wanted)

        assert level(found, abs(frequency - wanted), wanted) < -80
        middle = found[len(found) // 8 : -len(found) // 8]
        assert np.sqrt((middle**2).mean()) < 10 ** (-80 / 20)


def test_the_same_rate_changes_nothing():
    waveform = tone(440).astype(np.float32)

    assert resample(waveform, 48000, 48000) is waveform
