r"""Resampling of sound by a polyphase low-pass filter.

With the rates in lowest terms, output rate / input rate = U / D, output j is a sum over the inputs i

$$y_j = \sum_i x_i \, h_{c + jD - iU}, \qquad 0 \le c + jD - iU \le 2c$$

| symbol | here | shape |
|---|---|---|
| x, y | ``waveform``, result | (samples,) |
| h | `_low_pass` times U, a Kaiser-windowed sinc | (2 c + 1,) |
| c | ``half``, 64 max(U, D) | |

The taps of output j + U are those of output j, D inputs later. Outputs are therefore computed as rows of a multiple of
U outputs, by products of matrices. The order in which a matrix product sums depends on the library and the processor,
so its last bits do. Those of the result do not: every output is the sum in ascending order of i, rounded to float32.
An output that another order could round differently is summed again in that order: of ten seconds of white noise at
16 kHz, less than one in a thousand. Only of a clip that the filter removes almost as a whole, such as a lone tone above
the new Nyquist frequency, most are, which takes longer than filtering sample by sample.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# zero crossings of the low-pass filter on either side: more of them make its transition band narrower
SIDE = 64
# attenuation of the stop band in decibels; 16-bit sound has a range of 96
STOP = 90.0
# outputs of one product: its matrix has zeros where an input is beyond the reach of an output, and wide matrices have
# more of them; the products of narrow ones are slow. Between 32 and 100, the time hardly changes
COLUMNS = 64
# numbers that are held at once: two megabytes, about what a core has as cache
HELD = 2**18
Wave = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bank:
    """The filter of a pair of rates as matrices.

    Attributes:
        up: U of the equation.
        down: D of the equation.
        phases: the taps of the first U outputs in ascending order of their inputs, (U, taps).
        firsts: the first input of each of these outputs, counted from the first one that a row needs.
        outputs: outputs of a row, a multiple of U.
        inputs: inputs by which the next row begins later.
        pieces: (first output, first input, matrix (inputs, outputs)) of the products that make a row; the first input
            is counted from the first one that the row needs.
        before: inputs that a row needs before the time of its first output.
        span: inputs that a row needs.
        bound: largest difference between the sums of two orders, for inputs of at most 1.
    """

    up: int
    down: int
    phases: NDArray[np.float64]
    firsts: NDArray[np.int64]
    outputs: int
    inputs: int
    pieces: tuple[tuple[int, int, NDArray[np.float64]], ...]
    before: int
    span: int
    bound: float


def resample(waveform: Wave, rate: int, new_rate: int) -> Wave:
    """The same sound, (samples,) or (samples, channels), at another sampling rate.

    A polyphase low-pass filter passes frequencies below 91 % of the lower of the two Nyquist frequencies. Frequencies
    above that Nyquist frequency would alias to other tones; they are attenuated by 90 dB.

    Example:
        >>> tone = np.sin(2 * np.pi * 100 * np.arange(4800) / 48000).astype(np.float32)
        >>> resample(tone, 48000, 22050).shape
        (2205,)
    """
    if rate == new_rate:
        return waveform
    common = math.gcd(rate, new_rate)
    bank = _bank(new_rate // common, rate // common)
    count, channels = -(-len(waveform) * bank.up // bank.down), math.prod(waveform.shape[1:])
    inputs, outputs = waveform.reshape(len(waveform), channels), np.empty((count, channels), np.float32)
    for channel in range(channels):
        outputs[:, channel] = _filtered(inputs[:, channel], bank, count)
    return outputs.reshape(count, *waveform.shape[1:])


def _filtered(waveform: Wave, bank: Bank, count: int) -> Wave:
    """The first ``count`` outputs of one channel."""
    # a library for matrices takes no rows that overlap: only rows that begin ``apart`` rows from one another are a
    # matrix
    apart = max(-(-len(matrix) // bank.inputs) for _, _, matrix in bank.pieces)
    # groups of so many rows, as few as possible and equally large
    groups = -(-count // (apart * bank.outputs))
    most = max(1, HELD // (apart * max(bank.inputs, bank.outputs)))
    rows = apart * -(-groups // max(1, -(-groups // most)))
    reach = -(-bank.span // bank.inputs)
    result, padded = np.empty(count, np.float32), np.empty((rows + reach) * bank.inputs)
    low, high = (np.empty((rows, bank.outputs), np.float32) for _ in range(2))
    for begin in range(0, count, max(1, rows * bank.outputs)):
        start = begin // bank.outputs * bank.inputs - bank.before
        part = waveform[max(start, 0) : max(start + len(padded), 0)]
        silent = max(-start, 0)
        padded[:silent], padded[silent + len(part) :] = 0, 0
        padded[silent : silent + len(part)] = part
        sums = _products(padded, bank, rows, apart)
        # the largest magnitude that a row reads: of the inputs up to the next row's beginning, then of several rows
        steps = padded.reshape(-1, bank.inputs)
        peaks = np.maximum(steps.max(axis=1), -steps.min(axis=1))
        peak = functools.reduce(np.maximum, (peaks[step : step + rows] for step in range(reach)))
        slack = bank.bound * peak[:, None]
        # rounded to float32 after the sum, as the arrays of the results are
        np.subtract(sums, slack, out=low)
        np.add(sums, slack, out=high)
        found = high.reshape(-1)[: count - begin]
        # rounding is monotonic: where both ends agree, so does everything between them. NaN does not agree with itself
        doubtful = np.flatnonzero(low.reshape(-1)[: count - begin] != found)
        found[doubtful] = _in_order(padded, bank, doubtful)
        result[begin : begin + len(found)] = found
    return result


def _products(padded: NDArray[np.float64], bank: Bank, rows: int, apart: int) -> NDArray[np.float64]:
    """The outputs, (rows, outputs), whose last bits depend on the processor."""
    import torch

    inputs, sums = torch.from_numpy(padded), torch.empty(rows, bank.outputs, dtype=torch.float64)
    threads = torch.get_num_threads()
    # ten seconds of sound take a few milliseconds: to wake other threads costs more, also in other processes
    torch.set_num_threads(1)
    try:
        for output, first, matrix in bank.pieces:
            factors, size = torch.from_numpy(matrix), (rows // apart, len(matrix))
            for row in range(apart):
                view = inputs.as_strided(size, (apart * bank.inputs, 1), first + row * bank.inputs)
                torch.mm(view, factors, out=sums[row::apart, output : output + matrix.shape[1]])
    finally:
        torch.set_num_threads(threads)
    array: NDArray[np.float64] = sums.numpy()
    return array


def _in_order(padded: NDArray[np.float64], bank: Bank, outputs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Some outputs, summed in ascending order of their inputs."""
    terms = bank.phases.shape[1]
    windows, sums = np.lib.stride_tricks.sliding_window_view(padded, terms), np.empty(len(outputs))
    step = max(1, HELD // terms)
    for begin in range(0, len(outputs), step):
        period, phase = np.divmod(outputs[begin : begin + step], bank.up)
        products = windows[period * bank.down + bank.firsts[phase]] * bank.phases[phase]
        # cumulative sums are computed one after the other, those of `sum` are not
        sums[begin : begin + step] = np.cumsum(products, axis=1, out=products)[:, -1]
    return sums


@functools.lru_cache(maxsize=8)
def _bank(up: int, down: int) -> Bank:
    taps = _low_pass(max(up, down)) * up
    half = len(taps) // 2
    terms, before = 2 * half // up + 1, half // up
    phase = np.arange(up)
    firsts = -((half - phase * down) // up)
    # some outputs have a tap less than others: they get a zero
    tap = (half + phase * down - up * firsts)[:, None] - up * np.arange(terms)
    phases = np.where(tap >= 0, taps[np.maximum(tap, 0)], 0.0)
    outputs = up * -(-COLUMNS // up)
    width = -(-outputs // -(-outputs // COLUMNS))
    pieces: list[tuple[int, int, NDArray[np.float64]]] = []
    for output in range(0, outputs, width):
        column = np.arange(output, min(output + width, outputs))
        first = firsts[column % up] + column // up * down
        matrix = np.zeros((int(first[-1] - first[0]) + terms, len(column)))
        np.put_along_axis(matrix, first - first[0] + np.arange(terms)[:, None], phases[column % up].T, axis=0)
        pieces.append((output, int(first[0]) + before, matrix))
    # Any order of n products and sums is within n ε/2 of the sum of their magnitudes from the true sum, and two orders
    # are within n ε of one another; twice that covers the rounding of the bound itself
    bound = 2 * terms * float(np.finfo(np.float64).eps) * float(np.abs(phases).sum(axis=1).max())
    first_of_last, last = divmod(outputs - 1, up)
    span = first_of_last * down + int(firsts[last]) + before + terms
    return Bank(
        up=up,
        down=down,
        phases=phases,
        firsts=firsts + before,
        outputs=outputs,
        inputs=outputs // up * down,
        pieces=tuple(pieces),
        before=before,
        span=span,
        bound=bound,
    )


def _low_pass(factor: int) -> NDArray[np.float64]:
    """Taps of a Kaiser-windowed sinc whose stop band begins at 1 / ``factor`` of the Nyquist frequency."""
    # scipy.signal has this filter, too, but its import takes as long as resampling hundreds of clips
    from scipy.special import i0

    half = SIDE * factor
    # Kaiser's formulas for the width of the transition band, where 1 is the Nyquist frequency, and for the shape of the
    # window. A cutoff at 1 / factor, where only the end of the transition band is, would let half of that band alias
    transition = (STOP - 7.95) / (2.285 * 2 * half) / math.pi
    cutoff, shape = 1 / factor - transition / 2, 0.1102 * (STOP - 8.7)
    place = np.arange(-half, half + 1.0)
    window = i0(shape * np.sqrt(1 - (place / half) ** 2)) / i0(shape)
    taps = cutoff * np.sinc(cutoff * place) * window
    scaled: NDArray[np.float64] = taps / taps.sum()
    return scaled
