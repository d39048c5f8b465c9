"""Video: the frames that are shown at given moments, the sound track, and writing short clips. Needs PyAV.

A frame is shown from its own time to that of the next one, whatever the rate, the order of coding or the length of the
file; the moments are shares of the length that the file's header promises. What ends before is cut off, and refused.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xmodal.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from PIL.Image import Image

FRAME_RATE = Fraction(30_000, 1001)
SLACK = 0.5  # of a frame, by which the last one may end before the promised length
LACK = 0.25  # seconds by which a sound track, or all that a file without lengths of its streams holds, may end before
JUMP = 0.25  # seconds by which a key frame may be shown after it is decoded; nearer ones are not jumped to
Pixels = NDArray[np.uint8]


class SoundTrack(Protocol):
    """What a clip takes as its sound: `media.sound.Sound` has this shape, and this file need not import it."""

    @property
    def waveform(self) -> NDArray[np.float32]:
        """(samples,) with ±1 as full scale."""

    @property
    def rate(self) -> int:
        """Samples per second."""


def av_module() -> Any:
    """The package av, or the sentence that says how to install it."""
    try:
        import av
        import av.error
    except ImportError:
        raise MissingExtra("Reading and writing video", "av", "video") from None
    return av


def frames_at(
    path: str | Path, shares: Sequence[float], *, height: int, width: int, seconds: float | None = None
) -> Pixels:
    """The frames shown at some shares of a video's length, resized: (shares, height, width, 3), RGB.

    What lies between two moments is skipped where the file says that a key frame comes before the second one.

    Args:
        path: of the file.
        shares: from 0 to 1, ascending: 0.5 is the middle.
        height: of a frame, in pixels.
        width: of a frame, in pixels; the shape of the picture is not kept.
        seconds: of a longer video that count; None: all of them.
    """
    from PIL import Image

    size = (width, height)
    pictures = [image.resize(size, Image.Resampling.BILINEAR) for image in _shown(Path(path), shares, seconds)]
    return np.stack([np.asarray(picture, np.uint8) for picture in pictures])


def _shown(path: Path, shares: Sequence[float], seconds: float | None) -> list[Image]:
    """The picture at each share, in its own size."""
    with _opened(path) as container:
        stream = _video(container, path)
        start, unit = stream.start_time or 0, float(stream.time_base)
        promised = _length(path, stream)
        length = promised if seconds is None else min(promised, seconds / unit)
        wanted = [start + share * length for share in shares]
        keys = key_times(stream)
        frames = _frames(container, stream)
        found: list[Image] = []
        last, ahead, end = None, next(frames, None), float(start)  # the first is shown until the second one is
        for moment in wanted:
            if last is not None and ahead is not None and _jump(keys, moment - JUMP / unit) > ahead.pts:
                frames, last = _frames_from(container, stream, moment, (max(start, moment - 1 / unit), start)), None
                ahead = next(frames, None)
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
            found.append(last.to_image())
        return found


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    return (frame for frame in container.decode(stream) if frame.pts is not None)


def _frames_from(container: Any, stream: Any, moment: float, before: Sequence[float]) -> Iterator[Any]:
    """The frames from a key frame on that is shown up to a moment.

    Some files look key frames up by another time than the one at which they are shown, and give one behind the moment;
    and one whose end is lost gives none. Then earlier moments are tried.
    """
    for time in (moment, *before):
        container.seek(int(time), stream=stream)
        frames = _frames(container, stream)
        first = next(frames, None)
        if first is not None and first.pts <= moment:
            return itertools.chain([first], frames)
    return iter(())


def key_times(stream: Any) -> list[int]:
    """When the key frames of a video are decoded, in units of its time base; empty where the file has no index."""
    return sorted(entry.timestamp for entry in stream.index_entries if entry.is_keyframe)


def _jump(keys: Sequence[int], moment: float) -> float:
    """The last key frame up to a moment; minus infinity: none."""
    place = bisect.bisect_right(keys, moment)
    return keys[place - 1] if place else -math.inf


def _length(path: Path, stream: Any) -> int:
    """How long a video lasts, in units of its time base; files that don't say it are read to their end."""
    if stream.duration:
        return max(int(stream.duration), _last_shown(path, stream))
    ends, promised = _ends(path)
    if stream.index not in ends:
        raise InputError(f"{path.name} holds no frames with a time.")
    start = (stream.start_time or 0) * float(stream.time_base)
    return round((promised or ends[stream.index] - start) / float(stream.time_base))


