"""Video: the frames shown at given moments, the sound track, and writing short clips. Needs PyAV.

A frame is shown from its presentation time to that of the next frame, whatever the frame rate or the order of decoding.
Moments are shares of the duration in the file's header; a file that ends earlier is truncated, and refused.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError, MissingExtra

# of the clips that are written: NTSC, 29.97 frames per second
FRAME_RATE = Fraction(30_000, 1001)
# share of a frame by which the last frame may end before the duration in the header: times are rounded
SLACK = 0.5
# seconds by which a sound track, or a file whose streams have no durations, may end before the duration in the header:
# a track consists of whole packets
MISSING = 0.25
# seconds by which a key frame may be shown after it is decoded: a key frame nearer than this is not jumped to
JUMP = 0.25
Pixels = NDArray[np.uint8]


class SoundTrack(Protocol):
    """The sound of a clip; a protocol, because an import of `media.sound.Sound` would be a circle."""

    @property
    def waveform(self) -> NDArray[np.float32]:
        """(samples,) with ±1 as full scale."""

    @property
    def rate(self) -> int:
        """Samples per second."""


def av_module() -> Any:
    """The package av; if it is missing, an error that says how to install it."""
    try:
        import av
        import av.error
    except ImportError:
        raise MissingExtra("Reading and writing video", "av", "video") from None
    return av


def frames_at(
    path: str | Path, shares: Sequence[float], *, height: int, width: int, seconds: float | None = None
) -> Pixels:
    """The frames shown at some shares of a video's duration, resized: (shares, height, width, 3), RGB.

    Frames between two moments are not decoded if the file's index has a key frame between them.

    Args:
        path: of the file.
        shares: from 0 to 1, ascending: 0.5 is the middle.
        height: of a frame, in pixels.
        width: of a frame, in pixels; the aspect ratio is not kept.
        seconds: duration that is used of a longer video; None: all.
    """
    from PIL import Image

    frames = np.empty((len(shares), height, width, 3), np.uint8)
    for frame, picture in zip(frames, _shown(Path(path), shares, seconds), strict=True):
        if picture.shape != frame.shape:
            # by Pillow, like the pictures of other data: FFmpeg's way is faster, but its pixels are others
            resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
            picture = np.asarray(resized, np.uint8)
        frame[:] = picture
    return frames


def _shown(path: Path, shares: Sequence[float], seconds: float | None) -> list[Pixels]:
    """The picture at each share, (height, width, 3) in its own size."""
    with _opened(path) as container:
        stream = _video(container, path)
        start, unit = stream.start_time or 0, float(stream.time_base)
        promised = _length(path, stream)
        length = promised if seconds is None else min(promised, seconds / unit)
        moments = [start + share * length for share in shares]
        keys = key_times(stream)
        frames = _frames(container, stream)
        pictures: list[Pixels] = []
        # the frame before a moment is known to be shown at it only when the frame after it is decoded
        last, ahead, end = None, next(frames, None), float(start)
        for moment in moments:
            # jump only to a key frame that is not decoded yet: there is nothing to skip before it otherwise
            if last is not None and ahead is not None and _jump(keys, moment - JUMP / unit) > ahead.pts:
                frames, last = _frames_from(container, stream, moment, (max(start, moment - 1 / unit), start)), None
                ahead = next(frames, None)
            # the first frame is taken even if it is shown after the moment: nothing is shown before it
            while ahead is not None and (last is None or ahead.pts <= moment):
                step = ahead.duration or (ahead.pts - last.pts if last is not None else 0)
                last, end = ahead, ahead.pts + (1 + SLACK) * step
                ahead = next(frames, None)
            if last is None:
                raise InputError(f"{path.name} holds no frames with a time.")
            if ahead is None and moment > end:
                raise InputError(
                    f"{path.name} is cut off: it ends after {(end - start) * unit:.2f} s, and its header promises "
                    f"{promised * unit:.2f} s."
                )
            # not by `to_image`, which copies line by line
            pictures.append(last.to_ndarray(format="rgb24"))
        return pictures


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    return (frame for frame in container.decode(stream) if frame.pts is not None)


def _frames_from(container: Any, stream: Any, moment: float, before: Sequence[float]) -> Iterator[Any]:
    """The frames from a key frame on that is shown at a moment or before it."""
    # some files look up key frames by another time than that of their presentation, and seek to one after the moment; a
    # truncated file may have none left. Then earlier moments are tried
    for time in (moment, *before):
        container.seek(int(time), stream=stream)
        frames = _frames(container, stream)
        first = next(frames, None)
        if first is not None and first.pts <= moment:
            return itertools.chain([first], frames)
    return iter(())


def key_times(stream: Any) -> list[int]:
    """Decoding times of the key frames of a video, in units of its time base; empty if the file has no index."""
    return sorted(entry.timestamp for entry in stream.index_entries if entry.is_keyframe)


def _jump(keys: Sequence[int], moment: float) -> float:
    """The time of the last key frame up to a moment; minus infinity if there is none."""
    position = bisect.bisect_right(keys, moment)
    return keys[position - 1] if position else -math.inf


def _length(path: Path, stream: Any) -> int:
    """Duration of a video, in units of its time base."""
    if stream.duration:
        return max(int(stream.duration), _last_shown(path, stream))
    # a file without a duration of its streams is read to its end
    ends, promised = _ends(path)
    if stream.index not in ends:
        raise InputError(f"{path.name} holds no frames with a time.")
    start = (stream.start_time or 0) * float(stream.time_base)
    return round((promised or ends[stream.index] - start) / float(stream.time_base))


def _last_shown(path: Path, stream: Any) -> int:
    """Time at which the last frame of an mp4 ends; 0 for files whose header can be trusted."""
    # with B frames, which are decoded after frames that are shown later, the duration in an mp4 is the time from the
    # first decoding to the last: less than from the first presentation to the last if the frame rate changes
    keys = key_times(stream)
    if not keys or not stream.codec_context.has_b_frames or "mp4" not in stream.container.format.name:
        return 0
    with _opened(path) as container:
        video = _video(container, path)
        container.seek(keys[-1], stream=video)
        packets = [packet for packet in container.demux(video) if packet.pts is not None and not packet.is_discard]
    last = max(packets, key=lambda packet: int(packet.pts), default=None)
    return 0 if last is None else int(last.pts) + int(last.duration or 0) - (stream.start_time or 0)


def _ends(path: Path) -> tuple[dict[int, float], float]:
    """Time at which each stream of a file ends, by its packets, and the duration in the header if all end before it."""
    # Matroska, for example, has a duration of the file and none of its streams: one of them may be shorter, but not all
    ends: dict[int, float] = {}
    with _opened(path) as container:
        # FFmpeg counts the duration of a container in microseconds
        promised = (container.duration or 0) / 1e6
        for packet in container.demux():
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                ends[packet.stream.index] = max(end, ends.get(packet.stream.index, end))
    return ends, promised if ends and max(ends.values()) < promised - MISSING else 0.0


def look_at(path: Path) -> None:
    """Raise an `InputError` unless the header of a file names a video and an audio stream; nothing is decoded."""
    with _opened(path) as container:
        _video(container, path)
        _sound(container, path)


def read_track(path: Path, *, seconds: float | None = None) -> tuple[NDArray[np.float32], int]:
    """The first sound track of a file: (samples, channels) with ±1 as full scale, and the rate.

    Args:
        path: of the file.
        seconds: duration to read; None: all.
    """
    av = av_module()
    with _opened(path) as container:
        stream = _sound(container, path)
        rate = int(stream.rate)
        # rate and channels stay: this converts whatever sample format the codec has to float32
        planar = av.AudioResampler(format="fltp", rate=rate)
        needed = math.inf if seconds is None else math.ceil(seconds * rate)
        parts, samples = [], 0
        for frame in container.decode(stream):
            for part in planar.resample(frame):
                parts.append(part.to_ndarray())
                samples += parts[-1].shape[1]
            if samples >= needed:
                break
        promised = float(stream.duration * stream.time_base) if stream.duration else 0.0
    # reading all packets is slow, and only needed if the samples do not suffice and the stream has no duration
    if not promised and samples < needed:
        _, promised = _ends(path)
    if not parts:
        raise InputError(f"{path.name} holds no sound: its sound track is empty.")
    if samples < min(needed, (promised - MISSING) * rate):
        raise InputError(
            f"{path.name} is cut off: its sound ends after {samples / rate:.2f} s, and its header promises "
            f"{promised:.2f} s."
        )
    waveform: NDArray[np.float32] = np.concatenate(parts, axis=1).T
    return waveform if seconds is None else waveform[: int(needed)], rate


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open file; errors of FFmpeg become an `InputError` that names the file."""
    av = av_module()
    try:
        with av.open(str(path)) as container:
            yield container
    except av.error.FFmpegError as error:
        raise InputError(f"{path.name} is no video that can be read ({error.strerror}).") from None


