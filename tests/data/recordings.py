"""Sound and video files written by hand, for tests: bytes of RIFF, and mp4 with other settings than ours."""

import struct

import av
import numpy as np


def tone(frequency, seconds=0.5, rate=48000, level=0.5):
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def level(waveform, frequency, rate):
    """Amplitude of one tone, in decibels of full scale; the ends are left out."""
    middle = waveform[len(waveform) // 8 : -len(waveform) // 8].astype(float)
    window = np.hanning(len(middle))
    turning = np.exp(-2j * np.pi * frequency * np.arange(len(middle)) / rate)
    return 20 * np.log10(2 * abs((middle * window * turning).sum()) / window.sum() + 1e-12)


def chunk(name, data, *, padded=True):
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2 and padded)


def wav(data, *, rate=48000, channels=1, bits=16, code=1, extensible=False, before=b"", after=b"", padded=True):
    """The bytes of a wav file; ``data`` is already coded."""
    align = channels * bits // 8
    kind = struct.pack("<HHIIHH", 0xFFFE if extensible else code, channels, rate, rate * align, align, bits)
    if extensible:  # valid bits, speakers, and a GUID that begins with the code
        guid = struct.pack("<H", code) + bytes.fromhex("000000001000800000aa00389b71")
        kind += struct.pack("<HHI", 22, bits, 3 if channels == 2 else 4) + guid
    body = b"WAVE" + chunk(b"fmt ", kind) + before + chunk(b"data", data, padded=padded) + after
    return b"RIFF" + struct.pack("<I", len(body)) + body


def coded(samples, bits, code=1):
    """Samples from -1 to 1, (n,) or (n, channels), as they stand in a wav file."""
    flat = np.ascontiguousarray(samples).reshape(-1)
    if code == 3:
        return flat.astype("<f4" if bits == 32 else "<f8").tobytes()
    whole = np.round(flat * (2 ** (bits - 1) - 1)).astype("<i4")
    return whole.astype("<i4").view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()


def write_mp4(
    path, greys, *, codec="mpeg4", rate=25, pixels="yuv420p", size=(48, 64), options=None, sound=None, **more
):
    """One frame of each grey value."""
    with av.open(str(path), "w", **{"format": "mp4", **more}) as container:
        video = container.add_stream(codec, rate=rate, options={"threads": "1", **(options or {})})
        video.height, video.width, video.pix_fmt = *size, pixels
        if codec == "mpeg4":
            video.bit_rate = 2_000_000
        track = None if sound is None else container.add_stream("aac", rate=48000, layout="stereo")
        for number, grey in enumerate(greys):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), grey, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if track is not None:
            both = np.ascontiguousarray(np.stack([sound, sound]).astype(np.float32))
            frame = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 48000, 0
            container.mux(track.encode(frame))
            container.mux(track.encode())
    return path
