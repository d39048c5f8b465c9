"""CPU time of resampling a clip and of reading its frames, relative to what a competent engineer would write.

Every peer is a fair one; there is no published way. Ratios are a peer's time over ours: below 1, ours is slower.

Resampling ten seconds of white noise: the peer is `scipy.signal.resample_poly` with the same filter, designed once.
Both must give the same bits before a time is printed. The last column is scipy's own filter, in float32. It is shorter,
with 10 zero crossings on either side instead of 64, and lets half of its transition band alias. The last row is the
worst case: of a lone tone that the filter removes, the last bits of every output depend on the order of summation.

32 frames of an mp4 of ten seconds: the peer is a loop over PyAV's frames that turns those that are wanted into arrays,
resized by Pillow where another size is wanted. Its pixels must be equal. It needs a constant frame rate and a number of
frames in the header, which ours does not. Decoding takes most of the time, so the conversion of 32 decoded frames is
measured alone, too, by `to_ndarray`, which ours uses, and by `to_image`.

All times are medians, alternating in one process with one thread.

    python benchmarks/media.py
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from scipy.signal import firwin, kaiser_beta, resample_poly

from xmodal.data.media.resampling import resample
from xmodal.data.media.video import frames_at
from xmodal.data.vggsound.lists import Clip
from xmodal.data.vggsound.synthetic import Design, write_synthetic_clip

REPEATS, SECONDS, FRAMES, SIDE = 15, 10, 32, 256
RATES = ((44100, 16000), (48000, 16000), (48000, 22050), (44100, 22050), (8000, 16000), (22050, 8000), (44100, 48000))


def times(*functions: Callable[[], Any]) -> list[float]:
    """CPU milliseconds of each function."""
    for function in functions:
        function()
    measured: list[list[float]] = [[] for _ in functions]
    for _ in range(REPEATS):
        for function, seconds in zip(functions, measured, strict=True):
            began = time.process_time()
            function()
            seconds.append(time.process_time() - began)
    return [1e3 * statistics.median(seconds) for seconds in measured]


def resampling() -> None:
    """Each pair of rates."""
    print(f"Resampling {SECONDS} s, ms:           ours   scipy, same filter   scipy, its own filter")
    for rate, wanted, kind in (*((*pair, "noise") for pair in RATES), (*RATES[0], "tone")):
        common = math.gcd(rate, wanted)
        up, down = wanted // common, rate // common
        half = 64 * max(up, down)
        transition = (90 - 7.95) / (2.285 * 2 * half) / math.pi
        kaiser = ("kaiser", kaiser_beta(90))
        taps = firwin(2 * half + 1, 1 / max(up, down) - transition / 2, window=kaiser)
        waveform = np.random.default_rng(0).normal(0, 0.1, SECONDS * rate).astype(np.float32)
        if kind == "tone":
            waveform = np.sin(0.95 * np.pi * np.arange(SECONDS * rate)).astype(np.float32)

        def ours(waveform=waveform, rate=rate, wanted=wanted):  # type: ignore[no-untyped-def]
            return resample(waveform, rate, wanted)

        def same(waveform=waveform, up=up, down=down, taps=taps):  # type: ignore[no-untyped-def]
            return resample_poly(waveform.astype(np.float64), up, down, window=taps).astype(np.float32)

        def own(waveform=waveform, up=up, down=down):  # type: ignore[no-untyped-def]
            return resample_poly(waveform, up, down)

        assert np.array_equal(ours(), same())
        mine, peer, short = times(ours, same, own)
        print(
            f"  {rate:6} → {wanted:6} Hz, {kind:5} {mine:7.1f} {peer:9.1f} ({peer / mine:5.2f}) {short:10.1f} "
            f"({short / mine:5.2f})"
        )


def plain_frames(path: Path, side: int) -> np.ndarray:
    """A loop over PyAV's frames."""
    chosen = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        wanted = {int((n + 0.5) / FRAMES * stream.frames) for n in range(FRAMES)}
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                chosen.append(frame.to_ndarray(format="rgb24"))
    if chosen[0].shape[:2] != (side, side):
        chosen = [Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR) for frame in chosen]
    return np.stack([np.asarray(frame) for frame in chosen])


def frames(folder: Path) -> None:
    """A clip at its own size and smaller, and the conversion alone."""
    clip = Clip("aClipForTime", 0, "dog barking", "train")
    write_synthetic_clip((clip, 0, folder, Design(4, 1.0, 1.0, 0.0, seconds=SECONDS, size=SIDE, seed=0)))
    path, shares = folder / f"{clip.stem}.mp4", [(n + 0.5) / FRAMES for n in range(FRAMES)]
    for side in (SIDE, 224):

        def ours(side=side):  # type: ignore[no-untyped-def]
            return frames_at(path, shares, height=side, width=side)

        def peer(side=side):  # type: ignore[no-untyped-def]
            return plain_frames(path, side)

        assert np.array_equal(ours(), peer())
        mine, other = times(ours, peer)
        print(f"{FRAMES} frames at {side}x{side} of a file: {mine:.1f} ms, loop {other:.1f} ({other / mine:.2f})")
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))[:FRAMES]

    def arrays() -> np.ndarray:
        stacked = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8)
        for place, frame in zip(stacked, decoded, strict=True):
            place[:] = frame.to_ndarray(format="rgb24")
        return stacked

    def pictures() -> np.ndarray:
        return np.stack([np.asarray(frame.to_image()) for frame in decoded])

    assert np.array_equal(arrays(), pictures())
    mine, other = times(arrays, pictures)
    print(f"{FRAMES} decoded frames to pixels: {mine:.1f} ms, by to_image {other:.1f} ({other / mine:.2f})")


def main() -> None:
    """Everything, with one thread."""
    torch.set_num_threads(1)
    resampling()
    with tempfile.TemporaryDirectory() as folder:
        frames(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