def _video(container: Any, path: Path) -> Any:
    if not container.streams:
        raise InputError(f"{path.name} is no video that can be read (it has no streams; perhaps it is cut off).")
    if not container.streams.video:
        raise InputError(f"{path.name} has no pictures: a video stream was expected.")
    stream = container.streams.video[0]
    # preparing reads one file in each of several processes, so threads would only compete
    stream.codec_context.thread_count = 1
    return stream


def _sound(container: Any, path: Path) -> Any:
    if not container.streams.audio:
        raise InputError(f"{path.name} has no sound track.")
    return container.streams.audio[0]


def write_clip(path: Path, frames: Iterable[Pixels], sound: SoundTrack | None, *, quality: int = 20) -> None:
    """Write an mp4 file: H.264, and AAC if there is sound.

    Args:
        path: of the file.
        frames: (height, width, 3) each, RGB, of even height and width.
        sound: the sound track, as long as the frames; None: no track.
        quality: constant rate factor of H.264; smaller is better.
    """
    av = av_module()
    # one thread, because the bytes of the file depend on the number of threads
    options = {"preset": "ultrafast", "crf": str(quality), "threads": "1"}
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options=options)
        video.pix_fmt = "yuv420p"
        track = (
            None
            if sound is None
            else container.add_stream("aac", rate=sound.rate, layout="mono", options={"aac_coder": "fast"})
        )
        for number, pixels in enumerate(frames):
            if not number:
                video.height, video.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound is not None and track is not None:
            _write_track(av, container, track, sound)


def _write_track(av: Any, container: Any, track: Any, sound: SoundTrack) -> None:
    # a frame of AAC has 1024 samples, and its encoder accepts no others but in the last frame
    step = 1024
    for first in range(0, len(sound.waveform), step):
        part = np.ascontiguousarray(sound.waveform[None, first : first + step])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = sound.rate, first
        container.mux(track.encode(frame))
    container.mux(track.encode())