def _last_shown(path: Path, stream: Any) -> int:
    """When the last frame of an mp4 ends; 0 where that is the length it says.

    With frames that are decoded before others that are shown earlier, an mp4 counts from the first decoding to the
    last, which is less than from the first showing to the last where the rate changes.
    """
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
    """When each stream of a file ends, by its packets, and the seconds that its header promises if all end before.

    Matroska, for one, says how long all of a file is and not how long its streams are: one of them may be shorter.
    """
    ends: dict[int, float] = {}
    with _opened(path) as container:
        promised = (container.duration or 0) / 1e6
        for packet in container.demux():
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                ends[packet.stream.index] = max(end, ends.get(packet.stream.index, end))
    return ends, promised if ends and max(ends.values()) < promised - LACK else 0.0


def look_at(path: Path) -> None:
    """Raise an `InputError` unless a file says that it has pictures and sound; neither is decoded."""
    with _opened(path) as container:
        _video(container, path)
        _sound(container, path)


def read_track(path: Path, *, seconds: float | None = None) -> tuple[NDArray[np.float32], int]:
    """The first sound track of a file: (samples, channels) with ±1 as full scale, and the rate.

    Args:
        path: of the file.
        seconds: to read; None: all of it.
    """
    av = av_module()
    with _opened(path) as container:
        stream = _sound(container, path)
        rate = int(stream.rate)
        planar = av.AudioResampler(format="fltp", rate=rate)
        wanted = math.inf if seconds is None else math.ceil(seconds * rate)
        parts, samples = [], 0
        for frame in container.decode(stream):
            for part in planar.resample(frame):  # another type of number, the same rate and channels
                parts.append(part.to_ndarray())
                samples += parts[-1].shape[1]
            if samples >= wanted:
                break
        promised = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if not promised and samples < wanted:
        _, promised = _ends(path)
    if not parts:
        raise InputError(f"{path.name} holds no sound: its sound track is empty.")
    if samples < min(wanted, (promised - LACK) * rate):
        raise InputError(
            f"{path.name} is cut off: its sound ends after {samples / rate:.2f} s, and its header promises "
            f"{promised:.2f} s."
        )
    found: NDArray[np.float32] = np.concatenate(parts, axis=1).T
    return found if seconds is None else found[: int(wanted)], rate


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open file; what FFmpeg complains about is a sentence."""
    av = av_module()
    try:
        with av.open(str(path)) as container:
            yield container
    except av.error.FFmpegError as error:
        raise InputError(f"{path.name} is no video that can be read ({error.strerror}).") from None


def _video(container: Any, path: Path) -> Any:
    if not container.streams:
        raise InputError(f"{path.name} is no video that can be read (nothing in it is found; perhaps it is cut off).")
    if not container.streams.video:
        raise InputError(f"{path.name} has no pictures: a video stream was expected.")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # several files are read at once, one in each process
    return stream


def _sound(container: Any, path: Path) -> Any:
    if not container.streams.audio:
        raise InputError(f"{path.name} has no sound track.")
    return container.streams.audio[0]


def write_clip(path: Path, frames: Iterable[Pixels], sound: SoundTrack | None, *, quality: int = 20) -> None:
    """An mp4 file: H.264, and AAC where there is a sound.

    Args:
        path: to write.
        frames: (height, width, 3) each, RGB, of even height and width.
        sound: the track, as long as the frames.
        quality: constant rate factor of H.264; smaller is better.
    """
    av = av_module()
    # one thread: the bytes depend on how many there are
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
    step = 1024  # samples of a frame of AAC
    for first in range(0, len(sound.waveform), step):
        part = np.ascontiguousarray(sound.waveform[None, first : first + step])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = sound.rate, first
        container.mux(track.encode(frame))
    container.mux(track.encode())
